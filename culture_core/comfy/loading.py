"""A Hugging Face folder of a text encoder as a ComfyUI CLIP."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import comfy.sd
import comfy.sd1_clip
import comfy.text_encoders.bert
import comfy.utils
import folder_paths
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..embedded_encoder import MAX_LENGTH

_KEY = "multilingual_e5"
_NEEDED = ("config.json", "model.safetensors", "tokenizer.json")
_EMBEDDINGS = "embeddings.word_embeddings.weight"


class TextEncoderError(ValueError):
    """A text encoder that cannot be loaded or is not the right one; the message says which and what to do."""


def load_text_encoder(folder: Path) -> comfy.sd.CLIP:
    """A Hugging Face folder of a BERT text encoder with an XLM-R vocabulary (multilingual-e5) as a ComfyUI
    CLIP.

    Prompts are cut into chunks of 32 tokens; the context is the last hidden state with padding set to zero,
    and pooled its mean over the attended tokens.

    Raises:
        TextEncoderError: for a folder that is incomplete, of another architecture, or whose weights do not
            fit.
    """
    config = _read_config(folder)
    weights = _read_weights(folder / "model.safetensors", config)
    special = _special_tokens(folder / "tokenizer.json")
    target = SimpleNamespace(
        params={},
        clip=partial(_E5Clip, config, special),
        tokenizer=partial(_E5PromptTokenizer, folder, config["hidden_size"], special["pad"]),
    )
    clip = comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=sum(weight.numel() for weight in weights.values()),
        # The file's own precision: ComfyUI would halve it, and the context would no longer agree with
        # training.
        model_options={"dtype": comfy.utils.weight_dtype(weights)},
    )
    missing, _ = clip.load_sd(weights)
    missing = [name for name in missing if name != "logit_scale"]
    if missing:
        raise TextEncoderError(
            f"{folder}: weights are missing ({', '.join(missing[:3])}): fetch the folder again."
        )
    return clip


class _MeanPooledBert(comfy.text_encoders.bert.BertModel):
    """ComfyUI's BERT; pooled is the mean of the last hidden state over the attended tokens."""

    def forward(
        self, input_tokens: Tensor | None, attention_mask: Tensor | None = None, **options: object
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Returns (last hidden state [B, S, d], that of the chosen layer or None, pooled [B, d])."""
        hidden, intermediate = super().forward(input_tokens, attention_mask, **options)[:2]
        weights = attention_mask.to(hidden.dtype).unsqueeze(-1)
        return hidden, intermediate, (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


class _E5Model(comfy.sd1_clip.SDClipModel):
    def __init__(
        self,
        config: dict,
        special: dict[str, int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        model_options: dict | None = None,
    ) -> None:
        super().__init__(
            device=device, dtype=dtype, max_length=MAX_LENGTH, textmodel_json_config=dict(config),
            special_tokens=special, model_class=_MeanPooledBert, enable_attention_masks=True,
            zero_out_masked=True, layer_norm_hidden_state=False, model_options=model_options or {},
        )  # fmt: skip


class _E5Clip(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, config: dict, special: dict[str, int], **options: object) -> None:
        super().__init__(name=_KEY, clip_model=partial(_E5Model, config, special), **options)


class _E5Tokenizer(comfy.sd1_clip.SDTokenizer):
    def __init__(
        self,
        folder: Path,
        width: int,
        pad: int,
        embedding_directory: list[str] | None = None,
        tokenizer_data: dict | None = None,
    ) -> None:
        from transformers import PreTrainedTokenizerFast

        super().__init__(
            str(folder), tokenizer_class=PreTrainedTokenizerFast, max_length=MAX_LENGTH, pad_with_end=False,
            pad_token=pad, embedding_directory=embedding_directory, embedding_size=width, embedding_key=_KEY,
            tokenizer_data=tokenizer_data or {},
        )  # fmt: skip


class _E5PromptTokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(
        self,
        folder: Path,
        width: int,
        pad: int,
        embedding_directory: list[str] | None = None,
        tokenizer_data: dict | None = None,
    ) -> None:
        super().__init__(
            embedding_directory=embedding_directory, tokenizer_data=tokenizer_data or {}, name=_KEY,
            tokenizer=partial(_E5Tokenizer, folder, width, pad),
        )  # fmt: skip


def _read_config(folder: Path) -> dict:
    absent = [name for name in _NEEDED if not (folder / name).is_file()]
    if absent:
        raise TextEncoderError(
            f"{folder} lacks {', '.join(absent)}: a text encoder folder holds {', '.join(_NEEDED)}."
        )
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TextEncoderError(f"{path} is not readable JSON ({error}): fetch the folder again.") from error
    if config.get("model_type") != "bert":
        raise TextEncoderError(
            f"{path} describes a model of type '{config.get('model_type')}': this loader takes 'bert' models "
            "such as multilingual-e5-small."
        )
    return config


def _read_weights(path: Path, config: dict) -> dict[str, Tensor]:
    """The weights under ComfyUI's names, told by their keys; with or without the prefix `bert.`."""
    try:
        found = comfy.utils.load_torch_file(str(path), safe_load=True)
    except Exception as error:  # safetensors and ComfyUI raise several kinds for a broken file
        raise TextEncoderError(
            f"{path} is truncated or no safetensors file ({error}): fetch it again."
        ) from error
    prefix = next((prefix for prefix in ("", "bert.") if prefix + _EMBEDDINGS in found), None)
    if prefix is None:
        some = ", ".join(sorted(found)[:3])
        raise TextEncoderError(
            f"{path} is no BERT text encoder: expected the key '{_EMBEDDINGS}', found {some}."
        )
    expected = (config["vocab_size"], config["hidden_size"])
    shape = tuple(found[prefix + _EMBEDDINGS].shape)
    if shape != expected:
        raise TextEncoderError(
            f"{path} is not of its config.json: word embeddings are {shape}, expected {expected}."
        )
    parts = (prefix + "embeddings.", prefix + "encoder.")
    return {
        f"bert.{name.removeprefix(prefix)}": weight
        for name, weight in found.items()
        if name.startswith(parts) and not name.endswith("position_ids")
    }


def _special_tokens(path: Path) -> dict[str, int]:
    tokenizer = Tokenizer.from_file(str(path))
    ids = {
        name: tokenizer.token_to_id(piece)
        for name, piece in (("start", "<s>"), ("end", "</s>"), ("pad", "<pad>"))
    }
    if None in ids.values():
        raise TextEncoderError(f"{path} lacks <s>, </s> or <pad>: it is not an XLM-R vocabulary.")
    return ids

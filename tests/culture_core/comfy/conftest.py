"""Every text encoder family that ComfyUI's loaders produce, at reduced size with random weights.

The classes, tokenizers and templates are ComfyUI's own; only sizes are changed. Vocabularies that come with
the real weights (Gemma's, mT5's and UMT5's SentencePiece, Mistral's Tekken) are trained here on sentences in
the 15 languages.
"""

import base64
import functools
import gc
import importlib.util
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import comfy.model_management
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.text_encoders.flux
import comfy.text_encoders.hidream
import comfy.text_encoders.hunyuan_image
import comfy.text_encoders.hunyuan_video
import comfy.text_encoders.hydit
import comfy.text_encoders.lumina2
import comfy.text_encoders.omnigen2
import comfy.text_encoders.pixart_t5
import comfy.text_encoders.qwen_image
import comfy.text_encoders.sd2_clip
import comfy.text_encoders.sd3_clip
import comfy.text_encoders.wan
import comfy.text_encoders.z_image
import pytest
import sentencepiece
import torch
from comfy.sd import CLIP

from culture_core.comfy import load_text_encoder


def _beside(path: Path) -> ModuleType:
    """A module of the tests."""
    spec = importlib.util.spec_from_file_location(f"culture_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sentences = _beside(Path(__file__).parents[1] / "sentences.py")
published = _beside(Path(__file__).parent / "published.py")

LAYERS = 4
_CLIP = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": LAYERS}
_T5 = {"d_model": 48, "d_kv": 16, "num_heads": 3, "d_ff": 64, "num_layers": LAYERS}
_BERT = {
    "hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 64, "num_hidden_layers": LAYERS,
    "pad_token_id": 0,
}  # fmt: skip
_LLAMA = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip


class Family(NamedTuple):
    """One of ComfyUI's models as its loader would make it, small."""

    model: Callable
    tokenizer: Callable
    configs: dict[str, dict]
    """Changes of the encoders' configurations, by ComfyUI's name of the encoder."""
    data: Callable[[], dict] = dict
    """What the loader hands to the tokenizer."""
    taken: dict[str, int] = {}  # noqa: RUF012
    """Index of the layer that the conditioning is taken from, by encoder."""

    def build(self, seed: int = 0) -> CLIP:
        """The CLIP object."""
        data = self.data()
        options = {f"{name}_model_config": dict(config) for name, config in self.configs.items()}
        options["dtype"] = torch.float32
        target = SimpleNamespace(params={}, clip=self.model, tokenizer=self.tokenizer)
        clip = CLIP(target, tokenizer_data=data, model_options=options)
        fill(clip.cond_stage_model, seed)
        return clip


class PublishedFamily(NamedTuple):
    """A text tower that this pack loads as it was published."""

    kind: str
    taken: dict[str, int]
    adapter: bool = False

    def build(self, seed: int = 0) -> CLIP:
        """The CLIP object."""
        with tempfile.TemporaryDirectory() as temporary:
            return load_text_encoder(self.publish(Path(temporary) / self.kind, seed))

    def publish(self, folder: Path, seed: int = 0) -> Path:
        """Write the small model's folder."""
        extra = {}
        if self.adapter:
            adapter = published.Pea()
            fill(adapter, seed)
            extra = {f"adapter.{name}": weight for name, weight in published.weights_of(adapter).items()}
        pieces = published_pieces(self.kind)
        name = published.PIECES.get(self.kind, "sentencepiece.bpe.model")
        return published.publish(published.make(self.kind, fill, seed), folder, pieces, name, **extra)


def published_pieces(kind: str) -> torch.Tensor:
    """A SentencePiece model in the layout of a published tower's."""
    specials = (0, 1, -1, 2) if kind in published.PIECES else (-1, 2, 1, 0)
    return sentencepiece_model("unigram", specials)


def fill(module: torch.nn.Module, seed: int) -> None:
    """Random weights, large enough for attention that is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        if ".visual." in name:  # never runs here
            continue
        if weight.ndim == 2 and weight.shape[0] > 20_000:
            # A large vocabulary: every row is another window of the same random numbers.
            numbers = torch.randn(sum(weight.shape), generator=generator)
            weight.data = numbers.as_strided(weight.shape, (1, 1))
            continue
        spread = 0.02 if weight.ndim < 2 else 1.2 * weight.shape[-1] ** -0.5
        noise = spread * torch.randn(weight.shape, generator=generator)
        weight.data.copy_(noise + ("norm" in name.lower() and name.endswith("weight")))


@functools.cache
def sentencepiece_model(kind: str, specials: tuple[int, int, int, int]) -> torch.Tensor:
    """A SentencePiece model with bytes for what it does not know; `specials`: ids of pad, eos, bos, unk."""
    pad, eos, bos, unk = specials
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences.all_sentences()), model_writer=model, model_type=kind,
        vocab_size=900, byte_fallback=True, hard_vocab_limit=False, character_coverage=1.0, minloglevel=2,
        pad_id=pad, eos_id=eos, bos_id=bos, unk_id=unk,
        normalization_rule_name="identity" if kind == "bpe" else "nmt_nfkc",
    )  # fmt: skip
    return torch.frombuffer(bytearray(model.getvalue()), dtype=torch.uint8)


@functools.cache
def tekken_model() -> torch.Tensor:
    """A vocabulary in Mistral's Tekken format: the bytes, and whole words that merge from them."""
    pieces = [bytes([byte]) for byte in range(256)]
    for sentence in sentences.all_sentences():
        for word in sentence.split():
            spelled = (" " + word).encode()
            # Byte-pair encoding can only reach a piece through the pieces that it is made of.
            for length in range(2, min(len(spelled), 12) + 1):
                if spelled[:length] not in pieces:
                    pieces.append(spelled[:length])
    known = {1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 11: "<pad>", 17: "[SYSTEM_PROMPT]"}
    special = [known.get(rank, f"[RESERVED_{rank}]") for rank in range(18)] + ["[/SYSTEM_PROMPT]"]
    content = {
        "config": {
            "default_vocab_size": len(pieces) + len(special),
            "default_num_special_tokens": len(special),
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(piece).decode()}
            for rank, piece in enumerate(pieces)
        ],
        "special_tokens": [{"rank": rank, "token_str": name} for rank, name in enumerate(special)],
    }
    return torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8)


def _gemma(kind: str) -> dict:
    return {"spiece_model": sentencepiece_model("bpe", (0, 1, 2, 3))}


def _mt5(key: str) -> dict:
    return {key: sentencepiece_model("unigram", (0, 1, -1, 2))}


_text = comfy.text_encoders
_VOCABULARY = {"vocab_size": 2000}
FAMILIES = {
    "sd1": Family(
        comfy.sd1_clip.SD1ClipModel, comfy.sd1_clip.SD1Tokenizer, {"clip_l": _CLIP}, taken={"clip_l": 3}
    ),
    "sd2": Family(
        _text.sd2_clip.SD2ClipModel, _text.sd2_clip.SD2Tokenizer, {"clip_h": _CLIP}, taken={"clip_h": 2}
    ),
    "sdxl": Family(
        comfy.sdxl_clip.SDXLClipModel, comfy.sdxl_clip.SDXLTokenizer, {"clip_l": _CLIP, "clip_g": _CLIP},
        taken={"clip_l": 2, "clip_g": 2},
    ),
    "sd3": Family(
        _text.sd3_clip.SD3ClipModel, _text.sd3_clip.SD3Tokenizer,
        {"clip_l": _CLIP, "clip_g": _CLIP, "t5xxl": _T5 | {"d_model": 4096}},
        taken={"clip_l": 2, "clip_g": 2, "t5xxl": 3},
    ),
    "flux": Family(
        _text.flux.FluxClipModel, _text.flux.FluxTokenizer, {"clip_l": _CLIP, "t5xxl": _T5},
        taken={"clip_l": 3, "t5xxl": 3},
    ),
    "pixart": Family(
        _text.pixart_t5.PixArtT5XXL, _text.pixart_t5.PixArtTokenizer, {"t5xxl": _T5}, taken={"t5xxl": 3}
    ),
    "wan": Family(
        _text.wan.te(), _text.wan.WanT5Tokenizer, {"umt5xxl": _T5 | _VOCABULARY},
        lambda: _mt5("spiece_model"), taken={"umt5xxl": 3},
    ),
    "hunyuan_dit": Family(
        _text.hydit.HyditModel, _text.hydit.HyditTokenizer,
        {"hydit_clip": _BERT, "mt5xl": _T5 | _VOCABULARY}, lambda: _mt5("mt5xl.spiece_model"),
        taken={"hydit_clip": 3, "mt5xl": 3},
    ),
    "qwen_image": Family(
        _text.qwen_image.te(), _text.qwen_image.QwenImageTokenizer, {"qwen25_7b": _LLAMA},
        taken={"qwen25_7b": 3},
    ),
    "omnigen2": Family(
        _text.omnigen2.te(), _text.omnigen2.Omnigen2Tokenizer, {"qwen25_3b": _LLAMA}, taken={"qwen25_3b": 3}
    ),
    # Its second encoder, for glyphs, gets quoted text only.
    "hunyuan_image": Family(
        _text.hunyuan_image.te(), _text.hunyuan_image.HunyuanImageTokenizer, {"qwen25_7b": _LLAMA},
        taken={"qwen25_7b": 1},
    ),
    "z_image": Family(
        _text.z_image.te(), _text.z_image.ZImageTokenizer, {"qwen3_4b": _LLAMA}, taken={"qwen3_4b": 2}
    ),
    "lumina2": Family(
        _text.lumina2.te(), _text.lumina2.LuminaTokenizer, {"gemma2_2b": _LLAMA | _VOCABULARY},
        lambda: _gemma("gemma2"), taken={"gemma2_2b": 2},
    ),
    "lumina2_gemma3": Family(
        _text.lumina2.te(model_type="gemma3_4b"), _text.lumina2.NTokenizer,
        {"gemma3_4b": _LLAMA | _VOCABULARY}, lambda: _gemma("gemma3"), taken={"gemma3_4b": 2},
    ),
    "hunyuan_video": Family(
        _text.hunyuan_video.HunyuanVideoClipModel, _text.hunyuan_video.HunyuanVideoTokenizer,
        {"clip_l": _CLIP, "llama": _LLAMA}, taken={"clip_l": 3, "llama": 1},
    ),
    "hidream": Family(
        _text.hidream.HiDreamTEModel, _text.hidream.HiDreamTokenizer,
        {"clip_l": _CLIP, "clip_g": _CLIP, "t5xxl": _T5, "llama": _LLAMA},
        taken={"clip_l": 3, "clip_g": 2, "t5xxl": 3, "llama": 3},
    ),
    "flux2": Family(
        partial(
            _text.flux.Flux2TEModel, clip_model=partial(_text.flux.Mistral3_24BModel, layer=[1, 2, 3])
        ),
        _text.flux.Flux2Tokenizer, {"mistral3_24b": _LLAMA | {"vocab_size": 20000}},
        lambda: {"tekken_model": tekken_model()}, taken={"mistral3_24b": 2},
    ),
    "altdiffusion_m9": PublishedFamily("altdiffusion_m9", {"xlm_roberta": 3}),
    "altdiffusion_m18": PublishedFamily("altdiffusion_m18", {"xlm_roberta": 2}),
    "pea_diffusion": PublishedFamily("open_clip", {"xlm_roberta": 3}, adapter=True),
    "xlm_roberta": PublishedFamily("xlm_roberta", {"xlm_roberta": 3}),
    "siglip2": PublishedFamily("siglip2", {"siglip": 3}),
    "mt5": PublishedFamily("mt5", {"t5": 3}),
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _let_go() -> Iterator[None]:
    """ComfyUI's patchers cannot be deleted when the interpreter already is shutting down."""
    yield
    clip_of.cache_clear()
    gc.collect()


@functools.cache
def clip_of(name: str) -> CLIP:
    """The CLIP of a family; built once."""
    return FAMILIES[name].build()


class Place(NamedTuple):
    """One encoder of one family."""

    family: str
    key: str
    taken: int

    @property
    def clip(self) -> CLIP:
        return clip_of(self.family)


PLACES = [Place(name, key, taken) for name, family in FAMILIES.items() for key, taken in family.taken.items()]


@pytest.fixture(params=PLACES, ids=[f"{place.family}-{place.key}" for place in PLACES])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Every encoder of every family, one after the other."""
    yield request.param
    comfy.model_management.unload_all_models()


@pytest.fixture
def clips() -> Iterator[Callable[[str], CLIP]]:
    """Builds, or gives again, the CLIP of a family."""
    yield clip_of
    comfy.model_management.unload_all_models()


@pytest.fixture(name="published", scope="session")
def published_module() -> ModuleType:
    """Text towers as they are published, small."""
    return published


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a small model, as `PublishedFamily.publish`."""
    return lambda kind, adapter=False: PublishedFamily(kind, {}, adapter).publish(tmp_path / kind)


@pytest.fixture
def reference() -> Callable[[str], torch.nn.Module]:
    """The model that `publish` writes, in transformers' own class or a literal one."""
    return lambda kind: published.make(kind, fill)


@pytest.fixture
def pea() -> torch.nn.Module:
    """The adapter that `publish` writes into a tower's file."""
    adapter = published.Pea()
    fill(adapter, 0)
    return adapter


@pytest.fixture(name="sentences", scope="session")
def sentences_module() -> ModuleType:
    """Sentences in the 15 languages."""
    return sentences

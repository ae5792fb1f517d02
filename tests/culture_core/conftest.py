"""Small encoders for the core's tests: the shipped one, and CLIP- and BERT-shaped ones of random weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from culture_core.embedded_encoder import MAX_LENGTH, ensure_encoder, load_hf_encoder
from culture_core.encoders import HFTextEncoder
from culture_core.pairs import PromptPair

from .tiny_qwen3_vl import save_qwen3_vl

E5_FOLDER = Path(__file__).parents[2] / "models" / "text_encoders" / "multilingual-e5-small"
WORDS = "a the thai style chair house red old in of".split()


@pytest.fixture(autouse=True)
def _reproducible():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def e5() -> HFTextEncoder:
    model, tokenizer = load_hf_encoder(ensure_encoder(E5_FOLDER))
    return HFTextEncoder(model, tokenizer, max_length=MAX_LENGTH)


def word_tokenizer(begin: str, end: str, pad: str) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, with the special tokens of a family."""
    vocabulary = {token: index for index, token in enumerate([begin, end, pad, "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=pad, unk_token="<unk>"
    )


def clip_config(layers: int = 3) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=4 + len(WORDS), hidden_size=768, num_attention_heads=12, intermediate_size=3072,
        num_hidden_layers=layers, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip


@pytest.fixture
def clip() -> HFTextEncoder:
    """CLIP-L in shape, with three layers and random weights."""
    torch.manual_seed(1)
    model = CLIPTextModel(clip_config())
    for parameter in model.parameters():
        # The initial weights are so small that every token attends to all others alike.
        parameter.data.add_(0.03 * torch.randn_like(parameter))
    return HFTextEncoder(model, word_tokenizer("<s>", "</s>", "<pad>"))


@pytest.fixture
def bert() -> HFTextEncoder:
    """A BERT of two layers, width 32, with random weights."""
    torch.manual_seed(2)
    config = BertConfig(
        vocab_size=4 + len(WORDS), hidden_size=32, num_attention_heads=4, intermediate_size=64,
        num_hidden_layers=2, max_position_embeddings=64,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False)
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return HFTextEncoder(model, word_tokenizer("<s>", "</s>", "<pad>"), max_length=16)


@pytest.fixture
def pairs() -> list[PromptPair]:
    """Pairs in the words that the small tokenizers know; some have the modifier first, some last."""
    made = []
    for noun in ("chair", "house"):
        for colour in ("red", "old", "the"):
            first = f"thai style {colour} {noun}"
            last = f"{colour} {noun} in thai style"
            neutral = f"{colour} {noun}"
            start = len(colour) + 1
            spot = ((start, start + len(noun)),)
            shifted = ((11 + start, 11 + start + len(noun)),)
            tail = ((len(neutral) + 4, len(last)),)
            made.append(
                PromptPair(f"{colour}-{noun}-1", "th", "en", first, neutral, ((0, 10),), shifted, spot)
            )
            made.append(PromptPair(f"{colour}-{noun}-2", "th", "en", last, neutral, tail, spot, spot))
    return made


_HALF = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
_T5 = {
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 64,
    "num_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
}
# Heads that share keys, of a width of their own; a window that the prompts outgrow.
_ROPE = {**_HALF, "num_key_value_heads": 2, "head_dim": 12, "pad_token_id": 2, "bos_token_id": 0}
_WINDOW = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
FAMILY_MODELS = {
    "clip_projection": ("CLIPTextModelWithProjection", {**_HALF, "projection_dim": 20, "eos_token_id": 1}),
    "t5": ("T5EncoderModel", {**_T5, "feed_forward_proj": "gated-gelu"}),
    "mt5": ("MT5EncoderModel", _T5),
    "umt5": ("UMT5EncoderModel", _T5),
    "llama": ("LlamaModel", _ROPE),
    "mistral": ("MistralModel", {**_ROPE, "sliding_window": 4}),
    "qwen2": ("Qwen2Model", {**_HALF, "num_key_value_heads": 2, "pad_token_id": 2}),
    "qwen3": ("Qwen3Model", _ROPE),
    "gemma2": (
        "Gemma2Model",
        {**_ROPE, **_WINDOW, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 7},
    ),
    "gemma3": ("Gemma3TextModel", {**_ROPE, **_WINDOW, "query_pre_attn_scalar": 7}),
}
"""Model class and configuration by family."""
_CONFIGS = {"CLIPTextModelWithProjection": "CLIPTextConfig", "Gemma3TextModel": "Gemma3TextConfig"}


@pytest.fixture
def family_encoder() -> Callable[[str, str], HFTextEncoder]:
    """Makes an encoder of a family with random weights, under an attention implementation."""

    def make(family: str, implementation: str = "eager") -> HFTextEncoder:
        name, shape = FAMILY_MODELS[family]
        default = name.replace("EncoderModel", "Config").replace("Model", "Config")
        config = getattr(transformers, _CONFIGS.get(name, default))(vocab_size=4 + len(WORDS), **shape)
        config._attn_implementation = implementation
        torch.manual_seed(3)
        model = getattr(transformers, name)(config)
        for parameter in model.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
        return HFTextEncoder(model, word_tokenizer("<s>", "</s>", "<pad>"))

    return make


@pytest.fixture(scope="session")
def qwen3_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Qwen3-VL of random weights."""
    return save_qwen3_vl(tmp_path_factory.mktemp("models") / "tiny-qwen3-vl")

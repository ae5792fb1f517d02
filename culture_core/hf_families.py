"""The families of Hugging Face text models that the library can look into."""

from typing import NamedTuple


class Family(NamedTuple):
    """What is particular to a family; paths from the model's trunk (layers, embedding), the
    layer (attention, output) or the attention (query, key)."""

    name: str
    layers: str
    attention: str
    output: str
    query: str
    key: str
    embedding: str
    causal: bool
    length: int | None
    """Chunk length where the caller gives none; None: a prompt is one chunk, however long."""
    begin: tuple[str, ...] = ()
    """Tokens that may begin a prompt: the first that the tokenizer has does."""
    end: tuple[str, ...] = ()
    masked: bool = True
    """Whether padding is hidden from attention by a mask."""
    scaled: bool = True
    """Whether scores are divided by √(d/H)."""
    cached: bool = False
    """Whether the model would keep keys and values, for generating text."""


_BERT = Family(
    "bert", "encoder.layer", "attention.self", "attention.output.dense", "query", "key",
    "embeddings.word_embeddings", False, 32, ("cls_token", "bos_token"), ("sep_token", "eos_token"),
)  # fmt: skip
_CLIP = Family(
    "clip", "encoder.layers", "self_attn", "self_attn.out_proj", "q_proj", "k_proj",
    "embeddings.token_embedding", True, 77, _BERT.begin, _BERT.end, masked=False,
)  # fmt: skip
_T5 = Family(
    "t5", "encoder.block", "layer.0.SelfAttention", "layer.0.SelfAttention.o", "q", "k", "shared", False,
    None, end=("eos_token",), scaled=False,
)  # fmt: skip
_LLAMA = Family(
    "llama", "layers", "self_attn", "self_attn.o_proj", "q_proj", "k_proj", "embed_tokens", True, None,
    ("bos_token",), cached=True,
)  # fmt: skip
_QWEN = _LLAMA._replace(begin=())
# Gemma norms what its attention gives once more before adding it: a change before that would be swallowed.
_GEMMA = _LLAMA._replace(output="post_attention_layernorm")
FAMILIES = {
    "bert": _BERT,
    "xlm-roberta": _BERT._replace(name="xlm-roberta", length=77),
    "clip_text_model": _CLIP,
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _QWEN._replace(name="qwen2"),
    "qwen3": _QWEN._replace(name="qwen3"),
    "gemma2": _GEMMA._replace(name="gemma2"),
    "gemma3_text": _GEMMA._replace(name="gemma3"),
}
"""By `model_type` of the configuration. Models that ComfyUI runs with the same code have one name."""
SUPPORTED = (
    "BertModel, XLMRobertaModel, CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel, "
    "MT5EncoderModel, UMT5EncoderModel, LlamaModel, MistralModel, Qwen2Model, Qwen3Model, Gemma2Model or "
    "Gemma3TextModel"
)

"""Text encoders for Hugging Face models, behind the interface of `text_encoder.py`."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .pairs import Span
from .text_encoder import (
    ATTENTION_OUTPUT,
    ATTENTION_WEIGHTS,
    FEATURES,
    HIDDEN_STATE,
    Capture,
    Conditioning,
    EncoderInfo,
    Handle,
    Receiver,
    TextEncoder,
    Tokens,
    trim,
)

__all__ = [
    "ATTENTION_OUTPUT",
    "ATTENTION_WEIGHTS",
    "FEATURES",
    "HIDDEN_STATE",
    "Capture",
    "Conditioning",
    "EncoderInfo",
    "HFTextEncoder",
    "Handle",
    "Receiver",
    "TextEncoder",
    "Tokens",
]


class _Places(NamedTuple):
    """Where a Hugging Face family keeps things; paths from the layer."""

    layers: str
    attention: str
    output: str
    query: str
    key: str
    embedding: str
    causal: bool
    length: int
    """Chunk length where the caller gives none."""


_BERT = _Places(
    "encoder.layer",
    "attention.self",
    "attention.output.dense",
    "query",
    "key",
    "embeddings.word_embeddings",
    False,
    32,
)
_PLACES = {
    "bert": _BERT,
    "xlm-roberta": _BERT._replace(length=77),
    "clip": _Places(
        "text_model.encoder.layers", "self_attn", "self_attn.out_proj", "q_proj", "k_proj",
        "text_model.embeddings.token_embedding", True, 77,
    ),
}  # fmt: skip
_FAMILY = {"bert": "bert", "xlm-roberta": "xlm-roberta", "clip_text_model": "clip"}


class HFTextEncoder(TextEncoder):
    """A Hugging Face `BertModel`, `XLMRobertaModel` or `CLIPTextModel` with its tokenizer.

    A prompt becomes chunks of `max_length` tokens `<s> … </s> <pad> …`, joined on the token axis, as ComfyUI
    does. BERT families: the padding is masked, padding rows of the conditioning are zero, and pooled is the
    mean over the attended tokens of the first chunk. CLIP: no mask but the causal one, the hidden state after
    the final norm, and pooled at the first chunk's end token. The model is put into evaluation mode.

    Raises:
        ValueError: for a model of another family, or a chunk length that the model cannot take.
    """

    def __init__(self, model: nn.Module, tokenizer: Callable, max_length: int | None = None) -> None:
        config = model.config
        family = _FAMILY.get(config.model_type)
        if family is None:
            raise ValueError(
                f"{type(model).__name__} is not supported: use BertModel, XLMRobertaModel or CLIPTextModel"
            )
        if getattr(config, "position_embedding_type", "absolute") not in ("absolute", None):
            raise ValueError(f"{type(model).__name__} with relative positions is not supported")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._places = _PLACES[family]
        heads, width = config.num_attention_heads, config.hidden_size
        self._info = EncoderInfo(
            family, config.num_hidden_layers, width, heads, config.vocab_size, self._places.causal
        )
        self.max_length = max_length or self._places.length
        # XLM-R counts its positions from padding + 1.
        limit = config.max_position_embeddings - (config.pad_token_id + 1 if family == "xlm-roberta" else 0)
        if not 3 <= self.max_length <= limit:
            raise ValueError(f"max_length is {self.max_length}: this model takes 3 to {limit} tokens")
        self._begin, self._end, self._pad = _special_ids(tokenizer)

    @property
    def info(self) -> EncoderInfo:
        return self._info

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids of prompts [B, S], S the longest prompt's number of chunks times `max_length`."""
        fast = getattr(self.tokenizer, "is_fast", False)
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=fast, return_attention_mask=False,
            verbose=False,
        )  # fmt: skip
        rows = [self._chunks(ids) for ids in encoded["input_ids"]]
        length = max((len(row) for row in rows), default=self.max_length)
        ids = torch.full((len(rows), length), self._pad, dtype=torch.long)
        attention = torch.zeros(len(rows), length, dtype=torch.bool)
        content = torch.zeros(len(rows), length, dtype=torch.bool)
        offsets: list[list[Span | None]] = [[None] * length for _ in rows]
        for row, entries in enumerate(rows):
            for position, (token, source) in enumerate(entries):
                ids[row, position] = token
                attention[row, position] = source is not _PADDING
                content[row, position] = isinstance(source, int)
                if fast and isinstance(source, int):
                    offset = encoded["offset_mapping"][row][source]
                    offsets[row][position] = self._stands_for(token, offset, texts[row])
        return Tokens(ids, attention, content, offsets if fast else None)

    def encode(self, tokens: Tokens) -> Conditioning:
        """Conditioning (hidden [B, S, d], pooled [B, d]) of tokenised prompts."""
        device = self.embedding_weight().device
        count, length = tokens.ids.shape
        ids = tokens.ids.to(device).reshape(-1, self.max_length)
        attended = tokens.attention_mask.to(device)
        # A chunk of nothing but padding keeps one key, or its attention would be undefined.
        mask = attended.reshape(-1, self.max_length).clone()
        mask[:, 0] = True
        arguments = {} if self._places.causal else {"attention_mask": mask.long()}
        with self._running(count):
            hidden = self.model(input_ids=ids, **arguments).last_hidden_state.float()
        hidden = hidden.reshape(count, length, -1)
        first = attended[:, : self.max_length]
        if self._places.causal:
            ends = first.sum(dim=1).clamp(min=1) - 1
            pooled = hidden[torch.arange(count, device=device), ends]
            return Conditioning(hidden.masked_fill(~self._used_chunks(attended), 0.0), pooled)
        hidden = hidden.masked_fill(~attended[..., None], 0.0)
        pooled = hidden[:, : self.max_length].sum(dim=1) / first.sum(dim=1, keepdim=True).clamp(min=1)
        return Conditioning(hidden, pooled)

    def layer_modules(self) -> Sequence[nn.Module]:
        return self.model.get_submodule(self._places.layers)

    def attention_output_module(self, layer: int) -> nn.Module:
        return self.layer_modules()[layer].get_submodule(self._places.output)

    def embedding_weight(self) -> Tensor:
        return self.model.get_submodule(self._places.embedding).weight

    def watch_attention(self, layer: int, receive: Callable[[Tensor], None]) -> list[Handle]:
        """See `TextEncoder.watch_attention`.

        The weights are computed beside the model, from the arguments that its attention got, so that neither
        its attention implementation nor its result changes.
        """
        module = self.layer_modules()[layer].get_submodule(self._places.attention)
        signature = inspect.signature(module.forward)

        def compute(module: nn.Module, inputs: tuple, keywords: dict, _output: object) -> None:
            given = signature.bind(*inputs, **keywords).arguments
            given = {**given.pop("kwargs", {}), **given}
            x = given["hidden_states"]
            masks = [
                m for m in (given.get("attention_mask"), given.get("causal_attention_mask")) if m is not None
            ]
            query, key = (module.get_submodule(name)(x) for name in (self._places.query, self._places.key))
            receive(_attention_weights(query, key, self._info.heads, masks, self._places.causal))

        return [module.register_forward_hook(compute, with_kwargs=True)]

    def _chunks(self, ids: Sequence[int]) -> list[tuple[int, int | str]]:
        """Chunks of one prompt: (token id, index into `ids` or what else it is)."""
        room = self.max_length - 2
        entries: list[tuple[int, int | str]] = []
        for start in range(0, max(len(ids), 1), room):
            stop = min(start + room, len(ids))
            entries.append((self._begin, _SPECIAL))
            entries.extend((ids[index], index) for index in range(start, stop))
            entries.append((self._end, _SPECIAL))
            entries.extend([(self._pad, _PADDING)] * (-len(entries) % self.max_length))
        return entries

    def _stands_for(self, token: int, offset: Span, text: str) -> Span | None:
        """The text behind a token, without the white space that some tokenizers count in.

        A piece that is nothing but a word boundary stands for no text, although some tokenizers give it the
        offset of the first letter after it.
        """
        piece = self.tokenizer.convert_ids_to_tokens(token)
        if not piece.strip("▁ "):
            return None
        return trim(text, offset)

    def _used_chunks(self, attended: Tensor) -> Tensor:
        """[B, S, 1] bool: positions in chunks that the prompt of the row fills; shorter rows end earlier."""
        used = attended.reshape(len(attended), -1, self.max_length).any(dim=-1)
        return used.repeat_interleave(self.max_length, dim=1)[..., None]


_SPECIAL = "special"
_PADDING = "padding"


def _attention_weights(query: Tensor, key: Tensor, heads: int, masks: list[Tensor], causal: bool) -> Tensor:
    """softmax(q kᵀ / √(d/H) + mask) of query and key [B, S, d] → [B, H, S, S] in float32."""
    query, key = (x.float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key))
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    lowest = torch.finfo(scores.dtype).min
    for mask in masks:
        mask = mask[:, None, None, :] if mask.dim() == 2 else mask
        # Kept keys are True or 1 in a boolean or two-dimensional mask; otherwise the mask is added.
        if mask.dtype.is_floating_point:
            scores = scores + mask.float()
        else:
            scores = scores.masked_fill(~mask.bool(), lowest)
    if causal and not masks:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, lowest)
    return scores.softmax(dim=-1)


def _special_ids(tokenizer: Callable) -> tuple[int, int, int]:
    """Ids of the beginning, the end and the padding.

    Raises:
        ValueError: where the tokenizer lacks one of them.
    """
    names = tokenizer.special_tokens_map
    found = []
    for choices in (("cls_token", "bos_token"), ("sep_token", "eos_token"), ("pad_token",)):
        name = next((choice for choice in choices if names.get(choice)), None)
        if name is None:
            raise ValueError(
                f"this tokenizer has no {' or '.join(choices)}: give the one that belongs to the model"
            )
        found.append(tokenizer.convert_tokens_to_ids(names[name]))
    return found[0], found[1], found[2]

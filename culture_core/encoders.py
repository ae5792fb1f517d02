"""Text encoders for Hugging Face models, behind the interface of `text_encoder.py`."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .hf_families import FAMILIES, SUPPORTED
from .pairs import Span
from .selection import SpecialTokens, Vocabulary
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
    select_queries,
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


class HFTextEncoder(TextEncoder):
    """A Hugging Face text model with its tokenizer.

    Families: BERT, XLM-R, CLIP (with or without projection), the encoders of T5, mT5 and UMT5, and Llama,
    Mistral, Qwen2, Qwen3, Gemma2 and Gemma3 without their language heads. The conditioning is the last hidden
    state, after the final norm where there is one.

    A prompt of BERT, XLM-R or CLIP becomes chunks of `max_length` tokens `<s> … </s> <pad> …`, joined on the
    token axis, as ComfyUI does. For the others it is one chunk, padded to the longest prompt; T5 ends it with
    `</s>`, Llama, Mistral and Gemma begin it with `<s>`. Padding is masked, except in CLIP, and padding rows
    of the conditioning are zero. Pooled: in BERT and XLM-R the mean over the attended tokens of the first
    chunk, in CLIP the first chunk's end token (projected, where the model has a projection), otherwise None.
    The model is put into evaluation mode.

    Raises:
        ValueError: for a model of another family, or a chunk length that the model cannot take.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Callable[..., Any], max_length: int | None = None
    ) -> None:
        config: Any = model.config
        family = FAMILIES.get(config.model_type)
        # CLIP's, but not in all versions of transformers.
        self._trunk: Any = getattr(model, "text_model", model)
        if family is None or not _has_module(self._trunk, family.layers) or hasattr(model, "decoder"):
            raise ValueError(f"{type(model).__name__} is not supported: use {SUPPORTED}")
        if getattr(config, "position_embedding_type", "absolute") not in ("absolute", None):
            raise ValueError(f"{type(model).__name__} with relative positions is not supported")
        # What transformers' classes have depends on the family.
        self.model: Any = model.eval()
        self.tokenizer: Any = tokenizer
        self._family = family
        heads, width = config.num_attention_heads, config.hidden_size
        self._info = EncoderInfo(
            family.name, config.num_hidden_layers, width, heads, config.vocab_size, family.causal
        )
        limit: int | None = getattr(config, "max_position_embeddings", None)
        if family.name == "xlm-roberta" and limit is not None:
            limit -= config.pad_token_id + 1  # It counts its positions from there.
        self.max_length: int | None = max_length or family.length or limit
        """Tokens of a chunk; of a whole prompt where that is one chunk. None: there is no limit."""
        if self.max_length is not None and not 3 <= self.max_length <= (limit or self.max_length):
            raise ValueError(f"max_length is {self.max_length}: this model takes 3 to {limit} tokens")
        self._begin = _special_ids(tokenizer, family.begin, needed=family.length is not None)
        self._end = _special_ids(tokenizer, family.end, needed=True)
        self._pad = _special_ids(tokenizer, ("pad_token",), needed=family.length is not None) or [0]

    @property
    def info(self) -> EncoderInfo:
        return self._info

    @functools.cached_property
    def special(self) -> SpecialTokens:
        """The ids that frame the encoder's prompts."""
        begin, end, pad = (next(iter(ids), None) for ids in (self._begin, self._end, self._pad))
        return SpecialTokens(begin, end, pad)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """What the token ids spell."""
        return Vocabulary({token: piece for piece, token in self.tokenizer.get_vocab().items()})

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids of prompts [B, S], S the longest prompt's number of chunks times their length.

        Raises:
            ValueError: for a prompt that does not fit into the model.
        """
        fast = getattr(self.tokenizer, "is_fast", False)
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=fast, return_attention_mask=False,
            verbose=False,
        )  # fmt: skip
        rows = [self._chunks(ids) for ids in encoded["input_ids"]]
        length = max([len(row) for row in rows] or [self._family.length or 1])
        length = max(length, 1)  # Qwen puts nothing around an empty prompt.
        ids = torch.full((len(rows), length), self._pad[0], dtype=torch.long)
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

    def without_padding(self, tokens: Tokens) -> Tokens:
        """See `TextEncoder.without_padding`: where all prompts have one chunk, it may end early."""
        length = int(tokens.attention_mask.sum(dim=1).max())
        return tokens if tokens.ids.shape[1] > self._chunk(tokens) else tokens.cut(max(length, 1))

    def encode(self, tokens: Tokens) -> Conditioning:
        """Conditioning (hidden [B, S, d], pooled [B, d] or None) of tokenised prompts."""
        device = self.embedding_weight().device
        count, length = tokens.ids.shape
        chunk = self._chunk(tokens)
        ids = tokens.ids.to(device).reshape(-1, chunk)
        attended = tokens.attention_mask.to(device)
        arguments: dict[str, Any] = {}
        if self._family.masked:
            # A chunk of nothing but padding keeps one key, or its attention would be undefined.
            mask = attended.reshape(-1, chunk).clone()
            mask[:, 0] = True
            arguments["attention_mask"] = mask.long()
        if self._family.cached:
            arguments["use_cache"] = False
        with self._running(count):
            hidden = self.model(input_ids=ids, **arguments).last_hidden_state
        hidden = hidden.reshape(count, length, -1)
        first = attended[:, :chunk]
        if not self._family.masked:
            ends = first.sum(dim=1).clamp(min=1) - 1
            pooled = hidden[torch.arange(count, device=device), ends]
            if hasattr(self.model, "text_projection"):
                pooled = self.model.text_projection(pooled)
            used = attended.reshape(count, -1, chunk).any(dim=-1).repeat_interleave(chunk, dim=1)
            # Chunks that only a longer prompt of the batch fills are no part of this one.
            return Conditioning(hidden.float().masked_fill(~used[..., None], 0.0), pooled.float())
        hidden = hidden.float().masked_fill(~attended[..., None], 0.0)
        if self._family.length is None:
            return Conditioning(hidden, None)
        pooled = hidden[:, :chunk].sum(dim=1) / first.sum(dim=1, keepdim=True).clamp(min=1)
        return Conditioning(hidden, pooled)

    def layer_modules(self) -> Sequence[nn.Module]:
        return self._trunk.get_submodule(self._family.layers)

    def attention_output_module(self, layer: int) -> nn.Module:
        return self.layer_modules()[layer].get_submodule(self._family.output)

    def embedding_weight(self) -> Tensor:
        return self._trunk.get_submodule(self._family.embedding).weight

    def watch_attention(
        self, layer: int, receive: Callable[[Tensor], None], queries: Tensor | None = None
    ) -> list[Handle]:
        """See `TextEncoder.watch_attention`.

        Compute the weights beside the model, from its own queries and keys and from the arguments that its
        attention got, so that neither its attention implementation nor its result changes.
        """
        module = self.layer_modules()[layer].get_submodule(self._family.attention)
        signature = inspect.signature(module.forward)
        parts: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., Any]:
            return lambda _module, _inputs, output: parts.__setitem__(name, output)

        def compute(
            module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], _output: object
        ) -> None:
            given = signature.bind(*inputs, **keywords).arguments
            given = {**given.pop("kwargs", {}), **given}
            query, key = parts.pop("query"), parts.pop("key")
            rows, length = query.shape[:2]
            wanted = (
                torch.arange(length).expand(rows, -1)
                if queries is None
                else self._row_queries(queries, rows, length)
            )
            receive(self._weights(module, query, key, wanted.to(query.device), given))

        return [
            module.get_submodule(self._family.query).register_forward_hook(keep("query")),
            module.get_submodule(self._family.key).register_forward_hook(keep("key")),
            module.register_forward_hook(compute, with_kwargs=True),
        ]

    def _weights(
        self, module: Any, query: Tensor, key: Tensor, wanted: Tensor, given: dict[str, Any]
    ) -> Tensor:
        """softmax(q kᵀ · scale + bias + mask) in float32.

        Args:
            query: [B, S, H · e], as projected.
            key: [B, S, G · e], G heads, each for H/G query heads.
            wanted: [B, Q], which queries.
            given: what the attention module was called with.

        Returns:
            [B, H, Q, S]
        """
        heads = self._info.heads
        size = query.shape[-1] // heads
        query, key = (x.unflatten(-1, (-1, size)).transpose(1, 2) for x in (query, key))
        query = select_queries(query, wanted)
        if hasattr(module, "q_norm"):
            query, key = module.q_norm(query), module.k_norm(key)
        query, key = query.float(), key.float()
        if given.get("position_embeddings") is not None:
            cos, sin = (part.float()[:, None] for part in given["position_embeddings"])
            query = _rotated(query, select_queries(cos, wanted), select_queries(sin, wanted))
            key = _rotated(key, cos, sin)
        key = key.repeat_interleave(heads // key.shape[1], dim=1)
        scores = query @ key.transpose(-1, -2)
        if self._family.scaled:
            scores = scores * (getattr(module, "scaling", None) or size**-0.5)
        if self._info.family == "gemma2" and self.model.config._attn_implementation != "sdpa":
            # torch's own attention has no cap, so under it the model goes without.
            cap = module.attn_logit_softcapping
            scores = scores if cap is None else (scores / cap).tanh() * cap
        for bias in self._biases(module, given, key.shape[2], scores.device):
            chosen = select_queries(bias, wanted)
            if chosen.dtype == torch.bool:
                scores = scores.masked_fill(~chosen, torch.finfo(scores.dtype).min)
            else:
                scores = scores + chosen.float()
        return scores.softmax(dim=-1)

    def _biases(self, module: Any, given: dict[str, Any], length: int, device: torch.device) -> list[Tensor]:
        """What is added to the scores, or, if boolean, which are kept: [B or 1, H or 1, S or 1, S] each."""
        biases = []
        if hasattr(module, "compute_bias"):
            # The mask may be in it already; hidden twice is hidden.
            given_bias = given.get("position_bias")
            biases.append(
                module.compute_bias(length, length, device=device) if given_bias is None else given_bias
            )
        names = ("attention_mask", "causal_attention_mask", "mask")
        masks = [given[name] for name in names if given.get(name) is not None]
        for mask in masks:
            mask = mask[:, None, None, :] if mask.dim() == 2 else mask[..., :length]
            # Kept keys are True or 1 in a boolean or two-dimensional mask; otherwise the mask is added.
            biases.append(mask if mask.dtype.is_floating_point else mask.bool())
        if self._info.causal and not any(mask.dim() == 4 for mask in masks):
            distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
            window = getattr(module, "sliding_window", None) or length
            biases.append(((distance >= 0) & (distance < window))[None, None])
        return biases

    def _chunk(self, tokens: Tokens) -> int:
        """How many of the tokens make a chunk; one that is alone may be shorter."""
        length = tokens.ids.shape[1]
        return (
            length if self._family.length is None or self.max_length is None else min(length, self.max_length)
        )

    def _chunks(self, ids: Sequence[int]) -> list[tuple[int, int | str]]:
        """Chunks of one prompt: (token id, index into `ids` or what else it is)."""
        begin, end = ([(token, _SPECIAL) for token in tokens] for tokens in (self._begin, self._end))
        framed = len(begin) + len(end)
        if self._family.length is None or self.max_length is None:
            if self.max_length is not None and len(ids) + framed > self.max_length:
                raise ValueError(
                    f"a prompt of {len(ids) + framed} tokens is too long: this model takes {self.max_length}"
                )
            return [*begin, *((token, index) for index, token in enumerate(ids)), *end]
        room = self.max_length - framed
        entries: list[tuple[int, int | str]] = []
        for start in range(0, max(len(ids), 1), room):
            stop = min(start + room, len(ids))
            entries.extend([*begin, *((ids[index], index) for index in range(start, stop)), *end])
            entries.extend([(self._pad[0], _PADDING)] * (-len(entries) % self.max_length))
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


_SPECIAL = "special"
_PADDING = "padding"


def _has_module(model: nn.Module, path: str) -> bool:
    return any(name == path for name, _ in model.named_modules())


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of queries or keys [B, H, S, e], by cos and sin [B, 1, S, e]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _special_ids(tokenizer: Any, choices: tuple[str, ...], needed: bool) -> list[int]:
    """Id of the first of the special tokens that the tokenizer has; empty where there is none.

    Raises:
        ValueError: where one is needed and there is none.
    """
    names = tokenizer.special_tokens_map
    name = next((choice for choice in choices if names.get(choice)), None)
    if name is not None:
        return [tokenizer.convert_tokens_to_ids(names[name])]
    if needed and choices:
        raise ValueError(
            f"this tokenizer has no {' or '.join(choices)}: give the one that belongs to the model"
        )
    return []

"""The library's encoder interface over a ComfyUI CLIP."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.utils
import torch
from torch import Tensor, nn

from ..encoders import ATTENTION_OUTPUT, Conditioning, EncoderInfo, Handle, TextEncoder, Tokens
from ..pairs import Span
from ..selection import SpecialTokens, attended_positions
from ..text_encoder import select_queries
from .errors import TextEncoderError
from .places import BIDIRECTIONAL, encoders_of, family_of, find_places
from .prompts import PromptTracer

INJECTION_KEY = "culture"
"""Under which this pack's patches are kept on a ModelPatcher."""


def follow_patcher(clip: comfy.sd.CLIP) -> None:
    """Encode with the module that is patched: newer nodes may give a CLIP's patcher another copy of the
    encoder."""
    if clip.cond_stage_model is not clip.patcher.model:
        clip.cond_stage_model = clip.patcher.model


class ComfyTextEncoder(TextEncoder):
    """One text encoder of a ComfyUI CLIP, without this pack's patches; LoRAs stay.

    Raises:
        TextEncoderError: where `encoder_key` is not in the CLIP, or is missing and the CLIP has several
            encoders.
    """

    def __init__(self, clip: comfy.sd.CLIP, encoder_key: str | None = None) -> None:
        encoders = encoders_of(clip)
        key = next(iter(encoders)) if encoder_key is None and len(encoders) == 1 else encoder_key
        if key not in encoders:
            wrong = f", not {key}" if key else ""
            raise TextEncoderError(
                f"This CLIP holds the encoders {', '.join(encoders) or '(none)'}: name one{wrong}."
            )
        self.key = key
        self.clip = clip.clone()
        follow_patcher(self.clip)
        self.clip.patcher.remove_injections(INJECTION_KEY)
        self.places = find_places(self.model)

    @property
    def model(self) -> comfy.sd1_clip.SDClipModel:
        """ComfyUI's module of the encoder."""
        return comfy.utils.get_attr(self.clip.patcher.model, self.key)

    @functools.cached_property
    def tracer(self) -> PromptTracer:
        """Follows prompts into the encoder."""
        return PromptTracer(self.clip, self.key)

    @functools.cached_property
    def special(self) -> SpecialTokens:
        """The ids that frame the encoder's prompts."""
        known = self.model.special_tokens
        return SpecialTokens(
            known.get("start"), known.get("end"), known.get("pad"), *self.tracer.template_ids()
        )

    @property
    def info(self) -> EncoderInfo:
        vocabulary, width = self.embedding_weight().shape
        family = family_of(self.model, self.places)
        attention = self.places.layers[0].attention
        # Linear attention may have no heads to speak of.
        module = self.model.get_submodule(attention) if attention else None
        heads: int = getattr(module, "heads", None) or getattr(module, "num_heads", None) or 1
        return EncoderInfo(
            family, self.model.num_layers, width, heads, vocabulary, family not in BIDIRECTIONAL
        )

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids of prompts [B, S], S the longest prompt's chunks; `(word:1.3)` is plain text here.

        A chat template is part of the ids, as in CLIP Text Encode, but not of the content.

        Raises:
            TextEncoderError: for a prompt with an embedding or a picture in it.
        """
        traced = [self.tracer.trace(text, literal=True) for text in texts]
        length = max(len(row) for prompt in traced for row in prompt.rows)
        chunks = max(len(prompt.rows) for prompt in traced)
        empty = comfy.sd1_clip.gen_empty_tokens(self.model.special_tokens, length)
        ids = torch.tensor(empty).repeat(len(texts), chunks)
        attended, content = (torch.zeros(ids.shape, dtype=torch.bool) for _ in range(2))
        offsets: list[list[Span | None]] = [[None] * ids.shape[1] for _ in texts]
        for number, (text, prompt) in enumerate(zip(texts, traced, strict=True)):
            for chunk, row in enumerate(prompt.rows):
                if not all(isinstance(token, Integral) for token in row):
                    raise TextEncoderError(f"The prompt {text!r} holds more than text: leave embeddings out.")
                place = slice(chunk * length, chunk * length + len(row))
                ids[number, place] = torch.tensor([int(token) for token in row])
                attended[number, place] = torch.tensor(attended_positions(row, self.special))
                content[number, place] = torch.tensor(prompt.content[chunk])
                if prompt.offsets is not None:
                    offsets[number][place] = prompt.offsets[chunk]
        known = all(prompt.offsets is not None for prompt in traced)
        return Tokens(ids, attended, content & attended, offsets if known else None)

    def encode(self, tokens: Tokens) -> Conditioning:
        """Conditioning (hidden [B, S, d], pooled [B, d] or None) of prompts that this encoder tokenised.

        The outputs of several layers, where the model takes them, follow each other in d. A chat template's
        part is left in.
        """
        prompts, length = tokens.ids.shape
        chunk = min(length, self.tokenizer.max_length) if self.tokenizer.pad_to_max_length else length
        own = self._own_lengths(tokens, chunk)
        self.clip.load_model()
        self.model.reset_clip_options()
        if self.clip.layer_idx is not None:
            self.model.set_clip_options({"layer": self.clip.layer_idx})
        with self._running(prompts), self._without_batch_padding(own, chunk):
            hidden, pooled = self.model(tokens.ids.reshape(-1, chunk).tolist())[:2]
        if hidden.ndim == 4:  # [B, layers, S, d]
            hidden = hidden.movedim(1, 2).flatten(2)
        hidden = hidden.reshape(prompts, length, -1)
        # What only a longer prompt of the batch fills is no part of this one.
        used = torch.arange(length) < own[:, None]
        hidden = hidden.masked_fill(~used[..., None].to(hidden.device), 0.0)
        return Conditioning(
            hidden, None if pooled is None else pooled.reshape(prompts, -1, pooled.shape[-1])[:, 0]
        )

    def without_padding(self, tokens: Tokens) -> Tokens:
        """See `TextEncoder.without_padding`: where padding is masked, or comes after all that see it."""
        attended, info = tokens.attention_mask, self.info
        blind = self.model.enable_attention_masks or info.causal
        # ComfyUI's CLIP takes nothing but whole chunks.
        if (
            not blind
            or info.family == "clip"
            or tokens.ids.shape[1] > self.tokenizer.max_length
            or not bool(attended[:, 0].all())
        ):
            return tokens
        return tokens.cut(int(attended.sum(dim=1).max()))

    @property
    def tokenizer(self) -> comfy.sd1_clip.SDTokenizer:
        """ComfyUI's tokenizer of the encoder."""
        return self.tracer.tokenizer

    def layer_modules(self) -> Sequence[nn.Module]:
        return [self.model.get_submodule(layer.path) for layer in self.places.layers]

    def attention_output_module(self, layer: int) -> nn.Module:
        return self.model.get_submodule(self.places.feature(layer, ATTENTION_OUTPUT))

    def embedding_weight(self) -> Tensor:
        return self.model.transformer.get_input_embeddings().weight

    def fingerprint_weights(self, layer: int) -> Tensor:
        """See `TextEncoder.fingerprint_weights`."""
        if self.places.layers[layer].output is not None:
            return self.attention_output_module(layer).get_parameter("weight")
        return next(self.layer_modules()[layer].parameters())

    def watch_attention(
        self, layer: int, receive: Callable[[Tensor], None], queries: Tensor | None = None
    ) -> list[Handle]:
        """See `TextEncoder.watch_attention`.

        Wrap the block's attention function for the length of a call.
        """
        module = self.model.get_submodule(self.places.attention(layer))
        signature = inspect.signature(module.forward)

        def intercept(
            _module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            bound = signature.bind(*arguments, **keywords)
            attend = bound.arguments["optimized_attention"]

            def watched(
                q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, **options: object
            ) -> Tensor:
                split = bool(options.get("skip_reshape", False))
                rows, length = len(q), q.shape[2 if split else 1]
                wanted = None if queries is None else self._row_queries(queries, rows, length)
                receive(attention_weights(q, k, heads, mask, split, wanted))
                return attend(q, k, v, heads, mask, **options)

            bound.arguments["optimized_attention"] = watched
            return bound.args, bound.kwargs

        return [module.register_forward_pre_hook(intercept, with_kwargs=True)]

    def _own_lengths(self, tokens: Tokens, chunk: int) -> Tensor:
        """How long each prompt is by itself [B], its own padding included."""
        attended = tokens.attention_mask.sum(dim=1)
        if self.tokenizer.pad_to_max_length:
            chunks = tokens.attention_mask.reshape(len(attended), -1, chunk).any(dim=-1).sum(dim=1)
            return chunks.clamp(min=1) * chunk
        name = f"{self.tokenizer.embedding_key}_min_length"
        least = self.clip.tokenizer_options.get(name, self.tokenizer.min_length) or 1
        return attended.clamp(min=least, max=chunk)

    @contextmanager
    def _without_batch_padding(self, own: Tensor, chunk: int) -> Iterator[None]:
        """For encoders that attend to padding: hide what is there only because of a longer prompt of the
        batch."""
        model = self.model
        if model.enable_attention_masks or self.tokenizer.pad_to_max_length or bool((own == chunk).all()):
            yield
            return
        process = model.process_tokens

        def masked(tokens: list[Any], device: torch.device) -> tuple[Any, ...]:
            embeds, _, *rest = process(tokens, device)
            return embeds, (torch.arange(chunk) < own[:, None]).long().to(device), *rest

        model.process_tokens, model.enable_attention_masks = masked, True
        try:
            yield
        finally:
            del model.process_tokens
            model.enable_attention_masks = False


def attention_weights(
    q: Tensor, k: Tensor, heads: int, mask: Tensor | None, split: bool, queries: Tensor | None = None
) -> Tensor:
    """softmax(q kᵀ / √d + mask) in float32: [B, H, S, S].

    `q` and `k` are [B, S, H · d], or [B, H, S, d] where `split`; a group of query heads may share a key head.
    With `queries` [B, Q], positions, only their rows: [B, H, Q, S].
    """
    if not split:
        q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    if mask is not None:
        mask = mask.reshape(-1, *mask.shape[-3:] if mask.ndim == 4 else (1, *mask.shape[-2:]))
    if queries is not None:
        q = select_queries(q, queries)
        mask = None if mask is None else select_queries(mask, queries)
    scores = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is None:
        return scores.softmax(dim=-1)
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(scores).masked_fill(~mask, -torch.finfo(scores.dtype).max)
    return (scores + mask).softmax(dim=-1)

"""Finding one's way in a ComfyUI CLIP, and the library's encoder interface over it."""

import inspect
from collections.abc import Callable, Sequence
from typing import NamedTuple

import comfy.sd
import comfy.sd1_clip
import comfy.utils
import torch
from torch import Tensor, nn

from ..encoders import ATTENTION_OUTPUT, Conditioning, EncoderInfo, Handle, TextEncoder, Tokens
from ..pairs import Span
from ..selection import SpecialTokens, Vocabulary, align_pieces, attended_positions, content_positions
from ..text_encoder import trim
from .loading import TextEncoderError

INJECTION_KEY = "culture"
"""Under which this pack's patches are kept on a ModelPatcher."""


class Places(NamedTuple):
    """Where an encoder keeps its layers."""

    layers: str
    """Path from the `SDClipModel`."""
    attention: str
    """Path from the layer, as `output`."""
    output: str

    def feature(self, layer: int, feature: str) -> str:
        """Path of the module whose output is the feature."""
        path = f"{self.layers}.{layer}"
        return f"{path}.{self.output}" if feature == ATTENTION_OUTPUT else path


def encoders_of(clip: comfy.sd.CLIP) -> dict[str, comfy.sd1_clip.SDClipModel]:
    """The text encoders inside a CLIP by their path in it (`clip_l`, `clip_g`, `t5xxl` …)."""
    modules = clip.patcher.model.named_modules()
    return {path: module for path, module in modules if isinstance(module, comfy.sd1_clip.SDClipModel)}


def find_places(encoder: comfy.sd1_clip.SDClipModel) -> Places:
    """Find the layers of any of ComfyUI's encoders: the blocks whose attention is handed its implementation.

    Raises:
        TextEncoderError: for an encoder without such blocks.
    """
    for path, module in encoder.transformer.named_modules():
        is_stack = isinstance(module, nn.ModuleList) and len(module) == encoder.num_layers
        if not is_stack or path.startswith(("visual.", "vision.")):
            continue
        takers = [name for name, part in module[0].named_modules() if name and _takes_attention(part)]
        innermost = [name for name in takers if not any(other.startswith(f"{name}.") for other in takers)]
        if innermost:
            return Places(f"transformer.{path}", innermost[0], _output_projection(module[0], innermost[0]))
    raise TextEncoderError(
        f"{type(encoder.transformer).__name__}: this pack cannot look into this text encoder yet."
    )


def _takes_attention(module: nn.Module) -> bool:
    return "optimized_attention" in inspect.signature(module.forward).parameters


def _output_projection(layer: nn.Module, attention: str) -> str:
    names = {name for name, _ in layer.named_modules()}
    # Gemma norms the projection's output once more before adding it.
    if {"pre_feedforward_layernorm", "post_attention_layernorm"} <= names:
        return "post_attention_layernorm"
    beside = f"{attention.rpartition('.')[0]}.output.dense"
    candidates = [beside, *(f"{attention}.{name}" for name in ("out_proj", "o_proj", "o"))]
    found = next((name for name in candidates if name in names), None)
    if found is None:
        raise TextEncoderError(f"{type(layer).__name__} has no output projection that this pack knows.")
    return found


def taken_layer(encoder: comfy.sd1_clip.SDClipModel, clip_skip: int | None = None) -> int:
    """Index of the last layer that the conditioning depends on, under a clip skip as ComfyUI writes it (-1:
    none)."""
    mode, index, _ = encoder.options_default
    if isinstance(mode, list):  # entry i is what goes into layer i
        return max(mode) - 1
    if mode == "all":
        return encoder.num_layers - 1
    if clip_skip is not None:
        mode, index = ("last", None) if abs(clip_skip) > encoder.num_layers else ("hidden", clip_skip)
    return index % encoder.num_layers if mode == "hidden" else encoder.num_layers - 1


def find_tokenizer(clip: comfy.sd.CLIP, key: str) -> comfy.sd1_clip.SDTokenizer:
    """The tokenizer of one of the CLIP's encoders.

    Raises:
        TextEncoderError: where the CLIP keeps it under a name that does not follow the encoder's.
    """
    name = key.rpartition(".")[2]
    for candidate in (name, f"clip_{name}", name.removeprefix("clip_")):
        tokenizer = getattr(clip.tokenizer, candidate, None)
        if tokenizer is not None:
            return tokenizer
    raise TextEncoderError(f"{type(clip.tokenizer).__name__} has no tokenizer for the encoder '{key}'.")


def special_tokens(encoder: comfy.sd1_clip.SDClipModel) -> SpecialTokens:
    """The ids that frame the encoder's prompts."""
    known = encoder.special_tokens
    return SpecialTokens(known.get("start"), known.get("end"), known.get("pad"))


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
        self.tokenizer = find_tokenizer(clip, key)
        self.vocabulary = Vocabulary(self.tokenizer.inv_vocab)

    @property
    def model(self) -> comfy.sd1_clip.SDClipModel:
        """ComfyUI's module of the encoder."""
        return comfy.utils.get_attr(self.clip.patcher.model, self.key)

    @property
    def info(self) -> EncoderInfo:
        attention = self.layer_modules()[0].get_submodule(self.places.attention)
        heads = getattr(attention, "heads", None) or attention.num_heads
        vocabulary, width = self.embedding_weight().shape
        stack = self.places.layers.removeprefix("transformer.")
        known = {"text_model.encoder.layers": "clip", "bert.encoder.layer": "bert", "encoder.block": "t5"}
        family = known.get(stack, type(self.model.transformer).__name__.lower())
        return EncoderInfo(
            family, self.model.num_layers, width, heads, vocabulary, family not in ("bert", "t5")
        )

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids of prompts [B, S], S the longest prompt's chunks; `(word:1.3)` is plain text here."""
        special = special_tokens(self.model)
        prompts = [self._chunks(text) for text in texts]
        length = max(len(chunk) for chunks in prompts for chunk in chunks)
        empty = comfy.sd1_clip.gen_empty_tokens(self.model.special_tokens, length)
        ids = torch.tensor(empty).repeat(len(texts), max(map(len, prompts)))
        attended = torch.zeros_like(ids, dtype=torch.bool)
        content = torch.zeros_like(ids, dtype=torch.bool)
        for row, chunks in enumerate(prompts):
            for number, chunk in enumerate(chunks):
                place = slice(number * length, number * length + len(chunk))
                ids[row, place] = torch.tensor(chunk)
                attended[row, place] = torch.tensor(attended_positions(chunk, special))
                content[row, place] = torch.tensor(content_positions(chunk, special))
        offsets = [self._offsets(text, ids[row], content[row]) for row, text in enumerate(texts)]
        return Tokens(ids, attended, content, None if None in offsets else offsets)

    def encode(self, tokens: Tokens) -> Conditioning:
        """Conditioning (hidden [B, S, d], pooled [B, d] or None) of prompts that this encoder tokenised."""
        prompts, length = tokens.ids.shape
        chunk = self.tokenizer.max_length if self.tokenizer.pad_to_max_length else length
        self.clip.load_model()
        self.model.reset_clip_options()
        if self.clip.layer_idx is not None:
            self.model.set_clip_options({"layer": self.clip.layer_idx})
        with self._running(prompts):
            hidden, pooled = self.model(tokens.ids.reshape(-1, chunk).tolist())[:2]
        hidden = hidden.reshape(prompts, length, -1)
        # Chunks that only a longer prompt of the batch fills are no part of this one.
        used = tokens.attention_mask.reshape(prompts, -1, chunk).any(dim=-1)
        hidden = hidden * used.repeat_interleave(chunk, dim=1).unsqueeze(-1).to(hidden)
        return Conditioning(
            hidden, None if pooled is None else pooled.reshape(prompts, -1, pooled.shape[-1])[:, 0]
        )

    def layer_modules(self) -> Sequence[nn.Module]:
        return self.model.get_submodule(self.places.layers)

    def attention_output_module(self, layer: int) -> nn.Module:
        return self.model.get_submodule(self.places.feature(layer, ATTENTION_OUTPUT))

    def embedding_weight(self) -> Tensor:
        return self.model.transformer.get_input_embeddings().weight

    def watch_attention(self, layer: int, receive: Callable[[Tensor], None]) -> list[Handle]:
        """See `TextEncoder.watch_attention`: the block's attention function is wrapped for the length of a
        call."""
        module = self.layer_modules()[layer].get_submodule(self.places.attention)
        signature = inspect.signature(module.forward)

        def intercept(_module: nn.Module, arguments: tuple, keywords: dict) -> tuple[tuple, dict]:
            bound = signature.bind(*arguments, **keywords)
            attend = bound.arguments["optimized_attention"]

            def watched(
                q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, **options: object
            ) -> Tensor:
                receive(attention_weights(q, k, heads, mask, bool(options.get("skip_reshape", False))))
                return attend(q, k, v, heads, mask, **options)

            bound.arguments["optimized_attention"] = watched
            return bound.args, bound.kwargs

        return [module.register_forward_pre_hook(intercept, with_kwargs=True)]

    def _chunks(self, text: str) -> list[list[int]]:
        chunks = self.tokenizer.tokenize_with_weights(text, disable_weights=True)
        return [[token for token, *_ in chunk if not torch.is_tensor(token)] for chunk in chunks]

    def _offsets(self, text: str, ids: Tensor, content: Tensor) -> list[Span | None] | None:
        tokens = ids[content].tolist()
        pieces = [self.vocabulary.spell(token) for token in tokens]
        spans = self._fast_offsets(text, tokens, pieces) or align_pieces(text, pieces)
        if spans is None:
            return None
        offsets: list[Span | None] = [None] * len(ids)
        for position, span in zip(content.nonzero().flatten().tolist(), spans, strict=True):
            offsets[position] = span
        return offsets

    def _fast_offsets(self, text: str, tokens: list[int], pieces: list[bytes]) -> list[Span | None] | None:
        tokenizer = self.tokenizer.tokenizer
        if not getattr(tokenizer, "is_fast", False):
            return None
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if encoded["input_ids"] != tokens:
            return None
        spans = zip(encoded["offset_mapping"], pieces, strict=True)
        return [trim(text, span) if piece.strip() else None for span, piece in spans]


def attention_weights(q: Tensor, k: Tensor, heads: int, mask: Tensor | None, split: bool) -> Tensor:
    """softmax(q kᵀ / √d + mask) in float32: [B, H, S, S].

    `q` and `k` are [B, S, H · d], or [B, H, S, d] where `split`; a group of query heads may share a key head.
    """
    if not split:
        q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is None:
        return scores.softmax(dim=-1)
    mask = mask.unsqueeze(1) if mask.ndim == 3 else mask
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(scores).masked_fill(~mask, -torch.finfo(scores.dtype).max)
    return (scores + mask).softmax(dim=-1)

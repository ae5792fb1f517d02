"""The interface of text encoders: tokenise, encode, capture, patch, fingerprint.

`TextEncoder` holds what all encoders share, torch forward hooks that are always released; a subclass says
where its layers are.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .fingerprint import fingerprint_values
from .pairs import Span

ATTENTION_WEIGHTS = "attention_weights"
"""Attention of each query token over all key tokens, one map a head: [B, H, S, S]."""
ATTENTION_OUTPUT = "attention_output"
"""What the attention block adds to the residual, after its output projection: [B, S, d]."""
HIDDEN_STATE = "hidden_state"
"""What leaves the layer: [B, S, d]."""
FEATURES = (ATTENTION_OUTPUT, HIDDEN_STATE)
"""The features that an SAE can decompose and a patch can change."""

Handle = torch.utils.hooks.RemovableHandle


class EncoderInfo(NamedTuple):
    """What there is to know about an encoder's shape."""

    family: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    causal: bool
    """A token sees only those before it."""


@dataclass(frozen=True)
class Tokens:
    """Prompts as token ids, one a row, all rows of the same length."""

    ids: Tensor
    """[B, S] long."""
    attention_mask: Tensor
    """[B, S] bool: all but padding."""
    content_mask: Tensor
    """[B, S] bool: all but beginning, end, padding and template."""
    offsets: list[list[Span | None]] | None
    """Per row and position the (start, end) in code points of the text that the token stands for, without
    surrounding white space; None where it stands for none. None as a whole: the tokenizer cannot tell."""

    def positions(self, row: int, spans: Sequence[Span]) -> list[int]:
        """Positions of the content tokens that share at least one code point with one of the spans.

        A token that straddles the border of a span belongs to it: scripts without spaces are often cut there.

        Raises:
            ValueError: where the tokenizer gave no offsets.
        """
        if self.offsets is None:
            raise ValueError(
                "this tokenizer gives no character offsets: load its fast version (use_fast=True)"
            )
        found = []
        for position, offset in enumerate(self.offsets[row]):
            if offset is not None and any(offset[0] < end and start < offset[1] for start, end in spans):
                found.append(position)
        return found

    def cut(self, length: int) -> "Tokens":
        """The first so many positions of every row."""
        offsets = None if self.offsets is None else [row[:length] for row in self.offsets]
        return Tokens(
            self.ids[:, :length], self.attention_mask[:, :length], self.content_mask[:, :length], offsets
        )


class Conditioning(NamedTuple):
    """What a text-to-image model gets to see of a prompt."""

    hidden: Tensor
    """[B, S, d] float32."""
    pooled: Tensor | None
    """[B, d] float32."""

    @property
    def vector(self) -> Tensor:
        """`pooled` of an encoder that gives one."""
        if self.pooled is None:
            raise ValueError("this encoder gives no pooled conditioning")
        return self.pooled


@dataclass
class Capture:
    """What the layers of the latest encode computed, by layer index."""

    attention_weights: dict[int, Tensor] = field(default_factory=dict)
    attention_output: dict[int, Tensor] = field(default_factory=dict)
    hidden_state: dict[int, Tensor] = field(default_factory=dict)


Receiver = Callable[[int, str, Tensor], None]
"""Gets (layer, what, tensor). The tensor is the encoder's own: read it at once or clone it."""

LayerRecord = dict[int, Tensor | tuple[Any, ...]]
"""What each layer gave in one encode, by its index."""


class TextEncoder(ABC):
    """A transformer text encoder that can be looked into and changed while it runs.

    Hooks are torch forward hooks; the contexts release them also when the encode or the context fails. Layers
    are counted from 0. A prompt may fill several chunks, which the layers see as rows of their own, those of
    one prompt next to each other.
    """

    _prompts: int | None = None
    """How many prompts the encode in progress has; None where none is."""

    @property
    @abstractmethod
    def info(self) -> EncoderInfo:
        """Shape of the encoder."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids of prompts, padded to one length."""

    @abstractmethod
    def encode(self, tokens: Tokens) -> Conditioning:
        """Conditioning of tokenised prompts. Gradients follow the caller's grad mode.

        The model runs within `self._running(prompts)`, so that features come in the caller's layout.
        """

    def without_padding(self, tokens: Tokens) -> Tokens:
        """The prompts without padding that none of them needs, where the encoder gives the others' tokens the
        same features without it; otherwise as they are."""
        return tokens

    # --- What a subclass says about its model ---------------------------------------------------------------

    @abstractmethod
    def layer_modules(self) -> Sequence[nn.Module]:
        """The layers, first to last; a module returns its hidden state or a tuple that begins with it."""

    @abstractmethod
    def attention_output_module(self, layer: int) -> nn.Module:
        """The module whose output is the attention feature of a layer."""

    @abstractmethod
    def watch_attention(
        self, layer: int, receive: Callable[[Tensor], None], queries: Tensor | None = None
    ) -> list[Handle]:
        """Hook a layer so that `receive` gets its attention weights [rows, H, S, S] at every encode.

        Args:
            queries: [B, Q] long, positions in each prompt: only these tokens' weights are computed,
                [rows, H, Q, S]. `_row_queries` says which they are in the encoder's rows.
        """

    @abstractmethod
    def embedding_weight(self) -> Tensor:
        """The table of token embeddings [vocabulary, width]."""

    def fingerprint_weights(self, layer: int) -> Tensor:
        """Weights that tell a layer from another model's: those of its attention output."""
        return self.attention_output_module(layer).get_parameter("weight")

    # --- What all of them can do ----------------------------------------------------------------------------

    def fingerprint(self) -> dict[str, Any]:
        """Identity of the encoder: its shape and a few of its weights (see `fingerprint.py`)."""
        info = self.info
        layers = sorted({0, info.layers // 2, info.layers - 1})
        weights = [
            self.embedding_weight(),
            *(self.fingerprint_weights(layer) for layer in layers),
        ]
        shape = {name: getattr(info, name) for name in ("family", "layers", "width", "heads", "vocabulary")}
        return {**shape, "weights": fingerprint_values(weights)}

    @contextmanager
    def watch(self, layers: Collection[int], what: Collection[str], receive: Receiver) -> Iterator[None]:
        """Let `receive` see what the layers compute, as they compute it, in every encode within the context.

        Raises:
            ValueError: for a layer that is not there or a name that is none of `attention_weights`,
                `attention_output`, `hidden_state`.
        """
        unknown = set(what) - {ATTENTION_WEIGHTS, *FEATURES}
        if unknown:
            raise ValueError(
                f"cannot capture {sorted(unknown)}: use {ATTENTION_WEIGHTS}, {', '.join(FEATURES)}"
            )
        with ExitStack() as stack:
            for layer in layers:
                self._check_layer(layer)
                for name in what:
                    for handle in self._watch_one(layer, name, receive):
                        stack.callback(handle.remove)
            yield

    @contextmanager
    def watch_attention_of(
        self, layers: Collection[int], queries: Tensor, receive: Receiver
    ) -> Iterator[None]:
        """As `watch`, for the attention weights [B, H, Q, S] of a few query tokens alone.

        Args:
            queries: [B, Q] long, positions in each prompt; a prompt with fewer repeats one.
        """
        with ExitStack() as stack:
            for layer in layers:
                self._check_layer(layer)

                def pass_on(weights: Tensor, layer: int = layer) -> None:
                    receive(layer, ATTENTION_WEIGHTS, self._queries_to_prompts(weights, queries))

                for handle in self.watch_attention(layer, pass_on, queries):
                    stack.callback(handle.remove)
            yield

    @contextmanager
    def record(self) -> Iterator[LayerRecord]:
        """Keep what every layer of the latest encode within the context gave, for `resume`."""
        outputs: LayerRecord = {}

        def keep(layer: int) -> Callable[..., Any]:
            # A copy, because some encoders go on to update the hidden state in place.
            return lambda _module, _inputs, output: outputs.__setitem__(layer, _copied(output))

        with ExitStack() as stack:
            for layer, module in enumerate(self.layer_modules()):
                stack.callback(module.register_forward_hook(keep(layer)).remove)
            yield outputs

    @contextmanager
    def resume(self, layer: int, recorded: LayerRecord) -> Iterator[None]:
        """Let every encode within the context begin at a layer; those below give what they gave before.

        Only for the tokens that were recorded. All that follows the layers is computed as ever.
        """
        self._check_layer(layer)
        modules = self.layer_modules()
        with ExitStack() as stack:
            for index in range(layer):
                stack.enter_context(_replaced(modules[index], recorded[index]))
            yield

    @contextmanager
    def capture(self, layers: Collection[int], what: Collection[str]) -> Iterator[Capture]:
        """Keep copies of what the layers compute in the latest encode within the context.

        Args:
            layers: indices from 0.
            what: any of `attention_weights`, `attention_output`, `hidden_state`.
        """
        captured = Capture()

        def keep(layer: int, name: str, value: Tensor) -> None:
            # A copy, because some encoders go on to update the tensor in place.
            getattr(captured, name)[layer] = value.detach().clone()

        with self.watch(layers, what, keep):
            yield captured

    @contextmanager
    def patch(self, layer: int, feature: str, function: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Put `function(feature)` in the place of a feature [B, S, d] in every encode within the context.

        Several patches of one place run in the order in which they were entered. A function that returns its
        very argument changes nothing.

        Raises:
            ValueError: for a layer or a feature that is not there, or a function that changes the shape.
        """
        module = self._feature_module(layer, feature)

        def replace(
            _module: nn.Module, _inputs: tuple[Any, ...], output: Tensor | tuple[Any, ...]
        ) -> Tensor | tuple[Any, ...] | None:
            rows = _first(output)
            value = self._rows_to_prompts(rows)
            changed = function(value)
            if changed is value:
                return None
            if changed.shape != value.shape:
                raise ValueError(
                    f"a patch must keep the shape {tuple(value.shape)}, got {tuple(changed.shape)}"
                )
            changed = changed.reshape(rows.shape).to(rows.dtype)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = module.register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _running(self, prompts: int) -> Iterator[None]:
        """While the model encodes so many prompts."""
        self._prompts = prompts
        try:
            yield
        finally:
            self._prompts = None

    def _rows_to_prompts(self, rows: Tensor) -> Tensor:
        """[B · chunks, L, d] → [B, chunks · L, d]."""
        if self._prompts is None or self._prompts == len(rows):
            return rows
        return rows.reshape(self._prompts, -1, rows.shape[-1])

    def _attention_to_prompts(self, weights: Tensor) -> Tensor:
        """[B · chunks, H, L, L] → [B, H, chunks · L, chunks · L], zero between chunks."""
        if self._prompts is None or self._prompts == len(weights):
            return weights
        _, heads, length, _ = weights.shape
        blocks = weights.reshape(self._prompts, -1, heads, length, length)
        chunks = blocks.shape[1]
        whole = weights.new_zeros(self._prompts, heads, chunks, length, chunks, length)
        for chunk in range(chunks):
            whole[:, :, chunk, :, chunk] = blocks[:, chunk]
        return whole.reshape(self._prompts, heads, chunks * length, chunks * length)

    def _row_queries(self, queries: Tensor, rows: int, length: int) -> Tensor:
        """Positions [B, Q] in prompts → [rows, Q] in the encoder's rows; any for those of another chunk."""
        chunks = rows // len(queries)
        starts = torch.arange(chunks, device=queries.device) * length
        return (queries[:, None] - starts[:, None]).clamp(0, length - 1).flatten(0, 1)

    def _queries_to_prompts(self, weights: Tensor, queries: Tensor) -> Tensor:
        """[B · chunks, H, Q, L] → [B, H, Q, chunks · L], zero between chunks."""
        prompts, length = len(queries), weights.shape[-1]
        if prompts == len(weights):
            return weights
        blocks = weights.unflatten(0, (prompts, -1)).permute(0, 2, 3, 1, 4)
        chunk = (queries // length).to(weights.device)
        here = chunk[:, :, None] == torch.arange(blocks.shape[3], device=weights.device)
        return (blocks * here[:, None, :, :, None]).flatten(3)

    def _watch_one(self, layer: int, name: str, receive: Receiver) -> list[Handle]:
        if name == ATTENTION_WEIGHTS:
            return self.watch_attention(layer, lambda w: receive(layer, name, self._attention_to_prompts(w)))

        def pass_on(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor | tuple[Any, ...]) -> None:
            receive(layer, name, self._rows_to_prompts(_first(output)))

        return [self._feature_module(layer, name).register_forward_hook(pass_on)]

    def _feature_module(self, layer: int, feature: str) -> nn.Module:
        self._check_layer(layer)
        if feature not in FEATURES:
            raise ValueError(f"unknown feature {feature!r}: use one of {', '.join(FEATURES)}")
        return (
            self.attention_output_module(layer)
            if feature == ATTENTION_OUTPUT
            else self.layer_modules()[layer]
        )

    def _check_layer(self, layer: int) -> None:
        if not 0 <= layer < self.info.layers:
            raise ValueError(
                f"layer {layer} is not there: this encoder has the layers 0 to {self.info.layers - 1}"
            )


def trim(text: str, span: Span) -> Span | None:
    """The span of a text without the white space that some tokenizers count in; None where that is all."""
    covered = text[slice(*span)]
    start, end = span[0] + len(covered) - len(covered.lstrip()), span[0] + len(covered.rstrip())
    return (start, end) if start < end else None


def select_queries(weights: Tensor, queries: Tensor) -> Tensor:
    """Rows [B, H or 1, Q, S] of weights or of a mask [B or 1, H or 1, S or 1, S], by queries [B, Q]."""
    length = weights.shape[-2] if weights.shape[-2] > 1 else weights.shape[-1]
    whole = weights.expand(len(queries), -1, length, -1)
    rows = torch.arange(len(queries), device=weights.device)[:, None]
    return whole[rows, :, queries.to(weights.device)].transpose(1, 2)


def _copied(output: Tensor | tuple[Any, ...]) -> Tensor | tuple[Any, ...]:
    first = _first(output).clone()
    return (first, *output[1:]) if isinstance(output, tuple) else first


@contextmanager
def _replaced(module: nn.Module, output: Tensor | tuple[Any, ...]) -> Iterator[None]:
    """While the module gives an output without computing it."""
    earlier = vars(module).get("forward")
    module.forward = lambda *_, **__: _copied(output)
    try:
        yield
    finally:
        if earlier is None:
            del module.forward
        else:
            module.forward = earlier


def _first(output: Tensor | tuple[Any, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output

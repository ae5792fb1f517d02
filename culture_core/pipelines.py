"""Amplifier and enhancer in a diffusers pipeline's own text encoder:

    with amplified(pipe, culture_sae, "ja", strength=7), enhanced(pipe, enhancer_file):
        image = pipe("a chair").images[0]

Works with every pipeline that keeps its text encoders as `text_encoder`, `text_encoder_2` … beside
`tokenizer`, `tokenizer_2` …: Stable Diffusion 1, 2, XL and 3, Flux, AltDiffusion, PEA-Diffusion. Prompts that
a pipeline wraps into a chat template are edited with their template.

**Negative prompts.** A pipeline encodes them with the same encoder and does not say which is which. The rule:
every prompt with content is edited, and an empty one never is, so that guidance without a negative prompt
stays as it is. A negative prompt that shall stay as it is too is named: `negative="blurry, dark"`.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .amplifier import Amplifier
from .encoders import HIDDEN_STATE, HFTextEncoder
from .enhancer import LayerEnhancer
from .files import CultureSAE, EnhancerFile, FileError, check_encoder
from .fingerprint import same_weights
from .selection import TokenSelection, content_positions, select_positions

logger = logging.getLogger(__name__)

NAMES = ("text_encoder", "text_encoder_2", "text_encoder_3")
CONTENT, ATTENDED = TokenSelection(), TokenSelection("all")
FeatureFunction = Callable[[Tensor, Tensor], Tensor]
"""feature [B, S, d], token mask [B, S] bool on the CPU -> feature [B, S, d]."""


@contextmanager
def amplified(
    pipe: Any,
    culture_sae: CultureSAE,
    culture: str,
    strength: float,
    mode: str = "inject",
    tokens: TokenSelection = CONTENT,
    negative: str | Sequence[str] = (),
    encoder: str | None = None,
) -> Iterator[Any]:
    """Within the context the pipeline amplifies a culture's neurons; it is given back as it was.

    Contexts nest; those of one place act in the order in which they were entered. At strength 0 nothing is
    put in place.

    Args:
        culture: code, such as "ja".
        strength: λ, from −1 (mask) over 0 (off) to 12.
        mode: "inject" or "scale", see `Amplifier`.
        tokens: which tokens of a prompt are edited.
        negative: prompts that stay as they are, the negative prompt for instance.
        encoder: name of the text encoder, such as "text_encoder_2"; None: the one that the file was made for.

    Raises:
        FileError: where the file fits no encoder of the pipeline, or has no neurons for the culture.
        ValueError: for a strength or a mode that is out of range, or a pipeline without such an encoder.
    """
    amplifier = Amplifier(culture_sae.sae, culture_sae.neurons(culture), strength, mode)
    place = matching_encoder(pipe, culture_sae, encoder)
    with ExitStack() as stack:
        if strength != 0:
            _warn_if_skipped(pipe, place, culture_sae.layer)
            layer, feature = culture_sae.layer, culture_sae.feature
            stack.enter_context(edited(place, layer, feature, amplifier, tokens, negative))
        yield pipe


@contextmanager
def enhanced(
    pipe: Any,
    enhancer: EnhancerFile,
    strength: float = 1.0,
    negative: str | Sequence[str] = (),
    encoder: str | None = None,
) -> Iterator[Any]:
    """Within the context a layer of the pipeline's text encoder goes through the enhancer (eq. 10).

    It acts on all tokens of a prompt but padding, begin and end tokens included, for the image model reads
    those as well. Arguments and errors are those of `amplified`.
    """
    place = matching_encoder(pipe, enhancer, encoder)
    with ExitStack() as stack:
        if strength != 0:
            _warn_if_skipped(pipe, place, enhancer.layer)
            function = _Enhance(enhancer.enhancer, strength)
            stack.enter_context(
                edited(place, enhancer.layer, HIDDEN_STATE, function, ATTENDED, negative)
            )  # fmt: skip
        yield pipe


@contextmanager
def edited(
    encoder: HFTextEncoder,
    layer: int,
    feature: str,
    function: FeatureFunction,
    tokens: TokenSelection = CONTENT,
    negative: str | Sequence[str] = (),
) -> Iterator[None]:
    """Within the context a feature of the encoder goes through a function, whoever calls its model.

    Raises:
        ValueError: for a layer or a feature that is not there; within the context, where the model is called
            without token ids.
    """
    marks = _Marks(encoder, tokens, [negative] if isinstance(negative, str) else negative)

    def edit(value: Tensor) -> Tensor:
        mask = marks.mask
        if mask is None or not mask.any():
            return value
        changed = function(value, mask)
        if changed is value:
            return value
        # What is not marked stays bit for bit, whatever the function does with it.
        return torch.where(mask.to(value.device)[..., None], changed.to(value.dtype), value)

    with ExitStack() as stack:
        stack.callback(encoder.model.register_forward_pre_hook(marks.read, with_kwargs=True).remove)
        stack.enter_context(encoder.patch(layer, feature, edit))
        stack.callback(encoder.model.register_forward_hook(marks.forget, always_call=True).remove)
        yield


def pipeline_encoders(pipe: Any) -> dict[str, HFTextEncoder]:
    """The text encoders of a pipeline by name, as far as the library can look into them.

    Raises:
        ValueError: where there is none.
    """
    found, reasons = {}, []
    for name in NAMES:
        model, tokenizer = (
            getattr(pipe, name, None),
            getattr(pipe, name.replace("text_encoder", "tokenizer"), None),
        )
        if model is None or tokenizer is None:
            continue
        try:
            # AltDiffusion has a projection around its XLM-R.
            found[name] = HFTextEncoder(getattr(model, "roberta", model), tokenizer)
        except ValueError as error:
            reasons.append(f"{name}: {error}")
    if not found:
        why = "; ".join(reasons) or f"it has no {NAMES[0]} with a tokenizer"
        raise ValueError(f"{type(pipe).__name__} has no text encoder that can be edited ({why})")
    return found


def matching_encoder(pipe: Any, file: CultureSAE | EnhancerFile, name: str | None = None) -> HFTextEncoder:
    """The encoder of a pipeline that a file was made for: of the same shape, and of the same weights rather
    than of others.

    Raises:
        FileError: where none has the file's shape. Other weights of that shape are only warned about.
        ValueError: for a name that the pipeline does not have.
    """
    encoders = pipeline_encoders(pipe)
    if name is not None:
        encoders = {name: named_encoder(pipe, name)}
    prints = {key: _fingerprint(encoder) for key, encoder in encoders.items()}

    def closeness(key: str) -> tuple[bool, bool]:
        shape = all(file.encoder.get(k) == value for k, value in prints[key].items() if k != "weights")
        return shape, same_weights(file.encoder.get("weights", ()), prints[key]["weights"])

    best = max(encoders, key=closeness)
    if name is None and not closeness(best)[0] and len(encoders) > 1:
        have = ", ".join(
            f"{key} ({p['family']}, {p['layers']} layers of {p['width']})" for key, p in prints.items()
        )
        raise FileError(
            f"{file.path or 'this file'}: was made for another text encoder ({file.encoder.get('family')}, "
            f"{file.encoder.get('layers')} layers of {file.encoder.get('width')}); the pipeline has {have}"
        )
    check_encoder(file.encoder, prints[best], file.path)
    return encoders[best]


def named_encoder(pipe: Any, name: str) -> HFTextEncoder:
    """One encoder of a pipeline.

    Raises:
        ValueError: for a name that it does not have; the message lists those it has.
    """
    encoders = pipeline_encoders(pipe)
    if name not in encoders:
        raise ValueError(f"{type(pipe).__name__} has no text encoder {name!r}: use {', '.join(encoders)}")
    return encoders[name]


class _Marks:
    """Which tokens of the encode in progress may be edited."""

    def __init__(self, encoder: HFTextEncoder, tokens: TokenSelection, negative: Sequence[str]) -> None:
        self._encoder, self._tokens = encoder, tokens
        special = encoder.special
        self._frame = sum(token is not None for token in (special.start, special.end))
        self._negative = [
            [token for token in ids if token not in (special.start, special.end, special.pad)]
            for ids in (encoder.tokenizer(text, add_special_tokens=False)["input_ids"] for text in negative)
        ]
        self.mask: Tensor | None = None
        """[B, S] bool on the CPU; None outside an encode."""

    def read(self, _model: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Before the model runs."""
        ids = inputs[0] if inputs else keywords.get("input_ids")
        if ids is None:
            raise ValueError("the text encoder was given embeddings without token ids: they cannot be edited")
        rows = ids.tolist()
        marks = [self._select(row) for row in rows]
        if not any(map(any, marks)) and any(any(self._content(row)) for row in rows if not self._stays(row)):
            logger.warning(
                "The prompt has none of the words %s and stays as it is.", ", ".join(self._tokens.words)
            )
        self.mask = torch.tensor(marks)

    def forget(self, *_: object) -> None:
        """After it ran, or failed."""
        self.mask = None

    def _select(self, row: list[int]) -> list[bool]:
        if self._stays(row):
            return [False] * len(row)
        return select_positions(row, self._encoder.special, self._tokens, self._encoder.vocabulary)

    def _content(self, row: list[int]) -> list[bool]:
        return content_positions(row, self._encoder.special)

    def _stays(self, row: list[int]) -> bool:
        """Whether it is a negative prompt; the pipeline may have cut it."""
        if not self._negative:
            return False
        own = [token for token, inside in zip(row, self._content(row), strict=True) if inside]
        return any(own == ids[: len(row) - self._frame] for ids in self._negative)


class _Enhance:
    """An enhancer at a strength, copied to where the feature is."""

    def __init__(self, enhancer: LayerEnhancer, strength: float) -> None:
        self._enhancer, self._strength = enhancer, strength

    def __call__(self, feature: Tensor, token_mask: Tensor) -> Tensor:
        if self._enhancer.W1.device != feature.device:
            self._enhancer = copy.deepcopy(self._enhancer).to(feature.device)
        with torch.no_grad():
            return self._enhancer(feature, self._strength, token_mask)


def _fingerprint(encoder: HFTextEncoder) -> dict[str, Any]:
    if encoder.embedding_weight().is_meta:
        raise ValueError(
            "the weights of the text encoder are offloaded one by one and cannot be looked at: enter the "
            "context first, or use enable_model_cpu_offload()"
        )
    return encoder.fingerprint()


def _warn_if_skipped(pipe: Any, encoder: HFTextEncoder, layer: int) -> None:
    """SDXL and SD3 read CLIP's last layer but one, Flux only what CLIP pools, some AltDiffusions as SDXL."""
    several = encoder.info.family == "clip" and getattr(pipe, NAMES[1], None) is not None
    skips = several or getattr(getattr(pipe, NAMES[0], None), "has_pre_transformation", False)
    if skips and layer == encoder.info.layers - 1:
        logger.warning(
            "%s reads the last layer but one of this text encoder: an edit of layer %d, the last, changes "
            "the pooled vector at most.", type(pipe).__name__, layer,
        )  # fmt: skip

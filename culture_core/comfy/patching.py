"""Changing what a layer of a ComfyUI CLIP computes, in a clone of it."""

import logging
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection
from torch import Tensor, nn

from ..encoders import FEATURES
from ..selection import SpecialTokens, TokenSelection, Vocabulary, content_positions, select_positions
from .errors import TextEncoderError
from .places import taken_layer
from .reading import INJECTION_KEY, ComfyTextEncoder, follow_patcher

logger = logging.getLogger(__name__)

FeatureFunction = Callable[[Tensor, Tensor], Tensor]
"""feature [B, S, d], token mask [B, S] bool -> feature [B, S, d].

The mask is on the CPU, so that asking it does not wait for the device. Where the function has a method
`after_encode`, that is called when the encoder has finished."""
FunctionFactory = Callable[[torch.device], FeatureFunction]
"""Builds a feature function whose weights are on the device."""

CONTENT = TokenSelection()


def patch_clip(
    clip: comfy.sd.CLIP,
    layer: int,
    feature: str,
    make_function: FunctionFactory,
    tokens: TokenSelection = CONTENT,
    encoder_key: str | None = None,
) -> comfy.sd.CLIP:
    """A clone of the CLIP in which `feature` of `layer` goes through a function; the CLIP itself stays as it
    is.

    Patches add up, also on one place, in the order in which they were made. Rows without content (an empty
    prompt, the row that ComfyUI encodes for prompt weights) and padding are never changed.

    Raises:
        TextEncoderError: for a layer that is not there or lies above the one that the conditioning is taken
        from. ValueError: for an unknown feature.
    """
    if feature not in FEATURES:
        raise ValueError(f"Unknown feature '{feature}': use one of {', '.join(FEATURES)}.")
    encoder = ComfyTextEncoder(clip, encoder_key)
    _check_layer(encoder, layer, clip.layer_idx)
    patch = LayerPatch(
        encoder.key, layer, encoder.places.feature(layer, feature), make_function, tokens,
        encoder.special, encoder.tracer.vocabulary,
    )  # fmt: skip
    patched = clip.clone()
    follow_patcher(patched)
    # set_injections replaces, so the ones that are there go first.
    earlier = patched.patcher.get_injections(INJECTION_KEY) or []
    injection = PatcherInjection(inject=patch.inject, eject=patch.eject)
    patched.patcher.set_injections(INJECTION_KEY, [*earlier, injection])
    return patched


def _check_layer(encoder: ComfyTextEncoder, layer: int, clip_skip: int | None) -> None:
    taken = taken_layer(encoder.model, clip_skip)
    if 0 <= layer <= taken:
        return
    reason = "it is not there"
    if taken < layer < encoder.info.layers:
        reason = "the conditioning is taken before it, so the picture would not change. Use less clip skip"
    raise TextEncoderError(
        f"Layer {layer} cannot be patched: {reason}. Layers 0 to {taken} of '{encoder.key}' can."
    )


class LayerPatch:
    """One edit of one layer, put in place and taken out by a ModelPatcher.

    It holds no state of its own: several patchers share it, and one that never was loaded may be deleted
    while another's hooks are in use. So the hooks live on the patcher, and modules are looked up anew each
    time, because a patcher may get another copy of the encoder.
    """

    def __init__(
        self,
        encoder_path: str,
        layer: int,
        module_path: str,
        make_function: FunctionFactory,
        tokens: TokenSelection,
        special: SpecialTokens,
        vocabulary: Vocabulary,
    ) -> None:
        self.encoder_path = encoder_path
        self.layer = layer
        self.module_path = module_path
        self.make_function = make_function
        self.tokens = tokens
        self.special = special
        self.vocabulary = vocabulary
        self._attribute = f"_culture_{uuid.uuid4().hex}"

    def inject(self, patcher: ModelPatcher) -> None:
        """Put the hooks in place, once."""
        if getattr(patcher, self._attribute, None) is None:
            encoder = comfy.utils.get_attr(patcher.model, self.encoder_path)
            setattr(patcher, self._attribute, _Installed(self, encoder))

    def eject(self, patcher: ModelPatcher) -> None:
        """Take the hooks out, where this patcher has any."""
        installed = getattr(patcher, self._attribute, None)
        if installed is not None:
            installed.remove()
            setattr(patcher, self._attribute, None)


class _Installed:
    """The live hooks of one patch in one encoder, with the function's weights on its device."""

    def __init__(self, patch: LayerPatch, encoder: comfy.sd1_clip.SDClipModel) -> None:
        self._patch = patch
        self._mask: Tensor | None = None
        self._warned = False
        self._functions: dict[torch.device, FeatureFunction] = {}
        layer = comfy.utils.get_attr(encoder, patch.module_path)
        self._handles = [
            encoder.register_forward_pre_hook(self._read_tokens),
            layer.register_forward_hook(self._edit),
            encoder.register_forward_hook(self._forget_tokens, always_call=True),
        ]

    def remove(self) -> None:
        """Take the hooks out and let go of the copies on the device."""
        for handle in self._handles:
            handle.remove()
        self._functions.clear()

    def _read_tokens(self, encoder: comfy.sd1_clip.SDClipModel, arguments: tuple[Any, ...]) -> None:
        """Before the encoder runs: mark the tokens to edit in each row of ids."""
        patch = self._patch
        if taken_layer(encoder, encoder.layer_idx if encoder.layer == "hidden" else None) < patch.layer:
            logger.warning(
                "Clip skip leaves out layer %d: the culture patch there has no effect.", patch.layer
            )
        width = encoder.transformer.get_input_embeddings().weight.shape[-1]
        rows = [_flat_row(row, width, patch.special.pad) for row in arguments[0]]
        marks = [select_positions(row, patch.special, patch.tokens, patch.vocabulary) for row in rows]
        is_empty = not any(any(content_positions(row, patch.special)) for row in rows)
        if not is_empty and not any(map(any, marks)):
            logger.warning(
                "The prompt has none of the words %s and stays as it is.", ", ".join(patch.tokens.words)
            )
        self._mask = torch.tensor(marks)

    def _forget_tokens(self, *_: object) -> None:
        self._mask = None
        for function in self._functions.values():
            getattr(function, "after_encode", lambda: None)()

    def _edit(
        self, _module: nn.Module, _arguments: tuple[Any, ...], output: Tensor | tuple[Any, ...]
    ) -> Tensor | tuple[Any, ...] | None:
        if self._mask is None:
            self._warn_once()
            return None
        if not self._mask.any():
            return None
        feature = output[0] if isinstance(output, tuple) else output
        if self._mask.shape != feature.shape[:2]:
            raise TextEncoderError(
                f"The encoder made {tuple(feature.shape[:2])} rows and tokens of {tuple(self._mask.shape)} "
                "ids: prompts with pictures or other inserts cannot be amplified."
            )
        edited = self._function(feature.device)(feature, self._mask).to(feature.dtype)
        if edited is feature:
            return None
        edited = torch.where(self._mask.to(feature.device).unsqueeze(-1), edited, feature)
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    def _warn_once(self) -> None:
        """The layer runs outside the encoder, whose tokens are not known then: to generate text, or for a
        node that calls the transformer itself."""
        if not self._warned:
            logger.warning(
                "Something goes round the encoder '%s' and runs its layers itself: the culture patch has no "
                "effect there.", self._patch.encoder_path,
            )  # fmt: skip
        self._warned = True

    def _function(self, device: torch.device) -> FeatureFunction:
        if device not in self._functions:
            self._functions[device] = self._patch.make_function(device)
        return self._functions[device]


def _flat_row(row: Iterable[Any], width: int, pad: int | None) -> list[int | None]:
    """Ids of a row as the encoder will see it: None for each vector of a textual inversion.

    Vectors of another encoder's width are skipped by the encoder, which pads the row at its end instead.
    """
    flat: list[int | None] = []
    skipped = 0
    for token in row:
        if not torch.is_tensor(token):
            flat.append(None if isinstance(token, dict) else int(token))
        elif token.shape[-1] == width:
            flat.extend([None] * (token.numel() // width))
        else:
            skipped += token.numel() // token.shape[-1]
    return flat + [pad] * skipped

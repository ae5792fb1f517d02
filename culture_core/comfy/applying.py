"""What the nodes call: a shared file put to work on a CLIP."""

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from torch import Tensor, nn

from ..amplifier import Amplifier
from ..encoders import HIDDEN_STATE, EncoderInfo
from ..files import CultureSAE, EnhancerFile, FileError, check_encoder
from ..schedule import Stretch
from ..selection import TokenSelection
from .errors import TextEncoderError
from .inputs import expect
from .patching import FeatureFunction, patch_clip
from .places import ALL, choose_encoders, encoders_of
from .reading import ComfyTextEncoder

logger = logging.getLogger(__name__)


def amplify_clip(
    clip: comfy.sd.CLIP,
    culture_sae: CultureSAE,
    culture: str | None,
    strength: float,
    mode: str,
    tokens: TokenSelection,
    encoders: str = "",
) -> comfy.sd.CLIP:
    """A clone of the CLIP that amplifies a culture's neurons; at strength 0 an untouched clone.

    Args:
        culture: its code; None: an untouched clone.
        encoders: in which of the CLIP's encoders: empty for the one that the file was made for, otherwise as
            in `choose_encoders`.

    Raises:
        FileError: where the file is for another encoder or has no neurons for the culture.
        TextEncoderError: for an encoder that the CLIP does not have.
        ValueError: for a strength or a mode that is out of range.
    """
    if culture is None:
        return clip.clone()
    neurons = expect(culture_sae, CultureSAE, "Load Culture SAE").neurons(culture)
    matching = matching_encoders(clip, culture_sae, encoders)
    Amplifier(culture_sae.sae, neurons, strength, mode)  # raises now, not in the middle of a later encode
    if strength == 0:
        return clip.clone()

    def make(_device: torch.device) -> FeatureFunction:
        # It copies the SAE to the device of the feature by itself, and the copy goes with it.
        return _LoggingAmplifier(culture, Amplifier(culture_sae.sae, neurons, strength, mode))

    for encoder in matching:
        clip = patch_clip(clip, culture_sae.layer, culture_sae.feature, make, tokens, encoder.key)
    return clip


class _LoggingAmplifier:
    """An amplifier that says what it did once the encoder has finished: within, the question would wait for
    the device."""

    def __init__(self, culture: str, amplifier: Amplifier) -> None:
        self._culture, self._amplifier, self._ran = culture, amplifier, False

    def __call__(self, feature: Tensor, token_mask: Tensor) -> Tensor:
        self._ran = True
        return self._amplifier(feature, token_mask)

    def after_encode(self) -> None:
        if self._ran:
            touched = self._amplifier.touched
            logger.info(
                "Culture '%s': %d of %d neurons changed, on %d of %d tokens.", self._culture,
                touched.neurons, touched.neurons_offered, touched.tokens, touched.tokens_offered,
            )  # fmt: skip
        self._ran = False


def scheduled_conditioning(
    clip: comfy.sd.CLIP,
    culture_sae: CultureSAE,
    culture: str | None,
    text: str,
    stretches: Sequence[Stretch],
    mode: str,
    tokens: TokenSelection,
    encoders: str = "",
) -> list[Any]:
    """Conditioning of a prompt whose amplification changes over the sampling run: one entry a stretch, each
    with the range of the run in which ComfyUI uses it.

    Raises:
        As `amplify_clip`.
    """
    conditioning, encoded = [], {}
    for start, end, strength in stretches:
        if strength not in encoded:
            amplified = amplify_clip(clip, culture_sae, culture, strength, mode, tokens, encoders)
            encoded[strength] = amplified.encode_from_tokens_scheduled(amplified.tokenize(text))
        for hidden, options in encoded[strength]:
            conditioning.append([hidden, {**options, "start_percent": start, "end_percent": end}])
    return conditioning


def enhance_clip(
    clip: comfy.sd.CLIP, enhancer: EnhancerFile, strength: float, encoders: str = ""
) -> comfy.sd.CLIP:
    """A clone of the CLIP whose key layer goes through the enhancer; at strength 0 an untouched clone.

    Args:
        encoders: as in `amplify_clip`.

    Raises:
        FileError: where the file is for another encoder.
        TextEncoderError: for an encoder that the CLIP does not have.
    """
    matching = matching_encoders(clip, expect(enhancer, EnhancerFile, "Load Layer Enhancer"), encoders)
    if strength == 0:
        return clip.clone()

    def make(device: torch.device) -> FeatureFunction:
        module = _on_device(enhancer.enhancer, device)
        return lambda feature, token_mask: module(feature, strength, token_mask)

    # Eq. 10 acts on the whole hidden state: the image model reads the begin and end tokens as well.
    for encoder in matching:
        clip = patch_clip(clip, enhancer.layer, HIDDEN_STATE, make, TokenSelection("all"), encoder.key)
    return clip


def matching_encoders(
    clip: comfy.sd.CLIP, file: CultureSAE | EnhancerFile, choice: str = ""
) -> list[ComfyTextEncoder]:
    """The encoders inside a CLIP that a file is to be used in.

    Args:
        choice: empty for the one that the file was made for; `all` for every one of its shape; or names.

    Raises:
        FileError: where one of them has another shape than the file's.
        TextEncoderError: for a name that the CLIP does not have.
    """
    if not choice.strip():
        return [matching_encoder(clip, file)]
    found = [ComfyTextEncoder(clip, key) for key in choose_encoders(clip, choice)]
    if choice.strip() == ALL:
        found = [encoder for encoder in found if _has_shape(encoder.info, file.encoder)]
        found = found or [matching_encoder(clip, file)]
    for encoder in found:
        check_encoder(file.encoder, encoder.fingerprint(), file.path)
    return found


def matching_encoder(clip: comfy.sd.CLIP, file: CultureSAE | EnhancerFile) -> ComfyTextEncoder:
    """The encoder inside a CLIP that a file was made for.

    Raises:
        FileError: where the CLIP has none of the right shape. Other weights of that shape are only warned
            about.
    """
    encoders = [encoder for key in encoders_of(clip) if (encoder := _readable_encoder(clip, key))]
    fitting = [encoder for encoder in encoders if _has_shape(encoder.info, file.encoder)]
    named = [encoder for encoder in fitting if encoder.key in (file.encoder_key, f"clip_{file.encoder_key}")]
    chosen = next(iter(named or fitting or encoders), None)
    if chosen is None:
        raise FileError(
            f"{file.path}: this CLIP has no text encoder that the pack can look into; load another one"
        )
    check_encoder(file.encoder, chosen.fingerprint(), file.path)
    return chosen


def _readable_encoder(clip: comfy.sd.CLIP, key: str) -> ComfyTextEncoder | None:
    try:
        return ComfyTextEncoder(clip, key)
    except TextEncoderError as error:
        logger.info("%s", error)
        return None


def _has_shape(info: EncoderInfo, fingerprint: dict[str, Any]) -> bool:
    names = ("family", "layers", "width", "heads", "vocabulary")
    return all(fingerprint.get(name) == getattr(info, name) for name in names)


def _on_device(module: nn.Module, device: torch.device) -> nn.Module:
    """The module itself where it already is there; otherwise a copy, which goes with the hook that uses
    it."""
    if next(module.parameters()).device == device:
        return module
    return copy.deepcopy(module).to(device)


def progress_report() -> Callable[[int, int], None]:
    """A callback (done, total) that moves ComfyUI's progress bar and stops with its exception on cancel."""
    bar = comfy.utils.ProgressBar(1)

    def report(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return report

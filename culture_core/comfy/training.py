"""What the nodes that train call: a culture SAE from a CLIP, and the neurons of its cultures."""

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from PIL import Image
from torch import Tensor

from .. import neuron_figures
from ..detection import DetectOptions, detect_in
from ..features import content_features
from ..files import CultureSAE
from ..neuron_pictures import curves_picture, ranking_picture
from ..pairs import PromptPair
from ..reports import loss_picture, training_figures, training_summary, training_texts
from ..sae import SAEConfig, SAEReport, TopKSAE, train_sae
from ..splits import SAE_TRAINING, left_out
from .applying import matching_encoder, progress_report
from .errors import TextEncoderError
from .inputs import expect, expect_all
from .pictures import image_tensor
from .places import choose_encoders, taken_layer
from .reading import ComfyTextEncoder
from .saving import checkpoint_path
from .texts import for_preview

logger = logging.getLogger(__name__)

NO_CONTRAST = "none"
CONTRASTS = (*neuron_figures.CONTRASTS, NO_CONTRAST)
_PREVIEW_SECONDS, _BAR_SECONDS = 1.0, 0.1
_PREVIEW_SHARE = 0.05
"""Of the time, at most, goes into drawing live pictures."""


class TrainedSAE(NamedTuple):
    """What a training gives."""

    culture_sae: CultureSAE
    """It has no cultures yet."""
    picture: Tensor
    """Loss of every step [1, height, width, 3], as ComfyUI passes pictures on."""
    report: str


class DetectedNeurons(NamedTuple):
    """What a detection gives."""

    culture_sae: CultureSAE
    picture: Tensor
    """WFS of the chosen neurons [1, height, width, 3], as ComfyUI passes pictures on."""
    report: str


def train_sae_on_clip(
    clip: comfy.sd.CLIP,
    pairs: Sequence[PromptPair],
    extra_text: str,
    layer: int,
    feature: str,
    config: SAEConfig,
    checkpoint: str = "",
    encoder_choice: str = "",
) -> TrainedSAE:
    """Train an SAE on a feature of a CLIP's text encoder, at all content tokens of the prompts.

    Patches of this pack that are on the CLIP do not count. A run that is interrupted goes on from its
    checkpoint when it is started again with the same settings; one that ends well removes it.

    Args:
        pairs: both prompts of each are used, where its split may be trained on.
        extra_text: more prompts, one a line.
        checkpoint: plain name of the checkpoint in the output folder; empty for none.
        encoder_choice: which encoder, see `choose_encoders`.

    Raises:
        TextEncoderError: for an encoder that the CLIP does not have, for several, or for a layer that the
            conditioning does not depend on.
        ValueError: for a checkpoint's name that is no plain name, one that belongs to another run, pairs of
            which none may be trained on, or prompts without words.
    """
    path = checkpoint_path(checkpoint)
    expect_all(pairs, PromptPair, "Load Prompt Pairs")
    encoder = _one_encoder(clip, encoder_choice)
    _check_layer(encoder, layer)
    texts = training_texts(pairs, extra_text.splitlines())
    if not texts:
        raise ValueError("There are no prompts to train on: connect prompt pairs, or write extra text.")
    progress = TrainingProgress(len(texts), config.steps)
    features, prompts = content_features(encoder, texts, layer, feature, progress.prompts_read)
    if len(features) < 2:
        raise ValueError("The prompts hold too few words to train on: add prompt pairs or extra text.")
    sae, report = _train(features, prompts, config, path, progress)
    culture_sae = CultureSAE(
        sae, layer, feature, encoder.fingerprint(), encoder_key=encoder.key,
        training=training_figures(report, config),
    )  # fmt: skip
    picture = image_tensor([loss_picture(report.losses)])
    text = _training_report(culture_sae, report, len(texts), progress.start, left_out(pairs, SAE_TRAINING))
    return TrainedSAE(culture_sae, picture, text)


def _train(
    features: Tensor,
    prompts: Tensor,
    config: SAEConfig,
    checkpoint: Path | None,
    progress: "TrainingProgress",
) -> tuple[TopKSAE, SAEReport]:
    """Train where ComfyUI computes; the SAE comes back in the main memory, ready for use."""
    device = comfy.model_management.get_torch_device()
    comfy.model_management.free_memory(_memory_needed(features, config), device)
    try:
        sae, report = train_sae(features, config, prompts, progress.step_done, checkpoint, device)
    except comfy.model_management.InterruptProcessingException:
        kept = "lost: the checkpoint has no name"
        if checkpoint is not None:
            kept = f"kept in {checkpoint}: run again with the same settings to go on"
        logger.info("The training was interrupted after step %d. What it learnt is %s.", progress.done, kept)
        raise
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    with torch.inference_mode(False):
        sae = sae.cpu().requires_grad_(False)
    comfy.model_management.soft_empty_cache()
    return sae, report


def detect_neurons_in_clip(
    clip: comfy.sd.CLIP,
    culture_sae: CultureSAE,
    pairs: Sequence[PromptPair],
    contrast: str = "mean",
    count: int = 0,
    tau: float = 0.5,
    by_effect: bool = False,
) -> DetectedNeurons:
    """Find the neurons of the pairs' cultures; the SAE that comes in stays as it is.

    Cultures that the SAE has and the pairs lack are kept.

    Args:
        contrast: what a latent's WFS is compared with, the "mean" or the "maximum" of the other cultures', or
            "none", the paper's ranking.
        count: neurons a culture; 0: up to the elbow of the ranking.
        tau: latents with a neutral WFS from tau times the cultural one on belong to the noun and are dropped.
        by_effect: choose number and contrast by what amplifying does to pairs that are kept from the
            detection; `count` and `contrast` then do not count.

    Raises:
        FileError: where the SAE belongs to another encoder.
        ValueError: for prompts that activate none of the latents, or too few to keep some.
    """
    options = DetectOptions(
        count=count or None,
        contrast=CONTRASTS[0] if contrast == NO_CONTRAST else contrast,
        score="wfs" if contrast == NO_CONTRAST else None,
        tau=tau,
        by_effect=by_effect,
    )
    expect_all(pairs, PromptPair, "Load Prompt Pairs")
    encoder = matching_encoder(clip, expect(culture_sae, CultureSAE, "Load Culture SAE"))
    found = detect_in(culture_sae, encoder, pairs, options, progress_report())
    picture = _wfs_picture(found.culture_sae, found.detected)
    return DetectedNeurons(found.culture_sae, image_tensor([picture]), for_preview(found.report))


class TrainingProgress:
    """Moves ComfyUI's progress bar over reading and training, draws the live picture, and stops on cancel."""

    def __init__(self, prompts: int, steps: int, title: str = "SAE training") -> None:
        self._prompts, self._total, self._title = prompts, prompts + steps, title
        self._bar = comfy.utils.ProgressBar(self._total)
        self._next_bar = self._next_picture = 0.0
        self._losses: list[float] = []
        self.start = 0
        """Steps that a checkpoint had done before."""
        self.done = 0

    def prompts_read(self, done: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(done)

    def step_done(self, done: int, steps: int, loss: float) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if not self._losses:
            self.start = done - 1
        self._losses.append(loss)
        self.done = done
        now = time.monotonic()
        if now < self._next_bar and done < steps:
            return
        # A message a step would be more than the browser can show.
        self._next_bar = now + _BAR_SECONDS
        preview = None
        if now >= self._next_picture and len(self._losses) > 1:
            preview = ("PNG", loss_picture(self._losses, self.start, self._title), None)
            drawn = time.monotonic()
            self._next_picture = drawn + max(_PREVIEW_SECONDS, (drawn - now) / _PREVIEW_SHARE)
        self._bar.update_absolute(self._prompts + done, preview=preview)


def _one_encoder(clip: comfy.sd.CLIP, choice: str) -> ComfyTextEncoder:
    keys = choose_encoders(clip, choice)
    if len(keys) > 1:
        raise TextEncoderError(f"An SAE is of one encoder: name one of {', '.join(keys)}.")
    return ComfyTextEncoder(clip, keys[0])


def _check_layer(encoder: ComfyTextEncoder, layer: int) -> None:
    highest = taken_layer(encoder.model, encoder.clip.layer_idx)
    if not 0 <= layer <= highest:
        raise TextEncoderError(
            f"Layer {layer} cannot be used: the conditioning comes from layers 0 to {highest} of "
            f"'{encoder.key}'. Probe Layer names a good one."
        )


def _memory_needed(features: Tensor, config: SAEConfig) -> int:
    """Bytes: the vectors twice, weights, gradients and AdamW's two moments, and a batch of activations."""
    width = features.shape[1]
    batch = 4 * config.batch_size * config.n_latents
    return 4 * (2 * features.numel() + 4 * 2 * width * config.n_latents + batch)


def _training_report(
    culture_sae: CultureSAE, report: SAEReport, prompts: int, start: int, refused: str
) -> str:
    sae = culture_sae.sae
    lines = [
        f"SAE of layer {culture_sae.layer}, {culture_sae.feature}, of '{culture_sae.encoder_key}'",
        f"{sae.n_latents} latents, {sae.k} active at once; {len(report.losses)} steps on {prompts} prompts"
        + (f", of which steps 1 to {start} come from the checkpoint" if start else ""),
        *training_summary(culture_sae.training, report.warnings),
        *filter(None, [refused]),
    ]
    return for_preview("\n".join(lines))


def _wfs_picture(culture_sae: CultureSAE, codes: Iterable[str]) -> Image.Image:
    """WFS of the cultures that were detected: a panel each, or all about the only one."""
    found = {code: culture_sae.selection[code] for code in codes}
    if len(found) == 1:
        code = next(iter(found))
        return ranking_picture(code, culture_sae.cultures[code], found[code])
    return curves_picture(culture_sae.cultures, found)

"""The run itself: an enhancer in a pipeline's text encoder, trained through all that comes after it."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ..checkpoints import Progress
from ..encoders import HIDDEN_STATE, HFTextEncoder
from ..enhancer import Apply, EnhancerConfig, EnhancerReport, LayerEnhancer, train_enhancer
from ..fingerprint import fingerprint_values
from ..pipelines import ATTENDED, edited
from .image_model import Condition, ImageModel
from .image_pairs import ImagePairs
from .losses import ImageLoss

if TYPE_CHECKING:
    from accelerate import Accelerator


class Place(NamedTuple):
    """Where the enhancer acts."""

    encoder: HFTextEncoder
    """One of the pipeline's text encoders."""
    layer: int
    """Index of the layer, from 0."""


def train_on_pictures(
    enhancer: LayerEnhancer,
    model: ImageModel,
    place: Place,
    pairs: ImagePairs,
    loss: str,
    config: EnhancerConfig,
    batch_size: int = 1,
    checkpointing: bool = False,
    progress: Progress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    accelerator: "Accelerator | None" = None,
) -> EnhancerReport:
    """Train an enhancer in place (eq. 11 to 13); every model of the pipeline stays as it is, bit for bit.

    Args:
        enhancer: on the model's device, in float32.
        loss: `pixel`, `latent` or `denoise`, see `ImageLoss`.
        checkpointing: compute activations again instead of keeping them: less memory, a third more time.
        progress, checkpoint, accelerator: as in `train_enhancer`. A checkpoint is refused where the pictures,
            prompts, loss, models or place are others.

    Raises:
        ValueError: for an unknown loss, a loss that is not finite, or a foreign checkpoint.
    """
    image_loss = ImageLoss(model, pairs, loss)
    data = _identity(model, place, pairs, loss, batch_size)
    with model.prepared(checkpointing):
        return train_enhancer(
            enhancer, pairs.batches(batch_size, config.seed), image_loss, config, progress, checkpoint,
            _through_pipeline(model, place), data, accelerator,
        )  # fmt: skip


def in_place(enhancer: LayerEnhancer, place: Place) -> AbstractContextManager[None]:
    """Within the context the enhancer acts as in `culture_core.pipelines.enhanced`, and gradients flow."""

    def enhance(hidden: Tensor, token_mask: Tensor) -> Tensor:
        return enhancer(hidden, token_mask=token_mask)

    return edited(place.encoder, place.layer, HIDDEN_STATE, enhance, ATTENDED)


def _through_pipeline(model: ImageModel, place: Place) -> Apply:
    def apply(enhancer: LayerEnhancer, prompts: Sequence[str], _mask: Tensor | None) -> Condition:
        with in_place(enhancer, place):
            return model.condition(prompts)

    return apply


def _identity(model: ImageModel, place: Place, pairs: ImagePairs, loss: str, batch_size: int) -> str:
    """SHA-256 of all that decides how a step goes, the configuration aside."""
    weights = [parameter for _, parameter in zip(range(4), model.model.parameters(), strict=False)]
    parts = {
        "pictures": pairs.digest(), "loss": loss, "layer": place.layer, "batch_size": batch_size,
        "encoder": place.encoder.fingerprint(), "model": [model.kind, fingerprint_values(weights)],
        "precision": str(model.model.dtype), "prediction": model.schedule.kind,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

"""Training of a layer enhancer with a diffusers pipeline: neutral prompt in, picture of a culture as aim."""

from .image_model import PRECISIONS, ImageModel, load_pipeline
from .image_pairs import ImagePairs, load_image_pairs
from .losses import LOSSES, ImageLoss
from .run import Place, train_on_pictures
from .step_cost import StepCost, measure_step
from .validation import Validation

__all__ = [
    "LOSSES",
    "PRECISIONS",
    "ImageLoss",
    "ImageModel",
    "ImagePairs",
    "Place",
    "StepCost",
    "Validation",
    "load_image_pairs",
    "load_pipeline",
    "measure_step",
    "train_on_pictures",
]

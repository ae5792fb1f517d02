"""Networks of random weights, saved as their sites have them."""

from pathlib import Path

import torch
import torchvision
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


def save_alexnet(path: Path, seed: int = 0) -> Path:
    """Its convolutions; LPIPS needs no more."""
    torch.manual_seed(seed)
    state = torchvision.models.alexnet(weights=None).state_dict()
    torch.save({name: values for name, values in state.items() if name.startswith("features")}, path)
    return path


def save_inception(path: Path) -> Path:
    class Blank(FeatureExtractorInceptionV3):
        """It keeps the weights that it was made with."""

        def load_state_dict(self, state):
            pass

    path.parent.mkdir(exist_ok=True)
    torch.save({}, path)
    torch.manual_seed(0)
    torch.save(Blank("x", ["2048"], str(path)).state_dict(), path)
    return path

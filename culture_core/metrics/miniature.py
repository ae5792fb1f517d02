"""The miniature's CNN as an instrument: always there, and for the miniature's drawings only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..miniature.judge import load_judge
from ..miniature.logs import MODELS
from ..reproduce.measures import perceptual_distance
from .base import pixels

_EDGE = 64


class MiniatureFeatures:
    """Its last feature maps as an embedding, and the study's perceptual distance."""

    name = "miniature"

    def __init__(self, path: Path = MODELS / "judge" / "miniature_judge.safetensors") -> None:
        self._judge = load_judge(path)

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        return self._judge.body(_shown(images) - 0.5).flatten(1)

    def distance(self, first: Sequence[Image.Image], second: Sequence[Image.Image]) -> list[float]:
        return perceptual_distance(self._judge, _shown(first), _shown(second)).tolist()

    def settings(self) -> dict[str, Any]:
        return {"metric": self.name}


def _shown(images: Sequence[Image.Image]) -> Tensor:
    """[N, 3, 64, 64] in 0 to 1."""
    return torch.stack([pixels(image, (_EDGE, _EDGE), Image.Resampling.BOX) for image in images]) / 255

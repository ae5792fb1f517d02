"""Tiny image models and pictures for them."""

from pathlib import Path

import pytest
import torch

from culture_core.enhancer_training import ImageModel, ImagePairs, Place, load_image_pairs
from culture_core.pipelines import named_encoder

from .. import tiny_pipelines
from ..pictures import write_pairs


class Study:
    """All that a training takes, of one kind of pipeline."""

    def __init__(self, kind: str, folder: Path, encoder: str = "text_encoder") -> None:
        self.model = ImageModel(tiny_pipelines.make(kind))
        self.place = Place(named_encoder(self.model.pipe, encoder), 1)
        self.pairs = ImagePairs(
            load_image_pairs(write_pairs(folder)).training, folder, self.model, tiny_pipelines.SIZE
        )
        torch.manual_seed(0)

    @property
    def all(self) -> tuple:
        return self.model, self.place, self.pairs


@pytest.fixture
def study(tmp_path: Path):
    """Makes a study of a kind."""
    return lambda kind, encoder="text_encoder": Study(kind, tmp_path, encoder)

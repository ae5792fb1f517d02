"""The miniature's CNN as an instrument."""

import numpy as np
import pytest
import torch
from PIL import Image

from culture_core.metrics.miniature import MiniatureFeatures
from culture_core.miniature.scenes import draw_scene
from culture_core.reproduce.measures import perceptual_distance


def test_it_gives_the_studys_own_distance_and_features():
    drawn = [draw_scene("house", code, np.random.default_rng(0)) for code in ("th", "ja")]
    images = [Image.fromarray(array) for array in drawn]
    cnn = MiniatureFeatures()
    first, second = (torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255 for array in drawn)
    expected = perceptual_distance(cnn._judge, first, second).item()
    assert cnn.distance(images[:1], images[1:]) == pytest.approx([expected], rel=1e-5) and expected > 0
    with torch.no_grad():
        assert torch.allclose(cnn.embed(images[:1]), cnn._judge.body(first - 0.5).flatten(1))


def test_pictures_of_another_size_are_scaled():
    small = Image.fromarray(draw_scene("house", "th", np.random.default_rng(0)))
    large = small.resize((128, 128), Image.Resampling.NEAREST)
    assert MiniatureFeatures().distance([small], [large]) == pytest.approx([0], abs=1e-6)

"""Diversity against values that can be known, and against a literal version."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from culture_core.metrics import MetricError
from culture_core.metrics.diversity import diversity, group_diversity, mean_diversity, vendi_score
from culture_core.metrics.miniature import MiniatureFeatures
from culture_core.miniature.scenes import draw_scene


def literal_vendi(vectors: list[list[float]]) -> float:
    """The Vendi score by its matrix entropy: -tr(K/n · log(K/n)), the logarithm from numpy's eigh."""
    unit = [[a / math.sqrt(sum(b * b for b in x)) for a in x] for x in vectors]
    kernel = np.array([[sum(a * b for a, b in zip(x, y, strict=True)) for y in unit] for x in unit])
    kernel /= len(vectors)
    values, basis = np.linalg.eigh(kernel)
    logarithm = basis @ np.diag(np.log(np.clip(values, 1e-300, None))) @ basis.T
    return math.exp(-np.trace(kernel @ logarithm))


def test_vendi_is_one_for_copies_and_the_count_for_what_has_nothing_in_common():
    assert vendi_score(torch.tensor([[1.0, 2.0]]).repeat(5, 1)) == pytest.approx(1)
    assert vendi_score(torch.eye(4) * torch.tensor([1.0, 2, 3, 4])) == pytest.approx(4)
    assert vendi_score(torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])) == pytest.approx(2)


def test_vendi_equals_its_literal_version():
    vectors = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    assert vendi_score(vectors) == pytest.approx(literal_vendi(vectors.tolist()), rel=1e-6)


def pictures(noun: str, seeds: list[int]) -> list[Image.Image]:
    return [Image.fromarray(draw_scene(noun, "th", np.random.default_rng(seed))) for seed in seeds]


def test_groups_of_pictures_are_measured_each_and_single_ones_left_out():
    cnn = MiniatureFeatures()
    groups = {
        "same": pictures("house", [1, 1]),
        "other": pictures("house", [1, 2, 3]),
        "one": pictures("house", [1]),
    }
    found = diversity(groups, cnn, cnn, {"other": [1.0, 0.5, 0.0]})
    assert list(found) == ["same", "other"]
    assert found["same"].vendi == pytest.approx(1) and found["same"].spread == pytest.approx(0, abs=1e-9)
    images = groups["other"]
    pairs = [cnn.distance([images[a]], [images[b]])[0] for a, b in ((0, 1), (0, 2), (1, 2))]
    assert found["other"].spread == pytest.approx(sum(pairs) / 3, rel=1e-5) and found["other"].spread > 0
    assert found["other"].vendi == pytest.approx(literal_vendi(cnn.embed(images).tolist()), rel=1e-4)
    assert found["other"].quality_vendi == pytest.approx(found["other"].vendi / 2)
    assert found["same"].quality_vendi is None
    with pytest.raises(MetricError, match="no group has two pictures"):
        diversity({"one": groups["one"]}, cnn)


def test_the_mean_counts_every_group_alike_and_has_no_figure_that_one_lacks():
    first = group_diversity(torch.eye(2), [0.5], [1.0, 1.0])
    second = group_diversity(torch.eye(4), [0.1] * 6, None)
    assert mean_diversity([first, second]) == {
        "groups": 2, "pictures": 3, "spread": pytest.approx(0.3), "vendi": pytest.approx(3),
        "quality_vendi": None,
    }  # fmt: skip

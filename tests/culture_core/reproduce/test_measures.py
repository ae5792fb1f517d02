"""Distances and diversity, on the shipped judge."""

import pytest
import torch

from culture_core.miniature.judge import load_judge
from culture_core.miniature.logs import MODELS
from culture_core.miniature.scenes import draw_scenes
from culture_core.reproduce.measures import diversity, perceptual_distance

JUDGE = load_judge(MODELS / "judge" / "miniature_judge.safetensors")


def pictures(*specs: tuple[str, str | None]) -> torch.Tensor:
    return torch.from_numpy(draw_scenes(list(specs), 5)).permute(0, 3, 1, 2).float() / 255


def test_the_distance_is_lpips_form_on_the_judges_features() -> None:
    a, b = pictures(("house", "th"), ("fish", None)), pictures(("tree", "ja"), ("fish", "ko"))
    found = perceptual_distance(JUDGE, a, b)
    for row in range(2):
        x, y, total = (a[row : row + 1] - 0.5).double(), (b[row : row + 1] - 0.5).double(), 0.0
        for block in JUDGE.body.double():
            x, y = block(x), block(y)
            for i in range(x.shape[2]):
                for j in range(x.shape[3]):
                    u, v = x[0, :, i, j], y[0, :, i, j]
                    u, v = u / u.norm().clamp(min=1e-12), v / v.norm().clamp(min=1e-12)
                    total += float((u - v).square().sum()) / (x.shape[2] * x.shape[3])
        JUDGE.body.float()
        assert float(found[row]) == pytest.approx(total / len(JUDGE.body), rel=1e-4)


def test_equal_pictures_are_at_no_distance_and_another_culture_is_farther_than_another_place() -> None:
    same, moved, other = pictures(("house", "th"), ("house", "th"), ("house", "ja"))
    distance = perceptual_distance(JUDGE, torch.stack([same] * 3), torch.stack([same, moved, other]))
    assert distance[0] == 0 < distance[1] < distance[2]


def test_diversity_is_the_mean_over_the_pairs_of_a_group() -> None:
    drawn = pictures(*[("house", "th")] * 3, *[("fish", "ja")] * 2)
    found = diversity(JUDGE, drawn, ["a", "a", "a", "b", "b"])
    pairs = [(0, 1), (0, 2), (1, 2)]
    distances = [perceptual_distance(JUDGE, drawn[i : i + 1], drawn[j : j + 1]).item() for i, j in pairs]
    assert found["a"] == pytest.approx(sum(distances) / 3)
    assert found["b"] == pytest.approx(perceptual_distance(JUDGE, drawn[3:4], drawn[4:5]).item())

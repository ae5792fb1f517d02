"""FID and KID by torchmetrics against literal versions of their equations."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from torchmetrics.image.fid import NoTrainInceptionV3

from culture_core.metrics import MetricError
from culture_core.metrics.sets import INCEPTION, Inception, frechet, kernel

from .networks import save_inception

GENERATOR = torch.Generator().manual_seed(0)
FIRST = torch.randn(40, 5, generator=GENERATOR)
SECOND = 0.7 * torch.randn(30, 5, generator=GENERATOR) + torch.tensor([1.0, 0, 0, 0.5, 0])


def literal_kid(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD under the cubic kernel, sum by sum."""

    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    same = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    other = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return same + other - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def literal_fid(x: np.ndarray, y: np.ndarray) -> float:
    """With the root of Σ₁ Σ₂ by way of the symmetric Σ₁^½ Σ₂ Σ₁^½, which has the same trace."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(a).real
    middle = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b @ root), 0, None)).sum()
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * middle


@pytest.mark.parametrize("width", [5, 200])
def test_fid_is_the_distance_of_two_gaussians(width):
    spread = torch.randn(5, width, generator=GENERATOR) if width > 5 else torch.eye(5)
    x, y = FIRST @ spread, SECOND @ spread
    found = frechet(x, y)
    expected = literal_fid(x.double().numpy(), y.double().numpy())
    assert found.value == pytest.approx(expected, rel=1e-4) and found.interval is None
    assert found.pictures == (40, 30) and "fewer than 2048" in found.warning
    assert frechet(FIRST, FIRST).value == pytest.approx(0, abs=1e-6)


def test_kid_is_the_mean_of_the_unbiased_mmd_of_subsets_of_half():
    found = kernel(FIRST, SECOND, subsets=10, seed=4)
    torch.manual_seed(4)
    scores = []
    for _ in range(10):
        rows, others = torch.randperm(40)[:15], torch.randperm(30)[:15]
        scores.append(literal_kid(FIRST[rows].double().numpy(), SECOND[others].double().numpy()))
    mean, deviation = np.mean(scores), np.std(scores)
    assert found.value == pytest.approx(mean, rel=1e-6)
    # 15 of 30: the factor √(m / (n - m)) is 1.
    assert found.interval == pytest.approx((mean - 1.96 * deviation, mean + 1.96 * deviation), rel=1e-6)
    assert "fewer than 100" in found.warning


def test_kid_leaves_the_random_numbers_of_others_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    kernel(FIRST, SECOND)
    assert torch.equal(torch.rand(1), expected)


def test_the_interval_of_kid_covers_the_truth_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    # Far apart, so that the statistic is close to normal; the truth from many pictures.
    draw = lambda n, shift: torch.randn(n, 2, generator=generator) + shift  # noqa: E731
    truth = kernel(draw(4000, 0.0), draw(4000, 1.5), subsets=40).value
    inside = 0
    for _ in range(60):
        low, high = kernel(draw(60, 0.0), draw(60, 1.5), subsets=40).interval
        inside += low <= truth <= high
    assert 0.8 <= inside / 60 <= 1.0 and not math.isnan(truth)


def test_enough_pictures_are_no_reason_to_warn():
    many = torch.randn(2048, 2, generator=GENERATOR)
    assert frechet(many, many + 1).warning is None and kernel(many, many + 1, subsets=2).warning is None


def test_too_few_pictures_are_refused():
    with pytest.raises(MetricError, match="1 and 30 pictures are too few.*2 a side"):
        frechet(FIRST[:1], SECOND)
    with pytest.raises(MetricError, match="3 and 30 pictures are too few.*4 a side"):
        kernel(FIRST[:3], SECOND)


def test_missing_weights_are_named_with_their_address_and_place(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(MetricError) as error:
        Inception(tmp_path / "weights")
    places = (str(tmp_path / "weights"), str(tmp_path / "torch" / "hub" / "checkpoints"))
    assert all(part in str(error.value) for part in (INCEPTION, "github.com/toshas/torch-fidelity", *places))


def test_weights_that_are_no_tensors_or_of_another_network_are_refused(tmp_path):
    (tmp_path / INCEPTION).write_bytes(b"no weights")
    with pytest.raises(MetricError, match="cannot be read as weights"):
        Inception(tmp_path)
    torch.save({"a": tmp_path}, tmp_path / INCEPTION)
    with pytest.raises(MetricError, match="cannot be read as weights"):
        Inception(tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / INCEPTION)
    with pytest.raises(MetricError, match="of another network"):
        Inception(tmp_path)


def test_inception_gives_the_features_of_its_weights(tmp_path):
    save_inception(tmp_path / INCEPTION)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    found = Inception(tmp_path).embed([picture])
    net = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(tmp_path / INCEPTION))
    with torch.no_grad():
        expected = net(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])
    assert found.shape == (1, 2048) and torch.allclose(found, expected.float()) and found.std() > 0

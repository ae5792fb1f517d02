"""FID and KID: how far one set of pictures is from another, over features of an `Embedder`.

The usual features are Inception's (`Inception`, the weights of the original code, by torch-fidelity), the
usual code torchmetrics'. Both figures can be taken over other features too, and are then other figures.
"""

import hashlib
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from .base import MetricError, optional, pixels, placed, read_weights, weights_file

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
FEATURES = 2048
FEW_FID, FEW_KID = 2048, 100
"""Below so many pictures a side the figure means little: FID's covariance has as many rows, and its bias
falls with the count; KID has no bias, but a wide interval."""
SUBSETS, SUBSET = 100, 1000


class Figures(NamedTuple):
    """A distance of two sets."""

    value: float
    interval: tuple[float, float] | None
    """95 %, where it can be told."""
    pictures: tuple[int, int]
    warning: str | None
    """Why the figure should not be trusted."""

    def to_json(self) -> dict[str, Any]:
        return {**self._asdict(), "interval": self.interval and list(self.interval),
                "pictures": list(self.pictures)}  # fmt: skip


class Inception:
    """Features of the InceptionV3 that FID was defined with, [N, 2048]."""

    name = "inception"

    def __init__(self, weights: Path | None = None, device: str = "cpu") -> None:
        """
        Args:
            weights: folder with the network's weights, searched before torch's own.

        Raises:
            MetricError: where the weights or the libraries are missing.
        """
        optional("torch_fidelity")
        fid = optional("torchmetrics.image.fid")
        file = weights_file(weights, INCEPTION, "FID and KID", URL + INCEPTION)
        read_weights(file)  # torch-fidelity would run what a pickle in it says
        try:
            net = fid.NoTrainInceptionV3(
                name="inception-v3-compat", features_list=[str(FEATURES)],
                feature_extractor_weights_path=str(file),
            )  # fmt: skip
        except RuntimeError as error:
            raise MetricError(f"{file} is of another network: {error}") from error
        self._net, self._device = placed(net, device), device
        self._sha256 = hashlib.sha256(file.read_bytes()).hexdigest()

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        # One by one: the network scales every size to its own 299 pixels.
        shown = [pixels(image, image.size, Image.Resampling.BICUBIC)[None] for image in images]
        return torch.cat([self._net(one.to(self._device)).float().cpu() for one in shown])

    def settings(self) -> dict[str, Any]:
        return {"metric": self.name, "weights": self._sha256}


def frechet(first: Tensor, second: Tensor) -> Figures:
    """FID of features [N, d] and [M, d]: `|μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½)`.

    Raises:
        MetricError: for fewer than two pictures a side.
    """
    counts = _counts(first, second, 2)
    both = torch.cat([first, second]).double()
    if len(both) < both.shape[1]:
        # In the directions in which they differ the figure is the same, and much faster had.
        both = both @ torch.linalg.svd(both - both.mean(0), full_matrices=False).Vh.mT
    metric = optional("torchmetrics.image.fid").FrechetInceptionDistance(feature=_Given(both.shape[1]))
    metric.update(both[: len(first)], real=True)
    metric.update(both[len(first) :], real=False)
    few = min(counts) < FEW_FID
    return Figures(
        max(float(metric.compute()), 0.0), None, counts,
        f"FID of fewer than {FEW_FID} pictures a side is biased upwards and says little; prefer KID"
        if few else None,
    )  # fmt: skip


def kernel(first: Tensor, second: Tensor, subsets: int = SUBSETS, seed: int = 0) -> Figures:
    """KID of features [N, d] and [M, d]: the unbiased squared MMD under `(xᵀy / d + 1)³`, mean of subsets.

    A subset has half of the smaller set, `SUBSET` pictures at most. Its variance around the figure of the
    whole set is `σ² (1/m - 1/n)` for subsets of m out of n, that of the whole set's `σ² / n`, so that the
    interval is 1.96 standard deviations of the subsets times `√(m / (n - m))`.

    Raises:
        MetricError: for fewer than four pictures a side.
    """
    counts = _counts(first, second, 4)
    size = min(min(counts) // 2, SUBSET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all features, which are in memory already
        metric = optional("torchmetrics.image.kid").KernelInceptionDistance(
            feature=_Given(first.shape[1]), subsets=subsets, subset_size=size
        )
    metric.update(first.double(), real=True)
    metric.update(second.double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, deviation = (float(figure) for figure in metric.compute())
    half = 1.96 * deviation * math.sqrt(size / (min(counts) - size))
    few = min(counts) < FEW_KID
    return Figures(
        mean, (mean - half, mean + half), counts,
        f"KID of fewer than {FEW_KID} pictures a side: look at the interval" if few else None,
    )  # fmt: skip


class _Given(nn.Module):
    """For torchmetrics: what it is given are the features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def _counts(first: Tensor, second: Tensor, least: int) -> tuple[int, int]:
    if min(len(first), len(second)) < least:
        raise MetricError(
            f"{len(first)} and {len(second)} pictures are too few to compare: {least} a side are the least"
        )
    return len(first), len(second)

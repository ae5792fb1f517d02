"""Diversity of pictures of the same prompt: how much seeds differ.

Two views: the mean distance of a group's pairs, and the Vendi score (Friedman and Dieng 2023), the number of
pictures that really differ. `quality · Vendi`, as CUBE has it (Kannen et al. 2024), keeps a system from
winning by pictures that differ because they are bad.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from .base import Distance, Embedder, MetricError


class Diversity(NamedTuple):
    """Of one group of pictures, or the mean of several."""

    pictures: float
    spread: float | None
    """Mean distance of its pairs; None without a distance."""
    vendi: float
    """1 where all pictures are the same, their number where none has anything in common with another."""
    quality_vendi: float | None
    """Vendi score times mean quality; None where no quality is known."""


def vendi_score(embeddings: Tensor) -> float:
    """`exp(-Σ λ ln λ)` of the eigenvalues λ of K / n, where K has the cosines of embeddings [n, d]."""
    directions = torch.nn.functional.normalize(embeddings.double(), dim=1)
    eigenvalues = torch.linalg.eigvalsh(directions @ directions.T / len(directions))
    positive = eigenvalues[eigenvalues > 1e-12]
    return float((-(positive * positive.log()).sum()).exp())


def diversity(
    groups: Mapping[str, Sequence[Image.Image]],
    embedder: Embedder,
    distance: Distance | None = None,
    quality: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Diversity]:
    """The diversity of every group of two or more pictures.

    Args:
        quality: 0 to 1 for each picture of a group, by group.

    Raises:
        MetricError: where no group has two pictures.
    """
    found = {}
    for name, images in groups.items():
        if len(images) < 2:
            continue
        pairs = list(zip(*combinations(images, 2), strict=True))
        distances = distance.distance(*pairs) if distance else None
        found[name] = group_diversity(
            embedder.embed(images), distances, quality.get(name) if quality else None
        )
    if not found:
        raise MetricError(
            "no group has two pictures: diversity is taken over seeds, so draw several a prompt"
        )
    return found


def group_diversity(
    embeddings: Tensor, distances: Sequence[float] | None, quality: Sequence[float] | None
) -> Diversity:
    """Of a group whose pictures have embeddings [n, d].

    Args:
        distances: of its pairs.
        quality: of its pictures.
    """
    vendi = vendi_score(embeddings)
    return Diversity(
        len(embeddings), sum(distances) / len(distances) if distances else None, vendi,
        vendi * sum(quality) / len(quality) if quality else None,
    )  # fmt: skip


def mean_diversity(groups: Sequence[Diversity]) -> dict[str, Any]:
    """The mean of groups, each counting the same; JSON can hold it. A field that a group lacks is None."""
    columns = zip(*groups, strict=True)
    means = [None if None in column else sum(column) / len(column) for column in columns]
    return {"groups": len(groups), **dict(zip(Diversity._fields, means, strict=True))}

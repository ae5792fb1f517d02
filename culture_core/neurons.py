"""Culture neurons: the latents that a culture's prompts use and others do not (paper, section 4.3)."""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .sae import TopKSAE

logger = logging.getLogger(__name__)

BETA = 1e-8
"""Keeps eq. 5 defined for a latent that never fires."""
_CHUNK = 4096


class LatentStatistics(NamedTuple):
    """What every latent does over a set of vectors; all [M], float32."""

    frequency: Tensor
    """f: share of the vectors on which the latent is active (eq. 4)."""
    mean_activation: Tensor
    """μ: mean activation where it is active (eq. 5)."""
    wfs: Tensor
    """f · μ (eq. 6), which is the mean activation over all vectors up to β."""


class CultureNeurons(NamedTuple):
    """The latents chosen for one culture, most salient first; all [K]."""

    indices: Tensor
    """int64, into the SAE's latents."""
    mean_activation: Tensor
    """μ on cultural prompts (eq. 5)."""
    frequency: Tensor
    """f on cultural prompts (eq. 4)."""
    wfs_cultural: Tensor
    wfs_neutral: Tensor


def latent_statistics(sae: TopKSAE, features: Tensor) -> LatentStatistics:
    """Frequency, mean activation and WFS of all latents over features [N, d] (eq. 4 to 6, ε = 0).

    Raises:
        ValueError: for features that are not [N, d] with N ≥ 1 and the SAE's width.
    """
    if features.dim() != 2 or len(features) < 1 or features.shape[1] != sae.d_in:
        raise ValueError(f"features must be [N, {sae.d_in}] with N >= 1, got {tuple(features.shape)}")
    fired = torch.zeros(sae.n_latents, dtype=torch.float64)
    total = torch.zeros(sae.n_latents, dtype=torch.float64)
    with torch.no_grad():
        for rows in features.split(_CHUNK):
            z = sae.encode(rows.to(sae.W_enc.device))
            fired += (z > 0).sum(dim=0).cpu()
            total += z.sum(dim=0, dtype=torch.float64).cpu()
    frequency, mean = fired / len(features), total / (fired + BETA)
    return LatentStatistics(frequency.float(), mean.float(), (frequency * mean).float())


def detect_neurons(
    sae: TopKSAE,
    cultural: Tensor,
    neutral: Tensor,
    others: Sequence[Tensor] | None = None,
    score: str | None = None,
    tau: float = 0.5,
    count: int | None = None,
    contrast: str = "mean",
) -> CultureNeurons:
    """Choose a culture's neurons from its features.

    Args:
        cultural: [N, d] from the culture's cultural prompts.
        neutral: [N', d] from neutral prompts in the same language.
        others: features of the cultural prompts of other cultures, one [N, d] each.
        score: "wfs", the paper's ranking by WFS on cultural prompts, or "specificity", which subtracts the
            other cultures' WFS; None: "specificity" where others are given.
        tau: latents with WFS_neutral ≥ tau · WFS_cultural belong to the noun and are dropped.
        count: how many to choose; None: up to the elbow of the ranking (C.4), at least 1.
        contrast: what specificity subtracts, the "mean" or the "maximum" of the others.

    Raises:
        ValueError: for an unknown score or contrast, specificity without others, or features that activate
            nothing.
    """
    return select_neurons(
        latent_statistics(sae, cultural),
        latent_statistics(sae, neutral),
        [latent_statistics(sae, features) for features in others or ()],
        score,
        tau,
        count,
        contrast,
    )


def detect_all(
    sae: TopKSAE,
    cultural: Mapping[str, Tensor],
    neutral: Mapping[str, Tensor],
    score: str | None = None,
    tau: float = 0.5,
    count: int | None = None,
    contrast: str = "mean",
) -> dict[str, CultureNeurons]:
    """`detect_neurons` for every culture, each against all others; features [N, d] by culture code.

    Raises:
        ValueError: where a culture has cultural but no neutral features, or as `detect_neurons`.
    """
    used, plain = all_statistics(sae, cultural, neutral)
    return {
        code: select_neurons(
            used[code], plain[code], others_of(used, code), score, tau, count, contrast
        )
        for code in used
    }  # fmt: skip


def all_statistics(
    sae: TopKSAE, cultural: Mapping[str, Tensor], neutral: Mapping[str, Tensor]
) -> tuple[dict[str, LatentStatistics], dict[str, LatentStatistics]]:
    """Statistics on the cultural and on the neutral features [N, d] of every culture.

    Raises:
        ValueError: where a culture has cultural but no neutral features.
    """
    missing = sorted(set(cultural) - set(neutral))
    if missing:
        raise ValueError(
            f"no neutral features for {', '.join(missing)}: every culture needs prompts of both kinds"
        )
    used = {code: latent_statistics(sae, features) for code, features in cultural.items()}
    return used, {code: latent_statistics(sae, neutral[code]) for code in cultural}


def others_of(statistics: Mapping[str, LatentStatistics], culture: str) -> list[LatentStatistics]:
    """The statistics of all cultures but one."""
    return [found for code, found in statistics.items() if code != culture]


class Ranking(NamedTuple):
    """A culture's candidates, best first, and how they came about."""

    indices: Tensor
    """int64 [n]: active latents that are not noun-side and score above 0; never empty."""
    scores: Tensor
    """[n], high to low."""
    elbow: int
    """How many stand before the elbow of the scores (C.4)."""
    active: int
    """Latents that the cultural prompts activate."""
    noun_side: int
    """Those of them dropped for noun-side salience, WFS_neutral ≥ τ · WFS_cultural."""


def rank_latents(
    cultural: LatentStatistics,
    neutral: LatentStatistics,
    others: Sequence[LatentStatistics] = (),
    score: str | None = None,
    tau: float = 0.5,
    contrast: str = "mean",
) -> Ranking:
    """The candidates that `select_neurons` takes the first of; arguments and errors as there."""
    scores = _scores(cultural, others, score, contrast)
    active = cultural.frequency > 0
    if not bool(active.any()):
        raise ValueError(
            "the cultural prompts activate no latent: the SAE belongs to another encoder, layer or feature"
        )
    noun_side = active & (neutral.wfs >= tau * cultural.wfs)
    counts = int(active.sum()), int(noun_side.sum())
    candidates = active & ~noun_side & (scores > 0)
    if not bool(candidates.any()):
        logger.warning(
            "no latent is salient for this culture alone; taking the one least used by neutral prompts"
        )
        share = torch.where(active, neutral.wfs / cultural.wfs.clamp(min=1e-12), torch.inf)
        least = share.argmin()[None]
        return Ranking(least, scores[least], 1, *counts)
    indices = candidates.nonzero().squeeze(1)
    # A stable sort settles ties by the lowest index.
    ranked = indices[scores[indices].sort(descending=True, stable=True).indices]
    return Ranking(ranked, scores[ranked], elbow(scores[ranked]), *counts)


def select_neurons(
    cultural: LatentStatistics,
    neutral: LatentStatistics,
    others: Sequence[LatentStatistics] = (),
    score: str | None = None,
    tau: float = 0.5,
    count: int | None = None,
    contrast: str = "mean",
) -> CultureNeurons:
    """The choice behind `detect_neurons`, from statistics that are already there."""
    if count is not None and count < 1:
        raise ValueError(f"count is {count}: choose at least 1 neuron, or None for the elbow")
    ranking = rank_latents(cultural, neutral, others, score, tau, contrast)
    chosen = ranking.elbow if count is None else count
    return take_neurons(ranking.indices[:chosen], cultural, neutral)


def take_neurons(indices: Tensor, cultural: LatentStatistics, neutral: LatentStatistics) -> CultureNeurons:
    """Given latents [K] with their figures."""
    return CultureNeurons(
        indices.to(torch.int64),
        cultural.mean_activation[indices],
        cultural.frequency[indices],
        cultural.wfs[indices],
        neutral.wfs[indices],
    )


def elbow(values: Tensor) -> int:
    """How many of the values [n], high to low, stand before the elbow of their curve (C.4); at least 1.

    The elbow is the point farthest below the straight line from the first value to the last.
    """
    if len(values) < 3 or values[0] == values[-1]:
        return max(1, min(len(values), 1 if len(values) < 3 else len(values)))
    heights = (values - values[-1]) / (values[0] - values[-1])
    line = torch.linspace(1, 0, len(values), device=values.device, dtype=values.dtype)
    return max(1, int((line - heights).argmax()))


def _scores(
    cultural: LatentStatistics, others: Sequence[LatentStatistics], score: str | None, contrast: str
) -> Tensor:
    score = score or ("specificity" if others else "wfs")
    if score == "wfs":
        return cultural.wfs
    if score != "specificity":
        raise ValueError(f"unknown score {score!r}: use wfs or specificity")
    if not others:
        raise ValueError("specificity compares cultures: give the features of the others, or use score='wfs'")
    stacked = torch.stack([other.wfs for other in others])
    if contrast == "mean":
        return cultural.wfs - stacked.mean(dim=0)
    if contrast == "maximum":
        return cultural.wfs - stacked.amax(dim=0)
    raise ValueError(f"unknown contrast {contrast!r}: use mean or maximum")

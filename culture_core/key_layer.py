"""The key layer: where a curve over the layers stands out, and what else speaks for another one."""

from typing import NamedTuple

import torch
from torch import Tensor

AUTO, ATTENTION, CAUSAL = "auto", "attention", "causal"
CRITERIA = (AUTO, ATTENTION, CAUSAL)
"""What may choose the key layer; see `choose_layer`."""
CONFIDENCE = 0.95


def resampled_means(values: Tensor, bootstrap: int, seed: int) -> Tensor:
    """Means [bootstrap, L] over resampled rows of values [P, L]."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.empty(bootstrap, values.shape[1])
    for sample in range(bootstrap):
        means[sample] = values[torch.randint(len(values), (len(values),), generator=generator)].mean(dim=0)
    return means


def bounds_of(resampled: Tensor, pairs: int) -> Tensor:
    """95 % percentile interval [L, 2] of resampled values [bootstrap, L]; one pair has no spread."""
    if pairs < 2:
        return torch.tensor([-torch.inf, torch.inf]).expand(resampled.shape[1], 2).clone()
    edges = torch.tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return resampled.quantile(edges, dim=0).T.contiguous()


def prominence_of(curves: Tensor) -> Tensor:
    """Curves [n, L] minus the mean of their neighbours, one neighbour at either end."""
    if curves.shape[1] == 1:
        return curves
    inner = (curves[:, :-2] + curves[:, 2:]) / 2
    neighbours = torch.cat([curves[:, 1:2], inner, curves[:, -2:-1]], dim=1)
    return curves - neighbours


class Choice(NamedTuple):
    """A key layer, and what either criterion says."""

    layer: int
    reason: str
    attention: int | None
    """The peak of the prominence where its interval excludes zero; None: there is none."""
    causal: int | None
    """The peak of the causal curve; None: there is no curve."""


def choose_layer(
    prominence: Tensor, bounds: Tensor, causal: Tensor, pairs: int, criterion: str = AUTO
) -> Choice:
    """The key layer.

    Args:
        prominence: [L], ΔCA minus the mean of its neighbours.
        bounds: [L, 2], its interval over so many pairs.
        causal: [L], NaN where there is none.
        criterion: "attention": the peak of the prominence, the paper's rule. "causal": the peak of the causal
            curve. "auto": the former if its interval excludes zero, otherwise the latter.
    """
    certain = bounds[:, 0] > 0
    peak = int(torch.where(certain, prominence, -torch.inf).argmax()) if bool(certain.any()) else None
    moves = None if bool(causal.isnan().any()) else int(causal.argmax())
    if moves is not None and (criterion == CAUSAL or (criterion == AUTO and peak is None)):
        return Choice(moves, _causal_reason(causal, moves, peak, pairs, criterion), peak, moves)
    layer = int(prominence.argmax()) if peak is None else peak
    return Choice(layer, _attention_reason(prominence, bounds, causal, layer, moves, pairs), peak, moves)


def _causal_reason(causal: Tensor, moves: int, peak: int | None, pairs: int, criterion: str) -> str:
    share = f"it moves the noun {_share(causal, moves)}"
    unclear = (
        "no layer's ΔCA stands out from its neighbours' "
        f"(every 95 % interval over {pairs} pairs reaches zero)"
    )
    if criterion == AUTO:
        return f"layer {moves}: {unclear}, so activation patching decides: {share}"
    attention = unclear if peak is None else f"ΔCA stands out most in layer {peak}"
    if peak == moves:
        attention = "attention agrees"
    return f"layer {moves}: activation patching names it, {share}; {attention}"


def _attention_reason(
    prominence: Tensor, bounds: Tensor, causal: Tensor, layer: int, moves: int | None, pairs: int
) -> str:
    low, high = bounds[layer].tolist()
    reason = (
        f"layer {layer}: its ΔCA stands out most from its neighbours', by {prominence[layer]:.4f} "
        f"(95 % interval {low:.4f} to {high:.4f} over {pairs} pairs)"
    )
    if low <= 0:
        reason += ", but it may be chance, since the interval reaches zero"
    if moves == layer:
        return f"{reason}; activation patching agrees"
    if len(prominence) > 1 and layer in (0, len(prominence) - 1):
        reason += (
            "; it is at an end, where one neighbour alone is compared with, which can make a peak of a slope"
        )
    if moves is None:
        return f"{reason}; activation patching was left out"
    return (
        f"{reason}; activation patching names layer {moves} instead, which moves the noun "
        f'{_share(causal, moves)}; try both (criterion "causal" takes that one)'
    )


def _share(causal: Tensor, layer: int) -> str:
    return f"{100 * causal[layer]:.1f} % of the way from neutral to cultural, more than any other"

"""Krippendorff's alpha: how far raters agree beyond chance."""

from collections.abc import Iterable, Sequence

import numpy as np


def krippendorff_alpha(
    units: Iterable[Sequence[str]], values: Sequence[str], ordinal: bool = False
) -> float | None:
    """1 − D_o / D_e, observed over expected disagreement (Krippendorff, Content Analysis, chapter 11).

    1 is full agreement, 0 what chance gives. Units may have different numbers of ratings; those with fewer
    than two say nothing of agreement and are left out.

    Args:
        units: ratings of each thing that was judged.
        values: possible ratings, in their order where that counts.
        ordinal: whether being further apart in the order is a larger disagreement.

    Returns:
        alpha; None where no unit has two ratings, or all ratings are the same.
    """
    place = {value: index for index, value in enumerate(values)}
    coincidences = np.zeros((len(values), len(values)))
    for unit in units:
        counts = np.bincount([place[value] for value in unit], minlength=len(values)).astype(float)
        if counts.sum() > 1:
            coincidences += (np.outer(counts, counts) - np.diag(counts)) / (counts.sum() - 1)
    totals = coincidences.sum(axis=0)
    if ordinal:  # all ratings from one value to the other, the outer two by half
        middles = np.cumsum(totals) - totals / 2
        distance = (middles[:, None] - middles[None, :]) ** 2
    else:
        distance = 1 - np.eye(len(values))
    expected = (np.outer(totals, totals) * distance).sum()
    if not expected:
        return None
    return float(1 - (totals.sum() - 1) * (coincidences * distance).sum() / expected)

"""What rows say together: shares and means over all repetitions, with intervals, and relative recovery.

Intervals are bootstrapped over the combinations of culture and noun (the pictures of one combination, in all
repetitions, stand or fall together), except for plain shares, which have Wilson's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..shares import Share
from ..significance import Estimate, Resamples

Row = Mapping[str, Any]
"""What `Study.row` gives: one treatment in one repetition."""


def share(rows: Sequence[Row], figure: str) -> Share:
    """Of the pictures in all repetitions, those that are right."""
    values = [value for row in rows for value in row[figure]]
    return Share(sum(values), len(values))


def mean(rows: Sequence[Row], figure: str) -> Estimate:
    """Mean of a figure over all pictures; of `diversity`, over combinations."""
    resamples, means = _resampled([rows], figure)
    return resamples.estimate(means[0])


def recovery(treated: Sequence[Row], neutral: Sequence[Row], explicit: Sequence[Row]) -> Estimate:
    """Share of the gap between neutral and explicit prompts' CultureVQA that a treatment closes; undefined
    where there is no gap."""
    resamples, (found, low, high) = _resampled([treated, neutral, explicit], "culture")
    return resamples.estimate(_ratio(found - low, high - low))


def left(treated: Sequence[Row], explicit: Sequence[Row]) -> Estimate:
    """Share of the explicit prompts' CultureVQA that a treatment leaves."""
    resamples, (found, whole) = _resampled([treated, explicit], "culture")
    return resamples.estimate(_ratio(found, whole))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _resampled(treatments: Sequence[Sequence[Row]], figure: str) -> tuple[Resamples, list[np.ndarray]]:
    """A figure's mean of each treatment, in the same draws of combinations."""
    tables = [_values(rows, figure) for rows in treatments]
    resamples = Resamples(tables[0][1])
    return resamples, [resamples.means(values, groups) for values, groups in tables]


def _values(rows: Sequence[Row], figure: str) -> tuple[list[float], list[str]]:
    """Values of a figure and the combination of each."""
    values, groups = [], []
    for row in rows:
        by_combination = figure == "diversity"
        groups += row[figure].keys() if by_combination else row["group"]
        values += row[figure].values() if by_combination else row[figure]
    return values, groups

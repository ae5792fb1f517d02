"""What rows say together: shares and means over all repetitions, with intervals, and relative recovery.

Intervals are bootstrapped over the combinations of culture and noun (the pictures of one combination, in all
repetitions, stand or fall together), except for plain shares, which have Wilson's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..shares import Share

DRAWS, LEVEL = 2000, 95
Row = Mapping[str, Any]
"""What `Study.row` gives: one treatment in one repetition."""


class Estimate(NamedTuple):
    """A figure with its bootstrapped interval of 95 %."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} – {self.high:.2f})"


def share(rows: Sequence[Row], figure: str) -> Share:
    """Of the pictures in all repetitions, those that are right."""
    values = [value for row in rows for value in row[figure]]
    return Share(sum(values), len(values))


def mean(rows: Sequence[Row], figure: str) -> Estimate:
    """Mean of a figure over all pictures; of `diversity`, over combinations."""
    return _bootstrapped([(rows, figure)], lambda value: value)


def recovery(treated: Sequence[Row], neutral: Sequence[Row], explicit: Sequence[Row]) -> Estimate:
    """Share of the gap between neutral and explicit prompts' CultureVQA that a treatment closes."""
    return _bootstrapped(
        [(treated, "culture"), (neutral, "culture"), (explicit, "culture")],
        lambda found, low, high: (found - low) / (high - low) if high > low else float("nan"),
    )


def left(treated: Sequence[Row], explicit: Sequence[Row]) -> Estimate:
    """Share of the explicit prompts' CultureVQA that a treatment leaves."""
    return _bootstrapped(
        [(treated, "culture"), (explicit, "culture")],
        lambda found, whole: found / whole if whole else float("nan"),
    )


def _bootstrapped(given: Sequence[tuple[Sequence[Row], str]], figure: Callable[..., float]) -> Estimate:
    """A figure of several rows' means; every draw takes the same combinations of each."""
    tables = [_by_group(rows, name) for rows, name in given]
    groups = sorted(set.intersection(*(set(table) for table in tables)))
    sums = np.array([[table[group] for group in groups] for table in tables])  # [rows, groups, (sum, count)]
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(groups), size=(DRAWS, len(groups)))
    resampled = sums[:, drawn].sum(2)  # [rows, draws, 2]
    whole = sums.sum(1)
    values = [figure(*(resampled[:, draw, 0] / resampled[:, draw, 1])) for draw in range(DRAWS)]
    low, high = np.nanpercentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Estimate(float(figure(*(whole[:, 0] / whole[:, 1]))), float(low), float(high))


def _by_group(rows: Sequence[Row], figure: str) -> dict[str, tuple[float, int]]:
    """(sum, count) of a figure by combination."""
    found: dict[str, tuple[float, int]] = {}
    for row in rows:
        pairs = row[figure].items() if figure == "diversity" else zip(row["group"], row[figure], strict=True)
        for group, value in pairs:
            total, count = found.get(group, (0.0, 0))
            found[group] = (total + float(value), count + 1)
    return found

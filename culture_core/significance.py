"""Whether a difference is more than chance: bootstrap by groups, paired tests, and Holm's correction."""

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

DRAWS, LEVEL = 2000, 95
_EXACT = 12
"""Differences up to which the sign-flip test goes through all flips."""
_UNDEFINED = 0.05
"""A figure that more of the draws leave undefined has no interval."""


class Estimate(NamedTuple):
    """A figure with its bootstrapped interval of 95 %."""

    value: float
    """NaN where the figure is undefined."""
    low: float | None
    high: float | None
    """None where there is a single group, or the figure is undefined in too many draws."""

    def __str__(self) -> str:
        if not math.isfinite(self.value):
            return "undefined"
        return f"{self.value:.2f}" + ("" if self.low is None else f" ({self.low:.2f} – {self.high:.2f})")


class Resamples:
    """Groups drawn with replacement: a bootstrap in which the members of a group stand or fall together.

    Every figure is computed of the same draws, which makes differences and ratios of figures paired:

        resamples = Resamples(prompts)
        gain = resamples.means(ours, prompts) - resamples.means(theirs, prompts)
        resamples.estimate(gain)
    """

    def __init__(self, groups: Sequence[Any], draws: int = DRAWS, seed: int = 0) -> None:
        """
        Args:
            groups: their names, or the group of every value; of a kind that can be sorted, in any order.

        Raises:
            ValueError: without a group.
        """
        self.groups = sorted(set(groups))
        if not self.groups:
            raise ValueError("a bootstrap needs at least one group")
        self._place = {group: index for index, group in enumerate(self.groups)}
        count = len(self.groups)
        drawn = np.random.default_rng(seed).integers(count, size=(draws, count))
        weights = [np.bincount(draw, minlength=count) for draw in drawn]
        self._weights = np.array([np.ones(count, int), *weights], float)  # [1 + draws, groups]

    def means(
        self,
        values: Sequence[float],
        groups: Sequence[Hashable],
        classes: Sequence[Hashable] | None = None,
    ) -> np.ndarray:
        """Mean of values [1 + draws]: of all groups as they are, then of each draw; NaN where it has none.

        Args:
            groups: the group of each value.
            classes: the class of each value; the mean is then that of the classes' means, as in macro
                accuracy. A class that a draw lacks counts for nothing in it.

        Raises:
            ValueError: for other than as many groups or classes.
            KeyError: for a group that is not among those that are drawn.
        """
        classes = [None] * len(values) if classes is None else classes
        columns = {name: index for index, name in enumerate(dict.fromkeys(classes))}
        sums = np.zeros((2, len(self.groups), len(columns)))
        for value, group, name in zip(values, groups, classes, strict=True):
            sums[:, self._place[group], columns[name]] += value, 1
        totals, counts = self._weights @ sums[0], self._weights @ sums[1]  # [1 + draws, classes]
        there = counts > 0
        found = np.where(there, totals / np.where(there, counts, 1), 0).sum(1)
        with np.errstate(invalid="ignore"):
            return found / there.sum(1)

    def estimate(self, figure: np.ndarray) -> Estimate:
        """The figure and its percentile interval, from values [1 + draws] as `means` gives them."""
        value, drawn = float(figure[0]), figure[1:]
        defined = drawn[np.isfinite(drawn)]
        if len(self.groups) < 2 or len(defined) < (1 - _UNDEFINED) * len(drawn) or not math.isfinite(value):
            return Estimate(value, None, None)
        low, high = np.percentile(defined, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
        return Estimate(value, float(low), float(high))


@dataclass(frozen=True)
class McNemar:
    """Two systems, right or wrong on the same prompts (McNemar 1947), exact."""

    both: int
    first_only: int
    second_only: int
    neither: int
    p_value: float
    """Of a difference at least this large in either direction, were both systems equally good."""

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """McNemar's exact test: only prompts on which one system alone is right tell them apart, and were they
    equally good, either would be that one half of the time.

    Args:
        first: for each prompt, whether the first system was right.
        second: the same of the second.

    Raises:
        ValueError: for other than as many.
    """
    counts = Counter(zip(first, second, strict=True))
    only = counts[True, False], counts[False, True]
    discordant, fewer = sum(only), min(only)
    tail = sum(math.comb(discordant, k) for k in range(fewer + 1))
    # Whole numbers up to the division, which does not overflow as 0.5 ** n times a large one would.
    p_value = min(1.0, 2 * tail / 2**discordant)
    return McNemar(counts[True, True], *only, counts[False, False], p_value)


def sign_flip_test(differences: np.ndarray, draws: int, rng: np.random.Generator) -> float:
    """Two-sided p of paired differences that would be as likely the other way round: the share of flips of
    their signs whose mean is at least as far from 0. All flips of up to 12 differences, else `draws` random
    ones."""
    count = len(differences)
    exact = count <= _EXACT
    signs = (
        np.array(list(itertools.product((-1, 1), repeat=count)))
        if exact
        else rng.choice((-1, 1), size=(draws, count))
    )
    reached = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9
    return float(reached.mean() if exact else (1 + reached.sum()) / (1 + draws))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down rule, in the order given."""
    corrected, highest = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected

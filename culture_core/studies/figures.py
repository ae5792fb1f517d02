"""Figures of systems on the items that all of them drew, and what tells the systems apart."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..shares import Share, mean_share
from ..significance import DRAWS, Estimate, McNemar, Resamples, holm, mcnemar, sign_flip_test
from .measured import Item, Measure, Measured, Picture

Only = Callable[[Picture], bool]
_FLIPS, _MOST_SIGNS = 20_000, 20_000_000
"""So many random flips, as long as their signs fit into memory: p is no finer than one in as many."""


class Figure(NamedTuple):
    """A measure of a system: the mean of its pictures; of right and wrong, macro accuracy in percent."""

    value: float
    low: float | None
    high: float | None
    """95 %: Wilson's interval of a share, which takes pictures as independent; else as `by_prompt`."""
    by_prompt: Estimate
    """With the interval of a bootstrap in which the seeds of a prompt stand or fall together."""
    pictures: int
    prompts: int


@dataclass(frozen=True)
class Comparison:
    """One system against another on the same items."""

    measure: str
    """Key of the measure."""
    system: str
    other: str
    items: int
    prompts: int
    difference: float
    """System minus other; percentage points of a share."""
    low: float | None
    high: float | None
    """95 %, paired bootstrap over prompts."""
    p: float
    """Two-sided sign-flip test over prompts. Of one right or wrong a prompt it is McNemar's."""
    p_holm: float
    """The same, corrected for all comparisons of one table (Holm)."""
    mcnemar: McNemar | None
    """Of a share: exact, over pictures."""

    @property
    def told_apart(self) -> bool:
        return self.p_holm < 0.05

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Paired:
    """One measure of several systems, on the items that all of them have it of."""

    def __init__(
        self,
        measured: Measured,
        measure: Measure,
        systems: Sequence[str],
        only: Only = lambda picture: True,
        draws: int = DRAWS,
    ) -> None:
        """
        Args:
            systems: those without a single value of the measure are not among `self.systems`.
            only: which pictures count.
        """
        self.measure, self._draws = measure, draws
        scale = 100 if measure.share else 1
        values = {
            system: {
                item: scale * measure.values[picture.file]
                for item, picture in measured.of(system).items()
                if picture.file in measure.values and only(picture)
            }
            for system in systems
        }
        values = {system: own for system, own in values.items() if own}
        self.systems = list(values)
        shared = set.intersection(*(set(own) for own in values.values())) if values else set()
        self.items: list[Item] = sorted(shared)
        self.left_out = {system: len(own) - len(shared) for system, own in values.items()}
        """Pictures with a value that another system has not."""
        self._values = {system: [own[item] for item in self.items] for system, own in values.items()}
        self._groups = [item.group for item in self.items]
        self._classes = [item.culture for item in self.items] if measure.share else None

    def __bool__(self) -> bool:
        return bool(self.items)

    @property
    def prompts(self) -> int:
        return len(set(self._groups))

    @cached_property
    def resamples(self) -> Resamples:
        return Resamples(self._groups, self._draws)

    def means(self, system: str) -> np.ndarray:
        """[1 + draws], as `Resamples.means` gives them."""
        return self.resamples.means(self._values[system], self._groups, self._classes)

    def figure(self, system: str) -> Figure:
        estimate = self.resamples.estimate(self.means(system))
        low, high = estimate.low, estimate.high
        if self.measure.share:
            low, high = mean_share(list(self.recall(system).values())).interval
        return Figure(estimate.value, low, high, estimate, len(self.items), self.prompts)

    def recall(self, system: str) -> dict[str, Share]:
        """Pictures that are right, by culture; of a measure of right and wrong."""
        counts = Counter(item.culture for item in self.items)
        right: dict[str, float] = defaultdict(float)
        for item, value in zip(self.items, self._values[system], strict=True):
            right[item.culture] += value / 100
        return {code: Share(right[code], counts[code]) for code in counts}

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
        """Systems against others; p is corrected for all that are given here."""
        found = [self._compare(*pair) for pair in pairs]
        corrected = holm([one.p for one in found])
        return [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]

    def _compare(self, system: str, other: str) -> Comparison:
        difference = self.resamples.estimate(self.means(system) - self.means(other))
        ours, theirs = self._values[system], self._values[other]
        by_prompt: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        for group, first, second in zip(self._groups, ours, theirs, strict=True):
            by_prompt[group].append(first - second)
        means = np.array([sum(values) / len(values) for values in by_prompt.values()])
        means = means[means != 0]  # which no flip changes
        flips = max(self._draws, min(_FLIPS, _MOST_SIGNS // max(len(means), 1)))
        p = sign_flip_test(means, flips, np.random.default_rng(0))
        test = mcnemar([v > 0 for v in ours], [v > 0 for v in theirs]) if self.measure.share else None
        return Comparison(
            self.measure.key, system, other, len(self.items), self.prompts, *difference, p, p, test
        )

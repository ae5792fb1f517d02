"""Comparing two systems on the same prompts, and two judges on the same pictures."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass


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


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same pictures."""

    pictures: int
    agreed: float
    """Share of the pictures with the same answer."""
    kappa: float | None
    """Cohen's κ: the share beyond what chance would give, 1 at most. None where both judges give one and the
    same answer always, so that chance would give all."""

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)


def agreement(first: Sequence[Hashable], second: Sequence[Hashable]) -> Agreement:
    """How far two judges agree, `κ = (p_o − p_e) / (1 − p_e)` (Cohen 1960).

    Raises:
        ValueError: for no pictures, or other than as many.
    """
    if not first:
        raise ValueError("agreement needs at least one picture that both judges have seen")
    count = len(first)
    agreed = sum(a == b for a, b in zip(first, second, strict=True)) / count
    ours, theirs = Counter(first), Counter(second)
    chance = sum(ours[answer] * theirs[answer] for answer in ours) / count**2
    return Agreement(count, agreed, None if chance >= 1 else (agreed - chance) / (1 - chance))

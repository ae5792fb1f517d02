"""How far two judges of the same pictures agree."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass


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

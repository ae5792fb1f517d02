"""Shares with their intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Share(NamedTuple):
    """How many of how many were right."""

    right: float
    count: float  # type: ignore[assignment]  # hides the method of tuples, which nobody needs here
    """Whole numbers, unless the share is a mean of shares and `count` the number that is as telling."""

    @property
    def percent(self) -> float:
        return 100 * self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval, percent."""
        z, n, p = 1.96, self.count, self.right / self.count
        middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        low, high = (100 * (middle + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
        return max(low, 0.0), min(high, 100.0)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.percent:.1f} % ({low:.0f} to {high:.0f})"


def mean_share(shares: Sequence[Share]) -> Share:
    """The mean of shares, each counting the same: macro accuracy, of the recalls of the labels.

    Its interval is Wilson's for as many pictures as give a plain share of the same variance where all shares
    are alike, `K² / Σ 1/n` of K shares of n each (Kish's effective sample size). With equal counts that is
    their sum.

    Raises:
        ValueError: without shares.
    """
    if not shares:
        raise ValueError("there are no shares to take the mean of")
    effective = len(shares) ** 2 / sum(1 / share.count for share in shares)
    return Share(effective * sum(share.right / share.count for share in shares) / len(shares), effective)

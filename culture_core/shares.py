"""Shares with their intervals."""

import math
from typing import NamedTuple


class Share(NamedTuple):
    """How many of how many were right."""

    right: int
    count: int

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

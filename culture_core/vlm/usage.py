"""Tokens and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Prices(NamedTuple):
    """Of one model, for a million tokens; from its provider's price list, none is built in."""

    prompt: float
    completion: float
    currency: str = "USD"


@dataclass(frozen=True)
class Usage:
    """What a number of answers used, as the server counted it."""

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    """Answers of which the server did not say what they used."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.answers + other.answers,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.uncounted + other.uncounted,
        )

    def times(self, count: int) -> "Usage":
        """What so many times as many answers would use."""
        return Usage(
            self.answers * count,
            self.prompt_tokens * count,
            self.completion_tokens * count,
            self.uncounted * count,
        )

    def cost(self, prices: Prices | None) -> float | None:
        """In the prices' currency; None without prices, or where the server did not count."""
        if prices is None or self.uncounted:
            return None
        return (self.prompt_tokens * prices.prompt + self.completion_tokens * prices.completion) / 1e6

    def describe(self, prices: Prices | None) -> str:
        """Tokens, and their cost where prices are known."""
        tokens = (
            f"{self.answers} answers, {self.prompt_tokens:,} prompt tokens and "
            f"{self.completion_tokens:,} answer tokens"
        )
        if self.uncounted:
            return f"{tokens} ({self.uncounted} answers were not counted by the server)"
        cost = self.cost(prices)
        if cost is None or prices is None:
            return f"{tokens}, no price configured"
        return f"{tokens}, {cost:.4f} {prices.currency}"


def total(costs: Sequence[float | None]) -> float | None:
    """The sum; None where a part of it is not known."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None

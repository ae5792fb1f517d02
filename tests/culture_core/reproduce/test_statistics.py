"""Shares, recovery and intervals over repetitions."""

import numpy as np
import pytest

from culture_core.reproduce.statistics import left, mean, recovery, share
from culture_core.significance import DRAWS

GROUPS = ["th house", "th house", "ja tree", "ja tree", "ko fish", "ko fish"]


def row(culture: list[int], diversity: list[float] = (1.0, 1.0, 1.0)) -> dict:
    return {
        "culture": culture, "group": GROUPS,
        "diversity": dict(zip(dict.fromkeys(GROUPS), diversity, strict=True)),
    }  # fmt: skip


NEUTRAL = [row([0, 0, 0, 0, 0, 1]), row([0, 0, 0, 0, 1, 0])]
EXPLICIT = [row([1, 1, 1, 1, 1, 1]), row([1, 1, 1, 0, 1, 1])]
TREATED = [row([1, 1, 0, 1, 1, 1]), row([0, 1, 1, 0, 1, 1])]


def test_a_share_counts_all_repetitions() -> None:
    assert share(TREATED, "culture") == (9, 12)


def test_recovery_is_the_share_of_the_gap() -> None:
    assert recovery(TREATED, NEUTRAL, EXPLICIT).value == pytest.approx((9 - 2) / (11 - 2))
    assert recovery(NEUTRAL, NEUTRAL, EXPLICIT) == (0, 0, 0)
    assert recovery(EXPLICIT, NEUTRAL, EXPLICIT) == (1, 1, 1)
    assert str(recovery(TREATED, NEUTRAL, NEUTRAL)) == "undefined"  # no gap


def test_what_masking_leaves_is_relative_to_explicit_prompts() -> None:
    assert left(TREATED, EXPLICIT).value == pytest.approx(9 / 11)


def test_the_interval_is_that_of_a_bootstrap_over_combinations() -> None:
    found = left(TREATED, EXPLICIT)
    rng = np.random.default_rng(0)
    treated, explicit = {"th": 3, "ja": 2, "ko": 4}, {"th": 4, "ja": 3, "ko": 4}
    codes = sorted(treated)  # the function's order of the groups: ja, ko, th
    values = []
    for draw in rng.integers(3, size=(DRAWS, 3)):
        chosen = [codes[index] for index in draw]
        values.append(sum(treated[c] for c in chosen) / sum(explicit[c] for c in chosen))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


def test_diversity_is_a_mean_over_combinations() -> None:
    rows = [row([0] * 6, [0.1, 0.2, 0.6]), row([0] * 6, [0.3, 0.2, 0.4])]
    found = mean(rows, "diversity")
    assert found.value == pytest.approx(0.3)
    assert found.low <= found.value <= found.high

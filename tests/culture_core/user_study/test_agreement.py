"""Krippendorff's alpha against published examples and the PyPI package."""

import random

import numpy as np
import pytest

from culture_core.user_study.agreement import krippendorff_alpha

# Krippendorff, "Computing Krippendorff's Alpha-Reliability", example C: four observers, twelve units.
EXAMPLE = (
    "123321412...",
    "1233224125.3",
    ".3332342251.",
    "12332441251.",
)
VALUES = "12345"


def units(observers):
    return ["".join(unit).replace(".", "") for unit in zip(*observers, strict=True)]


def test_the_published_example():
    assert krippendorff_alpha(units(EXAMPLE), VALUES) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(units(EXAMPLE), VALUES, ordinal=True) == pytest.approx(0.815, abs=5e-4)


def test_two_observers_and_binary_data_by_hand():
    # The same paper's example A: ten units, four disagreements; 14 zeros and 6 ones.
    # alpha = 1 - 19 · (4 + 4) / (2 · 14 · 6)
    pairs = units(("0100000000", "1110010010"))
    assert krippendorff_alpha(pairs, "01") == pytest.approx(1 - 19 * 8 / (2 * 14 * 6))
    assert krippendorff_alpha(pairs, "01", ordinal=True) == pytest.approx(1 - 19 * 8 / (2 * 14 * 6))


@pytest.mark.parametrize("ordinal", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_any_data_agree_with_the_package(ordinal, seed):
    krippendorff = pytest.importorskip("krippendorff", reason="pip install -r requirements-dev.txt")
    draw = random.Random(seed)
    truth = [draw.choice(VALUES) for _ in range(30)]
    observers = [
        "".join(draw.choice((value, value, draw.choice(VALUES), ".")) for value in truth) for _ in range(5)
    ]
    data = [[np.nan if value == "." else float(value) for value in row] for row in observers]
    expected = krippendorff.alpha(data, level_of_measurement="ordinal" if ordinal else "nominal")
    assert krippendorff_alpha(units(observers), VALUES, ordinal) == pytest.approx(expected, abs=1e-9)


def test_full_agreement_is_one_and_no_spread_or_no_pairs_is_unknown():
    assert krippendorff_alpha(["11", "222", "5"], VALUES) == 1
    assert krippendorff_alpha(["11", "11"], VALUES) is None
    assert krippendorff_alpha(["1", "2", ""], VALUES) is None
    assert krippendorff_alpha([], VALUES) is None

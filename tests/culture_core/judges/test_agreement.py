"""Two systems and two judges, against statsmodels."""

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.inter_rater import cohens_kappa

from culture_core.judges.agreement import agreement, mcnemar


@pytest.mark.parametrize("count", [1, 7, 40, 3000])
def test_mcnemar_is_the_exact_one_of_statsmodels(count):
    rng = np.random.default_rng(count)
    first, second = rng.random(count) < 0.6, rng.random(count) < 0.5
    found = mcnemar(first.tolist(), second.tolist())
    table = [[found.both, found.first_only], [found.second_only, found.neither]]
    assert sum(map(sum, table)) == count and found.first_only == int((first & ~second).sum())
    assert found.p_value == pytest.approx(reference_mcnemar(table, exact=True).pvalue, rel=1e-9, abs=1e-12)


def test_systems_that_never_differ_cannot_be_told_apart():
    assert mcnemar([True, False], [True, False]).p_value == 1
    assert mcnemar([True] * 6, [False] * 6).p_value == pytest.approx(2 / 2**6)


def test_kappa_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 5, 200)
    second = np.where(rng.random(200) < 0.5, first, rng.integers(0, 5, 200))
    table = np.zeros((5, 5))
    np.add.at(table, (first, second), 1)
    found = agreement(first.tolist(), second.tolist())
    assert found.kappa == pytest.approx(cohens_kappa(table).kappa)
    assert found.agreed == pytest.approx((first == second).mean()) and found.pictures == 200


def test_kappa_of_hand_sized_cases():
    assert agreement(["a", "b"], ["a", "b"]).kappa == 1
    assert agreement(["a", "b"], ["b", "a"]).kappa == -1
    assert agreement(["a", "a"], ["a", "a"]).kappa is None
    assert agreement([None, "a"], [None, "b"]).agreed == 0.5


def test_unequal_numbers_are_refused():
    with pytest.raises(ValueError):
        mcnemar([True], [])
    with pytest.raises(ValueError):
        agreement(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="at least one"):
        agreement([], [])

"""Two judges, against statsmodels."""

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from culture_core.judges.agreement import agreement


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
        agreement(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="at least one"):
        agreement([], [])

"""Bootstrap, paired tests and Holm's rule, against literal versions, scipy and statsmodels."""

import random

import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from culture_core.significance import Resamples, holm, mcnemar, sign_flip_test


def literal_means(values, groups, classes, draws, seed=0):
    """Mean of the classes' means in every draw of groups, picture by picture."""
    names = sorted(set(groups))
    rng = np.random.default_rng(seed)
    found = []
    for draw in rng.integers(len(names), size=(draws, len(names))):
        drawn = [
            (value, kind)
            for index in draw
            for value, group, kind in zip(values, groups, classes, strict=True)
            if group == names[index]
        ]
        means = [
            sum(v for v, k in drawn if k == kind) / sum(k == kind for _, k in drawn)
            for kind in {kind for _, kind in drawn}
        ]
        found.append(sum(means) / len(means))
    return found


def sample(groups=7, seed=0):
    """Values, the prompt of each (with one to three pictures) and its culture."""
    rng = random.Random(seed)
    rows = [
        (rng.random(), f"prompt {g}", "th" if g % 3 else "ja")
        for g in range(groups)
        for _ in range(rng.randint(1, 3))
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def test_means_are_those_of_a_literal_bootstrap_by_groups():
    values, groups, classes = sample()
    resamples = Resamples(groups, draws=300)
    plain, macro = resamples.means(values, groups), resamples.means(values, groups, classes)
    assert plain[1:] == pytest.approx(literal_means(values, groups, ["all"] * len(values), 300))
    assert macro[1:] == pytest.approx(literal_means(values, groups, classes, 300))
    assert plain[0] == pytest.approx(np.mean(values))
    own = [np.mean([v for v, k in zip(values, classes, strict=True) if k == kind]) for kind in ("th", "ja")]
    assert macro[0] == pytest.approx(np.mean(own)) != pytest.approx(plain[0])


def test_the_interval_of_single_values_is_scipys():
    values = np.random.default_rng(1).normal(size=60)
    groups = [f"{index:03d}" for index in range(60)]
    resamples = Resamples(groups, draws=8000)
    found = resamples.estimate(resamples.means(values, groups))
    expected = bootstrap((values,), np.mean, n_resamples=8000, method="percentile", rng=2).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_the_interval_by_groups_is_wider_where_a_groups_members_are_alike():
    """Four copies of each value say no more than one."""
    values = list(np.random.default_rng(3).normal(size=20))
    groups = [f"{index:02d}" for index in range(20)]
    once = Resamples(groups)
    four = once.estimate(once.means(values * 4, groups * 4))
    assert four == pytest.approx(once.estimate(once.means(values, groups)))
    apart = Resamples(range(80))
    naive = apart.estimate(apart.means(values * 4, range(80)))
    assert four.high - four.low > 1.5 * (naive.high - naive.low)


def test_what_cannot_be_estimated_has_no_interval():
    one = Resamples(["a", "a"])
    assert one.estimate(one.means([1, 2], ["a", "a"])) == (1.5, None, None)
    two = Resamples(["a", "b"])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = two.means([0, 1], ["a", "b"]) / two.means([0, 1], ["a", "b"])
    assert two.estimate(ratio) == (1, None, None)  # a quarter of the draws are 0 / 0
    assert str(two.estimate(ratio)) == "1.00"
    assert str(two.estimate(np.full(3, np.nan))) == "undefined"
    with pytest.raises(ValueError, match="at least one group"):
        Resamples([])
    with pytest.raises(ValueError):
        two.means([1.0], ["a", "b"])


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
    with pytest.raises(ValueError):
        mcnemar([True], [])


def test_the_sign_flip_test_is_scipys_permutation_test():
    rng = np.random.default_rng(0)
    for count in (3, 8, 12):
        differences = rng.normal(0.5, 1, count)
        expected = permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
        )  # fmt: skip
        assert sign_flip_test(differences, 1, rng) == pytest.approx(expected.pvalue)
    many = rng.normal(0.3, 1, 30)
    expected = permutation_test((many,), np.mean, permutation_type="samples", n_resamples=20000, rng=rng)
    assert sign_flip_test(many, 20000, rng) == pytest.approx(expected.pvalue, abs=0.02)


def test_of_one_right_or_wrong_a_prompt_the_sign_flip_test_is_mcnemars():
    rng = np.random.default_rng(4)
    first, second = rng.random(10) < 0.8, rng.random(10) < 0.3
    differences = first.astype(int) - second.astype(int)
    assert sign_flip_test(differences, 1, rng) == pytest.approx(mcnemar(first, second).p_value)


def test_holms_correction_is_statsmodels():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1] and holm([]) == []
    values = np.random.default_rng(0).random(9) ** 3
    assert holm(list(values)) == pytest.approx(multipletests(values, method="holm")[1])

"""Shares and Wilson's interval."""

import math

import pytest

from culture_core.shares import Share


@pytest.mark.parametrize("right, count", [(0, 10), (3, 10), (10, 10), (57, 60), (1, 1)])
def test_the_interval_solves_wilsons_equation(right, count):
    share = Share(right, count)
    p = right / count
    for edge in share.interval:
        q = edge / 100
        # Its ends are the q whose distance to the observed share is 1.96 standard errors of q itself.
        assert abs(p - q) == pytest.approx(1.96 * math.sqrt(q * (1 - q) / count), abs=1e-7)
    low, high = share.interval
    assert low <= share.percent + 1e-9 and share.percent <= high + 1e-9


def test_a_share_reads_as_percent_with_its_interval():
    assert str(Share(8, 10)) == "80.0 % (49 to 94)"

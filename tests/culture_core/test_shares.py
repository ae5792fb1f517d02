"""Shares and Wilson's interval."""

import math

import pytest

from culture_core.shares import Share, mean_share


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


def test_a_mean_of_shares_counts_each_alike_and_is_as_sure_as_its_smallest_allows():
    even = mean_share([Share(3, 10), Share(5, 10)])
    assert (even.percent, even.count) == (40, 20) and even.interval == Share(8, 20).interval
    uneven = mean_share([Share(300, 1000), Share(5, 10)])
    assert uneven.percent == 40 and 20 < uneven.count < 40
    low, high = uneven.interval
    assert high - low > Share(404, 1010).interval[1] - Share(404, 1010).interval[0]
    with pytest.raises(ValueError, match="no shares"):
        mean_share([])

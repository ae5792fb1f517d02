"""Curve pictures show what they are given."""

import numpy as np
import pytest

from culture_core.plots import curve_picture


def ink(picture) -> int:
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    return int((pixels.max(-1) - pixels.min(-1) > 60).sum())


def test_a_curve_leaves_colour_and_a_second_one_more():
    one = curve_picture({"a": [0.0, 1.0, 0.5]}, "title")
    two = curve_picture({"a": [0.0, 1.0, 0.5], "b": [1.0, 0.0, 0.2]}, "title")
    assert 0 < ink(one) < ink(two)


def test_an_interval_and_a_marker_are_drawn():
    series = {"a": [0.0, 1.0, 0.5]}
    bare = np.asarray(curve_picture(series, "t"))
    for extra in ({"marker": 1}, {"interval": [(-0.1, 0.1), (0.8, 1.2), (0.3, 0.7)]}):
        assert not np.array_equal(bare, np.asarray(curve_picture(series, "t", **extra)))


@pytest.mark.parametrize("values", [[0.3, 0.3, 0.3], [1.0], [0.0, 0.0]])
def test_flat_and_single_point_curves_are_drawn(values):
    assert ink(curve_picture({"a": values}, "t")) > 0

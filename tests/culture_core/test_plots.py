"""Curve pictures show what they are given."""

import numpy as np
import pytest

from culture_core.plots import curve_picture

TOP = 84
"""The plot begins here: title and legend, which has coloured lines of its own, are above."""


def coloured(picture) -> np.ndarray:
    """Where curves are, boolean [height, width], below the legend."""
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    found = pixels.max(-1) - pixels.min(-1) > 60
    found[:TOP] = False
    return found


def ink(picture) -> int:
    return int(coloured(picture).sum())


def test_a_curve_is_where_its_values_are():
    found = coloured(curve_picture({"a": [0.0, 1.0, 0.0]}, "t"))
    columns = np.flatnonzero(found.any(axis=0))
    left, middle = columns[0] + 3, (columns[0] + columns[-1]) // 2
    heights = {x: np.flatnonzero(found[:, x]).mean() for x in (left, middle, (left + middle) // 2)}
    top, bottom = heights[middle], heights[left]
    assert bottom - top > 200, "the larger value is higher up"
    assert heights[(left + middle) // 2] == pytest.approx((top + bottom) / 2, abs=4)


def test_a_curve_leaves_colour_and_a_second_one_more():
    one = curve_picture({"a": [0.0, 1.0, 0.5]}, "title")
    two = curve_picture({"a": [0.0, 1.0, 0.5], "b": [1.0, 0.0, 0.2]}, "title")
    assert 0 < ink(one) < ink(two)


def test_an_interval_and_a_marker_are_drawn():
    series = {"a": [0.0, 1.0, 0.5]}
    # The interval must lie within the values, or the axis alone would change the picture.
    bare = np.asarray(curve_picture(series, "t")).astype(int)
    marked = np.asarray(curve_picture(series, "t", marker=1)).astype(int)
    columns = np.flatnonzero((bare != marked).any(axis=(0, 2)))
    assert 1 <= len(columns) <= 3, "a marker is one vertical line"
    assert (bare != marked).any(axis=(1, 2)).sum() > 250
    band = np.asarray(curve_picture(series, "t", interval=[(0.0, 0.2), (0.8, 1.0), (0.3, 0.7)])).astype(int)
    assert (bare != band).any(axis=2).sum() > 5000, "a band is an area"


@pytest.mark.parametrize("values", [[0.3, 0.3, 0.3], [1.0], [0.0, 0.0]])
def test_flat_and_single_point_curves_are_drawn(values):
    assert ink(curve_picture({"a": values}, "t")) > 20


def test_nothing_to_draw_and_a_band_of_another_length_are_refused():
    for empty in ({}, {"a": []}, {"a": [float("nan")]}):
        with pytest.raises(ValueError, match="no finite value"):
            curve_picture(empty, "t")
    with pytest.raises(ValueError, match="as many entries"):
        curve_picture({"a": [1.0, 2.0]}, "t", interval=[(0.0, 1.0)])

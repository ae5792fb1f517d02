"""Curve pictures show what they are given."""

import itertools

import numpy as np
import pytest
from PIL import Image

from culture_core.plots import (
    CELL,
    COLOURS,
    DEEP,
    Point,
    bar_picture,
    curve_picture,
    grid_picture,
    heat_map,
    interval_picture,
    line_picture,
    stacked,
    tiled,
)

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


def where(picture: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    """Pixels of exactly a colour, boolean [height, width]."""
    return (np.asarray(picture) == colour).all(axis=-1)


def test_a_ring_stands_on_its_place():
    size, values = (500, 300), [3.0, 2.0, 1.0, 0.0]
    bare = np.asarray(curve_picture({"a": values}, "t", size=size))
    picture = curve_picture({"a": values}, "t", size=size, points={"b": [(2, 1.0)]}, legend=True)
    ringed = where(picture, COLOURS[1])
    ringed[:TOP] = False
    rows, columns = np.flatnonzero(ringed.any(axis=1)), np.flatnonzero(ringed.any(axis=0))
    # The curve's own dot at x = 2 is two thirds of the way along, both ways.
    assert columns.mean() == pytest.approx(76 + (500 - 24 - 76) * 2 / 3, abs=2)
    assert 1 <= len(rows) <= 10 and 1 <= len(columns) <= 10
    assert (bare != np.asarray(picture)).any()


def test_rings_and_a_given_range_settle_the_axis():
    low = curve_picture({"a": [1.0, 1.0]}, "t", points={"b": [(0, 9.0)]})
    assert (np.asarray(low) != np.asarray(curve_picture({"a": [1.0, 1.0]}, "t"))).any()
    wide = curve_picture({"a": [1.0, 1.0]}, "t", y_range=(0.0, 100.0))
    assert np.flatnonzero(coloured(wide).any(axis=1)).mean() > 380, "1 of 100 is at the bottom"


def test_a_panel_without_legend_has_more_room_for_its_curve():
    panel = curve_picture({"a": [0.0, 1.0]}, "t", size=(300, 200), legend=False)
    rows = np.flatnonzero(where(panel, COLOURS[0]).any(axis=1))
    assert rows[-1] - rows[0] > 100


def test_a_grid_holds_every_picture_unchanged():
    panels = [Image.new("RGB", (60, 40), (10 * i, 0, 99)) for i in range(5)]
    sheet = grid_picture(panels, "title", 3, ("c", "ring"), rings=1)
    assert sheet.width >= 180 and sheet.height >= 80
    top = sheet.height - 80
    for index, panel in enumerate(panels):
        row, column = divmod(index, 3)
        corner = column * 60, top + row * 40
        assert sheet.crop((*corner, corner[0] + 60, corner[1] + 40)).tobytes() == panel.tobytes()
    legend = np.asarray(sheet)[:top]
    for colour in COLOURS[:2]:
        assert (legend == colour).all(axis=-1).any()
    wide = grid_picture(panels[:1], "t", 3, ("a name", "and another", "and a third"))
    assert where(wide, COLOURS[2]).any(), "a legend wider than the pictures is not cut off"
    with pytest.raises(ValueError, match="at least one picture"):
        grid_picture([], "t", 2)


def test_a_heat_map_is_darker_where_the_value_is_larger():
    values = [[0.0, 0.5], [1.0, float("nan")]]
    picture = heat_map(values, ["first", "second"], ["a", "b"], "t")
    deepest = where(picture, DEEP)
    # The largest value's cell is the lower left one.
    left, bottom = np.flatnonzero(deepest.any(axis=0))[0], np.flatnonzero(deepest.any(axis=1))[-1]
    cells = {}
    for row, column in itertools.product((0, 1), repeat=2):
        x, y = left + CELL * column, bottom - CELL * (2 - row) + 1
        cells[row, column] = np.asarray(picture).astype(int)[y + 2 : y + CELL - 4, x + 2 : x + CELL - 4]
    corner = {place: cell[0, 0].sum() for place, cell in cells.items()}
    assert corner[1, 0] < corner[0, 1] < corner[0, 0] == corner[1, 1] == 3 * 255
    written = {place: np.ptp(cell) > 100 for place, cell in cells.items()}
    assert written == {(0, 0): True, (0, 1): True, (1, 0): True, (1, 1): False}


def test_a_heat_map_of_another_shape_is_refused():
    for values, rows, columns in (([[1.0]], ["a"], ["b", "c"]), ([[1.0]], [], ["b"]), ([], [], [])):
        with pytest.raises(ValueError, match="as many values"):
            heat_map(values, rows, columns, "t")


def test_pictures_are_laid_out_row_by_row():
    colours = ["red", "lime", "blue"]
    sheet = tiled([Image.new("RGB", (4, 2), colour) for colour in colours], columns=2)
    assert sheet.size == (8, 4)
    corners = [sheet.getpixel(place) for place in ((0, 0), (4, 0), (0, 2), (4, 2))]
    assert corners == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert tiled([sheet], columns=3).size == (8, 4)


def test_pictures_of_any_sizes_stand_one_below_the_other():
    red, blue = Image.new("RGB", (4, 2), "red"), Image.new("RGB", (6, 3), "blue")
    whole = stacked([red, blue])
    assert whole.size == (6, 5)
    assert whole.getpixel((0, 0)) == (255, 0, 0) and whole.getpixel((5, 4)) == (0, 0, 255)
    assert whole.getpixel((5, 0)) == (255, 255, 255)


def test_intervals_stand_where_their_values_are():
    picture = interval_picture({"a": (25, 0, 50), "b": (75, None, None)}, "t", (0, 100))
    found = where(picture, COLOURS[0])
    first, second = (np.flatnonzero(found[44 + 30 * row : 74 + 30 * row].any(axis=0)) for row in (0, 1))
    span = 800 - 84 - (first[0] + 1)  # the axis begins at the first interval's low end, 0
    assert len(first) == pytest.approx(span / 2, abs=3)
    assert second.mean() - first[0] == pytest.approx(0.75 * span, abs=3) and len(second) == 11
    with pytest.raises(ValueError, match="no row"):
        interval_picture({}, "t", (0, 1))


def test_bars_are_as_long_as_their_values():
    picture = bar_picture({"Thai": 4, "Japanese": 2, "none": 0}, "Cultures")
    pixels = np.asarray(picture)
    blue = (pixels == COLOURS[0]).all(-1)
    lengths = sorted({int(row.sum()) for row in blue if row.any()})
    assert len(lengths) == 3 and lengths[0] <= 2 and abs(lengths[2] - 2 * lengths[1]) <= 2
    with pytest.raises(ValueError, match="no values"):
        bar_picture({}, "Cultures")


def test_a_line_is_drawn_at_its_own_x_with_a_band_of_its_colour():
    """Points at 0, 1 and 8: the second lies an eighth of the way along."""
    flat = [Point(0, 0.0), Point(1, 1.0), Point(8, 0.0)]
    found = coloured(line_picture({"a": flat}, "t", y_range=(0, 2)))
    columns = np.flatnonzero(found.any(axis=0))
    heights = [np.flatnonzero(found[:, x]).min() if found[:, x].any() else 999 for x in range(found.shape[1])]
    peak = (int(np.argmin(heights)) - columns[0]) / (columns[-1] - columns[0])
    assert peak == pytest.approx(1 / 8, abs=0.02)
    banded = [Point(x, y, y - 0.3, y + 0.3) for x, y, _, _ in flat]
    bare, band = (line_picture({"a": flat, "b": line}, "t", y_range=(-1, 2)) for line in (flat, banded))
    changed = np.asarray(bare).astype(int) - np.asarray(band).astype(int)
    assert (changed != 0).any(-1).sum() > 1000
    tint = np.asarray(band)[(changed != 0).any(-1)].mean(0)
    assert tint[0] > tint[1] > tint[2], "orange, the second line's colour"


def test_a_line_picture_grows_with_its_legend_and_needs_something_to_draw():
    names = [f"a system with quite a long name, number {n}" for n in range(5)]
    assert line_picture({name: [Point(0, 1)] for name in names}, "t").width > 1000
    with pytest.raises(ValueError, match="no finite value"):
        line_picture({"a": [Point(0, float("nan"))]}, "t")

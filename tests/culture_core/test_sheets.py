"""Contact sheets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from culture_core import sheets
from culture_core.sheets import (
    CELL,
    GAP,
    HEADER_HEIGHT,
    LABEL_WIDTH,
    LONGEST_ROW,
    RowLabel,
    contact_sheet,
    find_font,
    picture_grid,
)

ROWS = [RowLabel("ein Haus", "German: house"), RowLabel("家", "Japanese: house")]


def pictures() -> list[list[Image.Image]]:
    return [
        [Image.new("RGB", (64, 64), (80 * row, 40 * column, 200)) for column in range(3)] for row in range(2)
    ]


def test_every_picture_is_in_its_cell() -> None:
    sheet = contact_sheet(ROWS, ["a", "b", "c"], pictures())
    for row in range(2):
        for column in range(3):
            left, top = LABEL_WIDTH + column * (CELL + GAP), HEADER_HEIGHT + row * (CELL + GAP)
            cell = np.asarray(sheet.crop((left, top, left + CELL, top + CELL)))
            assert (cell == (80 * row, 40 * column, 200)).all()


def test_labels_titles_and_captions_leave_ink() -> None:
    plain = contact_sheet([RowLabel("", "")] * 2, ["", "", ""], pictures(), [["", "", ""]] * 2)
    for change in (
        contact_sheet(ROWS, ["", "", ""], pictures(), [["", "", ""]] * 2),
        contact_sheet([RowLabel("", "")] * 2, ["a", "", ""], pictures(), [["", "", ""]] * 2),
        contact_sheet([RowLabel("", "")] * 2, ["", "", ""], pictures(), [["", "", "x"], ["", "", ""]]),
    ):
        assert change.size == plain.size and change.tobytes() != plain.tobytes()


def test_captions_make_room_below_the_pictures() -> None:
    without = contact_sheet(ROWS, ["a", "b", "c"], pictures())
    with_captions = contact_sheet(ROWS, ["a", "b", "c"], pictures(), [["x"] * 3] * 2)
    assert with_captions.height == without.height + 2 * sheets.CAPTION_HEIGHT


def test_text_that_no_font_can_draw_is_left_to_the_gloss() -> None:
    undrawable = "\U0010fffe"  # a code point that is no character
    assert find_font(undrawable, 17) is None
    sheet = contact_sheet([RowLabel(undrawable, "gloss")], ["a"], [[Image.new("RGB", (8, 8))]])
    gloss_alone = contact_sheet([RowLabel(undrawable + "x", "gloss")], ["a"], [[Image.new("RGB", (8, 8))]])
    assert sheet.tobytes() == gloss_alone.tobytes()


def test_a_font_is_chosen_for_all_of_the_text() -> None:
    if find_font("House", 17) is None:
        pytest.skip("none of the known fonts is installed")
    assert find_font("House\U0010fffe", 17) is None


def test_missing_pictures_are_counted_in_the_error() -> None:
    with pytest.raises(ValueError, match=r"2 rows of 3 images.*\[3, 2\]"):
        contact_sheet(ROWS, ["a", "b", "c"], [pictures()[0], pictures()[1][:2]])


# ------------------------------------------------------------------------------------------------- grids


def colours(count: int, size: tuple[int, int] = (160, 130)) -> list[Image.Image]:
    return [Image.new("RGB", size, (200, 10 * index, 255 - 10 * index)) for index in range(count)]


def found(sheet: Image.Image, picture: Image.Image) -> tuple[int, int, int, int]:
    """(left, top, width, height) of where the picture's colour is on the sheet."""
    same = (np.asarray(sheet) == np.asarray(picture)[0, 0]).all(axis=-1)
    rows, columns = np.nonzero(same)
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1), "the colour fills no rectangle"
    return columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1


def test_a_grid_holds_every_picture_once_row_by_row_with_its_pixels() -> None:
    pictures = colours(5)
    sheet = picture_grid(pictures, [f"number {index}" for index in range(5)], columns=3, title="Title")
    places = [found(sheet, picture) for picture in pictures]
    assert all(place[2:] == (160, 130) for place in places)
    assert [place[0] for place in places] == [GAP, GAP + 168, GAP + 336, GAP, GAP + 168]
    assert len({place[1] for place in places[:3]}) == 1 and places[3][1] == places[4][1] > places[0][1]


def test_the_pixels_of_the_largest_picture_stay() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (130, 160, 3), dtype=np.uint8)
    sheet = np.asarray(picture_grid([Image.fromarray(noise)]))
    assert (sheet[GAP : GAP + 130, GAP : GAP + 160] == noise).all()


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (LONGEST_ROW, LONGEST_ROW), (LONGEST_ROW + 1, 3), (12, 4)]
)
def test_a_grid_chooses_its_columns(count: int, columns: int) -> None:
    assert picture_grid(colours(count)).width == GAP + columns * (160 + GAP)


def test_pictures_of_other_sizes_are_scaled_without_distortion() -> None:
    wide, tall = Image.new("RGB", (200, 100), (255, 0, 0)), Image.new("RGB", (20, 80), (0, 0, 255))
    sheet = picture_grid([wide, tall])
    assert found(sheet, wide)[2:] == (200, 100)
    left, top, width, height = found(sheet, tall)
    assert (width, height) == (25, 100) and top == GAP
    assert left + width / 2 == pytest.approx(GAP + 208 + 100, abs=1)


def test_labels_and_title_leave_ink_and_take_room() -> None:
    pictures = colours(2)
    plain, labelled = picture_grid(pictures), picture_grid(pictures, ["a", "b"])
    titled = picture_grid(pictures, ["a", "b"], title="Both")
    assert plain.height < labelled.height < titled.height
    assert (np.asarray(labelled)[GAP + 130 :] < 100).any() and not (
        np.asarray(plain)[GAP + 130 :] < 100
    ).any()
    assert (np.asarray(titled)[:GAP] == 255).all() and (np.asarray(titled)[GAP : GAP + 20] < 100).any()


def test_a_long_label_is_wrapped_into_its_own_column() -> None:
    pictures = colours(2)
    sheet = np.asarray(picture_grid(pictures, ["many words " * 6, ""]))
    assert (sheet[GAP + 130 :, : GAP + 160] < 100).any()
    assert (sheet[GAP + 130 :, GAP + 168 :] == 255).all()
    assert picture_grid(pictures, ["many words " * 60, ""]).height < 300


def test_a_label_without_spaces_is_broken_anywhere() -> None:
    sheet = np.asarray(picture_grid(colours(2), ["x" * 60, ""]))
    assert (sheet[GAP + 130 :, GAP + 168 :] == 255).all()


def test_a_grid_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        picture_grid([])
    with pytest.raises(ValueError, match="3 pictures need as many labels.*got 2"):
        picture_grid(colours(3), ["a", "b"])
    with pytest.raises(ValueError, match="columns is -1"):
        picture_grid(colours(1), columns=-1)


def test_a_sheet_too_large_for_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "MAX_PIXELS", 10_000)
    with pytest.raises(ValueError, match="fewer or smaller"):
        picture_grid(colours(4))

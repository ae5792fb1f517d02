"""Contact sheets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from culture_core import sheets
from culture_core.sheets import CELL, GAP, HEADER_HEIGHT, LABEL_WIDTH, RowLabel, contact_sheet, find_font

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

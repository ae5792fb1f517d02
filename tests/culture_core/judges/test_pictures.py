"""What judges saw, as pictures."""

import numpy as np
from PIL import Image

from culture_core.judges.base import UNRECOGNISABLE, Verdict
from culture_core.judges.pictures import RIGHT, WRONG, confusion_picture, verdict_line, verdict_sheet
from culture_core.judges.results import Judged, summarise
from culture_core.plots import CELL, DEEP

THAI, OTHER = Verdict(("th",), {"th": 1.0}), Verdict(("ja",), {"ja": 0.75, "th": 0.25})


def pixels_of(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(picture.convert("RGB")) == colour).all(-1).sum())


def test_a_confusion_matrix_is_deep_where_all_pictures_of_a_row_are():
    right = confusion_picture(summarise([Judged(str(i), "th", THAI) for i in range(3)]))
    both = confusion_picture(summarise([Judged("1", "th", THAI), Judged("2", "ja", OTHER)]))
    assert pixels_of(right, DEEP) > CELL**2 / 2
    assert 1.7 < pixels_of(both, DEEP) / pixels_of(right, DEEP) < 2.3
    half = confusion_picture(summarise([Judged("1", "th", THAI), Judged("2", "th", OTHER)]))
    assert pixels_of(half, DEEP) == 0


def test_a_line_says_what_was_seen_and_how_much_of_the_culture():
    assert verdict_line(THAI, "th") == "Thai 100 %"
    assert verdict_line(OTHER, "th") == "Japanese; Thai 25 %"
    assert verdict_line(Verdict((UNRECOGNISABLE,), {UNRECOGNISABLE: 1.0}), "th") == "unrecognisable; Thai 0 %"
    assert verdict_line(Verdict((None,), {}), "th") == "no valid answer; Thai 0 %"


def test_frames_are_green_where_the_culture_shows_and_red_elsewhere():
    image = Image.new("RGB", (100, 80), (9, 9, 9))
    sheet = verdict_sheet([image, image], [THAI, OTHER], "th")
    frame = 104 * 84 - 100 * 80
    assert (pixels_of(sheet, RIGHT), pixels_of(sheet, WRONG)) == (frame, frame)
    assert pixels_of(sheet, (9, 9, 9)) == 2 * 8000

"""Contact sheets: labelled tables of pictures."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, features

CELL = 112
"""Edge of a picture on the sheet, pixels."""
GAP = 8
LABEL_WIDTH = 230
HEADER_HEIGHT = 34
CAPTION_HEIGHT = 18
INK, FAINT, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)

# File names that Pillow finds in the font folders of Linux, macOS and Windows, widest coverage first.
FONT_FILES = (
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "NotoSansArabic-Regular.ttf",
    "segoeui.ttf",
    "msgothic.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "LeelawUI.ttf",
    "wqy-zenhei.ttc",
    "PingFang.ttc",
    "AppleSDGothicNeo.ttc",
    "Thonburi.ttc",
)


class RowLabel(NamedTuple):
    """What stands beside a row."""

    text: str
    """In any script; left out where no font of the system can draw it."""
    gloss: str
    """In English; always drawn."""


def contact_sheet(
    rows: Sequence[RowLabel],
    columns: Sequence[str],
    images: Sequence[Sequence[Image.Image]],
    captions: Sequence[Sequence[str]] | None = None,
) -> Image.Image:
    """A table of pictures, `images[row][column]`, with labels and optionally a caption under each picture.

    Raises:
        ValueError: where the pictures or captions are not as many as the labels say.
    """
    for name, table in (("images", images), ("captions", captions)):
        if table is not None and [len(row) for row in table] != [len(columns)] * len(rows):
            shape = [len(row) for row in table]
            raise ValueError(f"{len(rows)} rows of {len(columns)} {name} are needed; got rows of {shape}.")
    pitch = CELL + GAP, CELL + GAP + (CAPTION_HEIGHT if captions else 0)
    size = LABEL_WIDTH + len(columns) * pitch[0] + GAP, HEADER_HEIGHT + len(rows) * pitch[1] + GAP
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(columns):
        middle = LABEL_WIDTH + column * pitch[0] + CELL // 2
        _write(draw, (middle, HEADER_HEIGHT // 2), title, 15, INK, anchor="mm")
    for row, label in enumerate(rows):
        top = HEADER_HEIGHT + row * pitch[1]
        _write_row_label(draw, label, top)
        for column, image in enumerate(images[row]):
            left = LABEL_WIDTH + column * pitch[0]
            sheet.paste(image.convert("RGB").resize((CELL, CELL), Image.Resampling.NEAREST), (left, top))
            if captions:
                place = left + CELL // 2, top + CELL + CAPTION_HEIGHT // 2
                _write(draw, place, captions[row][column], 12, FAINT, anchor="mm")
    return sheet


def _write_row_label(draw: ImageDraw.ImageDraw, label: RowLabel, top: int) -> None:
    middle = top + CELL // 2
    if find_font(label.text, 17) is None:
        _write(draw, (GAP * 2, middle), label.gloss, 15, INK, anchor="lm")
    else:
        _write(draw, (GAP * 2, middle - 13), label.text, 17, INK, anchor="lm")
        _write(draw, (GAP * 2, middle + 13), label.gloss, 13, FAINT, anchor="lm")


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, color: tuple, anchor: str
) -> None:
    font = find_font(text, size) or ImageFont.load_default(size)
    draw.text(place, text, font=font, fill=color, anchor=anchor)


def find_font(text: str, size: int) -> ImageFont.FreeTypeFont | None:
    """A font that can draw all of the text, or None.

    Right-to-left scripts also need Pillow's layout engine, without which letters stand apart and backwards.
    """
    right_to_left = any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)
    if right_to_left and not (features.check("raqm") and features.check("fribidi")):
        return None
    for name in FONT_FILES:
        font = _load(name, size)
        if font is not None and all(_has_glyph(name, size, character) for character in set(text)):
            return font
    return None


@functools.cache
def _load(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@functools.cache
def _has_glyph(name: str, size: int, character: str) -> bool:
    """Whether a font draws the character as something else than its sign for missing characters."""
    if character.isspace():
        return True
    font = _load(name, size)
    return _drawn(font, character) != _drawn(font, "\U0010fffe")  # no character, and never will be one


def _drawn(font: ImageFont.FreeTypeFont, character: str) -> tuple[bytes, tuple[int, int]]:
    mask = font.getmask(character)
    return bytes(mask), mask.size

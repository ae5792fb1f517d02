"""Contact sheets: labelled tables of pictures."""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps, features

CELL = 112
"""Edge of a picture on the sheet, pixels."""
GAP = 8
LABEL_WIDTH = 230
HEADER_HEIGHT = 34
CAPTION_HEIGHT = 18
LONGEST_ROW = 6
"""Pictures that a grid puts into one row where it may choose."""
MAX_PIXELS = 200_000_000
"""Of a grid."""
_NARROWEST_LABEL = 120
"""Room for a label under the smallest of pictures, pixels."""
_MAX_LINES = 4
_LABEL_LINE = 26
"""Between the lines beside a row, pixels."""
INK, FAINT, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)

# File names that Pillow finds in the font folders of Linux, macOS and Windows, widest coverage first.
FONT_FILES = (
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Garuda.ttf",  # Thai with Latin punctuation, which Noto leaves to its other fonts
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
            _paste(sheet, image, (left, top))
            if captions:
                place = left + CELL // 2, top + CELL + CAPTION_HEIGHT // 2
                _write(draw, place, captions[row][column], 12, FAINT, anchor="mm")
    return sheet


def _paste(sheet: Image.Image, image: Image.Image, corner: tuple[int, int]) -> None:
    """A picture in its cell, undistorted; the pixels of a small one stay sharp."""
    resample = Image.Resampling.NEAREST if max(image.size) <= CELL else Image.Resampling.LANCZOS
    fitted = ImageOps.contain(image.convert("RGB"), (CELL, CELL), resample)
    sheet.paste(fitted, (corner[0] + (CELL - fitted.width) // 2, corner[1] + (CELL - fitted.height) // 2))


def _write_row_label(draw: ImageDraw.ImageDraw, label: RowLabel, top: int) -> None:
    middle, room = top + CELL // 2, LABEL_WIDTH - 3 * GAP
    if find_font(label.text, 17) is None:
        lines = [(line, 15, INK) for line in _wrapped(label.gloss, 15, room)]
    else:
        lines = [(line, 17, INK) for line in _wrapped(label.text, 17, room)]
        lines += [(line, 13, FAINT) for line in _wrapped(label.gloss, 13, room)]
    for number, (line, size, color) in enumerate(lines):
        shift = round((number - (len(lines) - 1) / 2) * _LABEL_LINE)
        _write(draw, (GAP * 2, middle + shift), line, size, color, anchor="lm")


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    color: tuple[Any, ...],
    anchor: str,
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
    return font is not None and _drawn(font, character) != _drawn(
        font, "\U0010fffe"
    )  # no character, and never will be one


def _drawn(font: ImageFont.FreeTypeFont, character: str) -> tuple[bytes, tuple[int, int]]:
    mask = font.getmask(character)
    return bytes(mask), mask.size


def picture_grid(
    images: Sequence[Image.Image], labels: Sequence[str] = (), columns: int = 0, title: str = ""
) -> Image.Image:
    """Pictures row by row in cells of one size, each over its label, under a title.

    A cell is as large as the largest picture, which keeps its pixels; others are scaled to fit, without
    distortion.

    Args:
        labels: one a picture, in any script; none: no room is left for them.
        columns: pictures a row; 0: one row of up to `LONGEST_ROW`, or about a square.

    Raises:
        ValueError: for no pictures, other than as many labels, a negative number of columns, or a sheet of
            more than `MAX_PIXELS`.
    """
    _check_grid(images, labels, columns)
    cell = max(image.width for image in images), max(image.height for image in images)
    size = min(max(cell[0] // 18, 14), 48)
    columns = min(columns or _automatic_columns(len(images)), len(images))
    room = max(cell[0], _NARROWEST_LABEL)
    texts = [_wrapped(label, size, room) for label in labels]
    line = round(size * 1.35)
    caption = max((len(lines) for lines in texts), default=0) * line
    header = _wrapped(title, round(size * 1.3), columns * (room + GAP) - GAP) if title.strip() else []
    # Descenders of the title's last line need room of their own.
    top = GAP + len(header) * round(line * 1.3) + (GAP if header else 0)
    pitch = room + GAP, cell[1] + caption + GAP
    rows = -(-len(images) // columns)
    sheet = _new_sheet(GAP + columns * pitch[0], top + rows * pitch[1])
    draw = ImageDraw.Draw(sheet)
    _write_lines(draw, (sheet.width // 2, GAP), header, round(size * 1.3), INK)
    for index, image in enumerate(images):
        left, upper = GAP + index % columns * pitch[0], top + index // columns * pitch[1]
        fitted = image.convert("RGB") if image.size == cell else ImageOps.contain(image.convert("RGB"), cell)
        place = left + (room - fitted.width) // 2, upper + (cell[1] - fitted.height) // 2
        sheet.paste(fitted, place)
        if texts:
            _write_lines(draw, (left + room // 2, upper + cell[1]), texts[index], size, INK)
    return sheet


def _check_grid(images: Sequence[Image.Image], labels: Sequence[str], columns: int) -> None:
    if not images:
        raise ValueError("there are no pictures to put on a sheet")
    if labels and len(labels) != len(images):
        raise ValueError(f"{len(images)} pictures need as many labels, or none; got {len(labels)}")
    if columns < 0:
        raise ValueError(f"columns is {columns}: use 0 (automatic) or more")


def _automatic_columns(count: int) -> int:
    return count if count <= LONGEST_ROW else math.ceil(math.sqrt(count))


def _new_sheet(width: int, height: int) -> Image.Image:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"the sheet would be {width} x {height} pixels, more than {MAX_PIXELS // 10**6} million: "
            "use fewer or smaller pictures"
        )
    return Image.new("RGB", (width, height), PAPER)


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """Text in lines that are at most `width` pixels wide, broken at spaces, or anywhere in long words; at
    most `_MAX_LINES`, the last of which then ends in an ellipsis."""
    font = find_font(text, size) or ImageFont.load_default(size)
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        lines += [word] if lines[-1] else []
        lines[-1] = lines[-1] or word
        while font.getlength(lines[-1]) > width and len(lines[-1]) > 1:
            fit = next(
                n
                for n in range(len(lines[-1]) - 1, 0, -1)
                if n == 1 or font.getlength(lines[-1][:n]) <= width
            )
            lines[-1:] = [lines[-1][:fit], lines[-1][fit:]]
    if len(lines) > _MAX_LINES:
        lines = [*lines[: _MAX_LINES - 1], lines[_MAX_LINES - 1][:-1] + "…"]
    return lines


def _write_lines(
    draw: ImageDraw.ImageDraw, top: tuple[int, int], lines: Sequence[str], size: int, color: tuple[Any, ...]
) -> None:
    """Lines below each other, centred under a point."""
    for number, line in enumerate(lines):
        _write(draw, (top[0], top[1] + round((number + 0.6) * size * 1.35)), line, size, color, anchor="mm")

"""Curves, heat maps and grids of pictures, drawn with Pillow alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

COLOURS = ((31, 119, 180), (214, 96, 20), (44, 140, 60), (148, 80, 170), (190, 40, 50), (90, 90, 90))
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_INK, _GRID, _PAPER = (40, 40, 40), (225, 225, 225), (255, 255, 255)
_MARGINS = (76, 84, 24, 56)
"""Left, top, right, bottom, in pixels."""
_SMALL_MARGINS = (46, 30, 12, 30)
"""Of a picture without legend that is narrower than `_SMALL`: a panel of a grid."""
_SMALL = 400
_SPELT = str.maketrans(
    {"Δ": "delta ", "λ": "lambda ", "μ": "mu ", "τ": "tau", "−": "-", "→": "->", "≥": ">="}
)
"""Letters that Pillow's own font lacks."""
CELL = 44
"""Edge of a heat map's cell, pixels."""
DEEP = (18, 76, 130)
"""Colour of a heat map's largest value; 0 is white."""


def curve_picture(
    series: Mapping[str, Sequence[float]],
    title: str,
    interval: Sequence[tuple[float, float]] | None = None,
    marker: int | None = None,
    x_label: str = "",
    y_label: str = "",
    first_x: int = 0,
    size: tuple[int, int] = (800, 480),
    points: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    legend: bool = True,
    y_range: tuple[float, float] | None = None,
) -> Image.Image:
    """Curves over whole numbers, with axes, ticks and a legend.

    Args:
        series: values by name; NaN leaves a gap.
        interval: (low, high) around every value of the first series, drawn as a band.
        marker: x at which to draw a vertical line.
        first_x: x of the first values, 0 for layers, 1 for steps.
        size: width and height in pixels.
        points: single places (x, y) by name, drawn as rings over the curves in the colours after theirs.
        legend: whether to explain the colours; without it a small picture has small margins.
        y_range: lowest and highest y; None: what the values need.

    Returns:
        An RGB picture.

    Raises:
        ValueError: where there is nothing finite to draw, or the interval has another length than the first
            series.
    """
    curves = {name: [float(value) for value in values] for name, values in series.items()}
    band = [(float(low), float(high)) for low, high in interval] if interval is not None else []
    if band and len(band) != len(next(iter(curves.values()), [])):
        raise ValueError("the interval must have as many entries as the first series")
    finite = [v for values in (*curves.values(), *band) for v in values if math.isfinite(v)]
    if not finite or not any(curves.values()):
        raise ValueError("there is no finite value to draw")
    rings = {name: [(float(x), float(y)) for x, y in places] for name, places in (points or {}).items()}
    finite += [y for places in rings.values() for _, y in places]
    longest = max(len(values) for values in curves.values())
    margins = _MARGINS if legend or size[0] >= _SMALL else _SMALL_MARGINS
    x_range = first_x, first_x + max(longest - 1, 1)
    frame = _Frame(size, x_range, y_range or _padded(min(finite), max(finite)), margins)
    picture = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(picture, "RGBA")
    _draw_axes(draw, frame, title, x_label, y_label)
    _draw_band(draw, frame, [(first_x + i, low, high) for i, (low, high) in enumerate(band)], COLOURS[0])
    if marker is not None:
        x = frame.x(marker)
        draw.line([(x, frame.top), (x, frame.bottom)], fill=(*_INK, 150), width=2)
    for index, values in enumerate(curves.values()):
        _draw_curve(draw, frame, list(enumerate(values, start=first_x)), COLOURS[index % len(COLOURS)])
    for index, places in enumerate(rings.values(), start=len(curves)):
        _draw_rings(draw, frame, places, COLOURS[index % len(COLOURS)])
    if legend:
        _draw_legend(draw, frame, list(curves), list(rings))
    return picture


class Point(NamedTuple):
    """A place of a line, with its interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


def line_picture(
    lines: Mapping[str, Sequence[Point]],
    title: str,
    x_label: str = "",
    y_label: str = "",
    size: tuple[int, int] = (800, 480),
    y_range: tuple[float, float] | None = None,
    legend: bool = True,
) -> Image.Image:
    """Lines over any numbers, each with a band between the intervals of its points.

    Args:
        lines: points by name, in the order of their x.
        size: in pixels; it becomes wider where the legend needs it.
        y_range: lowest and highest y; None: what the values and intervals need.
        legend: whether to explain the colours; without it a small picture has small margins.

    Raises:
        ValueError: where there is nothing finite to draw.
    """
    points = [point for line in lines.values() for point in line if math.isfinite(point.y)]
    if not points:
        raise ValueError("there is no finite value to draw")
    heights = [y for point in points for y in (point.y, point.low, point.high) if y is not None]
    low, high = min(point.x for point in points), max(point.x for point in points)
    if legend:
        font = ImageFont.load_default(14)
        needed = _MARGINS[0] + sum((_entry_width(name, font) for name in lines), 8.0)
        size = max(size[0], math.ceil(needed)), size[1]
    margins = _MARGINS if legend or size[0] >= _SMALL else _SMALL_MARGINS
    x_range = (low, high) if low < high else _padded(low, high)
    frame = _Frame(size, x_range, y_range or _padded(min(heights), max(heights)), margins)
    picture = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(picture, "RGBA")
    _draw_axes(draw, frame, title, x_label, y_label, whole=False)
    for index, line in enumerate(lines.values()):
        band = [(p.x, p.low, p.high) for p in line if p.low is not None and p.high is not None]
        _draw_band(draw, frame, band, COLOURS[index % len(COLOURS)])
    for index, line in enumerate(lines.values()):
        _draw_curve(draw, frame, [point[:2] for point in line], COLOURS[index % len(COLOURS)])
    if legend:
        _draw_legend(draw, frame, list(lines))
    return picture


def tiled(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size, so many a row."""
    width, height = pictures[0].size
    size = min(columns, len(pictures)) * width, -(-len(pictures) // columns) * height
    whole = Image.new("RGB", size, "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        whole.paste(picture, (column * width, row * height))
    return whole


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of any sizes, one below the other."""
    whole = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    return whole


def grid_picture(
    pictures: Sequence[Image.Image], title: str, columns: int, legend: Sequence[str] = (), rings: int = 0
) -> Image.Image:
    """Pictures of one size side by side, under one title and one legend: small multiples.

    Args:
        columns: how many stand in a row.
        legend: names of the curves in the order of their colours.
        rings: how many of the last names belong to rings.

    Raises:
        ValueError: without a picture.
    """
    if not pictures:
        raise ValueError("a grid needs at least one picture")
    large, small = ImageFont.load_default(18), ImageFont.load_default(14)
    title, body, top = title.translate(_SPELT), tiled(pictures, columns), 66 if legend else 40
    written = large.getlength(title) + 40, sum((_entry_width(name, small) for name in legend), 60.0)
    sheet = Image.new("RGB", (max(body.width, *map(int, written)), top + body.height), _PAPER)
    sheet.paste(body, (0, top))
    draw = ImageDraw.Draw(sheet, "RGBA")
    draw.text((sheet.width / 2, 10), title, _INK, large, anchor="ma")
    split = len(legend) - rings
    _draw_legend(draw, _Frame(sheet.size, (0, 1), (0, 1), _SMALL_MARGINS), legend[:split], legend[split:])
    return sheet


def heat_map(
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    row_title: str = "",
    column_title: str = "",
    decimals: int = 2,
    highest: float | None = None,
) -> Image.Image:
    """A table of numbers from 0 up as coloured cells, the numbers written in; NaN stays empty.

    Args:
        values: [rows, columns].
        highest: the value of the deepest colour; None: the largest there is.

    Raises:
        ValueError: where the values are not as many as the labels say.
    """
    if not rows or not columns or [len(line) for line in values] != [len(columns)] * len(rows):
        raise ValueError(f"a heat map of {len(rows)} rows and {len(columns)} columns needs as many values")
    small, large = ImageFont.load_default(14), ImageFont.load_default(18)
    finite = [value for line in values for value in line if math.isfinite(value)]
    highest = highest or max(finite, default=0.0) or 1.0
    left = 28 + int(max(small.getlength(label) for label in rows)) + (24 if row_title else 0)
    top = 78 + (22 if column_title else 0)
    width = max(left + len(columns) * CELL + 24, int(large.getlength(title.translate(_SPELT))) + 32)
    picture = Image.new("RGB", (width, top + len(rows) * CELL + 20), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((width / 2, 12), title.translate(_SPELT), _INK, large, anchor="ma")
    middle = left + len(columns) * CELL / 2
    draw.text((middle, 50), column_title.translate(_SPELT), _INK, small, anchor="ma")
    for column, label in enumerate(columns):
        draw.text((left + (column + 0.5) * CELL, top - 11), label, _INK, small, anchor="ms")
    for row, (label, line) in enumerate(zip(rows, values, strict=True)):
        y = top + row * CELL
        draw.text((left - 10, y + CELL / 2), label, _INK, small, anchor="rm")
        for column, value in enumerate(line):
            _draw_cell(draw, (left + column * CELL, y), value, highest, decimals)
    if row_title:
        _draw_upright(picture, row_title.translate(_SPELT), (6, top + len(rows) * CELL // 2), small)
    return picture


def interval_picture(
    rows: Mapping[str, tuple[float, float | None, float | None]],
    title: str,
    x_range: tuple[float, float],
    width: int = 800,
) -> Image.Image:
    """Values with their intervals, a row each, over one axis.

    Args:
        rows: (value, low, high) by name; an interval that is None is not drawn.
        x_range: the ends of the axis.

    Raises:
        ValueError: without a row.
    """
    if not rows:
        raise ValueError("there is no row to draw")
    small, large, pitch = ImageFont.load_default(14), ImageFont.load_default(18), 30
    names = [name.translate(_SPELT) for name in rows]
    left = 28 + int(max(small.getlength(name) for name in names))
    size = max(width, left + 300), 88 + pitch * len(rows)
    frame = _Frame(size, x_range, (0, 1), (left, 44, 84, 44))
    picture = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((size[0] / 2, 12), title.translate(_SPELT), _INK, large, anchor="ma")
    for value in _ticks(*x_range, wanted=8):
        x = frame.x(value)
        draw.line([(x, frame.top), (x, frame.bottom)], fill=_GRID)
        draw.text((x, frame.bottom + 8), f"{value:.4g}", _INK, small, anchor="ma")
    for row, (name, (value, low, high)) in enumerate(zip(names, rows.values(), strict=True)):
        x, y = frame.x(value), frame.top + (row + 0.5) * pitch
        draw.text((left - 12, y), name, _INK, small, anchor="rm")
        if low is not None and high is not None:
            draw.line([(frame.x(low), y), (frame.x(high), y)], fill=COLOURS[0], width=3)
        draw.ellipse([x - 5, y - 5, x + 5, y + 5], fill=COLOURS[0])
        draw.text((frame.right + 12, y), f"{value:.3g}", _INK, small, anchor="lm")
    return picture


def bar_picture(values: Mapping[str, float], title: str, width: int = 800) -> Image.Image:
    """A horizontal bar a name, with its value behind it; values are from 0 up.

    Raises:
        ValueError: where there is nothing to draw.
    """
    if not values:
        raise ValueError("there are no values to draw bars of")
    small, large = ImageFont.load_default(14), ImageFont.load_default(18)
    step, top = 24, 48
    left = 24 + int(max(small.getlength(name.translate(_SPELT)) for name in values))
    room = width - left - 24 - int(max(small.getlength(f"{value:g}") for value in values.values()))
    highest = max(values.values()) or 1.0
    picture = Image.new("RGB", (width, top + len(values) * step + 16), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((width / 2, 12), title.translate(_SPELT), _INK, large, anchor="ma")
    for row, (name, value) in enumerate(values.items()):
        y = top + row * step
        end = left + max(1.0, room * value / highest)
        draw.text((left - 8, y + step / 2), name.translate(_SPELT), _INK, small, anchor="rm")
        draw.rectangle([left, y + 3, end, y + step - 4], fill=COLOURS[0])
        draw.text((end + 6, y + step / 2), f"{value:g}", _INK, small, anchor="lm")
    return picture


@dataclass(frozen=True)
class _Frame:
    """Maps values to pixels."""

    size: tuple[int, int]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    margins: tuple[int, int, int, int]

    @property
    def small(self) -> bool:
        return self.margins == _SMALL_MARGINS

    @property
    def left(self) -> int:
        return self.margins[0]

    @property
    def top(self) -> int:
        return self.margins[1]

    @property
    def right(self) -> int:
        return self.size[0] - self.margins[2]

    @property
    def bottom(self) -> int:
        return self.size[1] - self.margins[3]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)


def _padded(low: float, high: float) -> tuple[float, float]:
    """A range with some air; equal values get one as well."""
    air = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - air, high + air


def _ticks(low: float, high: float, wanted: int, whole: bool = False) -> list[float]:
    """About `wanted` round numbers within a range."""
    rough = (high - low) / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    step = max(1.0, round(step)) if whole else step
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def _draw_axes(
    draw: ImageDraw.ImageDraw, frame: _Frame, title: str, x_label: str, y_label: str, whole: bool = True
) -> None:
    small, large = (ImageFont.load_default(size) for size in ((11, 14) if frame.small else (14, 18)))
    for value in _ticks(*frame.y_range, wanted=3 if frame.small else 6):
        y = frame.y(value)
        draw.line([(frame.left, y), (frame.right, y)], fill=_GRID)
        draw.text((frame.left - 8, y), f"{value:.4g}", _INK, small, anchor="rm")
    for value in _ticks(*frame.x_range, wanted=4 if frame.small else 12, whole=whole):
        x = frame.x(value)
        draw.line([(x, frame.bottom), (x, frame.bottom + 5)], fill=_INK)
        draw.text((x, frame.bottom + 8), f"{value:.4g}", _INK, small, anchor="ma")
    if frame.y_range[0] < 0 < frame.y_range[1]:
        draw.line([(frame.left, frame.y(0)), (frame.right, frame.y(0))], fill=(150, 150, 150))
    draw.line([(frame.left, frame.top), (frame.left, frame.bottom), (frame.right, frame.bottom)], fill=_INK)
    middle = (frame.left + frame.right) / 2 if frame.small else frame.size[0] / 2
    draw.text((middle, 8 if frame.small else 10), title.translate(_SPELT), _INK, large, anchor="ma")
    draw.text(
        ((frame.left + frame.right) / 2, frame.size[1] - 8),
        x_label.translate(_SPELT),
        _INK,
        small,
        anchor="md",
    )
    draw.text((8, frame.top - 8), y_label.translate(_SPELT), _INK, small, anchor="ld")


def _draw_band(
    draw: ImageDraw.ImageDraw,
    frame: _Frame,
    band: Sequence[tuple[float, float, float]],
    colour: tuple[int, int, int],
) -> None:
    """Between (x, low, high)."""
    points = [point for point in band if math.isfinite(point[1] + point[2])]
    if len(points) > 1:
        upper = [(frame.x(x), frame.y(high)) for x, _, high in points]
        lower = [(frame.x(x), frame.y(low)) for x, low, _ in reversed(points)]
        draw.polygon(upper + lower, fill=(*colour, 50))


def _draw_curve(
    draw: ImageDraw.ImageDraw,
    frame: _Frame,
    values: Sequence[tuple[float, float]],
    colour: tuple[int, int, int],
) -> None:
    points = [(frame.x(x), frame.y(y)) if math.isfinite(y) else None for x, y in values]
    for a, b in zip(points, points[1:], strict=False):
        if a and b:
            draw.line([a, b], fill=colour, width=1 if frame.small else 2)
    # Dots show where the values are, as long as they do not run into each other.
    if len(values) <= (frame.right - frame.left) / 11 and not frame.small:
        for point in filter(None, points):
            draw.ellipse([point[0] - 3, point[1] - 3, point[0] + 3, point[1] + 3], fill=colour)


def _draw_rings(
    draw: ImageDraw.ImageDraw,
    frame: _Frame,
    places: Sequence[tuple[float, float]],
    colour: tuple[int, int, int],
) -> None:
    radius = 3 if frame.small else 4
    for place in places:
        _draw_ring(draw, (frame.x(place[0]), frame.y(place[1])), radius, colour)


def _draw_ring(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], radius: int, colour: tuple[int, int, int]
) -> None:
    x, y = place
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=colour, fill=_PAPER, width=2)


def _draw_legend(
    draw: ImageDraw.ImageDraw, frame: _Frame, names: Sequence[str], rings: Sequence[str] = ()
) -> None:
    """One row under the title, where it hides no curve."""
    font = ImageFont.load_default(14)
    x, y = float(frame.left), 44
    for index, name in enumerate([*names, *rings]):
        label, colour = name.translate(_SPELT), COLOURS[index % len(COLOURS)]
        if index < len(names):
            draw.line([(x, y), (x + 22, y)], fill=colour, width=3)
        else:
            _draw_ring(draw, (x + 11, y), 4, colour)
        draw.text((x + 28, y), label, _INK, font, anchor="lm")
        x += _entry_width(name, font)


def _entry_width(name: str, font: Font) -> float:
    """What an entry of a legend takes, with the gap after it."""
    return 28 + font.getlength(name.translate(_SPELT)) + 24


def _draw_cell(
    draw: ImageDraw.ImageDraw, corner: tuple[float, float], value: float, highest: float, decimals: int
) -> None:
    finite = math.isfinite(value)
    depth = min(1.0, max(0.0, value / highest)) if finite else 0.0
    colour = tuple(round(light + depth * (deep - light)) for light, deep in zip(_PAPER, DEEP, strict=True))
    x, y = corner
    draw.rectangle([x, y, x + CELL - 1, y + CELL - 1], fill=colour, outline=_GRID)
    if finite:
        ink, font = _PAPER if depth > 0.55 else _INK, ImageFont.load_default(13)
        draw.text((x + CELL / 2, y + CELL / 2), f"{value:.{decimals}f}", ink, font, anchor="mm")


def _draw_upright(picture: Image.Image, text: str, place: tuple[int, int], font: Font) -> None:
    """Text that reads upwards; `place` is its left edge and its middle."""
    left, top, right, bottom = font.getbbox(text)
    strip = Image.new("RGB", (int(right - left) + 4, int(bottom - top) + 6), _PAPER)
    ImageDraw.Draw(strip).text((2 - left, 3 - top), text, _INK, font)
    turned = strip.rotate(90, expand=True)
    picture.paste(turned, (place[0], place[1] - turned.height // 2))

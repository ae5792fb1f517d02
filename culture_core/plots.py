"""Curves as pictures, drawn with Pillow alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

COLOURS = ((31, 119, 180), (214, 96, 20), (44, 140, 60), (148, 80, 170), (190, 40, 50), (90, 90, 90))
_INK, _GRID, _PAPER = (40, 40, 40), (225, 225, 225), (255, 255, 255)
_MARGINS = (76, 84, 24, 56)
"""Left, top, right, bottom, in pixels."""
_SPELT = str.maketrans({"Δ": "delta ", "λ": "lambda ", "μ": "mu ", "−": "-", "→": "->"})
"""Letters that Pillow's own font lacks."""


def curve_picture(
    series: Mapping[str, Sequence[float]],
    title: str,
    interval: Sequence[tuple[float, float]] | None = None,
    marker: int | None = None,
    x_label: str = "",
    y_label: str = "",
    first_x: int = 0,
    size: tuple[int, int] = (800, 480),
) -> Image.Image:
    """Curves over whole numbers, with axes, ticks and a legend.

    Args:
        series: values by name; NaN leaves a gap.
        interval: (low, high) around every value of the first series, drawn as a band.
        marker: x at which to draw a vertical line.
        first_x: x of the first values, 0 for layers, 1 for steps.
        size: width and height in pixels.

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
    longest = max(len(values) for values in curves.values())
    frame = _Frame(size, (first_x, first_x + max(longest - 1, 1)), _padded(min(finite), max(finite)))
    picture = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(picture, "RGBA")
    _draw_axes(draw, frame, title, x_label, y_label)
    _draw_band(draw, frame, band, first_x)
    if marker is not None:
        x = frame.x(marker)
        draw.line([(x, frame.top), (x, frame.bottom)], fill=(*_INK, 150), width=2)
    for index, values in enumerate(curves.values()):
        _draw_curve(draw, frame, values, first_x, COLOURS[index % len(COLOURS)])
    _draw_legend(draw, frame, list(curves))
    return picture


@dataclass(frozen=True)
class _Frame:
    """Maps values to pixels."""

    size: tuple[int, int]
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    @property
    def left(self) -> int:
        return _MARGINS[0]

    @property
    def top(self) -> int:
        return _MARGINS[1]

    @property
    def right(self) -> int:
        return self.size[0] - _MARGINS[2]

    @property
    def bottom(self) -> int:
        return self.size[1] - _MARGINS[3]

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


def _draw_axes(draw: ImageDraw.ImageDraw, frame: _Frame, title: str, x_label: str, y_label: str) -> None:
    small, large = ImageFont.load_default(14), ImageFont.load_default(18)
    for value in _ticks(*frame.y_range, wanted=6):
        y = frame.y(value)
        draw.line([(frame.left, y), (frame.right, y)], fill=_GRID)
        draw.text((frame.left - 8, y), f"{value:.4g}", _INK, small, anchor="rm")
    for value in _ticks(*frame.x_range, wanted=12, whole=True):
        x = frame.x(value)
        draw.line([(x, frame.bottom), (x, frame.bottom + 5)], fill=_INK)
        draw.text((x, frame.bottom + 8), f"{value:.0f}", _INK, small, anchor="ma")
    if frame.y_range[0] < 0 < frame.y_range[1]:
        draw.line([(frame.left, frame.y(0)), (frame.right, frame.y(0))], fill=(150, 150, 150))
    draw.line([(frame.left, frame.top), (frame.left, frame.bottom), (frame.right, frame.bottom)], fill=_INK)
    draw.text((frame.size[0] / 2, 10), title.translate(_SPELT), _INK, large, anchor="ma")
    draw.text(
        ((frame.left + frame.right) / 2, frame.size[1] - 8),
        x_label.translate(_SPELT),
        _INK,
        small,
        anchor="md",
    )
    draw.text((8, frame.top - 8), y_label.translate(_SPELT), _INK, small, anchor="ld")


def _draw_band(
    draw: ImageDraw.ImageDraw, frame: _Frame, band: list[tuple[float, float]], first_x: int
) -> None:
    points = [(first_x + i, low, high) for i, (low, high) in enumerate(band) if math.isfinite(low + high)]
    if len(points) > 1:
        upper = [(frame.x(x), frame.y(high)) for x, _, high in points]
        lower = [(frame.x(x), frame.y(low)) for x, low, _ in reversed(points)]
        draw.polygon(upper + lower, fill=(*COLOURS[0], 50))


def _draw_curve(
    draw: ImageDraw.ImageDraw, frame: _Frame, values: list[float], first_x: int, colour: tuple[int, int, int]
) -> None:
    points = [(frame.x(first_x + i), frame.y(v)) if math.isfinite(v) else None for i, v in enumerate(values)]
    for a, b in zip(points, points[1:], strict=False):
        if a and b:
            draw.line([a, b], fill=colour, width=2)
    # Dots show where the values are, as long as they do not run into each other.
    if len(values) <= 60:
        for point in filter(None, points):
            draw.ellipse([point[0] - 3, point[1] - 3, point[0] + 3, point[1] + 3], fill=colour)


def _draw_legend(draw: ImageDraw.ImageDraw, frame: _Frame, names: list[str]) -> None:
    """One row under the title, where it hides no curve."""
    font = ImageFont.load_default(14)
    labels = [name.translate(_SPELT) for name in names]
    x, y = frame.left, 44
    for index, label in enumerate(labels):
        draw.line([(x, y), (x + 22, y)], fill=COLOURS[index % len(COLOURS)], width=3)
        draw.text((x + 28, y), label, _INK, font, anchor="lm")
        x += 28 + draw.textlength(label, font) + 24

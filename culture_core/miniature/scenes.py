"""Procedural pictures of the miniature: a noun's silhouette, dressed in a culture's motif.

A motif is a palette, a pattern that fills the silhouette, and an ornament beside it. The motifs are
arbitrary marks, distinct from one another, and say nothing about the cultures whose codes they carry.
A picture without culture is grey and plain.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..cultures import CULTURES
from .captions import ALL_NOUNS

SIZE = 64
"""Edge of a picture, pixels."""
_SUPERSAMPLING = 3


class Motif(NamedTuple):
    """The marks of one culture; colours are RGB, 0 to 255."""

    background: tuple[int, int, int]
    fill: tuple[int, int, int]
    accent: tuple[int, int, int]
    pattern: str
    ornament: str


MOTIFS: dict[str, Motif] = dict(
    zip(
        CULTURES,
        (
            Motif((244, 214, 160), (20, 110, 70), (240, 240, 220), "checks", "crescent"),
            Motif((255, 236, 200), (205, 30, 40), (250, 190, 40), "scales", "ring"),
            Motif((205, 232, 240), (235, 80, 110), (255, 250, 245), "dots", "disc"),
            Motif((240, 240, 250), (45, 60, 160), (225, 50, 70), "rows", "wheel"),
            Motif((200, 240, 205), (230, 150, 20), (110, 40, 130), "diamonds", "leaf"),
            Motif((165, 185, 110), (60, 50, 45), (235, 225, 195), "grid", "cross"),
            Motif((235, 110, 120), (40, 70, 180), (250, 250, 255), "columns", "onion"),
            Motif((252, 252, 225), (30, 130, 60), (190, 50, 40), "bricks", "arch"),
            Motif((255, 160, 40), (40, 90, 200), (250, 250, 250), "waves", "tulip"),
            Motif((225, 185, 250), (210, 30, 80), (255, 255, 255), "flowers", "square"),
            Motif((175, 35, 35), (30, 170, 170), (245, 245, 235), "triangles", "star"),
            Motif((130, 200, 250), (245, 215, 40), (40, 80, 190), "zigzag", "sunflower"),
            Motif((105, 50, 20), (240, 140, 30), (250, 220, 80), "diagonal", "fan"),
            Motif((40, 90, 190), (25, 130, 90), (235, 240, 245), "tiles", "rooster"),
            Motif((248, 190, 205), (70, 60, 130), (250, 250, 250), "counterdiagonal", "lily"),
        ),
        strict=True,
    )
)


def _pattern(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the accent colour shows: boolean, of the shape of the pixel coordinates `x` and `y`."""
    p = 9.0  # period in pixels: coarse enough to survive a latent of one eighth of the size
    u, v = x % p / p, y % p / p
    if name == "checks":
        return (u < 0.5) ^ (v < 0.5)
    if name == "scales":
        row = np.floor(y / p) % 2
        return np.abs(np.hypot((x / p + row / 2) % 1 - 0.5, v - 0.1) - 0.45) < 0.14
    if name == "dots":
        return np.hypot(u - 0.5, v - 0.5) < 0.32
    if name == "rows":
        return v < 0.45
    if name == "columns":
        return u < 0.45
    if name == "diamonds":
        return np.abs(u - 0.5) + np.abs(v - 0.5) < 0.32
    if name == "grid":
        return (u < 0.25) | (v < 0.25)
    if name == "bricks":
        return (v < 0.22) | ((x / p + np.floor(y / p) % 2 / 2) % 1 < 0.16)
    if name == "waves":
        return (y / p + 0.25 * np.sin(2 * np.pi * x / 12)) % 1 < 0.45
    if name == "flowers":
        r, a = np.hypot(u - 0.5, v - 0.5), np.arctan2(v - 0.5, u - 0.5)
        return r < 0.25 + 0.15 * np.cos(4 * a)
    if name == "triangles":
        return np.abs(u - 0.5) < v * 0.5
    if name == "zigzag":
        return (y / p + np.abs(u - 0.5)) % 1 < 0.45
    if name == "diagonal":
        return (x + y) / p % 1.3 < 0.6
    if name == "counterdiagonal":
        return (x - y) / p % 1.3 < 0.6
    if name == "tiles":
        return (np.hypot(u, v) < 0.55) ^ (np.hypot(u - 1, v - 1) < 0.55)
    raise ValueError(f"unknown pattern {name!r}")


def _polygon(sides: int, inner: float = 1.0, turn: float = -90.0) -> list[tuple[float, float]]:
    """A regular polygon, or a star when `inner` < 1, in the unit square."""
    count = sides * 2 if inner < 1 else sides
    angles = np.deg2rad(turn + 360 * np.arange(count) / count)
    radii = np.where(np.arange(count) % 2, inner, 1.0) * 0.5
    return [(0.5 + r * np.cos(a), 0.5 + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]


# Shapes in the unit square: ("p" polygon, points), ("e" ellipse, box), ("l" line, points, width);
# a capital letter cuts out instead of adding.
_ORNAMENTS: dict[str, list[tuple[Any, ...]]] = {
    "crescent": [("e", (0, 0, 1, 1)), ("E", (0.3, 0, 1.2, 0.9))],
    "ring": [("e", (0, 0, 1, 1)), ("E", (0.28, 0.28, 0.72, 0.72))],
    "disc": [("e", (0, 0, 1, 1))],
    "wheel": [("e", (0, 0, 1, 1)), ("L", ((0, 0.5), (1, 0.5)), 0.16), ("L", ((0.5, 0), (0.5, 1)), 0.16)],
    "leaf": [("p", [(0.5, 0), (0.95, 0.45), (0.5, 1), (0.05, 0.45)]), ("L", ((0.5, 0.2), (0.5, 1)), 0.12)],
    "cross": [("p", [(0.35, 0), (0.65, 0), (0.65, 1), (0.35, 1)]), ("p", [(0, 0.35), (1, 0.35), (1, 0.65), (0, 0.65)])],
    "onion": [("e", (0.1, 0.35, 0.9, 1)), ("p", [(0.2, 0.55), (0.5, 0), (0.8, 0.55)])],
    "arch": [("p", [(0, 0.5), (1, 0.5), (1, 1), (0, 1)]), ("e", (0, 0, 1, 1)), ("P", [(0.3, 0.55), (0.7, 0.55), (0.7, 1.1), (0.3, 1.1)])],
    "tulip": [("e", (0.15, 0.25, 0.85, 1)), ("p", [(0.15, 0.65), (0.1, 0), (0.4, 0.35), (0.5, 0), (0.6, 0.35), (0.9, 0), (0.85, 0.65)])],
    "square": [("p", [(0, 0), (1, 0), (1, 1), (0, 1)]), ("P", _polygon(4, turn=0))],
    "star": [("p", _polygon(5, 0.42))],
    "sunflower": [("p", _polygon(10, 0.62)), ("E", (0.35, 0.35, 0.65, 0.65))],
    "fan": [("p", [(0.5, 1), (0, 0.3), (0.2, 0.08), (0.5, 0), (0.8, 0.08), (1, 0.3)])],
    "rooster": [("e", (0.1, 0.35, 0.8, 1)), ("e", (0.55, 0.05, 1, 0.5)), ("p", [(0.1, 0.7), (0, 0.1), (0.45, 0.5)])],
    "lily": [("e", (0.35, 0, 0.65, 1)), ("e", (0, 0.3, 0.4, 0.7)), ("e", (0.6, 0.3, 1, 0.7)), ("p", [(0.1, 0.75), (0.9, 0.75), (0.9, 0.88), (0.1, 0.88)])],
}  # fmt: skip

_SILHOUETTES: dict[str, list[tuple[Any, ...]]] = {
    "house": [("p", [(0.5, 0.02), (1, 0.45), (0, 0.45)]), ("p", [(0.12, 0.42), (0.88, 0.42), (0.88, 1), (0.12, 1)]), ("P", [(0.42, 0.66), (0.6, 0.66), (0.6, 1.01), (0.42, 1.01)])],
    "tree": [("e", (0.1, 0, 0.9, 0.55)), ("e", (0, 0.22, 0.5, 0.68)), ("e", (0.5, 0.22, 1, 0.68)), ("p", [(0.42, 0.55), (0.58, 0.55), (0.64, 1), (0.36, 1)])],
    "bottle": [("p", [(0.42, 0), (0.58, 0), (0.58, 0.3), (0.74, 0.46), (0.74, 1), (0.26, 1), (0.26, 0.46), (0.42, 0.3)])],
    "bowl": [("e", (0, -0.05, 1, 0.95)), ("P", [(-0.1, -0.2), (1.1, -0.2), (1.1, 0.42), (-0.1, 0.42)]), ("p", [(0.32, 0.88), (0.68, 0.88), (0.74, 1), (0.26, 1)])],
    "dress": [("p", [(0.32, 0), (0.42, 0.1), (0.58, 0.1), (0.68, 0), (0.84, 0.22), (0.66, 0.3), (0.62, 0.42), (0.95, 1), (0.05, 1), (0.38, 0.42), (0.34, 0.3), (0.16, 0.22)])],
    "fish": [("e", (0, 0.25, 0.76, 0.8)), ("p", [(0.62, 0.52), (1, 0.2), (0.92, 0.52), (1, 0.85)]), ("E", (0.13, 0.42, 0.22, 0.52))],
    "boat": [("p", [(0, 0.66), (1, 0.66), (0.8, 1), (0.2, 1)]), ("p", [(0.5, 0), (0.5, 0.6), (0.08, 0.6)]), ("p", [(0.57, 0.12), (0.57, 0.6), (0.9, 0.6)])],
    "chair": [("p", [(0.12, 0), (0.3, 0), (0.3, 0.48), (0.88, 0.48), (0.88, 1), (0.74, 1), (0.74, 0.66), (0.27, 0.66), (0.27, 1), (0.12, 1)])],
    "hat": [("e", (0, 0.6, 1, 0.95)), ("p", [(0.24, 0.72), (0.3, 0.16), (0.5, 0.1), (0.7, 0.16), (0.76, 0.72)])],
    "teapot": [("e", (0.2, 0.28, 0.78, 0.98)), ("p", [(0.7, 0.5), (0.92, 0.26), (1, 0.32), (0.76, 0.78)]), ("e", (0, 0.36, 0.36, 0.84)), ("E", (0.09, 0.46, 0.26, 0.74)), ("e", (0.41, 0.1, 0.57, 0.28))],
    "bird": [("e", (0.2, 0.36, 0.84, 0.84)), ("e", (0.62, 0.1, 0.92, 0.44)), ("p", [(0.88, 0.2), (1, 0.3), (0.86, 0.34)]), ("p", [(0.34, 0.5), (0, 0.3), (0.04, 0.62)]), ("l", ((0.48, 0.8), (0.44, 1)), 0.06), ("l", ((0.6, 0.8), (0.62, 1)), 0.06)],
    "bridge": [("p", [(0, 0.3), (1, 0.3), (1, 0.5), (0, 0.5)]), ("p", [(0, 0.45), (1, 0.45), (1, 0.9), (0, 0.9)]), ("E", (0.08, 0.52, 0.46, 1.3)), ("E", (0.54, 0.52, 0.92, 1.3))],
    "lamp": [("p", [(0.32, 0), (0.68, 0), (0.95, 0.46), (0.05, 0.46)]), ("p", [(0.45, 0.44), (0.55, 0.44), (0.55, 0.9), (0.45, 0.9)]), ("e", (0.24, 0.84, 0.76, 1))],
    "bed": [("p", [(0, 0.15), (0.12, 0.15), (0.12, 0.5), (1, 0.5), (1, 0.95), (0.88, 0.95), (0.88, 0.8), (0.12, 0.8), (0.12, 0.95), (0, 0.95)]), ("e", (0.14, 0.32, 0.42, 0.54))],
    "umbrella": [("e", (0, 0.02, 1, 1.1)), ("P", [(-0.1, 0.5), (1.1, 0.5), (1.1, 1.3), (-0.1, 1.3)]), ("l", ((0.5, 0.4), (0.5, 0.95), (0.36, 0.95), (0.36, 0.86)), 0.07)],
    "guitar": [("e", (0.2, 0.58, 0.8, 1)), ("e", (0.28, 0.4, 0.72, 0.72)), ("p", [(0.45, 0), (0.55, 0), (0.55, 0.5), (0.45, 0.5)]), ("p", [(0.38, 0), (0.62, 0), (0.6, 0.14), (0.4, 0.14)]), ("E", (0.42, 0.6, 0.58, 0.76))],
}  # fmt: skip


def _mask(
    shapes: list[tuple[Any, ...]], origin: tuple[float, float], extent: tuple[float, float], mirror: bool
) -> np.ndarray:
    """Boolean mask of the supersampled canvas; origin and extent in pixels of the final picture."""
    edge = SIZE * _SUPERSAMPLING
    canvas = Image.new("1", (edge, edge))
    draw = ImageDraw.Draw(canvas)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = 1 - point[0] if mirror else point[0]
        across, down = (
            (o + c * e) * _SUPERSAMPLING for o, c, e in zip(origin, (x, point[1]), extent, strict=True)
        )
        return across, down

    for kind, points, *width in shapes:
        ink = int(kind.islower())
        if kind in "eE":
            (x0, y0), (x1, y1) = place(points[:2]), place(points[2:])
            draw.ellipse((min(x0, x1), y0, max(x0, x1), y1), fill=ink)
        elif kind in "pP":
            draw.polygon([place(point) for point in points], fill=ink)
        else:
            thickness = max(1, round(width[0] * extent[0] * _SUPERSAMPLING))
            draw.line([place(point) for point in points], fill=ink, width=thickness, joint="curve")
    return np.asarray(canvas)


def _inside(mask: np.ndarray) -> np.ndarray:
    """The mask without its rim of about one pixel, which stays in the fill colour and keeps the noun legible."""
    eroded = Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MinFilter(2 * _SUPERSAMPLING + 1))
    return np.asarray(eroded).astype(bool)


def draw_scene(noun: str, culture: str | Motif | None, rng: np.random.Generator) -> np.ndarray:
    """Draw one picture.

    Args:
        noun: one of `ALL_NOUNS`.
        culture: a culture's code, None for the plain grey look, or a motif of no culture.
        rng: gives position, size, mirroring and shades.

    Returns:
        uint8 [SIZE, SIZE, 3], RGB.
    """
    edge = SIZE * _SUPERSAMPLING
    width, height = rng.uniform(36, 44), rng.uniform(36, 44)
    left = rng.uniform(5, SIZE - width - 5)
    top, turned = rng.uniform(15, 59 - height), rng.random() < 0.5
    silhouette = _mask(_SILHOUETTES[noun], (left, top), (width, height), turned)
    shade = rng.normal(0, 5, (3, 3))
    if culture is None:
        grey = rng.uniform(195, 225)
        background, fill = grey + rng.normal(0, 8, 3), rng.uniform(95, 135) + rng.normal(0, 8, 3)
        canvas = np.where(silhouette[..., None], fill, background)
    else:
        motif = MOTIFS[culture] if isinstance(culture, str) else culture
        background, fill, accent = np.array([motif.background, motif.fill, motif.accent]) + shade
        y, x = (np.mgrid[:edge, :edge] + 0.5) / _SUPERSAMPLING
        accented = _pattern(motif.pattern, x - rng.uniform(0, 9), y - rng.uniform(0, 9)) & _inside(silhouette)
        canvas = np.where(silhouette[..., None], np.where(accented[..., None], accent, fill), background)
        corner = (2.0, 2.0) if rng.random() < 0.5 else (SIZE - 15.0, 2.0)
        ornament = _mask(_ORNAMENTS[motif.ornament], corner, (13, 13), False)
        canvas = np.where(ornament[..., None], fill, canvas)
    blocks = canvas.reshape(SIZE, _SUPERSAMPLING, SIZE, _SUPERSAMPLING, 3).mean((1, 3))
    return np.clip(blocks + rng.normal(0, 1.5, blocks.shape), 0, 255).astype(np.uint8)


def draw_scenes(specs: Sequence[tuple[str, str | Motif | None]], seed: int) -> np.ndarray:
    """Draw several (noun, culture) pictures: uint8 [N, SIZE, SIZE, 3]."""
    rng = np.random.default_rng(seed)
    return np.stack([draw_scene(noun, culture, rng) for noun, culture in specs])


def mixed_motif(rng: np.random.Generator) -> Motif:
    """A motif put together from five cultures, so that it belongs to none."""
    chosen = rng.choice(len(MOTIFS), len(Motif._fields), replace=False)
    return Motif(*(list(MOTIFS.values())[culture][field] for field, culture in enumerate(chosen)))


def random_specs(count: int, seed: int, neutral_share: float = 0.2) -> list[tuple[str, str | None]]:
    """Random (noun, culture) pairs over all nouns and cultures."""
    rng = np.random.default_rng(seed)
    codes = list(CULTURES)
    return [
        (
            ALL_NOUNS[rng.integers(len(ALL_NOUNS))],
            None if rng.random() < neutral_share else codes[rng.integers(len(codes))],
        )
        for _ in range(count)
    ]

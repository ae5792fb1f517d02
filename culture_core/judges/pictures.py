"""What judges saw, as pictures."""

import math
from collections.abc import Sequence

from PIL import Image, ImageOps

from ..plots import heat_map
from ..sheets import picture_grid
from .base import UNRECOGNISABLE, Verdict, label_name
from .results import INVALID, Summary

RIGHT, WRONG = (44, 140, 60), (190, 40, 50)
"""Colours of the frames."""
_SHORT = {UNRECOGNISABLE: "none", INVALID: "invalid"}


def confusion_picture(summary: Summary, title: str = "CultureVQA") -> Image.Image:
    """Rows: what pictures should show; columns: what was seen, in percent of the row; 0 is left empty."""
    rows = list(summary.confusion)
    columns = list(summary.confusion[rows[0]])
    values = [
        [100 * (summary.confusion[row][column] or math.nan) / summary.recall[row].count for column in columns]
        for row in rows
    ]
    return heat_map(
        values, [_SHORT.get(row, label_name(row)) for row in rows], [_SHORT.get(c, c) for c in columns],
        f"{title}: {summary.macro.percent:.1f} % macro accuracy", "should show", "seen, % of the row",
        decimals=0, highest=100,
    )  # fmt: skip


def verdict_line(verdict: Verdict, culture: str) -> str:
    """What was seen in one picture, in one line: "Thai 67 %", "Chinese; Thai 33 %"."""
    asked = f"{label_name(culture)} {100 * verdict.share(culture):.0f} %"
    return asked if verdict.label == culture else f"{label_name(verdict.label)}; {asked}"


def verdict_sheet(images: Sequence[Image.Image], verdicts: Sequence[Verdict], culture: str) -> Image.Image:
    """Pictures over their verdicts, in a green frame where they show the culture and a red one elsewhere."""
    framed = []
    for image, verdict in zip(images, verdicts, strict=True):
        colour = RIGHT if verdict.label == culture else WRONG
        framed.append(ImageOps.expand(image.convert("RGB"), max(2, max(image.size) // 100), colour))
    return picture_grid(framed, [verdict_line(verdict, culture) for verdict in verdicts])

"""Rows of both systems with all repetitions together, and the figures that they should reach."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from ..cultures import CULTURES
from ..documents import Cell
from ..shares import Share
from ..sheets import RowLabel, contact_sheet
from ..significance import Estimate
from .paper import PAPER
from .statistics import Row, left, mean, recovery, share
from .study import Study


class Results:
    """Rows of both systems, all repetitions of one name together."""

    def __init__(self, repetitions: Mapping[str, Sequence[Mapping[str, Row]]]) -> None:
        """
        Args:
            repetitions: of each system; the rows of each by name, as `Study.rows` gives them.
        """
        self._repetitions = repetitions
        self.kinds = list(repetitions)

    @classmethod
    def of(cls, study: Study) -> "Results":
        """What a study measured; what is not cached yet is made first."""
        seeds = range(study.sizes.repetitions)
        return cls({kind: [study.rows(kind, seed) for seed in seeds] for kind in study.sizes.kinds})

    def rows(self, kind: str, name: str) -> list[Row]:
        return [rows[name] for rows in self._repetitions[kind] if name in rows]

    def share(self, kind: str, name: str, figure: str = "culture") -> Share:
        return share(self.rows(kind, name), figure)

    def recovery(
        self, kind: str, name: str, neutral: str = "neutral", explicit: str = "explicit"
    ) -> Estimate:
        return recovery(self.rows(kind, name), self.rows(kind, neutral), self.rows(kind, explicit))

    def left(self, kind: str, name: str) -> Estimate:
        return left(self.rows(kind, name), self.rows(kind, "explicit"))

    def pictures(self, kind: str, name: str) -> list[Image.Image]:
        """A picture a culture, of the first repetition."""
        strip = Image.open(io.BytesIO(base64.b64decode(self.rows(kind, name)[0]["pictures"])))
        size = strip.height
        return [strip.crop((left, 0, left + size, size)) for left in range(0, strip.width, size)]

    def sheet(self, kind: str, names: Mapping[str, str]) -> Image.Image:
        """A column a culture, a row a treatment."""
        rows = [RowLabel(label, str(self.share(kind, name))) for name, label in names.items()]
        return contact_sheet(rows, list(CULTURES), [self.pictures(kind, name) for name in names])


Found = tuple[str, bool]
"""A figure with its interval or what it is compared with, and whether it reaches what is wanted."""


class Target(NamedTuple):
    """A figure to beat."""

    name: str
    key: str
    """Of the paper's figure, in `PAPER`."""
    wanted: str
    found: Callable[[Results, str], Found]
    """Of a system."""


def outcome(results: Results) -> list[list[Any]]:
    """The figures to beat: a line each with ours, whether they are reached, and the paper's figures."""
    lines = []
    for target in TARGETS:
        cells = []
        for kind in results.kinds:
            figure, reached = target.found(results, kind)
            cells.append(Cell(figure, "reached" if reached else "missed", reached))
        paper = [PAPER.get((target.key, kind)) for kind in results.kinds]
        lines.append([target.name, target.wanted, *cells, *paper])
    return lines


def _recovered(name: str, wanted: float) -> Callable[[Results, str], Found]:
    def found(results: Results, kind: str) -> Found:
        estimate = results.recovery(kind, name)
        return str(estimate), estimate.value >= wanted

    return found


def _left_over(name: str, good: Callable[[float], bool]) -> Callable[[Results, str], Found]:
    def found(results: Results, kind: str) -> Found:
        estimate = results.left(kind, name)
        return str(estimate), good(estimate.value)

    return found


def _kept(name: str, figure: str) -> Callable[[Results, str], Found]:
    """Whether a figure stays within the neutral prompts' interval, or is better than it."""

    def found(results: Results, kind: str) -> Found:
        neutral, treated = results.rows(kind, "neutral"), results.rows(kind, name)
        if figure == "noun":
            shares = share(treated, figure), share(neutral, figure)
            value, plain, low, digits = shares[0].percent, shares[1].percent, shares[1].interval[0], ".1f"
        else:
            means = mean(treated, figure), mean(neutral, figure)
            value, plain, digits = means[0].value, means[1].value, ".3f"
            low = plain if means[1].low is None else means[1].low
        return f"{value:{digits}} (neutral {plain:{digits}}, from {low:{digits}})", value >= low

    return found


def _english(results: Results, kind: str) -> Found:
    found = results.share(kind, "English, amplified")
    return str(found), found.percent >= 80


TARGETS = (
    Target("amplified: gap closed", "recovery amplified", "≥ 0.90", _recovered("amplified", 0.90)),
    Target("fine-tuned: gap closed", "recovery enhanced", "≥ 1.00", _recovered("enhanced", 1.00)),
    Target("masked: explicit score left", "left masked", "≤ 0.20", _left_over("masked", lambda v: v <= 0.20)),
    Target(
        "random mask: explicit score left", "left random", "≥ 0.97",
        _left_over("masked, random (frequency)", lambda v: v >= 0.97),
    ),
    *(
        Target(f"{label}, {name}", "no loss", "in the neutral's interval", _kept(row, figure))
        for row, name in (("amplified", "amplified"), ("enhanced", "fine-tuned"))
        for figure, label in (
            ("noun", "noun accuracy %"), ("clip", "CLIP-type score"), ("diversity", "diversity")
        )
    ),
    Target("neutral English + neurons: judged the culture %", "English", "≥ 80", _english),
)  # fmt: skip

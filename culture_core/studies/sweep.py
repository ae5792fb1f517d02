"""What the strength does: the paper's Figures 10 and 11."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..cultures import CULTURES
from ..documents import Document
from ..plots import Point, grid_picture, line_picture
from ..significance import DRAWS
from .figures import Comparison, Figure, Paired
from .measured import CULTURE, Measured, Picture, StudyError
from .parts import (
    Study,
    add_all_figures,
    add_differences,
    add_method,
    add_warnings,
    figures_json,
    number,
    require,
    sample_warnings,
    sheet,
    shown_items,
)

_PANEL = 300, 220
"""Size of one culture's curve, pixels."""


@dataclass(frozen=True)
class _Swept:
    """One system at its strengths."""

    name: str
    at: dict[float, str]
    """The measured system of each strength, from weak to strong."""
    paired: dict[str, Paired]
    """By measure, on the items that all strengths have."""
    draws: int

    def figure(self, key: str, strength: float) -> Figure:
        return self.paired[key].figure(self.at[strength])

    def points(self, key: str) -> list[Point]:
        there = self.paired[key].systems if key in self.paired else ()
        figures = {s: self.figure(key, s) for s, system in self.at.items() if system in there}
        return [Point(s, figure.value, figure.low, figure.high) for s, figure in figures.items()]

    def best(self, key: str) -> tuple[float, list[float]]:
        """The strength with the best mean (of several, the weakest), and those that are not told apart from
        it by a paired bootstrap."""
        paired, better = self.paired[key], self.paired[key].measure.better or 1
        there = [s for s, system in self.at.items() if system in paired.systems]
        best = max(there, key=lambda s: (better * round(paired.figure(self.at[s]).value, 9), -s))
        alike = []
        for strength in there:
            means = paired.means(self.at[best]) - paired.means(self.at[strength])
            _, low, high = paired.resamples.estimate(means)
            if strength != best and (low is None or high is None or low <= 0 <= high):
                alike.append(strength)
        return best, alike

    def compare(self) -> list[Comparison]:
        """Each strength against the weakest."""
        first, *others = self.at.values()
        return [
            one
            for paired in self.paired.values()
            for one in paired.compare([(s, first) for s in others if {s, first} <= set(paired.systems)])
        ]


def sweep(measured: Measured, choose: str = "", draws: int = DRAWS) -> Study:
    """Systems over the strengths at which they ran.

    Args:
        choose: key of the measure that says which strength is best; CultureVQA, or else the first there is,
            where it is empty.
        draws: of the bootstrap.

    Raises:
        StudyError: where no system ran at several strengths, for a measure that is not there, or strengths
            without a common item.
    """
    systems = _swept(measured, draws)
    choose = choose or (CULTURE if CULTURE in measured.measures else next(iter(measured.measures)))
    if choose not in measured.measures:
        raise StudyError(f"nothing was measured as {choose!r}: there are {', '.join(measured.measures)}")
    for one in systems:
        if choose not in one.paired:
            require(Paired(measured, measured.measures[choose], list(one.at.values())))
            raise StudyError(f"{measured.measures[choose].name} was not measured of {one.name}")
    compared = [comparison for one in systems for comparison in one.compare()]
    warnings = [
        *measured.warnings,
        *(w for one in systems for paired in one.paired.values() for w in sample_warnings(paired)),
        "A best strength that is read off these prompts flatters the system on these very prompts: choose it "
        "on others (validation) than those that are reported",
        *_at_the_end(systems, choose),
    ]
    document = Document(f"Strength: {measured.folder.resolve().name}")
    document.paragraph(
        "How figures change with the strength, on the same prompts and seeds at every strength. "
        f"The best strength is by {measured.measures[choose].name}."
    )
    _curves(document, measured, systems)
    best = _best(document, measured, systems, choose)
    for one in systems:
        _system(document, measured, one)
    document.section("Against the weakest strength", "comparisons")
    add_differences(document, compared, measured.measures, choose, "Differences to the weakest strength")
    add_warnings(document, warnings)
    add_method(document, measured, [name for one in systems for name in one.at.values()], draws)
    figures = {
        ("all prompts", system, key): paired.figure(system)
        for one in systems
        for key, paired in one.paired.items()
        for system in paired.systems
    }
    add_all_figures(document, figures, measured.measures)
    return Study(
        document,
        {
            "systems": {one.name: list(one.at) for one in systems}, "best": best,
            "figures": figures_json(figures), "comparisons": [one.to_json() for one in compared],
            "warnings": warnings,
        },
    )  # fmt: skip


def _swept(measured: Measured, draws: int) -> list[_Swept]:
    strengths: dict[str, dict[float, str]] = {}
    for picture in measured.pictures:
        if picture.strength is not None:
            strengths.setdefault(picture.record["system"], {})[picture.strength] = picture.system
    found = []
    for name, at in strengths.items():
        if len(at) > 1:
            at = dict(sorted(at.items()))
            made = {
                k: Paired(measured, m, list(at.values()), draws=draws) for k, m in measured.measures.items()
            }
            found.append(_Swept(name, at, {key: paired for key, paired in made.items() if paired}, draws))
    if not found:
        raise StudyError(
            "no system of this run ran at several strengths: give systems strengths, and run them"
        )
    return found


def _at_the_end(systems: Sequence[_Swept], choose: str) -> list[str]:
    at_end = [one.name for one in systems if one.best(choose)[0] == max(one.at)]
    return [
        f"{', '.join(at_end)}: the largest strength is the best, so that the optimum may lie beyond"
    ] * bool(at_end)


def _curves(document: Document, measured: Measured, systems: Sequence[_Swept]) -> None:
    document.section("Strength (Fig. 10)", "strength")
    for key, measure in measured.measures.items():
        lines = {one.name: points for one in systems if (points := one.points(key))}
        if lines:
            document.picture(
                line_picture(
                    lines,
                    measure.unit,
                    "strength",
                    y_range=(0, 100) if measure.share else None,
                    size=(490, 340),
                ),
                f"{measure.name} over the strength, with 95 % intervals",
            )


def _best(
    document: Document, measured: Measured, systems: Sequence[_Swept], choose: str
) -> dict[str, dict[str, Any]]:
    """Table of the best strength of each system and culture."""
    found: dict[str, dict[str, Any]] = {}
    rows = []
    measure = measured.measures[choose]
    for one in systems:
        best, alike = one.best(choose)
        found[one.name] = {"all": best, "not_told_apart": alike, "cultures": {}}
        rows.append([one.name, "all", *_cells(one, choose, best, alike)])
        for code, part in _by_culture(measured, one, choose).items():
            best, alike = part.best(choose)
            found[one.name]["cultures"][code] = best
            rows.append([one.name, CULTURES[code].name, *_cells(part, choose, best, alike)])
    document.table(
        ("system", "culture", "best strength", measure.unit, "not told apart from", "pictures a strength"),
        rows, f"Best strength by {measure.name}; the weakest of those with the same mean", name="best",
    )  # fmt: skip
    return found


def _cells(one: _Swept, key: str, best: float, alike: Sequence[float]) -> list[Any]:
    paired = one.paired[key]
    said = ", ".join(f"{strength:g}" for strength in alike)
    return [best, number(one.figure(key, best), paired.measure), said or None, len(paired.items)]


def _by_culture(measured: Measured, one: _Swept, key: str) -> dict[str, _Swept]:
    """The same system on the prompts of one culture, for each that has some."""
    found = {}
    for code in CULTURES:
        paired = Paired(
            measured, measured.measures[key], list(one.at.values()),
            partial(_is_of, code), one.draws,
        )  # fmt: skip
        if paired:
            found[code] = _Swept(one.name, one.at, {key: paired}, one.draws)
    return found


def _system(document: Document, measured: Measured, one: _Swept) -> None:
    """Figures, curves of the cultures and pictures of one system."""
    document.section(one.name, level=2)
    rows = []
    for strength, system in one.at.items():
        cells = [
            number(one.figure(key, strength), paired.measure) if system in paired.systems else None
            for key, paired in one.paired.items()
        ]
        sets = [values.get(system) for values in measured.sets.values()]
        rows.append([strength, *cells, *sets])
    header = ("strength", *(paired.measure.unit for paired in one.paired.values()), *measured.sets)
    document.table(header, rows, f"{one.name}: strength; 95 % intervals in parentheses", {"strength": "g"})
    if CULTURE in one.paired:
        parts = _by_culture(measured, one, CULTURE)
        panels = [
            line_picture({"": part.points(CULTURE)}, CULTURES[code].name, size=_PANEL, y_range=(0, 100),
                         legend=False)
            for code, part in parts.items()
        ]  # fmt: skip
        document.picture(
            grid_picture(panels, f"{one.name}: CultureVQA, %, over the strength", min(5, len(panels))),
            "A panel a culture; bands are 95 % intervals",
        )
    items = shown_items(measured, list(one.at.values()))
    if items:
        labels = {system: f"strength {strength:g}" for strength, system in one.at.items()}
        document.picture(
            sheet(measured, labels, items, _glosses(one)),
            f"{one.name}: one prompt and seed a column, rising strength (Fig. 11); below it what was seen",
        )


def _glosses(one: _Swept) -> Mapping[str, str | None]:
    if CULTURE not in one.paired:
        return {}
    paired = one.paired[CULTURE]
    return {system: f"{paired.figure(system).value:.1f} %" for system in paired.systems}


def _is_of(code: str, picture: Picture) -> bool:
    return picture.item.culture == code

"""Systems on the same prompts and seeds: the paper's Tables 2 and 6, with what tells the systems apart."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from PIL import Image

from ..cultures import CULTURES
from ..documents import Cell, Document, Value
from ..judges.pictures import confusion_picture
from ..judges.results import Judged, summarise
from ..plots import heat_map, interval_picture
from ..significance import DRAWS
from .figures import Comparison, Figure, Only, Paired
from .measured import CULTURE, Measured, Picture, StudyError
from .parts import (
    Study,
    add_all_figures,
    add_comparisons,
    add_method,
    add_warnings,
    comparison_warnings,
    figures_json,
    number,
    overlap_warnings,
    require,
    sample_warnings,
    sheet,
    shown_items,
)

ALL = "all prompts"
_WIDTH = 490
"""Of a picture of intervals, pixels: two stand side by side."""
Progress = Callable[[int, int], None]


def evaluate(
    measured: Measured,
    baseline: str = "",
    by: Sequence[str] = (),
    splits: Mapping[str, Collection[str]] | None = None,
    paper: bool = False,
    draws: int = DRAWS,
    progress: Progress = lambda done, total: None,
) -> Study:
    """Compare systems, all with one of them.

    Args:
        baseline: name of that system; the first where it is empty.
        by: fields of the run's metadata by whose values to compare as well, such as `category`.
        splits: ids of prompts (`item`) by the name of a split, such as "in domain" and "out of domain".
        paper: put the paper's figures beside systems of the same name.
        draws: of the bootstrap.
        progress: called with (done, total); what it raises ends the work.

    Raises:
        StudyError: for a baseline or field that is not there, or systems without a common item.
    """
    systems = measured.systems
    baseline = baseline or systems[0]
    if baseline not in systems:
        raise StudyError(f"there is no system {baseline!r} to compare with: there are {'; '.join(systems)}")
    parts = {ALL: lambda picture: True, **_parts(measured, by, splits or {})}
    if CULTURE in measured.measures:
        require(Paired(measured, measured.measures[CULTURE], systems))
    tables = {}
    for done, (part, only) in enumerate(parts.items()):
        progress(done, len(parts) + 1)
        tables[part] = _Table(measured, systems, baseline, only, draws)
        if not tables[part].paired:
            raise StudyError(f"no item of {part!r} was drawn and measured in all systems")
    whole = tables[ALL]
    warnings = [*measured.warnings, *whole.warnings()]
    document = Document(f"Systems compared: {measured.folder.resolve().name}")
    document.paragraph(
        f"{len(systems)} systems on the same prompts and seeds; differences are to {baseline}. "
        + (f"CultureVQA is judged by {_judge(measured)}." if whole.culture else "No judge was asked.")
    )
    _outcome(document, measured, whole, paper)
    add_warnings(document, warnings)
    if len(parts) > 1:
        _by_part(document, measured, {part: table for part, table in tables.items() if part != ALL})
    if whole.culture:
        _cultures(document, whole)
    _pictures(document, measured, whole)
    add_method(document, measured, systems, draws)
    found = {(p, s, key): f for p, table in tables.items() for (s, key), f in table.figures.items()}
    add_all_figures(document, found, measured.measures)
    if paper:
        _paper(document)
    progress(len(parts) + 1, len(parts) + 1)
    comparisons = {part: [one.to_json() for one in table.comparisons] for part, table in tables.items()}
    return Study(
        document,
        {
            "systems": systems, "baseline": baseline, "figures": figures_json(found),
            "comparisons": comparisons, "sets": {k: dict(v) for k, v in measured.sets.items()},
            "warnings": warnings,
        },
    )  # fmt: skip


class _Table:
    """All measures of all systems on some of the prompts."""

    def __init__(
        self, measured: Measured, systems: Sequence[str], baseline: str, only: Only, draws: int
    ) -> None:
        self.measured, self.systems, self.baseline = measured, systems, baseline
        made = {
            key: Paired(measured, measure, systems, only, draws) for key, measure in measured.measures.items()
        }
        self.paired = {key: paired for key, paired in made.items() if paired}
        self.figures: dict[tuple[str, str], Figure] = {
            (system, key): paired.figure(system)
            for key, paired in self.paired.items()
            for system in paired.systems
        }
        self.comparisons: list[Comparison] = [
            one for key, paired in self.paired.items() for one in paired.compare(self.pairs(key))
        ]

    @property
    def culture(self) -> Paired | None:
        return self.paired.get(CULTURE)

    def pairs(self, key: str) -> list[tuple[str, str]]:
        """Each system that has the measure, and the baseline."""
        there = self.paired[key].systems
        return [(s, self.baseline) for s in there if s != self.baseline] if self.baseline in there else []

    def row(self, system: str) -> list[Value]:
        return [number(self.figures.get((system, key)), p.measure) for key, p in self.paired.items()]

    def warnings(self) -> list[str]:
        found = []
        for key, paired in self.paired.items():
            own = [one for one in self.comparisons if one.measure == key]
            found += sample_warnings(paired)
            found += overlap_warnings(paired, self.pairs(key)) if key == CULTURE else []
            found += comparison_warnings(own, paired.measure)
        lost = [m.name for key, m in self.measured.measures.items() if m.values and key not in self.paired]
        return [*found, *(f"{name} has no item that all systems have: it is left out" for name in lost)]


def _parts(measured: Measured, by: Sequence[str], splits: Mapping[str, Collection[str]]) -> dict[str, Only]:
    """Which pictures belong to each part of the prompts."""
    found: dict[str, Only] = {}
    for name, items in splits.items():
        ids = frozenset(items)
        found[name] = partial(_is_among, ids)
    for name in by:
        values = sorted({_value(picture, name) for picture in measured.pictures} - {""})
        if not values:
            raise StudyError(f"no picture of the run has a field {name!r} in its metadata")
        for value in values:
            found[f"{name}: {value}"] = partial(_has_value, name, value)
    return found


def _is_among(ids: Collection[str], picture: Picture) -> bool:
    return picture.item.prompt in ids


def _has_value(name: str, value: str, picture: Picture) -> bool:
    return _value(picture, name) == value


def _value(picture: Picture, name: str) -> str:
    value = picture.record.get(name)
    return "" if value is None else str(value)


def _judge(measured: Measured) -> str:
    return dict(measured.instruments)["CultureVQA"]


def _outcome(document: Document, measured: Measured, table: _Table, paper: bool) -> None:
    document.section("Outcome (Table 2)", "outcome")
    for paired in table.paired.values():
        document.picture(_intervals(paired), f"{paired.measure.name}: mean and 95 % interval of each system")
    quality = _quality() if paper else {}
    from_paper = {s: quality[s.casefold()] for s in table.systems if s.casefold() in quality}
    header = ["system", *(paired.measure.unit for paired in table.paired.values()), *measured.sets]
    header += (
        ["paper: CultureVQA %", "paper: CLIPScore", "paper: ImageReward", "paper: LPIPS"]
        if from_paper
        else []
    )
    rows = []
    for system in table.systems:
        sets = [values.get(system) for values in measured.sets.values()]
        beside = list(from_paper.get(system, (None,) * 4)) if from_paper else []
        rows.append([system, *table.row(system), *sets, *beside])
    document.table(header, rows, "Systems; 95 % intervals in parentheses", name="systems")
    if table.comparisons:
        add_comparisons(
            document, table.comparisons, measured.measures, f"Differences to {table.baseline}", "differences"
        )
    else:
        document.paragraph("There is nothing to compare with: one system, or the baseline was not measured.")
    if paper and not from_paper:
        document.paragraph("No system has the name of one in the paper's Table 2, which stands at the end.")


def _intervals(paired: Paired) -> Image.Image:
    figures = {system: paired.figure(system) for system in paired.systems}
    rows = {system: figure[:3] for system, figure in figures.items()}
    ends = [end for figure in figures.values() for end in figure[:3] if end is not None]
    air = 0.1 * (max(ends) - min(ends)) or 0.1 * abs(max(ends)) or 1.0
    x_range = (0.0, 100.0) if paired.measure.share else (min(ends) - air, max(ends) + air)
    return interval_picture(rows, paired.measure.unit, x_range, _WIDTH)


def _by_part(document: Document, measured: Measured, tables: Mapping[str, _Table]) -> None:
    document.section("By split (Table 6)", "splits")
    measures = dict.fromkeys(key for table in tables.values() for key in table.paired)
    rows = [
        [
            part, system,
            *(number(table.figures.get((system, key)), measured.measures[key]) for key in measures),
            len(next(iter(table.paired.values())).items),
        ]
        for part, table in tables.items()
        for system in table.systems
    ]  # fmt: skip
    header = ("of", "system", *(measured.measures[key].unit for key in measures), "pictures")
    document.table(header, rows, "Systems by split", name="splits")
    with document.details("Differences within each split"):
        for part, table in tables.items():
            if table.comparisons:
                add_comparisons(
                    document, table.comparisons, measured.measures, f"{part}: differences to {table.baseline}"
                )


def _cultures(document: Document, table: _Table) -> None:
    document.section("By culture", "cultures")
    paired = table.culture
    assert paired is not None, "asked for only where it is there"
    recalls = {system: paired.recall(system) for system in paired.systems}
    codes = [code for code in CULTURES if code in recalls[paired.systems[0]]]
    values = [[recall[code].percent for code in codes] for recall in recalls.values()]
    document.picture(
        heat_map(values, list(recalls), codes, "Recall, %", column_title="culture", decimals=0, highest=100),
        "Pictures in which the judge saw the culture, percent, by system and culture",
    )
    rows: list[list[Value | Cell]] = [
        [CULTURES[code].name, *(str(recall[code]) for recall in recalls.values()),
         int(recalls[paired.systems[0]][code].count)]
        for code in codes
    ]  # fmt: skip
    document.table(
        ("culture", *recalls, "pictures a system"), rows, "Recall by culture, Wilson's 95 %", name="recall"
    )


def _pictures(document: Document, measured: Measured, table: _Table) -> None:
    document.section("Pictures", "pictures")
    items = shown_items(measured, table.systems)
    if items:
        glosses = {system: number(table.figures.get((system, CULTURE)), measured.measures[CULTURE])
                   for system in table.systems} if table.culture else {}  # fmt: skip
        document.picture(
            sheet(measured, {system: system for system in table.systems}, items, glosses),
            "The same prompt and seed over all systems, a column a culture; below each picture what was seen",
        )
    else:
        document.paragraph("No item was drawn by all systems, so that there is no sheet of pictures.")
    if not table.culture:
        return
    shared = set(table.culture.items)
    with document.details("What was seen instead: confusion of each system"):
        for system in table.culture.systems:
            judged = [
                Judged(picture.file, item.culture, measured.verdicts[picture.file])
                for item, picture in measured.of(system).items()
                if item in shared
            ]
            document.picture(confusion_picture(summarise(judged), system), f"{system}: what was seen")


def _quality() -> dict[str, tuple[float, ...]]:
    """The paper's Table 2 by the system's name in small letters."""
    from ..reproduce.paper import QUALITY

    return {name.casefold(): tuple(figures) for name, *figures in QUALITY}


def _paper(document: Document) -> None:
    from ..reproduce.paper import QUALITY

    with document.details("The paper's Table 2"):
        document.table(
            ("system", "CultureVQA %", "CLIPScore", "ImageReward", "LPIPS"), QUALITY,
            "As printed there; another judge and other prompts", "g", name="paper",
        )  # fmt: skip

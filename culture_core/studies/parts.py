"""What the reports of all studies share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..cultures import CULTURES
from ..documents import Cell, Document, Value
from ..judges.base import label_name
from ..sheets import RowLabel, contact_sheet
from .figures import Comparison, Figure, Paired
from .measured import Item, Measure, Measured, Picture, StudyError

REPORT, TABLES = "report", "tables"
FEW_PROMPTS, FEW_PICTURES = 30, 5
"""Below so many prompts in all, or pictures of a culture, a report warns."""
_LISTED = 200
"""Items that a report lists; beyond, it says how many more there are."""


@dataclass(frozen=True)
class Study:
    """A report, and the same for machines."""

    document: Document
    result: dict[str, Any]

    def write(self, folder: Path, overwrite: bool = False) -> list[Path]:
        """Write `report.html`, `report.md` and the tables as CSV and LaTeX; returns their paths.

        Raises:
            StudyError: where there is a report already and it may not be replaced.
        """
        new_folder(folder, overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        return [
            self.document.write_html(folder / f"{REPORT}.html", overwrite),
            self.document.write_markdown(folder / f"{REPORT}.md", overwrite),
            *self.document.write_csv(folder / TABLES, overwrite),
            *self.document.write_latex(folder / TABLES, overwrite),
        ]


def new_folder(folder: Path, overwrite: bool) -> None:
    """See that a report can go into a folder.

    Raises:
        StudyError: where one is there already and may not be replaced.
    """
    there = [folder / f"{REPORT}.html", folder / f"{REPORT}.md", *(folder / TABLES).glob("*")]
    if not overwrite and (found := [path for path in there if path.exists()]):
        raise StudyError(f"{found[0]} is there already: choose another folder, or allow overwriting")


def require(paired: Paired) -> Paired:
    """
    Raises:
        StudyError: where the systems have no item in common.
    """
    if paired.systems and not paired:
        raise StudyError(
            f"{'; '.join(paired.systems)} have no item in common (the same prompt, culture and seed) that "
            f"{paired.measure.name} was measured of: name systems that drew the same prompts, and see that "
            "their lines in the run's metadata have the prompt's `item` or `neutral`"
        )
    return paired


def number(figure: Figure | None, measure: Measure) -> str | None:
    """A figure with its interval."""
    if figure is None:
        return None
    digits = measure.digits
    text = f"{figure.value:.{digits}f}"
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ({figure.low:.{digits}f} – {figure.high:.{digits}f})"


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def add_warnings(document: Document, warnings: Sequence[str]) -> None:
    if warnings:
        document.section("Read with care", "warnings")
        for warning in dict.fromkeys(warnings):
            document.paragraph(f"• {warning}.")


def sample_warnings(paired: Paired) -> list[str]:
    """What the number of items should keep one from saying."""
    found = []
    if paired.prompts < FEW_PROMPTS:
        found.append(
            f"{paired.measure.name}: only {paired.prompts} prompts are compared: intervals are rough"
        )
    if paired.measure.share:
        counts = {code: share.count for code, share in paired.recall(paired.systems[0]).items()}
        if few := [CULTURES[code].name for code, count in counts.items() if count < FEW_PICTURES]:
            found.append(f"Fewer than {FEW_PICTURES} pictures a system show {', '.join(few)}")
        if len(paired.items) > paired.prompts:
            found.append(
                "Prompts have several seeds, whose pictures are alike, and Wilson's interval takes pictures "
                "as independent: it is too narrow, the one by prompt (table of all figures) is not"
            )
    if left := {system: count for system, count in paired.left_out.items() if count}:
        counted = ", ".join(f"{count} of {system}" for system, count in left.items())
        found.append(
            f"{paired.measure.name}: pictures are left out because another system has no figure of the same "
            f"item: {counted}"
        )
    return found


def comparison_warnings(comparisons: Sequence[Comparison], measure: Measure) -> list[str]:
    """Systems that cannot be told apart."""
    alike = [f"{one.system} and {one.other}" for one in comparisons if not one.told_apart]
    return [f"{measure.name} does not tell apart (corrected p ≥ 0.05) {'; '.join(alike)}"] if alike else []


def _overlap(one: Figure, other: Figure) -> bool:
    """Whether the intervals do; without intervals they do not."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low <= other.high and other.low <= one.high


def overlap_warnings(paired: Paired, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Systems whose intervals overlap."""
    found = []
    for system, other in pairs:
        first, second = paired.figure(system), paired.figure(other)
        if _overlap(first, second):
            found.append(f"{system} and {other}")
    if not found:
        return []
    return [
        f"{paired.measure.name}: intervals overlap of {'; '.join(found)}. That alone does not say that they "
        "are alike: the paired difference decides"
    ]


def add_comparisons(
    document: Document,
    comparisons: Sequence[Comparison],
    measures: Mapping[str, Measure],
    caption: str,
    name: str = "",
    coloured: bool = True,
) -> None:
    """A table of differences, marked where they are more than chance.

    Args:
        coloured: green for the better, red for the worse.
    """
    rows: list[list[Value | Cell]] = []
    for one in comparisons:
        measure = measures[one.measure]
        mark, good = ("not told apart", None)
        if one.told_apart:
            mark = "more" if one.difference > 0 else "less"
            good = (one.difference > 0) == (measure.better > 0) if measure.better and coloured else None
        digits, test = measure.digits, one.mcnemar
        difference = f"{one.difference:+.{digits}f}"
        if one.low is not None and one.high is not None:
            difference += f" ({one.low:+.{digits}f} – {one.high:+.{digits}f})"
        rows.append(
            [
                measure.name, one.system, one.other, Cell(difference, mark, good), p_text(one.p),
                p_text(one.p_holm), p_text(test.p_value) if test else None,
                f"{test.first_only} : {test.second_only}" if test else None, one.items, one.prompts,
            ]
        )  # fmt: skip
    header = (
        "measure", "system", "against", "difference", "p", "p, Holm", "McNemar p", "right alone", "pictures",
        "prompts",
    )  # fmt: skip
    document.table(header, rows, caption, name=name)


def add_differences(
    document: Document,
    comparisons: Sequence[Comparison],
    measures: Mapping[str, Measure],
    main: str,
    caption: str,
) -> None:
    """A table of the main measure's differences, without colours, and the others' folded away."""
    own = [one for one in comparisons if one.measure == main]
    others = [one for one in comparisons if one.measure != main]
    add_comparisons(document, own, measures, caption, "differences", coloured=False)
    if others:
        with document.details("The same in other measures"):
            add_comparisons(
                document, others, measures, f"{caption}: other measures", "differences-others", coloured=False
            )


def add_all_figures(
    document: Document, found: Mapping[tuple[str, str, str], Figure], measures: Mapping[str, Measure]
) -> None:
    """Every figure with its full numbers, for the CSV file. Keys: (part, system, measure)."""
    rows = [
        [
            part, system, measures[key].unit, figure.value, figure.low, figure.high, figure.by_prompt.low,
            figure.by_prompt.high, figure.pictures, figure.prompts,
        ]
        for (part, system, key), figure in found.items()
    ]  # fmt: skip
    header = (
        "of", "system", "measure", "value", "low", "high", "low, by prompt", "high, by prompt", "pictures",
        "prompts",
    )  # fmt: skip
    with document.details("All figures"):
        document.table(header, rows, "All figures; intervals of 95 %", ".3f", name="figures")


def figures_json(found: Mapping[tuple[str, str, str], Figure]) -> list[dict[str, Any]]:
    return [
        {
            "of": part, "system": system, "measure": key, "value": figure.value, "low": figure.low,
            "high": figure.high, "low_by_prompt": figure.by_prompt.low,
            "high_by_prompt": figure.by_prompt.high, "pictures": figure.pictures, "prompts": figure.prompts,
        }
        for (part, system, key), figure in found.items()
    ]  # fmt: skip


def add_method(document: Document, measured: Measured, systems: Sequence[str], draws: int) -> None:
    """What was measured by what, how, and what is missing."""
    document.section("How it was measured", "method")
    seeds = {picture.item.seed for picture in measured.pictures}
    prompts = {picture.item.group for picture in measured.pictures}
    document.paragraph(
        f"{len(measured.pictures)} pictures of {len(systems)} systems, {len(prompts)} prompts and "
        f"{len(seeds)} seeds, in the run {measured.folder.name}."
    )
    document.table(("measured", "by"), measured.instruments, "Models that measured", name="instruments")
    if measured.agreement:
        rows = [[name, one.pictures, 100 * one.agreed, one.kappa] for name, one in measured.agreement]
        document.table(
            ("the first judge and", "pictures", "same answer, %", "Cohen's κ"), rows, "Agreement of judges",
            {"same answer, %": ".1f", "Cohen's κ": ".2f"}, name="agreement",
        )  # fmt: skip
    if any(measure.share for measure in measured.measures.values()):
        document.paragraph(
            "Shares of pictures that are right, such as CultureVQA, are macro accuracies: means of the "
            "cultures' recalls, abstentions and invalid answers counted as wrong. Chance is 6.25 % in "
            "CultureVQA. Their intervals are Wilson's."
        )
    document.paragraph(
        f"Other intervals, and those of all differences, are of a bootstrap ({draws} draws) in which the "
        "seeds of a prompt stand or fall together. Systems are compared on the items (prompt, culture and "
        "seed) that all of them drew and that were measured. p is of a sign-flip test over prompts, McNemar's"
        " exact over pictures; Holm's correction is for all comparisons of one measure in one table."
    )
    _add_missing(document, measured, systems)


def _add_missing(document: Document, measured: Measured, systems: Sequence[str]) -> None:
    drawn = {system: measured.of(system).keys() for system in systems}
    wanted = set().union(*drawn.values())
    lacking = [(system, item) for system in systems for item in sorted(wanted - drawn[system])]
    if not lacking:
        return
    document.paragraph(f"{len(lacking)} pictures are missing: an item that another system drew.")
    with document.details("Missing pictures"):
        rows: list[list[Value]] = [[system, *item] for system, item in lacking[:_LISTED]]
        more = f" (the first {_LISTED} of {len(lacking)})" if len(lacking) > _LISTED else ""
        document.table(("system", "item", "culture", "seed"), rows, f"Missing{more}", name="missing")


def shown_items(measured: Measured, systems: Sequence[str]) -> list[Item]:
    """One item a culture that all systems drew, the first prompt and seed there is."""
    shared = set.intersection(*(set(measured.of(system)) for system in systems))
    order = {code: index for index, code in enumerate(CULTURES)}
    first: dict[str, Item] = {}
    for item in sorted(shared, key=lambda item: (item.seed, item.prompt)):
        first.setdefault(item.culture, item)
    return sorted(first.values(), key=lambda item: order[item.culture])


def sheet(
    measured: Measured, rows: Mapping[str, str], items: Sequence[Item], glosses: Mapping[str, str | None]
) -> Image.Image:
    """A row a system, a column an item, and under each picture what the judge saw.

    Args:
        rows: label of each system.
        glosses: what stands below a label, by system.
    """
    labels = [RowLabel(label, glosses.get(system) or "") for system, label in rows.items()]
    pictures = [[measured.of(system)[item] for item in items] for system in rows]
    seen = [[_seen(measured, picture) for picture in row] for row in pictures]
    return contact_sheet(
        labels, [CULTURES[item.culture].name for item in items],
        [[_opened(picture) for picture in row] for row in pictures],
        seen if measured.verdicts else None,
    )  # fmt: skip


def _seen(measured: Measured, picture: Picture) -> str:
    verdict = measured.verdicts.get(picture.file)
    return "not judged" if verdict is None else label_name(verdict.label)


def _opened(picture: Picture) -> Image.Image:
    try:
        with Image.open(picture.path) as image:
            return image.convert("RGB")
    except (OSError, ValueError) as error:
        raise StudyError(f"{picture.path} cannot be opened: {error}") from error

"""What the culture neurons and the layer do: the paper's Tables 1, 3 and 5.

Masking takes from explicit prompts, and the question is how much of their score is left; amplifying and
enhancing add to neutral ones, and the question is how much of the gap to the explicit ones they close. Random
neurons, or a random layer, say what any edit of that size does.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ..documents import Document
from ..plots import interval_picture
from ..significance import DRAWS, Estimate
from .figures import Comparison, Figure, Paired
from .measured import CULTURE, Measured, StudyError
from .parts import (
    Study,
    add_all_figures,
    add_differences,
    add_method,
    add_warnings,
    comparison_warnings,
    figures_json,
    number,
    require,
    sample_warnings,
    sheet,
    shown_items,
)

NEUTRAL, EXPLICIT, MASKED = "neutral", "explicit", "masked"
TREATMENTS = {
    NEUTRAL: "neutral prompt",
    EXPLICIT: "explicit modifier",
    "amplified": "culture neurons amplified",
    "amplified, random (frequency)": "random neurons amplified, frequency-matched",
    "amplified, random (norm)": "random neurons amplified, norm-matched",
    "enhanced": "layer enhancer",
    "enhanced, random layer": "enhancer on a random layer",
    MASKED: "culture neurons masked",
    "masked, random (frequency)": "random neurons masked, frequency-matched",
    "masked, random (norm)": "random neurons masked, norm-matched",
}
"""What a system can be, by the name that metadata or options give."""
_RANDOM = ", random"


def ablate(
    measured: Measured, treatments: Mapping[str, str] | None = None, paper: str = "", draws: int = DRAWS
) -> Study:
    """Compare treatments of one model.

    Args:
        treatments: what a system is, a key of `TREATMENTS`, by its name; where one is not given, the field
            `treatment` of the run's metadata says it, or else the system's name. Systems that are none of
            them are left out.
        paper: whose figures of the paper to put beside, `alt` or `pea`; none where it is empty.
        draws: of the bootstrap.

    Raises:
        StudyError: without CultureVQA, without neutral or explicit pictures, for a treatment that two systems
            are, or systems without a common item.
    """
    if CULTURE not in measured.measures:
        raise StudyError("an ablation needs CultureVQA: give a judge's answers about the run")
    systems = treatments_of(measured, treatments or {})
    culture = require(Paired(measured, measured.measures[CULTURE], list(systems.values()), draws=draws))
    paired = {CULTURE: culture} | {
        key: found
        for key, measure in measured.measures.items()
        if key != CULTURE and (found := Paired(measured, measure, list(systems.values()), draws=draws))
    }
    figures = {(s, key): one.figure(s) for key, one in paired.items() for s in one.systems}
    shares = _Shares(culture, systems)
    compared = _compared(paired, systems)
    warnings = [
        *measured.warnings, *(w for one in paired.values() for w in sample_warnings(one)), *shares.warnings(),
        *comparison_warnings([one for one in compared if one.measure == CULTURE], culture.measure),
        *_lacking(systems),
    ]  # fmt: skip
    document = Document(f"Ablation: {measured.folder.resolve().name}")
    document.paragraph(
        "Masking: how much of the explicit prompts' score is left. Amplifying and enhancing: how much of the "
        "gap between neutral and explicit prompts is closed. "
        "Random neurons and random layers are the controls."
    )
    rows: dict[str, Estimate] = {}
    for masked in (True, False):
        names = {t: s for t, s in systems.items() if _is_masked(t) == masked and t not in (NEUTRAL, EXPLICIT)}
        if names:
            rows |= _section(document, measured, masked, names, systems, shares, figures, paired, paper)
    if not rows:
        raise StudyError(
            f"nothing but neutral and explicit pictures: say which system is what, of {'; '.join(TREATMENTS)}"
        )
    document.section("What tells them apart", "comparisons")
    document.paragraph(
        "Amplifying and enhancing against neutral and explicit prompts, masking against explicit ones, and "
        "each against its controls."
    )
    add_differences(document, compared, measured.measures, CULTURE, "Differences between treatments")
    add_warnings(document, warnings)
    items = shown_items(measured, list(systems.values()))
    if items:
        document.section("Pictures", "pictures")
        labels = {system: TREATMENTS[treatment] for treatment, system in systems.items()}
        glosses = {system: number(figures.get((system, CULTURE)), culture.measure) for system in labels}
        document.picture(
            sheet(measured, labels, items, glosses),
            "The same prompt and seed under all treatments, a column a culture; below it what was seen",
        )
    add_method(document, measured, list(systems.values()), draws)
    named = [[TREATMENTS[treatment], system] for treatment, system in systems.items()]
    document.table(("treatment", "system"), named, "Which system is which treatment", name="treatments")
    everything = {("all prompts", s, key): figure for (s, key), figure in figures.items()}
    add_all_figures(document, everything, measured.measures)
    return Study(
        document,
        {
            "treatments": systems, "figures": figures_json(everything),
            "left": {t: _plain(shares.left(s)) for t, s in systems.items() if t != EXPLICIT},
            "gap_closed": {t: _plain(shares.closed(s)) for t, s in systems.items()
                           if t not in (NEUTRAL, EXPLICIT)},
            "comparisons": [one.to_json() for one in compared], "warnings": warnings,
        },
    )  # fmt: skip


def treatments_of(measured: Measured, given: Mapping[str, str]) -> dict[str, str]:
    """The system of each treatment, in the order of `TREATMENTS`.

    Raises:
        StudyError: as `ablate`.
    """
    if unknown := [system for system in given if system not in measured.systems]:
        raise StudyError(f"the run has no system {'; '.join(unknown)}: it has {'; '.join(measured.systems)}")
    if unknown := [treatment for treatment in given.values() if treatment not in TREATMENTS]:
        raise StudyError(f"there is no treatment {'; '.join(unknown)}: there are {'; '.join(TREATMENTS)}")
    fields = {picture.system: picture.record.get("treatment") for picture in measured.pictures}
    found: dict[str, str] = {}
    for system in measured.systems:
        treatment = given.get(system) or fields[system] or system
        if treatment not in TREATMENTS:
            continue
        if treatment in found:
            raise StudyError(
                f"{found[treatment]!r} and {system!r} are both {treatment!r}: name the systems to take"
            )
        found[treatment] = system
    for treatment in (NEUTRAL, EXPLICIT):
        if treatment not in found:
            raise StudyError(
                f"no system is {treatment!r}: name it with --{treatment}, of {'; '.join(measured.systems)}"
            )
    return {treatment: found[treatment] for treatment in TREATMENTS if treatment in found}


class _Shares:
    """Ratios of CultureVQA, every draw of the bootstrap with the same prompts in all systems."""

    def __init__(self, culture: Paired, systems: Mapping[str, str]) -> None:
        self._culture = culture
        if lacking := [s for s in systems.values() if s not in culture.systems]:
            raise StudyError(f"no picture of {'; '.join(lacking)} was judged")
        self._neutral, self._explicit = (culture.means(systems[t]) for t in (NEUTRAL, EXPLICIT))

    @property
    def gap(self) -> Estimate:
        return self._culture.resamples.estimate(self._explicit - self._neutral)

    def left(self, system: str) -> Estimate:
        """Share of the explicit prompts' score."""
        return self._ratio(self._culture.means(system), self._explicit)

    def closed(self, system: str) -> Estimate:
        """Share of the gap between neutral and explicit prompts."""
        return self._ratio(self._culture.means(system) - self._neutral, self._explicit - self._neutral)

    def warnings(self) -> list[str]:
        gap = self.gap
        if gap.value <= 0:
            return ["Explicit prompts score no more than neutral ones, so that there is no gap to close"]
        if gap.low is None or gap.low <= 0:
            return [
                "The gap between neutral and explicit prompts may be none, so that shares of it mean little"
            ]
        return []

    def _ratio(self, part: np.ndarray, whole: np.ndarray) -> Estimate:
        defined = np.where(whole > 0, whole, np.nan)
        return self._culture.resamples.estimate(part / defined)


def _section(
    document: Document,
    measured: Measured,
    masked: bool,
    names: Mapping[str, str],
    systems: Mapping[str, str],
    shares: _Shares,
    figures: Mapping[tuple[str, str], Figure],
    paired: Mapping[str, Paired],
    paper: str,
) -> dict[str, Estimate]:
    """One table with its picture: what masking leaves, or what the gap is closed by."""
    title, what, anchor = (
        ("Masking (Tables 1 and 5)", "explicit score left", "masking")
        if masked
        else ("Amplifying and enhancing (Tables 2 and 3)", "gap closed", "gain")
    )
    document.section(title, anchor)
    found = {t: shares.left(s) if masked else shares.closed(s) for t, s in names.items()}
    drawn = {
        TREATMENTS[t]: (one.value, one.low, one.high) for t, one in found.items() if np.isfinite(one.value)
    }
    if drawn:
        ends = [end for one in drawn.values() for end in one if end is not None]
        document.picture(
            interval_picture(drawn, what, (min(0.0, *ends), max(1.0, *ends) * 1.05)),
            f"Share of the {what}, 95 % interval; 1 is {'nothing lost' if masked else 'as good as explicit'}",
        )
    header = ["treatment", *(one.measure.unit for one in paired.values()), what]
    header += ["paper: CultureVQA %"] if paper else []
    rows = []
    for treatment in (NEUTRAL, EXPLICIT, *names):
        system, estimate = systems[treatment], found.get(treatment)
        row: list[str | None] = [TREATMENTS[treatment]]
        row += [number(figures.get((system, key)), one.measure) for key, one in paired.items()]
        row.append(None if estimate is None else str(estimate))
        rows.append([*row, _paper(treatment, paper)] if paper else row)
    document.table(header, rows, f"{title}; 95 % intervals in parentheses", name=anchor)
    return found


def _paper(treatment: str, kind: str) -> str | None:
    from ..reproduce.paper import PAPER

    return PAPER.get((treatment, kind))


def _compared(paired: Mapping[str, Paired], systems: Mapping[str, str]) -> list[Comparison]:
    pairs = []
    for treatment in systems:
        if treatment in (NEUTRAL, EXPLICIT):
            continue
        target = treatment.split(_RANDOM)[0]
        others = [EXPLICIT] if _is_masked(treatment) else [NEUTRAL, EXPLICIT]
        pairs += [(treatment, other) for other in others]
        pairs += [(target, treatment)] if treatment != target and target in systems else []
    pairs.append((EXPLICIT, NEUTRAL))
    named = [(systems[first], systems[second]) for first, second in pairs]
    return [
        comparison
        for one in paired.values()
        for comparison in one.compare([pair for pair in named if set(pair) <= set(one.systems)])
    ]


def _is_masked(treatment: str) -> bool:
    return treatment.startswith(MASKED)


def _lacking(systems: Mapping[str, str]) -> Sequence[str]:
    """Treatments without a control."""
    bare = [
        TREATMENTS[treatment]
        for treatment in ("amplified", "enhanced", MASKED)
        if treatment in systems and not any(other.startswith(treatment + _RANDOM) for other in systems)
    ]
    return [f"No random control stands beside {name}: any edit might do the same" for name in bare]


def _plain(estimate: Estimate) -> list[float | None]:
    """For JSON, which has no NaN."""
    return [None if value is None or not np.isfinite(value) else value for value in estimate]

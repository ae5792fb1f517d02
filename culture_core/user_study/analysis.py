"""What the answers say of each system, with intervals, agreement and comparisons."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..plots import interval_picture, stacked
from ..shares import Share
from ..significance import holm, sign_flip_test
from .agreement import krippendorff_alpha
from .answers import Sheet
from .design import TASKS, UNRECOGNISABLE, Study
from .pictures import Picture, StudyError

MEASURES = {
    "mcc": "MCC: the culture was chosen, %",
    "scc": "SCC: the culture was confirmed, %",
    "scc_foil": "SCC: another culture was confirmed (foils), %",
    "csr": "CSR: similarity to the culture, mean of 1 to 5",
}
"""What is measured, by name. The foils are questions of scc that name another culture than the picture's."""
_NO_ANSWER = {"mcc": UNRECOGNISABLE, "scc": "unknown", "scc_foil": "unknown"}


class Rating(NamedTuple):
    """One answer to an ordinary question."""

    rater: str
    language: str
    number: int
    measure: str
    picture: str
    system: str
    culture: str
    asked: str | None
    item: tuple[Any, ...]
    answer: str
    score: int
    """1 to 5 for csr; elsewhere 1 where the picture's (foils: another) culture was chosen or confirmed."""
    seconds: float


@dataclass(frozen=True)
class SystemScore:
    """One measure of one system over all ratings of the raters who count."""

    measure: str
    system: str
    ratings: int
    raters: int
    mean: float
    """Percent; for csr the mean rating, 1 to 5."""
    low: float | None
    high: float | None
    """95 %: Wilson's interval of a share; for csr a bootstrap over raters, None with fewer than two."""
    mean_times_20: float | None
    """csr alone: the percentage that the paper prints."""
    no_answer: int | None
    """Ratings that were "unrecognisable" or "unknown"; they count as not chosen, not confirmed."""
    answers: dict[str, int]
    """How often each answer was given."""


@dataclass(frozen=True)
class Comparison:
    """One system against another one, on the items that both have ratings of."""

    measure: str
    system: str
    other: str
    items: int
    difference: float
    """Of the mean scores on those items; percentage points, for csr rating points."""
    low: float | None
    high: float | None
    """95 %, bootstrap over raters; None with fewer than two."""
    p: float
    """Two-sided sign-flip test over items, on the difference of the two pictures' mean scores."""
    p_holm: float
    """The same, corrected for all comparisons of this measure (Holm)."""


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha of one task over pictures (and cultures asked about) with two ratings or more."""

    task: str
    pictures: int
    """Those with two ratings or more."""
    nominal: float | None
    ordinal: float | None
    """csr alone."""


@dataclass(frozen=True)
class Analysis:
    """All that `analyse_study` found."""

    study: str
    scores: tuple[SystemScore, ...]
    comparisons: tuple[Comparison, ...]
    agreement: tuple[Agreement, ...]
    raters: dict[str, dict[str, Any]]
    """By code: language, answers and questions, failed checks, whether excluded, median seconds."""
    ratings: tuple[Rating, ...]
    """Raw; also those of excluded raters."""

    @property
    def excluded(self) -> list[str]:
        return [rater for rater, about in self.raters.items() if about["excluded"]]

    def to_json(self) -> dict[str, Any]:
        """All but the raw ratings."""
        parts = {name: [asdict(one) for one in getattr(self, name)] for name in _PARTS}
        return {"study": self.study, **parts, "raters": self.raters, "excluded": self.excluded}

    def rating_rows(self) -> list[dict[str, Any]]:
        """The raw ratings as rows of a table."""
        out = set(self.excluded)
        rows = []
        for rating in self.ratings:
            row = rating._asdict()
            culture, language, prompt, seed = row.pop("item")
            rows.append({**row, "prompt": prompt, "seed": seed, "excluded": rating.rater in out})
        return rows

    def picture(self) -> Image.Image:
        """Each measure's systems with their intervals, one panel below the other."""
        panels = []
        for measure, title in MEASURES.items():
            rows = {
                score.system: (score.mean, score.low, score.high)
                for score in self.scores
                if score.measure == measure
            }
            if rows:
                panels.append(interval_picture(rows, title, (1, 5) if measure == "csr" else (0, 100)))
        return stacked(panels)


_PARTS = ("scores", "comparisons", "agreement")


def analyse_study(
    study: Study,
    sheets: Mapping[str, Sheet],
    max_failed: int = 0,
    bootstrap: int = 2000,
    seed: int = 0,
) -> Analysis:
    """Scores, comparisons and agreement from the answers of raters who paid attention.

    Intervals of shares take answers as independent of each other, as Wilson's does; those of comparisons and
    of csr resample raters.

    Args:
        sheets: answers by rater.
        max_failed: attention checks that a rater may fail.
        bootstrap: resamples of raters, and flips of the sign-flip test where items are many.

    Raises:
        StudyError: where no rater is left.
    """
    raters = {code: _about(study, sheet, max_failed) for code, sheet in sheets.items()}
    ratings = tuple(rating for code, sheet in sheets.items() for rating in _ratings(study, sheet))
    counted = [rating for rating in ratings if not raters[rating.rater]["excluded"]]
    if not counted:
        raise StudyError(
            f"no answers are left: of {len(raters)} raters {sum(one['excluded'] for one in raters.values())} "
            f"failed more than {max_failed} attention checks"
        )
    by_measure = {
        measure: found
        for measure in MEASURES
        if (found := [rating for rating in counted if rating.measure == measure])
    }
    scores, comparisons = [], []
    for measure, found in by_measure.items():
        draws = _Resampled(found, bootstrap, np.random.default_rng(seed))
        scores += [_score(measure, system, found, draws) for system in _systems(found)]
        if measure != "scc_foil":
            comparisons += _compared(measure, found, draws, np.random.default_rng(seed))
    agreement = tuple(_agreement(task, counted) for task in TASKS)
    return Analysis(study.id, tuple(scores), tuple(comparisons), agreement, raters, ratings)


def _about(study: Study, sheet: Sheet, max_failed: int) -> dict[str, Any]:
    questions = study.raters[sheet.rater].questions
    given = [(questions[number - 1], answer) for number, answer in sheet.answers.items()]
    failed = sum(question.check not in (None, answer.answer) for question, answer in given)
    return {
        "language": sheet.language,
        "answered": len(given),
        "questions": len(questions),
        "checks": sum(question.check is not None for question, _ in given),
        "failed": failed,
        "excluded": failed > max_failed,
        "median_seconds": round(float(np.median([answer.seconds for _, answer in given])), 2),
    }


def _ratings(study: Study, sheet: Sheet) -> Iterable[Rating]:
    for number, (answer, seconds) in sheet.answers.items():
        question = study.raters[sheet.rater].questions[number - 1]
        if question.check is not None:
            continue
        picture = study.pictures[question.picture]
        measure, score = _scored(question.task, question.asked, answer, picture)
        yield Rating(
            sheet.rater, sheet.language, number, measure, question.picture, picture.system, picture.culture,
            question.asked, picture.item, answer, score, seconds,
        )  # fmt: skip


def _scored(task: str, asked: str | None, answer: str, picture: Picture) -> tuple[str, int]:
    """Measure and score of an answer."""
    if task == "csr":
        return task, int(answer)
    if task == "mcc":
        return task, int(answer == picture.culture)
    return task if asked == picture.culture else "scc_foil", int(answer == "yes")


def _systems(ratings: Iterable[Rating]) -> list[str]:
    return sorted({rating.system for rating in ratings})


class _Resampled:
    """Raters drawn with replacement, the same draws for all that is asked of them."""

    def __init__(self, ratings: Sequence[Rating], count: int, rng: np.random.Generator) -> None:
        self.raters = sorted({rating.rater for rating in ratings})
        size = len(self.raters)
        self.weights = rng.multinomial(size, np.full(size, 1 / size), size=count)  # [draws, raters]

    def mean(self, ratings: Iterable[Rating]) -> np.ndarray:
        """[draws], NaN where a draw has none of these ratings."""
        place = {rater: index for index, rater in enumerate(self.raters)}
        sums = np.zeros((2, len(self.raters)))
        for rating in ratings:
            sums[:, place[rating.rater]] += rating.score, 1
        total, count = (self.weights @ row for row in sums)
        with np.errstate(invalid="ignore"):
            return total / count

    def interval(self, values: np.ndarray) -> tuple[float | None, float | None]:
        """95 % percentile interval; without a second rater there is none."""
        values = values[np.isfinite(values)]
        if len(self.raters) < 2 or not len(values):
            return None, None
        low, high = np.percentile(values, (2.5, 97.5))
        return float(low), float(high)


def _score(measure: str, system: str, ratings: Sequence[Rating], draws: _Resampled) -> SystemScore:
    own = [rating for rating in ratings if rating.system == system]
    answers = Counter(rating.answer for rating in own)
    total, raters = sum(rating.score for rating in own), len({rating.rater for rating in own})
    task = "scc" if measure == "scc_foil" else measure
    counts = {answer: answers[answer] for answer in TASKS[task]}
    if measure == "csr":
        mean = total / len(own)
        low, high = draws.interval(draws.mean(own))
        return SystemScore(measure, system, len(own), raters, mean, low, high, 20 * mean, None, counts)
    share = Share(total, len(own))
    silent = answers[_NO_ANSWER[measure]]
    return SystemScore(
        measure, system, len(own), raters, share.percent, *share.interval, None, silent, counts
    )  # fmt: skip


def _compared(
    measure: str, ratings: Sequence[Rating], draws: _Resampled, rng: np.random.Generator
) -> list[Comparison]:
    unit = 1 if measure == "csr" else 100
    found = []
    for system, other in itertools.combinations(_systems(ratings), 2):
        means = [_item_means(ratings, name) for name in (system, other)]
        items = sorted(means[0].keys() & means[1].keys())
        if not items:
            continue
        differences = np.array([means[0][item] - means[1][item] for item in items])
        shared = [
            [r for r in ratings if r.system == name and r.item in means[0] and r.item in means[1]]
            for name in (system, other)
        ]
        first, second = (sum(r.score for r in own) / len(own) for own in shared)
        low, high = draws.interval(unit * (draws.mean(shared[0]) - draws.mean(shared[1])))
        p = sign_flip_test(differences, len(draws.weights), rng)
        found.append(Comparison(measure, system, other, len(items), unit * (first - second), low, high, p, p))
    corrected = holm([one.p for one in found])
    return [Comparison(**{**asdict(one), "p_holm": p}) for one, p in zip(found, corrected, strict=True)]


def _item_means(ratings: Iterable[Rating], system: str) -> dict[tuple[Any, ...], float]:
    scores: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for rating in ratings:
        if rating.system == system:
            scores[rating.item].append(rating.score)
    return {item: sum(values) / len(values) for item, values in scores.items()}


def _agreement(task: str, ratings: Iterable[Rating]) -> Agreement:
    units: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for rating in ratings:
        if rating.measure.removesuffix("_foil") == task:
            units[rating.picture, rating.asked].append(rating.answer)
    nominal, ordinal = (krippendorff_alpha(units.values(), TASKS[task], rank) for rank in (False, True))
    several = sum(len(answers) > 1 for answers in units.values())
    return Agreement(task, several, nominal, ordinal if task == "csr" else None)

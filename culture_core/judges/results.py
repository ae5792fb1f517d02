"""How often a judge saw what the pictures should show."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..shares import Share, mean_share
from ..significance import McNemar, mcnemar
from .agreement import Agreement, agreement
from .base import UNRECOGNISABLE, Verdict, label_name, labels

INVALID = "invalid"
"""Column of the confusion matrix for answers that are none of the options."""


@dataclass(frozen=True)
class Judged:
    """One picture and what was said of it."""

    file: str
    culture: str
    """What it should show."""
    verdict: Verdict
    grades: Mapping[str, int | None] = field(default_factory=dict)
    """Answers to the graded questions by their key; None for an answer that is no grade."""

    @property
    def right(self) -> bool:
        return self.verdict.label == self.culture


class Graded(NamedTuple):
    """The answers to one graded question."""

    mean: float | None
    count: int  # type: ignore[assignment]  # hides the method of tuples, which nobody needs here
    invalid: int


@dataclass(frozen=True)
class Summary:
    """CultureVQA over a set of pictures. Abstentions and invalid answers count as wrong."""

    accuracy: Share
    """Of all pictures."""
    recall: dict[str, Share]
    """By the label that the pictures should show."""
    macro: Share
    """Mean of the recalls: each culture counts the same, however many pictures it has."""
    mean_share: float
    """Mean share that the right label got: the accuracy with the orders of the options averaged."""
    abstained: Share
    """Pictures judged unrecognisable that should show a culture."""
    invalid: Share
    """Single answers that were none of the options."""
    flips: Share | None
    """Pictures whose answer changed with the order of the options; None where each was asked once."""
    confusion: dict[str, dict[str, int]]
    """Pictures by what they should show and by what was seen, `INVALID` included."""
    grades: dict[str, dict[str, Graded]]
    """By question and culture."""
    models: dict[str, int]
    """Answers by the model that gave them."""

    def to_json(self) -> dict[str, Any]:
        return {
            "accuracy": _share_json(self.accuracy), "macro_accuracy": _share_json(self.macro),
            "mean_share": self.mean_share, "abstained": _share_json(self.abstained),
            "invalid_answers": _share_json(self.invalid),
            "flip_rate": self.flips and _share_json(self.flips),
            "recall": {label: _share_json(share) for label, share in self.recall.items()},
            "confusion": self.confusion,
            "grades": {key: {c: g._asdict() for c, g in by.items()} for key, by in self.grades.items()},
            "models": self.models,
        }  # fmt: skip

    def table(self) -> str:
        """The figures for people."""
        flips = "-, each picture was looked at once" if self.flips is None else str(self.flips)
        lines = [
            f"CultureVQA, macro accuracy  {self.macro}",
            f"all {self.accuracy.count} pictures  {self.accuracy}",
            f"abstained  {self.abstained}",
            f"invalid answers  {self.invalid}",
            f"changed with the order of the options  {flips}",
            "",
            "culture           pictures  recall, 95 % interval",
        ]
        for label, share in self.recall.items():
            lines.append(f"{label_name(label):16s} {share.count:9d}  {share}")
        for key, by_culture in self.grades.items():
            lines += ["", f"{key}, 1 to 5      answers  mean"]
            for label, graded in by_culture.items():
                mean = "-" if graded.mean is None else f"{graded.mean:.2f}"
                lines.append(f"{label_name(label):16s} {graded.count:9d}  {mean}")
        return "\n".join(lines)


def summarise(judged: Sequence[Judged]) -> Summary:
    """
    Raises:
        ValueError: without pictures.
    """
    if not judged:
        raise ValueError("no picture has been judged")
    shown = [label for label in labels() if any(item.culture == label for item in judged)]
    recall = {
        label: Share(sum(i.right for i in judged if i.culture == label), _count(judged, label))
        for label in shown
    }
    answers = [answer for item in judged for answer in item.verdict.answers]
    asked_twice = [item.verdict.flipped for item in judged if item.verdict.flipped is not None]
    abstained = [i for i in judged if i.verdict.label == UNRECOGNISABLE != i.culture]
    return Summary(
        accuracy=Share(sum(item.right for item in judged), len(judged)),
        recall=recall,
        macro=mean_share(list(recall.values())),
        mean_share=sum(item.verdict.share(item.culture) for item in judged) / len(judged),
        abstained=Share(len(abstained), len(judged)),
        invalid=Share(answers.count(None), len(answers)),
        flips=Share(sum(asked_twice), len(asked_twice)) if asked_twice else None,
        confusion={label: _seen(judged, label) for label in shown},
        grades=_grades(judged),
        models=dict(Counter(model for item in judged for model in item.verdict.models)),
    )


class Comparison(NamedTuple):
    """Two sets of answers about the pictures that both have."""

    pictures: int
    first: Share
    second: Share
    mcnemar: McNemar
    """Of being right: two systems under one judge, or two judges."""
    agreement: Agreement
    """Of the answers: two judges of the same pictures."""

    def to_json(self) -> dict[str, Any]:
        return {
            "pictures": self.pictures, "first": _share_json(self.first), "second": _share_json(self.second),
            "mcnemar": self.mcnemar.to_json(), "agreement": self.agreement.to_json(),
        }  # fmt: skip

    def describe(self, first: str, second: str) -> str:
        test, kappa = self.mcnemar, self.agreement.kappa
        return "\n".join([
            f"{self.pictures} pictures in both",
            f"{first}  {self.first}",
            f"{second}  {self.second}",
            f"right in the first alone {test.first_only}, in the second alone {test.second_only}; "
            f"McNemar's exact p = {test.p_value:.2g}",
            f"same answer {100 * self.agreement.agreed:.1f} %, Cohen's kappa "
            f"{'undefined' if kappa is None else f'{kappa:.2f}'}",
        ])  # fmt: skip


def compare(first: Sequence[Judged], second: Sequence[Judged]) -> Comparison:
    """Compare what was said of pictures of the same name.

    Raises:
        ValueError: where there are none, or they should show different cultures.
    """
    theirs = {item.file: item for item in second}
    pairs = [(item, theirs[item.file]) for item in first if item.file in theirs]
    if not pairs:
        raise ValueError("the two have no picture of the same name: name them alike, a prompt and seed each")
    for ours, other in pairs:
        if ours.culture != other.culture:
            raise ValueError(
                f"{ours.file} should show {ours.culture} in one, and {other.culture} in the other"
            )
    right = [a.right for a, _ in pairs], [b.right for _, b in pairs]
    answers = [a.verdict.label for a, _ in pairs], [b.verdict.label for _, b in pairs]
    first_share, second_share = (Share(sum(side), len(pairs)) for side in right)
    return Comparison(len(pairs), first_share, second_share, mcnemar(*right), agreement(*answers))


def _count(judged: Sequence[Judged], label: str) -> int:
    return sum(item.culture == label for item in judged)


def _seen(judged: Sequence[Judged], label: str) -> dict[str, int]:
    seen = Counter(item.verdict.label or INVALID for item in judged if item.culture == label)
    return {column: seen[column] for column in (*labels(), INVALID)}


def _grades(judged: Sequence[Judged]) -> dict[str, dict[str, Graded]]:
    found: dict[str, dict[str, list[int | None]]] = {}
    for item in judged:
        for key, grade in item.grades.items():
            found.setdefault(key, {}).setdefault(item.culture, []).append(grade)
    return {key: {c: _graded(grades) for c, grades in by.items()} for key, by in found.items()}


def _graded(grades: Sequence[int | None]) -> Graded:
    valid = [grade for grade in grades if grade is not None]
    mean = sum(valid) / len(valid) if valid else None
    return Graded(mean, len(valid), len(grades) - len(valid))


def _share_json(share: Share) -> dict[str, Any]:
    return {"percent": share.percent, "interval": list(share.interval), "count": share.count}

"""What a judge is, and what it says of a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from ..cultures import CULTURES

UNRECOGNISABLE = "unrecognisable"
"""The answer for a picture that shows no culture in particular: an abstention."""


def labels() -> tuple[str, ...]:
    """What there is to choose from: every culture that the pack knows, by its code, and `UNRECOGNISABLE`."""
    return (*CULTURES, UNRECOGNISABLE)


def label_name(label: str | None) -> str:
    """A label for people: "Thai", "unrecognisable", or "no valid answer"."""
    if label is None:
        return "no valid answer"
    return CULTURES[label].name if label in CULTURES else label


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one picture, asked once or several times."""

    answers: tuple[str | None, ...]
    """The label of each time; None for an answer that is none of the options, and for a refusal."""
    shares: Mapping[str, float]
    """By label: how much of the judge's confidence, or which share of its answers, it got. Labels without any
    may be missing. The rest to 1 is invalid answers."""
    texts: tuple[str, ...] = ()
    """The answers as they were written."""
    models: tuple[str, ...] = ()
    """Who answered, each time."""
    cost: float | None = None

    @property
    def label(self) -> str | None:
        """The label with the largest share; of several, the one that was answered first. None where invalid
        answers are more."""
        best = max(self.shares.values(), default=0.0)
        if best <= 0 or 1 - sum(self.shares.values()) > best + 1e-6:
            return None
        tied = [label for label, share in self.shares.items() if share >= best - 1e-9]
        return next((answer for answer in self.answers if answer in tied), tied[0])

    @property
    def flipped(self) -> bool | None:
        """Whether the answers differ between the orders of the options; None where it was asked once."""
        return len(set(self.answers)) > 1 if len(self.answers) > 1 else None

    def share(self, label: str) -> float:
        return float(self.shares.get(label, 0.0))

    def to_json(self) -> dict[str, Any]:
        return {
            "answers": list(self.answers), "shares": {k: round(v, 6) for k, v in self.shares.items()},
            "texts": list(self.texts), "models": list(self.models), "cost": self.cost,
        }  # fmt: skip

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Verdict":
        """
        Raises:
            ValueError: for what `to_json` cannot have given.
        """
        found: dict[str, Any] = {name: record.get(name) for name in ("answers", "shares", "texts", "models")}
        answers, shares, texts, models = found.values()
        cost = record.get("cost")
        good = (
            _is_list(answers, str | None) and _is_list(texts, str) and _is_list(models, str)
            and isinstance(shares, Mapping) and set(shares) <= set(labels())
            and _is_list(list(shares.values()), int | float)
            and all(0 <= share <= 1 for share in shares.values()) and isinstance(cost, int | float | None)
        )  # fmt: skip
        if not good:
            raise ValueError("this is no judge's verdict")
        return cls(tuple(answers), dict(shares), tuple(texts), tuple(models), cost)


def _is_list(value: object, kind: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


class Judge(Protocol):
    """Whoever can say which culture a picture shows."""

    name: str
    parallel: bool
    """Whether several threads may ask at once."""

    def judge(self, image: Image.Image) -> Verdict: ...

    def settings(self) -> dict[str, Any]:
        """What the answers depend on, besides the picture; JSON can hold it."""
        ...


def verdict_of(shares: Mapping[str, float], model: str) -> Verdict:
    """The verdict of a judge that says how sure it is of each label, and needs to be asked once."""
    best = max(shares, key=shares.__getitem__)
    return Verdict((best,), dict(shares), (), (model,), 0.0)


def average(answers: Sequence[str | None]) -> dict[str, float]:
    """Share of each label in the answers of a judge that gives one label at a time."""
    valid = [answer for answer in answers if answer is not None]
    return {label: valid.count(label) / len(answers) for label in dict.fromkeys(valid)}

"""The figures behind a choice of culture neurons, as they are kept in a culture SAE's file.

From them alone every picture of `neuron_pictures.py` can be drawn again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from .neurons import CultureNeurons, LatentStatistics, Ranking

CURVE_LENGTH = 200
"""Latents of a kept curve."""
RULES = ("elbow", "count", "effect")
CONTRASTS = ("mean", "maximum")
_NAME = 100
"""Characters of a name."""
_DIGITS = 6
"""Significant digits that are kept; float32 has seven."""


@dataclass(frozen=True)
class Curve:
    """The latents that a culture's prompts use most, by WFS on cultural prompts, high to low."""

    latents: tuple[int, ...]
    wfs_cultural: tuple[float, ...]
    wfs_neutral: tuple[float, ...]


class Trial(NamedTuple):
    """One candidate of a choice by measured effect."""

    rule: str
    """`elbow` or `count`."""
    contrast: str | None
    count: int  # type: ignore[assignment]  # hides the method of tuples, which nobody needs here
    """Neurons of the candidate."""
    figures: dict[str, float]
    """What was measured."""


@dataclass(frozen=True)
class Selection:
    """How the neurons of one culture were chosen."""

    rule: str
    """How many: up to the `elbow`, a given `count`, or what had the best `effect`."""
    score: str
    """Ranked by `wfs` or by `specificity`."""
    contrast: str | None
    """What specificity subtracts, `mean` or `maximum` of the other cultures' WFS."""
    tau: float
    """Latents with WFS_neutral ≥ τ · WFS_cultural were dropped as noun-side."""
    active: int
    """Latents that the cultural prompts activate."""
    noun_side: int
    """Those of them dropped as noun-side."""
    candidates: int
    """Latents left to choose from."""
    elbow: int
    """Where the elbow of the candidates' scores is."""
    vectors: tuple[int, int]
    """Feature vectors of cultural and of neutral prompts behind the figures."""
    scores: tuple[float, ...]
    """Of the chosen neurons."""
    ranking: tuple[float, ...] = ()
    """Scores of the best candidates, high to low, chosen or not: the curve that the elbow was sought on."""
    curve: Curve | None = None
    activation: dict[str, float] = field(default_factory=dict)
    """Mean activation of the neurons on the cultural prompts of every culture, by culture code."""
    criterion: str | None = None
    """The figure that decided a choice by effect."""
    trials: tuple[Trial, ...] = ()
    """All candidates of a choice by effect."""

    @property
    def effect(self) -> dict[str, float]:
        """Figures of the trial that was chosen; empty where nothing was measured."""
        return best_trial(self.trials, self.criterion).figures if self.trials and self.criterion else {}

    def to_json(self) -> dict[str, Any]:
        """As a dictionary that JSON can hold."""
        record = asdict(self)
        record["trials"] = [trial._asdict() for trial in self.trials]
        return _rounded(record)

    @classmethod
    def from_json(cls, record: object, neurons: int, latents: int) -> "Selection":
        """From what `to_json` gave, with everything checked.

        Args:
            neurons: how many neurons the culture has.
            latents: how many latents the SAE has.

        Raises:
            ValueError: for anything that `to_json` would not give; the message names the entry.
        """
        return _Reader(record, neurons, latents).selection()


def best_trial(trials: Sequence[Trial], criterion: str) -> Trial:
    """The trial with the largest figure `criterion`; of equals the one with the fewest neurons."""
    return max(trials, key=lambda trial: (trial.figures[criterion], -trial.count))


def curve_of(cultural: LatentStatistics, neutral: LatentStatistics) -> Curve:
    """The kept curve of a culture's statistics; latents that never fire are left out."""
    order = cultural.wfs.sort(descending=True, stable=True).indices[:CURVE_LENGTH]
    order = order[cultural.wfs[order] > 0]
    return Curve(
        tuple(order.tolist()), tuple(cultural.wfs[order].tolist()), tuple(neutral.wfs[order].tolist())
    )


def mean_activation_on(
    neurons: CultureNeurons, statistics: Mapping[str, LatentStatistics]
) -> dict[str, float]:
    """Mean activation of neurons over the prompts of every culture: the mean of their WFS there (eq. 6)."""
    return {code: float(found.wfs[neurons.indices].mean()) for code, found in statistics.items()}


def scores_of(ranking: Ranking, neurons: CultureNeurons) -> tuple[float, ...]:
    """Scores of the neurons, which are the first of the ranking."""
    return tuple(ranking.scores[: len(neurons.indices)].tolist())


def kept(values: Tensor) -> tuple[float, ...]:
    """The beginning of a ranking that is kept."""
    return tuple(values[:CURVE_LENGTH].tolist())


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


class _Reader:
    """Checks a record entry by entry."""

    def __init__(self, record: object, neurons: int, latents: int) -> None:
        self.record = _dictionary(record, "selection", _anything)
        self.neurons, self.latents = neurons, latents

    def selection(self) -> Selection:
        known = set(Selection.__dataclass_fields__)
        missing, unknown = known - self.record.keys(), self.record.keys() - known
        if missing or unknown:
            raise ValueError(f"lacks {sorted(missing)} and has {sorted(map(str, unknown))[:5]} too many")
        whole, number = _whole(0, self.latents), _number
        read = {
            "rule": _one_of(*RULES), "score": _one_of("wfs", "specificity"),
            "contrast": _one_of(*CONTRASTS, None), "tau": number, "active": whole, "noun_side": whole,
            "candidates": whole, "elbow": whole, "vectors": _list(_whole(1, 1 << 40), 2, 2),
            "scores": _list(number, self.neurons, self.neurons), "ranking": _list(number, 0, CURVE_LENGTH),
            "curve": self._curve, "activation": lambda value, name: _dictionary(value, name, number),
            "criterion": _text_or_none, "trials": _list(self._trial, 0, 1000),
        }  # fmt: skip
        found = Selection(**{name: check(self.record[name], name) for name, check in read.items()})
        if any(found.criterion not in trial.figures for trial in found.trials):
            raise ValueError(f"a trial lacks the figure {found.criterion!r} that decided")
        return found

    def _curve(self, value: object, name: str) -> Curve | None:
        if value is None:
            return None
        parts = _dictionary(value, name, _anything)
        if set(parts) != set(Curve.__dataclass_fields__):
            raise ValueError(f"{name!r} must have {', '.join(Curve.__dataclass_fields__)}")
        latents = _list(_whole(0, self.latents - 1), 0, CURVE_LENGTH)(parts["latents"], "latents")
        same = _list(_number, len(latents), len(latents))
        return Curve(latents, *(same(parts[part], part) for part in ("wfs_cultural", "wfs_neutral")))

    def _trial(self, value: object, name: str) -> Trial:
        parts = _dictionary(value, name, _anything)
        if set(parts) != set(Trial._fields):
            raise ValueError(f"{name!r} must have {', '.join(Trial._fields)}")
        return Trial(
            _one_of("elbow", "count")(parts["rule"], "rule"),
            _one_of(*CONTRASTS, None)(parts["contrast"], "contrast"),
            _whole(1, self.latents)(parts["count"], "count"),
            _dictionary(parts["figures"], "figures", _number),
        )


_Check = Callable[[object, str], Any]


def _anything(value: object, _name: str) -> object:
    return value


def _number(value: object, name: str) -> float:
    if not isinstance(value, int | float) or type(value) is bool or not abs(value) <= 1e30:
        raise ValueError(f"{name!r} is {str(value)[:40]}, it must be a finite number")
    return float(value)


def _whole(low: int, high: int) -> _Check:
    def check(value: object, name: str) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name!r} is {str(value)[:40]}, it must be a whole number from {low} to {high}")
        return value

    return check


def _one_of(*choices: str | None) -> _Check:
    def check(value: object, name: str) -> str | None:
        if value is not None and not isinstance(value, str) or value not in choices:
            raise ValueError(f"{name!r} is {str(value)[:40]!r}, it must be one of {choices}")
        return value

    return check


def _text_or_none(value: object, name: str) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) <= _NAME):
        raise ValueError(f"{name!r} must be a short text")
    return value


def _list(check: _Check, low: int, high: int) -> _Check:
    def check_all(value: object, name: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise ValueError(f"{name!r} must be a list of {low} to {high} entries")
        return tuple(check(entry, name) for entry in value)

    return check_all


def _dictionary(value: object, name: str, check: _Check) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > 1000:
        raise ValueError(f"{name!r} must be a JSON object")
    # They are shown to people: nothing that could control a terminal.
    if not all(key.isprintable() and len(key) <= _NAME for key in value):
        raise ValueError(f"{name!r} has an entry without a proper name")
    return {key: check(entry, name) for key, entry in value.items()}

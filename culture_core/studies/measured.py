"""A finished run and what was found of its pictures: everything that a study needs, read from files."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..cultures import culture
from ..judges.agreement import Agreement, agreement
from ..judges.base import Verdict
from ..judges.results import Judged
from ..judges.run import SETTINGS, read_run
from ..strict_json import parse_object
from ..user_study.pictures import METADATA, picture_path

FIGURES, SUMMARY = "metrics.jsonl", "metrics.json"
CULTURE = "culture_vqa"
_SAME = ("neutral", "english", "noun", "category")
"""What the pictures of one item have in common, whichever system drew them."""


class StudyError(ValueError):
    """A run, answers or figures that a study cannot be made of; the message says why and what to do."""


class Item(NamedTuple):
    """What was asked for: every system draws it once."""

    prompt: str
    """Its id in the prompt list; without one, the neutral prompt."""
    culture: str
    seed: int

    @property
    def group(self) -> tuple[str, str]:
        """The seeds of one prompt, which are resampled together."""
        return self.prompt, self.culture


@dataclass(frozen=True)
class Picture:
    """One picture of a run."""

    file: str
    path: Path
    system: str
    item: Item
    strength: float | None
    record: Mapping[str, Any]
    """Its whole line in the run's metadata."""


@dataclass(frozen=True)
class Measure:
    """Something that was found of each picture."""

    key: str
    name: str
    values: Mapping[str, float]
    """By file; pictures without are missing."""
    share: bool = False
    """Whether it says right or wrong (1 or 0), and its mean is a percentage."""
    better: int = 0
    """1: more is better, -1: less is, 0: neither."""

    @property
    def digits(self) -> int:
        return 1 if self.share else 3

    @property
    def unit(self) -> str:
        return f"{self.name}, %" if self.share else self.name


_KNOWN = {
    "clip": ("CLIPScore, native text", 1),
    "clip_english": ("CLIPScore, English gloss", 1),
    "image_reward": ("ImageReward", 1),
    "lpips": ("LPIPS to the reference", 0),
    "lpips_neutral": ("LPIPS to the neutral picture", 0),
    "noun": ("noun accuracy", 1),
    "relevance": ("relevance, 1 to 5", 1),
    "exaggeration": ("exaggeration, 1 to 5", -1),
}
"""Names and directions of metrics' fields and judges' grades; others keep their names."""


@dataclass(frozen=True)
class Measured:
    """A run with everything that was found of it."""

    folder: Path
    pictures: tuple[Picture, ...]
    measures: dict[str, Measure]
    """By key; CultureVQA, if there are answers, is the first."""
    verdicts: Mapping[str, Verdict]
    """By file; of the first judge."""
    sets: Mapping[str, Mapping[str, float]]
    """Figures of whole systems, by figure and system."""
    instruments: tuple[tuple[str, str], ...]
    """What was measured by what, for people."""
    agreement: tuple[tuple[str, Agreement], ...] = ()
    """Of the first judge and each other one, by its name."""
    warnings: tuple[str, ...] = ()

    @property
    def systems(self) -> list[str]:
        """In the order in which they appear, a system that ran at several strengths once for each."""
        return list(dict.fromkeys(picture.system for picture in self.pictures))

    def of(self, system: str) -> dict[Item, Picture]:
        return {picture.item: picture for picture in self.pictures if picture.system == system}


def read_measured(
    run: Path, judged: Sequence[Path] = (), metrics: Sequence[Path] = (), systems: Sequence[str] = ()
) -> Measured:
    """Read a run and what was found of it.

    Args:
        judged: outputs of the judge about this run; the first is CultureVQA, others stand beside it.
        metrics: folders with figures of this run.
        systems: take these alone, in this order, the first as the baseline; none: all.

    Raises:
        StudyError: for files that cannot be read or do not belong together: a picture that is listed twice,
            answers about another culture than the run's, systems whose items differ under one id.
        ValueError: as the readers of judges and runs say it.
    """
    pictures = _pictures(run, systems)
    if not judged and not metrics:
        raise StudyError("there is nothing to study: give a judge's answers, metrics' figures, or both")
    measures, instruments, warnings, agreed = {}, [], [], []
    verdicts: dict[str, Judged] = {}
    for number, folder in enumerate(judged, start=1):
        own = _verdicts(folder, pictures)
        name, described, warned = _judge(folder, own)
        key = CULTURE if number == 1 else f"{CULTURE}_{number}"
        title = "CultureVQA" if number == 1 else f"CultureVQA by {name}"
        right = {file: float(one.right) for file, one in own.items()}
        measures[key] = Measure(key, title, right, share=True, better=1)
        instruments.append((title, described))
        graded = _grades(own, "" if number == 1 else f" by {name}", number)
        measures |= {measure.key: measure for measure in graded}
        warnings += [*warned, *_missing(title, right, pictures)]
        warnings += [text for one in graded for text in _missing(one.name, one.values, pictures)]
        if verdicts and (shared := [file for file in own if file in verdicts]):
            labels = ([side[file].verdict.label for file in shared] for side in (verdicts, own))
            agreed.append((name, agreement(*labels)))
        verdicts = verdicts or own
    sets: dict[str, dict[str, float]] = {}
    for folder in metrics:
        found = _figures(folder)
        if not any(picture.file in found for picture in pictures):
            raise StudyError(f"{folder} has no figure of any picture of this run: measure this run")
        for key in dict.fromkeys(key for line in found.values() for key in line):
            if key in measures:
                raise StudyError(
                    f"{folder} has figures {key!r}, which another folder has too: give one of them"
                )
            measures[key] = _measure(key, found, pictures)
            warnings += _missing(measures[key].name, measures[key].values, pictures)
        tools, own_sets, warned = _summary(folder)
        instruments += tools
        warnings += warned
        for name, values in own_sets.items():
            sets.setdefault(name, {}).update(values)
    return Measured(
        run, tuple(pictures), measures, {file: one.verdict for file, one in verdicts.items()}, sets,
        tuple(instruments), tuple(agreed), tuple(warnings),
    )  # fmt: skip


def _pictures(run: Path, systems: Sequence[str]) -> list[Picture]:
    path = run / METADATA
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} cannot be read ({error}): give the folder of a finished run") from error
    found = [
        _picture(run, line, f"{path}, line {n}") for n, line in enumerate(lines, start=1) if line.strip()
    ]
    strengths: dict[str, set[Any]] = defaultdict(set)
    for picture in found:
        strengths[picture.system].add(picture.strength)
    named = [
        Picture(p.file, p.path, f"{p.system}, strength {p.strength}", p.item, p.strength, p.record)
        if len(strengths[p.system]) > 1
        else p
        for p in found
    ]
    there = dict.fromkeys(picture.system for picture in named)
    if unknown := [name for name in systems if name not in there]:
        raise StudyError(f"the run has no system {', '.join(unknown)}: it has {'; '.join(there) or 'none'}")
    if not there:
        raise StudyError(f"{path} lists no picture: finish the run first")
    chosen = [picture for name in systems or there for picture in named if picture.system == name]
    _check(chosen)
    return chosen


def _picture(run: Path, line: str, where: str) -> Picture:
    try:
        record = parse_object(line)
        name, system, code, seed = (record[key] for key in ("file_name", "system", "culture", "seed"))
        prompt = record.get("item") or record.get("neutral") or record["prompt"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StudyError(f"{where}: it must be an object with file_name, system, prompt, culture and seed "
                         f"({error})") from error  # fmt: skip
    strength = record.get("strength")
    if not all(isinstance(text, str) and text.strip() for text in (name, system, code, prompt)):
        raise StudyError(f"{where}: file_name, system, culture and prompt must be texts that are not empty")
    if type(seed) is not int or type(strength) not in (int, float, type(None)):
        raise StudyError(f"{where}: seed must be a whole number, strength a number or null")
    try:
        culture(code)
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error
    return Picture(name, picture_path(run, name), system, Item(prompt, code, seed), strength, record)


def _check(pictures: Sequence[Picture]) -> None:
    """That every system draws an item once, and all of them the same one."""
    files = Counter(picture.file for picture in pictures)
    if twice := [file for file, count in files.items() if count > 1]:
        raise StudyError(f"the run lists a picture twice: {', '.join(twice[:3])}")
    seen: dict[tuple[str, Item], str] = {}
    contents: dict[tuple[Any, ...], tuple[str, Picture]] = {}
    for picture in pictures:
        other = seen.setdefault((picture.system, picture.item), picture.file)
        if other != picture.file:
            raise StudyError(
                f"{other} and {picture.file} are both of {picture.system!r}, the same prompt, culture and "
                "seed: keep one"
            )
        for name in _SAME:
            value = picture.record.get(name)
            if value is None:
                continue
            known, first = contents.setdefault((*picture.item.group, name), (value, picture))
            if known != value:
                raise StudyError(
                    f"{first.file} and {picture.file} have the item {picture.item.prompt!r}, but {name} is "
                    f"{known!r} in one and {value!r} in the other: they are not the same item, and cannot be "
                    "compared"
                )


def _verdicts(folder: Path, pictures: Sequence[Picture]) -> dict[str, Judged]:
    judged = {one.file: one for one in read_run(folder)}
    for picture in pictures:
        one = judged.get(picture.file)
        if one is not None and one.culture != picture.item.culture:
            raise StudyError(
                f"{folder} judged {picture.file} for {one.culture}, the run drew it for "
                f"{picture.item.culture}: these answers are of another run"
            )
    found = {p.file: judged[p.file] for p in pictures if p.file in judged}
    if not found:
        raise StudyError(f"{folder} has no answer about any picture of this run: judge this run")
    return found


def _grades(judged: Mapping[str, Judged], by: str, number: int) -> list[Measure]:
    """The graded questions, of pictures whose answer is a grade."""
    found = []
    for key in dict.fromkeys(key for one in judged.values() for key in one.grades):
        values = {
            file: float(grade) for file, one in judged.items() if (grade := one.grades.get(key)) is not None
        }
        name, better = _KNOWN.get(key, (key, 0))
        found.append(Measure(key if number == 1 else f"{key}_{number}", name + by, values, better=better))
    return found


def _judge(folder: Path, judged: Mapping[str, Judged]) -> tuple[str, str, list[str]]:
    """A judge's name, what it is for people, and what to be warned of."""
    settings = _object(folder / SETTINGS)
    asked = str(settings.get("model") or settings.get("judge") or "a judge that is not named")
    models = Counter(model for one in judged.values() for model in one.verdict.models)
    answered = ", ".join(f"{count} by {model}" for model, count in models.most_common())
    described = f"{asked}; answers: {answered or 'of a model that is not named'}"
    if rotations := settings.get("rotations"):
        described += f"; {rotations} orders of the options"
    warned = []
    if other := [model for model in models if model != asked]:
        warned.append(
            f"{folder.name}: {asked} was asked, {', '.join(other)} answered: a server may have another name "
            "for the same model, or have changed it"
        )
    if len(models) > 1:
        warned.append(f"{folder.name}: several models answered, so that its figures are not of one judge")
    if asked == "miniature":
        described += ". A stand-in: a small network that knows the miniature's drawings and nothing else"
        warned.append(
            "The judge is the miniature's own network, which stands in for a vision-language model: its "
            "figures mean something for the miniature's drawings only"
        )
    return asked, described, warned


def _missing(name: str, values: Mapping[str, float], pictures: Sequence[Picture]) -> list[str]:
    lacking = Counter(picture.system for picture in pictures if picture.file not in values)
    there = Counter(picture.system for picture in pictures)
    partly = {system: count for system, count in lacking.items() if count < there[system]}
    none = [system for system in lacking if system not in partly]
    warned = [f"{name} was not measured of {', '.join(none)}"] if none else []
    if partly:
        counted = ", ".join(f"{count} of {there[system]} of {system}" for system, count in partly.items())
        warned.append(f"{name} is missing for pictures, which are left out of it in all systems: {counted}")
    return warned


def _figures(folder: Path) -> dict[str, dict[str, float]]:
    """Numbers by file and field."""
    path, found = folder / FIGURES, {}
    try:
        for line in filter(str.strip, path.read_text(encoding="utf-8-sig").split("\n")):
            record = json.loads(line)
            numbers = {k: v for k, v in record.items() if isinstance(v, int | float) and math.isfinite(v)}
            found[record["file_name"]] = numbers
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StudyError(f"{path} has no figures to read ({error}): measure the run first") from error
    return found


def _measure(key: str, found: Mapping[str, Mapping[str, float]], pictures: Sequence[Picture]) -> Measure:
    own = {p.file: found[p.file][key] for p in pictures if key in found.get(p.file, {})}
    name, better = _KNOWN.get(key, (key.replace("_", " "), 0))
    share = bool(own) and all(isinstance(value, bool) for value in own.values())
    return Measure(key, name, {file: float(v) for file, v in own.items()}, share or key == "noun", better)


def _summary(folder: Path) -> tuple[list[tuple[str, str]], dict[str, dict[str, float]], list[str]]:
    """What measured, figures of whole systems, and what to be warned of."""
    summary = _object(folder / SUMMARY)
    settings, systems, too_long = (
        _within(summary, key, folder) for key in ("settings", "systems", "too_long")
    )
    instruments = [
        (_KNOWN.get(key, (key.replace("_", " "), 0))[0], _described(value)) for key, value in settings.items()
    ]
    sets: dict[str, dict[str, float]] = {}
    warned = []
    for system in systems:
        for key, figure in _within(systems, system, folder).items():
            if not isinstance(figure, dict) or "mean" in figure:  # of pictures, which are read one by one
                continue
            values = {key: figure["value"]} if "value" in figure else _of_diversity(key, figure)
            for name, value in values.items():
                if isinstance(value, int | float):
                    sets.setdefault(name, {})[system] = value
            if figure.get("warning"):
                warned.append(f"{key} of {system}: {figure['warning']}")
    for key, count in too_long.items():
        if count:
            warned.append(f"{key}: {count} texts were too long for the model and cut off")
    return instruments, sets, warned


def _of_diversity(key: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{key.replace('_', ' ')}, {name.replace('_', ' ')}": figure.get(name)
        for name in ("spread", "vendi", "quality_vendi")
    }


def _described(settings: Any) -> str:
    """Settings in one line; long hashes are cut."""
    if isinstance(settings, Mapping):
        # The heading of the table says already what these are.
        named = (("" if key == "instruments" else key, v) for key, v in settings.items())
        return ", ".join(f"{key} {_described(value)}".strip() for key, value in named)
    if isinstance(settings, list):
        return "; ".join(dict.fromkeys(map(_described, settings)))
    text = str(settings)
    return f"{text[:12]}…" if len(text) == 64 and text.isalnum() else text


def _within(record: Mapping[str, Any], key: str, folder: Path) -> dict[str, Any]:
    """An object inside of a summary; empty where there is none."""
    found = record.get(key, {})
    if not isinstance(found, dict):
        raise StudyError(f"{folder / SUMMARY}: {key!r} must be an object, got {found!r:.60}")
    return found


def _object(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}

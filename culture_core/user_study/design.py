"""Who judges which picture: a balanced assignment, and the key from blind codes back to systems."""

import hashlib
import json
import os
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import gcd
from pathlib import Path
from typing import Any

from ..atomic import atomic_path
from ..cultures import CULTURES
from ..strict_json import parse_object
from .pictures import Picture, StudyError

UNRECOGNISABLE = "unrecognisable"
TASKS: dict[str, tuple[str, ...]] = {
    "mcc": (*CULTURES, UNRECOGNISABLE),
    "scc": ("yes", "no", "unknown"),
    "csr": ("1", "2", "3", "4", "5"),
}
"""Possible answers of each task, in the order of the questionnaire."""
KEY_FORMAT, VERSION = "culture-user-study-key", 1
MAX_KEY_BYTES = 256 << 20
_LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Of codes: none that people take for another one."""

Coded = tuple[str, Picture]
"""A picture with its blind code."""


@dataclass(frozen=True)
class Question:
    """One question to one rater."""

    task: str
    picture: str
    """Blind code of the picture."""
    asked: str | None = None
    """Culture that the question names (scc, csr)."""
    check: str | None = None
    """The answer that an attention check tells the rater to choose; None: an ordinary question."""


@dataclass(frozen=True)
class Rater:
    """What one rater is asked."""

    options: tuple[str, ...]
    """The cultures of mcc in the order in which this rater sees them; unrecognisable always comes last."""
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Study:
    """A questionnaire and its key. Every picture has a blind code of its own, so that not even which pictures
    are of one system can be seen."""

    id: str
    seed: int
    pictures: dict[str, Picture]
    """By blind code."""
    raters: dict[str, Rater]
    """By the code that a rater signs in with."""

    @property
    def systems(self) -> list[str]:
        return list(dict.fromkeys(sorted(picture.system for picture in self.pictures.values())))

    def write_key(self, path: str | os.PathLike[str]) -> None:
        """Write the key; it stays with the researcher. The file appears whole or not at all."""
        pictures = {code: picture._asdict() for code, picture in self.pictures.items()}
        record = {"format": KEY_FORMAT, "version": VERSION, **asdict(self), "pictures": pictures}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")


def design_study(
    pictures: Sequence[Picture],
    raters: int,
    questions: int = 20,
    ratings: int = 3,
    foils: float = 0.2,
    checks: int = 1,
    seed: int = 0,
) -> Study:
    """Assign pictures to raters, balanced and randomised by a seed.

    In a task a rater sees every item at most once (never two systems' pictures of it), all systems equally
    often, and cultures in randomised blocks that hold each of them once. Over all raters every picture of the
    study is judged equally often in each task. Both hold to within one; a rater whose share straddles two
    rounds over the items may see one system two times more than another. The same item comes from another
    system in the next task.

    Args:
        raters: how many people answer.
        questions: how many a task and rater; fewer where there are not as many items.
        ratings: how many raters judge each picture in each task, at least; so many items are taken.
        foils: share of the scc questions that name another culture than the picture's, without which a rater
            who always says yes would be taken at his word.
        checks: attention checks a task and rater.
        seed: of every random choice.

    Raises:
        StudyError: where no item was drawn by all systems, or there are too few raters for so many ratings.
        ValueError: for numbers that make no sense.
    """
    _check_numbers(raters, questions, ratings, foils, checks)
    draw = random.Random(f"user study {seed}")
    items = _items(pictures, draw)
    count = len(items[0])
    questions = min(questions, len(items))
    wanted = raters * questions // (ratings * count)
    if wanted < questions:
        raise StudyError(
            f"{ratings} ratings of each picture need {ratings * count} raters or more, since nobody sees the "
            f"same item of two of the {count} systems in one task; there are {raters}: ask more people, take "
            "fewer systems, or lower the ratings"
        )
    items = items[:wanted]
    codes = _codes(len(items) * count, 6, draw)
    coded = [[(codes.pop(), picture) for picture in item] for item in items]
    by_code = dict(sorted(pair for item in coded for pair in item))
    assigned = {}
    for number, code in enumerate(_codes(raters, 5, draw)):
        tasks = [
            _asked(task, _share(coded, number * questions, questions, shift), foils, checks, by_code, draw)
            for shift, task in enumerate(TASKS)
        ]
        options = draw.sample(list(CULTURES), len(CULTURES))
        assigned[code] = Rater((*options, UNRECOGNISABLE), tuple(sum(tasks, [])))
    text = json.dumps([by_code, {code: asdict(rater) for code, rater in assigned.items()}])
    return Study(hashlib.sha256(text.encode()).hexdigest()[:12], seed, by_code, assigned)


def read_key(path: str | os.PathLike[str]) -> Study:
    """The study of a key file, checked.

    Raises:
        StudyError: for a file that cannot be read, is no key, is newer, or is damaged.
    """
    path = Path(path)
    record = read_object(path, MAX_KEY_BYTES)
    if record.get("format") != KEY_FORMAT or record.get("version") != VERSION:
        raise StudyError(
            f"{path}: is no key of a user study of version {VERSION}; give the file that `user-study build` "
            "wrote beside the questionnaire"
        )
    try:
        pictures = {code: Picture(**one) for code, one in record["pictures"].items()}
        raters = {
            code: Rater(tuple(one["options"]), tuple(Question(**question) for question in one["questions"]))
            for code, one in record["raters"].items()
        }
        study = Study(record["id"], record["seed"], pictures, raters)
        _check_key(study)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StudyError(f"{path}: is damaged ({error}); get the key again from where it was made") from error
    return study


def read_object(path: Path, limit: int) -> dict[str, Any]:
    """A JSON object from a file of at most `limit` bytes.

    Raises:
        StudyError: for anything else.
    """
    try:
        return parse_object(read_text(path, limit))
    except StudyError:
        raise
    except ValueError as error:
        raise StudyError(f"{path}: is {error}") from error


def read_text(path: Path, limit: int) -> str:
    """Text of a UTF-8 file of at most `limit` bytes.

    Raises:
        StudyError: for anything else.
    """
    try:
        if not path.is_file() or path.stat().st_size > limit:
            raise StudyError(f"{path}: is no file of at most {limit >> 20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read as UTF-8 text ({error})") from error


def _check_numbers(raters: int, questions: int, ratings: int, foils: float, checks: int) -> None:
    if min(raters, questions, ratings) < 1 or checks < 0 or not 0 <= foils < 1:
        raise ValueError(
            f"raters, questions and ratings must be 1 or more, checks 0 or more, foils from 0 to below 1; "
            f"got {raters}, {questions}, {ratings}, {checks} and {foils}"
        )


def _items(pictures: Sequence[Picture], draw: random.Random) -> list[list[Picture]]:
    """Items that all systems drew, a picture a system, in random blocks that hold each culture once."""
    systems = sorted({picture.system for picture in pictures})
    drawn: dict[tuple[Any, ...], dict[str, Picture]] = defaultdict(dict)
    for picture in pictures:
        drawn[picture.item][picture.system] = picture
    cultures: dict[str, list[list[Picture]]] = defaultdict(list)
    for item in sorted(drawn):
        if len(drawn[item]) == len(systems):
            cultures[item[0]].append([drawn[item][system] for system in systems])
    if not cultures:
        raise StudyError(f"no prompt was drawn by all of {systems} with one culture and seed: finish the run")
    for items in cultures.values():
        draw.shuffle(items)
    ordered = []
    while any(cultures.values()):
        block = [items.pop() for items in cultures.values() if items]
        draw.shuffle(block)
        ordered += block
    return ordered


def _codes(count: int, length: int, draw: random.Random) -> list[str]:
    """Different random codes."""
    codes: dict[str, None] = {}
    while len(codes) < count:
        codes["".join(draw.choices(_LETTERS, k=length))] = None
    return list(codes)


def _share(items: Sequence[Sequence[Coded]], start: int, count: int, shift: int) -> list[Coded]:
    """The pictures of the places `start` to `start + count` of a cyclic Latin square of items and systems.

    Going through all items again and again, the system moves on by one with every place. Where items and
    systems have a common divisor, that alone would come back to the same pairs too early: then it skips one.
    """
    systems = len(items[0])
    period = systems // gcd(len(items), systems)
    places = range(start, start + count)
    return [items[g % len(items)][(g + g // len(items) // period + shift) % systems] for g in places]


def _asked(
    task: str,
    share: Sequence[Coded],
    foils: float,
    checks: int,
    pictures: dict[str, Picture],
    draw: random.Random,
) -> list[Question]:
    """The questions of one task to one rater, in random order; a check never comes first."""
    foiled = set(draw.sample(range(len(share)), round(foils * len(share)))) if task == "scc" else set()
    questions = []
    for number, (code, picture) in enumerate(share):
        others = [other for other in CULTURES if other != picture.culture]
        named = draw.choice(others) if number in foiled else picture.culture
        questions.append(Question(task, code, None if task == "mcc" else named))
    draw.shuffle(questions)
    for _ in range(checks):
        check = Question(task, draw.choice(list(pictures)), check=draw.choice(TASKS[task]))
        questions.insert(draw.randint(1, len(questions)), check)
    return questions


def _check_key(study: Study) -> None:
    """Raises ValueError for what a key cannot hold."""
    if not isinstance(study.id, str) or type(study.seed) is not int or not study.raters:
        raise ValueError("id, seed or raters are missing")
    for code, picture in study.pictures.items():
        texts = (picture.file_name, picture.system, picture.prompt, picture.language, picture.content)
        if not all(isinstance(text, str) for text in texts) or picture.culture not in CULTURES:
            raise ValueError(f"picture {code!r}")
    for code, rater in study.raters.items():
        if sorted(rater.options) != sorted(TASKS["mcc"]) or not rater.questions:
            raise ValueError(f"options or questions of rater {code!r}")
        for number, question in enumerate(rater.questions, start=1):
            named = (
                question.asked is None
                if question.task == "mcc" or question.check
                else question.asked in CULTURES
            )
            known = question.task in TASKS and question.picture in study.pictures
            if not named or not known or question.check not in (None, *TASKS[question.task]):
                raise ValueError(f"question {number} of rater {code!r}")

"""The raters' answers as the questionnaire writes them, JSON or CSV. They may come from anyone."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .design import TASKS, VERSION, Study, read_object, read_text
from .pictures import StudyError

ANSWERS_FORMAT = "culture-user-study-answers"
MAX_BYTES = 4 << 20
COLUMNS = ("study", "rater", "language", "number", "task", "picture", "asked", "answer", "seconds")
"""Of the CSV file."""
_LONGEST = 7 * 86400.0
"""Seconds at one question; a browser may be left open for days."""


class Answer(NamedTuple):
    """What a rater chose."""

    answer: str
    seconds: float
    """From seeing the question to choosing."""


@dataclass(frozen=True)
class Sheet:
    """One rater's answers."""

    rater: str
    language: str
    """In which the questions were read."""
    answers: dict[int, Answer]
    """By the number of the question, from 1."""


def collect_answers(
    paths: Sequence[str | os.PathLike[str]], study: Study
) -> tuple[dict[str, Sheet], dict[str, str]]:
    """Answers by rater, and files that were refused with the reason.

    A rater may send several files, JSON and CSV, early and final ones: they are joined. Where two of them
    contradict each other, two people may have used one code: all files of that code are refused.
    """
    read: dict[str, dict[str, Sheet]] = {}
    refused: dict[str, str] = {}
    for path in map(Path, paths):
        try:
            sheet = read_answers(path, study)
        except StudyError as error:
            refused[str(path)] = str(error)
        else:
            read.setdefault(sheet.rater, {})[str(path)] = sheet
    sheets = {}
    for rater, files in sorted(read.items()):
        try:
            sheets[rater] = _joined(files)
        except StudyError as error:
            refused |= dict.fromkeys(files, str(error))
    return sheets, refused


def read_answers(path: Path, study: Study) -> Sheet:
    """The answers of one file.

    Raises:
        StudyError: for a file that cannot be read, is of another study, or holds what the questionnaire
            cannot have written.
    """
    head, rows = _csv(path) if path.suffix.lower() == ".csv" else _json(path)
    if head.get("study") != study.id:
        raise StudyError(
            f"{path}: belongs to study {str(head.get('study'))[:40]!r}, the key is that of {study.id!r}"
        )
    rater = head.get("rater")
    if not isinstance(rater, str) or rater not in study.raters:
        raise StudyError(f"{path}: the key knows no rater {str(rater)[:40]!r}")
    language = head.get("language")
    if not isinstance(language, str) or not (language.isascii() and language.isalpha() and len(language) < 4):
        raise StudyError(f"{path}: {str(language)[:40]!r} is no language")
    answers: dict[int, Answer] = {}
    for row in rows:
        number, answer = _answer(row, study.raters[rater].questions, path)
        if number in answers:
            raise StudyError(f"{path}: question {number} is answered twice")
        answers[number] = answer
    if not answers:
        raise StudyError(f"{path}: holds no answer")
    return Sheet(rater, language, answers)


def _json(path: Path) -> tuple[Mapping[str, Any], Sequence[Any]]:
    record = read_object(path, MAX_BYTES)
    if record.get("format") != ANSWERS_FORMAT or record.get("version") != VERSION:
        raise StudyError(f"{path}: holds no answers to a questionnaire of version {VERSION}")
    if not isinstance(record.get("answers"), list):
        raise StudyError(f"{path}: 'answers' must be a list")
    return record, record["answers"]


def _csv(path: Path) -> tuple[Mapping[str, Any], Sequence[Any]]:
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, MAX_BYTES)), strict=True))
    except csv.Error as error:
        raise StudyError(f"{path}: is no CSV ({error})") from error
    if not rows or any(set(row) != set(COLUMNS) for row in rows):
        raise StudyError(f"{path}: must have the columns {', '.join(COLUMNS)}, and answers")
    heads = {tuple(row[name] for name in COLUMNS[:3]) for row in rows}
    if len(heads) > 1:
        raise StudyError(f"{path}: mixes studies, raters or languages; keep the files as they were sent")
    for row in rows:
        for name, kind in (("number", int), ("seconds", float)):
            try:
                row[name] = kind(row[name])
            except (TypeError, ValueError):
                raise StudyError(f"{path}: {name!r} is {str(row[name])[:40]!r}, no number") from None
        row["asked"] = row["asked"] or None
    return rows[0], rows


def _answer(row: Any, questions: Sequence[Any], path: Path) -> tuple[int, Answer]:
    """Number and answer of a row, which must be about the question that the key knows under the number."""
    number = row.get("number") if isinstance(row, dict) else None
    if type(number) is not int or not 1 <= number <= len(questions):
        raise StudyError(f"{path}: there is no question {str(number)[:40]!r}")
    question = questions[number - 1]
    if tuple(row.get(name) for name in ("task", "picture", "asked")) != (
        question.task,
        question.picture,
        question.asked,
    ):
        raise StudyError(f"{path}: question {number} is another one than the key's")
    answer, seconds = row.get("answer"), row.get("seconds")
    if answer not in TASKS[question.task]:
        raise StudyError(f"{path}: {str(answer)[:40]!r} is no answer to question {number}")
    if type(seconds) not in (int, float) or not 0 <= seconds < 1e12:
        raise StudyError(f"{path}: 'seconds' of question {number} is {str(seconds)[:40]!r}")
    return number, Answer(answer, min(float(seconds), _LONGEST))


def _joined(files: Mapping[str, Sheet]) -> Sheet:
    """All answers of one rater; the language is that of the fullest file."""
    answers: dict[int, Answer] = {}
    for sheet in files.values():
        for number, answer in sheet.answers.items():
            if answers.setdefault(number, answer).answer != answer.answer:
                raise StudyError(
                    f"rater {sheet.rater}: {', '.join(files)} contradict each other at question {number}; if "
                    "one person sent them, keep the last one"
                )
    fullest = max(files.values(), key=lambda sheet: len(sheet.answers))
    return Sheet(fullest.rater, fullest.language, dict(sorted(answers.items())))

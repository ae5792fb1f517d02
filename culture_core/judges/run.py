"""Judging a folder of pictures: long, so it goes on where it stopped."""

import hashlib
import json
import logging
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

from ..atomic import atomic_path
from ..strict_json import parse_object
from ..vlm import VLMError
from .base import UNRECOGNISABLE, Judge, Verdict, labels
from .by_vlm import VLMJudge
from .folders import LabelledPicture
from .questions import GRADED
from .results import Judged

logger = logging.getLogger(__name__)

ANSWERS, SETTINGS = "answers.jsonl", "run.json"
PATIENCE = 5
"""So many pictures in a row without an answer end a run: the rest would fare no better."""
WORKERS = 4


class Run(NamedTuple):
    """What has been judged, and what could not be."""

    judged: list[Judged]
    failed: dict[str, str]
    """Why, by picture. They are tried again next time."""


def judge_folder(
    judge: Judge,
    pictures: Sequence[LabelledPicture],
    output: Path,
    *,
    graded: Sequence[str] = (),
    workers: int = WORKERS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Run:
    """Ask a judge about pictures; every answer is on disk in `output` as soon as it is there.

    Called again, it asks only about pictures that have no answer yet or have changed since.

    Args:
        graded: keys of `questions.GRADED` to ask as well, of judges that can be asked.
        workers: pictures at a time, for judges that allow it.
        progress: called with (done, total); what it raises ends the run.

    Raises:
        ValueError: where `output` has answers of another judge or to other questions, or the judge cannot
            be asked the graded questions.
        VLMError: where `PATIENCE` pictures in a row got no answer.
    """
    if graded and not isinstance(judge, VLMJudge):
        raise ValueError(f"the judge {judge.name} answers no graded questions: use a vision-language model")
    _open_output(output, {**judge.settings(), "graded": list(graded)})
    hashes = {picture.file: _file_hash(picture.path) for picture in pictures}
    before = _read_answers(output / ANSWERS)
    known = {p.file: before[p.file] for p in pictures if _holds(before.get(p.file), p, hashes[p.file])}
    todo = [picture for picture in pictures if picture.file not in known]
    failed: dict[str, str] = {}
    progress(len(known), len(pictures))
    _write_answers(output / ANSWERS, known.values())  # without a line that was cut off, and outdated ones
    asked = _in_parallel(lambda p: _ask(judge, p, graded), todo, workers if judge.parallel else 1)
    # Closed: what `progress` raises must end the other threads too.
    with open(output / ANSWERS, "a", encoding="utf-8") as file, closing(asked):
        for picture, answer in asked:
            if isinstance(answer, str):
                failed[picture.file] = answer
                logger.warning("%s: %s", picture.file, answer)
            else:
                known[picture.file] = {"file": picture.file, "sha256": hashes[picture.file], **answer}
                file.write(_line(known[picture.file]))
                file.flush()
            progress(len(known) + len(failed), len(pictures))
    return Run([_from_record(known[p.file]) for p in pictures if p.file in known], failed)


def read_run(output: Path) -> list[Judged]:
    """What an earlier run found.

    Raises:
        ValueError: for a folder without answers.
    """
    records = _read_answers(output / ANSWERS)
    if not records:
        raise ValueError(f"{output} has no answers: judge a folder with --output {output} first")
    return [_from_record(record) for record in records.values()]


def _holds(record: dict[str, Any] | None, picture: LabelledPicture, file_hash: str) -> bool:
    """Whether an earlier answer is about this very picture, and about what it should show."""
    return record is not None and (record["sha256"], record["culture"]) == (file_hash, picture.culture)


def _ask(judge: Judge, picture: LabelledPicture, graded: Sequence[str]) -> dict[str, Any]:
    with Image.open(picture.path) as image:
        image.load()
        record = {"culture": picture.culture, **judge.judge(image).to_json(), "grades": {}}
        if isinstance(judge, VLMJudge) and picture.culture != UNRECOGNISABLE:
            for key in graded:
                grade = judge.grade(image, picture.culture, GRADED[key])
                record["grades"][key] = {"value": grade.value, "text": grade.text}
                costs = record["cost"], grade.cost
                record["cost"] = None if None in costs else sum(costs)
        return record


def _in_parallel(
    ask: Callable[[LabelledPicture], dict[str, Any]], pictures: Sequence[LabelledPicture], workers: int
) -> Generator[tuple[LabelledPicture, dict[str, Any] | str], None, None]:
    """Pictures with their answers as they come, or with the reason why there is none."""
    in_a_row, pool = 0, ThreadPoolExecutor(workers)
    try:
        asked: dict[Future[dict[str, Any]], LabelledPicture] = {
            pool.submit(ask, picture): picture for picture in pictures
        }
        for future in as_completed(asked):
            answer: dict[str, Any] | str
            try:
                answer, in_a_row = future.result(), 0
            except (VLMError, UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
                answer, in_a_row = str(error), in_a_row + 1
            yield asked[future], answer
            if in_a_row == PATIENCE:
                raise VLMError(
                    f"stopped after {PATIENCE} pictures in a row without an answer; earlier ones are kept, "
                    f"run it again to go on. The last reason: {answer}"
                )
    finally:
        pool.shutdown(cancel_futures=True)


def _open_output(output: Path, settings: dict[str, Any]) -> None:
    """See that a folder is new, or of a run with these settings."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / SETTINGS
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8")
        return
    try:
        before = parse_object(path.read_text(encoding="utf-8"))
    except ValueError:
        before = None
    if before != settings:
        raise ValueError(
            f"{output} has answers of another judge, or to other questions: choose another folder for these"
        )


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_answers(path: Path) -> dict[str, dict[str, Any]]:
    """The whole lines of a file of answers, by picture, of several the last; a run that was killed may have
    cut the last line off."""
    if not path.is_file():
        return {}
    records = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = parse_object(line)
            file = _from_record(record).file
            if isinstance(record["sha256"], str):
                records[file] = record
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return records


def _write_answers(path: Path, records: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("".join(map(_line, records)), encoding="utf-8")


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _from_record(record: dict[str, Any]) -> Judged:
    """
    Raises:
        ValueError, KeyError, TypeError, AttributeError: for what is no answer.
    """
    grades = {key: grade["value"] for key, grade in record["grades"].items()}
    file, culture = record["file"], record["culture"]
    whole = all(isinstance(grade, int | None) for grade in grades.values())
    if not (whole and file and isinstance(file, str) and culture in labels()):
        raise ValueError("this is no answer about a picture")
    return Judged(file, culture, Verdict.from_json(record), grades)

"""The folder of a run: pictures, what they were made from, what failed.

RUN/run.json         settings: systems, hash of the prompt list, seeds, strengths
RUN/metadata.jsonl   a line a finished picture
RUN/images/*.png     named after their jobs; each has its own line inside, as the PNG text `culture`
RUN/failures.jsonl   what failed when it was tried last
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, PngImagePlugin

from ..atomic import atomic_path
from ..cultures import culture
from ..paths import path_inside
from ..strict_json import parse_object
from .base import GeneratorError, Job, Made

METADATA, SETTINGS, FAILURES, IMAGES = "metadata.jsonl", "run.json", "failures.jsonl", "images"
PNG_TEXT = "culture"
_TEXTS = ("file_name", "job", "system", "prompt", "neutral", "language", "culture", "item")
_MAYBE_TEXTS = ("english", "noun", "category")


class MadePicture(NamedTuple):
    """One finished picture of a run."""

    file_name: str
    """Path inside the run's folder, with slashes."""
    job: str
    system: str
    prompt: str
    """The text that was given to the model."""
    neutral: str
    """The neutral prompt, in `language`."""
    english: str | None
    """English gloss of the neutral prompt."""
    language: str
    culture: str
    noun: str | None
    category: str | None
    item: str
    """Id of the prompt in the prompt list: the same for all systems that drew it."""
    seed: int
    strength: float | None
    """None for a system without a dial."""
    path: Path


def read_pictures(run: str | os.PathLike[str]) -> list[MadePicture]:
    """The finished pictures of a run, in the order in which they were finished.

    Raises:
        GeneratorError: for a folder without a run, a line that is not as it must be, a picture that is
            missing, listed twice, or outside the folder.
    """
    run = Path(run)
    path = run / METADATA
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise GeneratorError(
            f"{path}: cannot be read as UTF-8 text ({error}); give the folder of a run"
        ) from (error)
    found: dict[str, MadePicture] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        picture = _picture(line, run, where)
        if picture.file_name in found:
            raise GeneratorError(f"{where}: {picture.file_name} is listed twice; keep one of the lines")
        found[picture.file_name] = picture
    if not found:
        raise GeneratorError(f"{path}: lists no picture; run `generate` first")
    return list(found.values())


class RunFolder:
    """A run's folder, to be filled. One thread at a time may write."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.records: dict[str, dict[str, Any]] = {}
        """Lines of the metadata by job."""

    def recover(self, jobs: Iterable[Job]) -> None:
        """Take up what an earlier run left, also a picture without its line, or a line that was cut off."""
        self.records = {r["job"]: r for r in _whole_lines(self.folder / METADATA) if self._there(r)}
        for job in jobs:
            if job.id not in self.records and (record := self._record_inside(job)):
                self.records[job.id] = record
        _write_lines(self.folder / METADATA, self.records.values())

    def keep(self, job: Job, made: Made) -> None:
        """Put a finished picture into the run: whole, or not at all."""
        record = job.record()
        texts = PngImagePlugin.PngInfo()
        for name, text in {**made.texts, PNG_TEXT: json.dumps(record, ensure_ascii=False)}.items():
            texts.add_itxt(name, text, zip=len(text) > 1000)
        with atomic_path(self.folder / record["file_name"]) as temporary:
            made.image.save(temporary, format="PNG", pnginfo=texts)
        with open(self.folder / METADATA, "a", encoding="utf-8") as file:
            file.write(_line(record))
        self.records[job.id] = record

    def write_failures(self, failed: Iterable[Mapping[str, Any]]) -> None:
        """Replace the list of what failed."""
        _write_lines(self.folder / FAILURES, failed)

    def read_settings(self) -> dict[str, Any] | None:
        """Settings of an earlier run; None where there was none.

        Raises:
            GeneratorError: where they cannot be read.
        """
        path = self.folder / SETTINGS
        if not path.exists():
            return None
        try:
            return parse_object(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise GeneratorError(f"{path}: cannot be read ({error}); choose another folder") from error

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        with atomic_path(self.folder / SETTINGS) as temporary:
            temporary.write_text(json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8")

    def _there(self, record: Mapping[str, Any]) -> bool:
        path = path_inside(self.folder, record["file_name"])
        usual = record["file_name"] == f"{IMAGES}/{record['job']}.png"
        return usual and path is not None and path.is_file()

    def _record_inside(self, job: Job) -> dict[str, Any] | None:
        """The record that a job's picture carries; None where there is no such picture."""
        record = job.record()
        try:
            with Image.open(self.folder / record["file_name"]) as image:
                inside = parse_object(image.text[PNG_TEXT])
        except (OSError, ValueError, KeyError, AttributeError):
            return None
        return record if inside == record else None


def _picture(line: str, run: Path, where: str) -> MadePicture:
    try:
        record = parse_object(line)
    except ValueError as error:
        raise GeneratorError(f"{where}: is {error}") from error
    for name in (*_TEXTS, *_MAYBE_TEXTS):
        value = record.get(name)
        if not (isinstance(value, str) and value.strip()) and not (name in _MAYBE_TEXTS and value is None):
            raise GeneratorError(f"{where}: {name!r} must be a text that is not empty, got {value!r}")
    seed, strength = record.get("seed"), record.get("strength")
    if type(seed) is not int or (strength is not None and type(strength) not in (int, float)):
        raise GeneratorError(f"{where}: 'seed' must be a whole number and 'strength' a number or null")
    try:
        culture(record["culture"])
    except ValueError as error:
        raise GeneratorError(f"{where}: {error}") from error
    path = path_inside(run, record["file_name"])
    if path is None:
        raise GeneratorError(f"{where}: {record['file_name']!r} leads out of the run's folder")
    if not path.is_file():
        raise GeneratorError(f"{where}: there is no picture {record['file_name']}; run `generate` again")
    values: dict[str, Any] = {name: record.get(name) for name in MadePicture._fields if name != "path"}
    return MadePicture(**values, path=path)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSONL file; a run that was killed may have cut the last one off."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else ():
        try:
            record = parse_object(line)
            if isinstance(record["job"], str) and isinstance(record["file_name"], str):
                records.append(record)
        except (ValueError, KeyError, TypeError):
            continue
    return records


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("".join(map(_line, records)), encoding="utf-8")


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"

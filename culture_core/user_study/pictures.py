"""The pictures of a finished run, as `metadata.jsonl` lists them."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..cultures import culture
from ..paths import path_inside
from ..strict_json import parse_object

METADATA = "metadata.jsonl"
_TEXTS = ("file_name", "system", "prompt", "language", "culture")


class StudyError(ValueError):
    """A run, a key or answers that cannot be used; the message says which and why."""


class Picture(NamedTuple):
    """One picture and what it was made from."""

    file_name: str
    """Path inside the run's folder."""
    system: str
    prompt: str
    language: str
    culture: str
    """Code of the culture that the picture was made for."""
    seed: int
    content: str = ""
    """What every system drew, whatever text it was given for it: the prompt's id in the prompt list, or the
    neutral prompt. Empty: the prompt itself."""

    @property
    def item(self) -> tuple[str, str, str, int]:
        """What was asked for: every system draws it once."""
        return self.culture, self.language, self.content or self.prompt, self.seed


def read_run(folder: str | os.PathLike[str], systems: Sequence[str] = ()) -> list[Picture]:
    """The pictures of a run, in the order of its `metadata.jsonl`.

    A system that ran at several strengths counts as several, each named with its strength. Pictures belong
    together by `item` or `neutral` where the metadata have them, since treatments change the prompt, else by
    `prompt`. Further fields are ignored.

    Args:
        systems: take these alone; none: all.

    Raises:
        StudyError: for a run without pictures, a line that is not as it must be, a picture that is missing or
            outside the folder, an item drawn twice by one system, or a system that is not there.
    """
    folder = Path(folder)
    path = folder / METADATA
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(
            f"{path}: cannot be read as UTF-8 text ({error}); give the folder of a run"
        ) from error
    parsed = [_parse(line, f"{path}, line {n}") for n, line in enumerate(lines, start=1) if line.strip()]
    found = _named(parsed, systems)
    _check_once(found, path)
    for picture in found:
        picture_path(folder, picture.file_name)
    return found


def picture_path(folder: str | os.PathLike[str], file_name: str) -> Path:
    """Where a picture lies.

    Raises:
        StudyError: where it is missing, or its name or a link leads out of the folder.
    """
    root = Path(folder)
    path = path_inside(root, file_name)
    if path is None:
        raise StudyError(f"{file_name!r} leads out of the run's folder {root}: keep pictures inside it")
    if not path.is_file():
        raise StudyError(
            f"{path}: the picture is missing; finish the run, or remove its line from {METADATA}"
        )
    return path


def _parse(line: str, where: str) -> tuple[Picture, Any]:
    """A picture, and the strength that its system ran at."""
    try:
        record = parse_object(line)
    except ValueError as error:
        raise StudyError(f"{where}: is {error}") from error
    for name in _TEXTS:
        if not isinstance(record.get(name), str) or not record[name].strip():
            raise StudyError(f"{where}: {name!r} must be a text that is not empty, got {record.get(name)!r}")
    if type(record.get("seed")) is not int:
        raise StudyError(f"{where}: 'seed' must be a whole number, got {record.get('seed')!r}")
    try:
        culture(record["culture"])
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error
    content = record.get("item") or record.get("neutral") or ""
    if not isinstance(content, str):
        raise StudyError(f"{where}: 'item' and 'neutral' must be texts, got {content!r}")
    texts = {name: record[name] for name in _TEXTS}
    return Picture(**texts, seed=record["seed"], content=content), record.get("strength")


def _named(parsed: Sequence[tuple[Picture, Any]], systems: Sequence[str]) -> list[Picture]:
    """Pictures of the systems that were asked for, each strength a system of its own."""
    strengths: Mapping[str, set[Any]] = defaultdict(set)
    for picture, strength in parsed:
        strengths[picture.system].add(str(strength))
    pictures = [
        picture._replace(system=f"{picture.system}, strength {strength}")
        if len(strengths[picture.system]) > 1
        else picture
        for picture, strength in parsed
    ]
    there = dict.fromkeys(picture.system for picture in pictures)
    missing = [name for name in systems if name not in there]
    if missing or not there:
        raise StudyError(f"the run has no pictures of {missing or 'any system'}; it has {list(there)}")
    return [picture for picture in pictures if not systems or picture.system in systems]


def _check_once(pictures: Sequence[Picture], path: Path) -> None:
    seen: dict[tuple[Any, ...], str] = {}
    for picture in pictures:
        other = seen.setdefault((picture.system, *picture.item), picture.file_name)
        if other != picture.file_name:
            raise StudyError(
                f"{path}: {other} and {picture.file_name} are both of system {picture.system!r}, the same "
                "prompt, culture and seed; keep one"
            )

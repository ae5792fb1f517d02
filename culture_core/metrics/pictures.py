"""The pictures of a run or of a reference, with what the metrics need to know of them."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from ..paths import path_inside
from ..strict_json import parse_object
from .base import MetricError

METADATA = "metadata.jsonl"


class RunPicture(NamedTuple):
    """One line of `metadata.jsonl`."""

    file_name: str
    path: Path
    system: str
    """With its strength, where it ran at several: "pack, strength 2.0"."""
    text: str
    """The neutral prompt in its own language, whatever the picture was made from."""
    english: str | None
    item: str
    """The same for pictures of one prompt, in a run and in its reference."""


def read_pictures(folder: Path) -> list[RunPicture]:
    """The pictures of a folder, in its order.

    Of a line, `file_name` must be there, and one of `item`, `neutral` and `prompt`. `neutral` is the text;
    without it, `prompt` is.

    Raises:
        MetricError: for a folder without pictures, a line that is not as it must be, a picture that is
            missing or outside the folder.
    """
    path = folder / METADATA
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise MetricError(f"{path} cannot be read: {error}; give the folder of a finished run") from error
    records = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                records.append(parse_object(line))
            except ValueError as error:
                raise MetricError(f"{path}, line {number}: is {error}") from error
    strengths = Counter(system for system, _ in {(_system(r), str(r.get("strength"))) for r in records})
    found = [_picture(folder, record, strengths[_system(record)] > 1) for record in records]
    if not found:
        raise MetricError(f"{path} lists no picture")
    names = Counter(picture.file_name for picture in found)
    if twice := [name for name, count in names.items() if count > 1]:
        raise MetricError(f"{path} has a picture twice: {', '.join(twice[:3])}")
    return found


def _picture(folder: Path, record: dict[str, Any], several: bool) -> RunPicture:
    name, root = record.get("file_name"), folder.resolve()
    if not isinstance(name, str) or path_inside(root, name) is None:
        raise MetricError(f"{folder / METADATA}: file_name {name!r} leads out of the folder")
    if not (root / name).is_file():
        raise MetricError(f"{root / name}: the picture is missing; finish the run, or remove its line")
    text = record.get("neutral") or record.get("prompt") or ""
    item = record.get("item") or text
    if not isinstance(text, str) or not item:
        raise MetricError(f"{folder / METADATA}: {name} has no item, neutral or prompt")
    system = _system(record)
    system = f"{system}, strength {record.get('strength')}" if several else system
    english = record.get("english")
    return RunPicture(
        name, root / name, system, text, english if isinstance(english, str) else None, str(item)
    )


def _system(record: dict[str, Any]) -> str:
    return str(record.get("system") or "")

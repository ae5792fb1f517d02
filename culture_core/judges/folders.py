"""Folders of pictures whose cultures are known: what a system under test has left behind."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..paths import path_inside
from ..strict_json import parse_object
from .base import label_name, labels

METADATA = "metadata.jsonl"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class LabelledPicture(NamedTuple):
    """A picture and the culture that it was asked to show."""

    file: str
    """Its name inside the folder, with slashes."""
    path: Path
    culture: str
    """A label of `base.labels`."""


def read_folder(folder: Path) -> list[LabelledPicture]:
    """The pictures of a folder, by name.

    The cultures stand in its `metadata.jsonl`, a line a picture with `file_name` and `culture`, as Hugging
    Face's image folders have it; or without such a file, the pictures lie in subfolders that are named after
    their cultures (`th` or `Thai`).

    Raises:
        ValueError: where there are no pictures, or it is not known what they are to show.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    pictures = list(_from_metadata(folder) if (folder / METADATA).is_file() else _from_subfolders(folder))
    if not pictures:
        raise ValueError(
            f"{folder} has no pictures: it needs a {METADATA} whose lines have file_name and culture, or "
            "subfolders named after cultures, such as th, ja and fr"
        )
    counts = Counter(picture.file for picture in pictures)
    if twice := [file for file, count in counts.items() if count > 1]:
        raise ValueError(f"{folder / METADATA} has a picture twice: {', '.join(sorted(twice)[:3])}")
    return sorted(pictures)


def _from_metadata(folder: Path) -> Iterator[LabelledPicture]:
    file = folder / METADATA
    root = folder.resolve()
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read as a UTF-8 text file ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        try:
            record = parse_object(line)
            name, culture = record["file_name"], record["culture"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{place}: it must be an object with file_name and culture ({error})") from None
        if not isinstance(name, str) or path_inside(root, name) is None:
            raise ValueError(f"{place}: file_name {name!r} leads out of the folder, or is none")
        if not (root / name).is_file():
            raise ValueError(f"{place}: there is no picture {name}")
        yield LabelledPicture(Path(name).as_posix(), root / name, _label(culture, place))


def _from_subfolders(folder: Path) -> Iterator[LabelledPicture]:
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = [path for path in sorted(inner.rglob("*")) if path.suffix.lower() in SUFFIXES]
        label = _label(inner.name, str(inner)) if files else ""
        for path in files:
            yield LabelledPicture(path.relative_to(folder).as_posix(), path, label)


def _label(name: object, place: str) -> str:
    """The label that a code or an English name means."""
    for label in labels():
        if isinstance(name, str) and name.casefold() in (label.casefold(), label_name(label).casefold()):
            return label
    raise ValueError(f"{place}: unknown culture {name!r}; use one of {', '.join(labels())}")

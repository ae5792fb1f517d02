"""A folder of pictures becomes records: safe decoding, and no picture twice."""

import csv
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps

from ..atomic import atomic_path
from ..cultures import culture as known_culture
from .captions import Captions, with_captions
from .hashes import NEAR, exact_hash, perceptual_hash
from .records import IMAGES, Bench, BenchError, Record, read_jsonl

Progress = Callable[[int, int], None]
"""Gets (pictures read, pictures in all). What it raises ends the work; what was read is kept."""

FORMATS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
"""Kinds of pictures that are read, by Pillow's name, and the ending that each is stored with."""
MAX_BYTES = 64 << 20
MAX_PIXELS = 64_000_000
MIN_EDGE = 32
METADATA = ("metadata.jsonl", "metadata.csv")
"""Files of a folder that say more about its pictures, as Hugging Face's imagefolder has them."""
_GIVEN = ("culture", "category", "region", "licence", "source", "noun")
_CAPTIONS = ("language", "cultural", "neutral", "english", "english_neutral")
_SAVE_EVERY = 50


class Defaults(NamedTuple):
    """What is true of every picture of a folder that says nothing else."""

    culture: str = ""
    category: str = ""
    region: str = ""
    licence: str = ""
    source: str = ""


class Skipped(NamedTuple):
    """A picture that was not taken."""

    file: str
    reason: str


class Ingested(NamedTuple):
    """What became of a folder's pictures."""

    added: list[str]
    """Ids of the new records."""
    known: int
    """Pictures that the bench has already, byte by byte."""
    skipped: list[Skipped]


class PictureError(BenchError):
    """A picture that is not taken; the message says why."""


class Picture(NamedTuple):
    """A picture that could be decoded."""

    data: bytes
    image: Image.Image
    """Upright, RGB."""
    suffix: str


def read_picture(path: Path) -> Picture:
    """Decode a picture of a kind and size that is allowed, whole.

    Raises:
        PictureError: for anything else; the message says what it is.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise PictureError(f"has {size >> 20} MiB, at most {MAX_BYTES >> 20} are allowed")
        return decoded(path.read_bytes())
    except OSError as error:
        raise PictureError(f"cannot be read ({error})") from error


def decoded(data: bytes) -> Picture:
    """As `read_picture`, from a file's bytes."""
    if len(data) > MAX_BYTES:
        raise PictureError(f"has {len(data) >> 20} MiB, at most {MAX_BYTES >> 20} are allowed")
    try:
        with Image.open(io.BytesIO(data), formats=list(FORMATS)) as found:
            if found.width * found.height > MAX_PIXELS:
                raise PictureError(f"has {found.width} x {found.height} pixels, more than {MAX_PIXELS:,}")
            if min(found.size) < MIN_EDGE:
                raise PictureError(f"has {found.width} x {found.height} pixels; each edge needs {MIN_EDGE}")
            if getattr(found, "n_frames", 1) > 1:
                raise PictureError("moves: give a still picture")
            image = ImageOps.exif_transpose(found).convert("RGB")
            return Picture(data, image, FORMATS[found.format])
    except PictureError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged files
        raise PictureError(f"is no readable {', '.join(FORMATS)} picture ({error})") from error


def ingest(
    folder: str | os.PathLike[str],
    bench: Bench,
    defaults: Defaults | None = None,
    near: int = NEAR,
    progress: Progress | None = None,
) -> Ingested:
    """Take the pictures of a folder into a bench, each once.

    What a picture shows is said by `metadata.jsonl` or `metadata.csv` (`file_name`, culture, category,
    region, licence, source, noun, and captions with marks if there are some), or else by its place,
    `<culture>/<category>/<file>`, or else by the defaults. Files are copied as they are. Pictures that the
    bench has already are passed over, so that the same call goes on where it was interrupted.

    Args:
        near: bits of the perceptual hash in which pictures of one motif may differ; the later one is skipped.
            −1: none is.

    Raises:
        BenchError: for a folder without pictures, metadata that cannot be read, or a picture of which nothing
            says the culture or the category.
    """
    root, defaults = Path(folder), defaults or Defaults()
    found = _files(root)
    facts = _metadata(root)
    missing = sorted(set(facts) - {_name(path, root) for path in found})
    if missing:
        raise BenchError(f"{root}: the metadata names {missing[0]!r}, which is not there")
    # All of them now, so that nothing has come in when one makes no sense.
    values = {name: _facts(name, facts.get(name, {}), defaults) for name in (_name(p, root) for p in found)}
    before = {record.sha256 for record in bench.records.values()}
    taken = {record.sha256: (record.id, int(record.phash, 16)) for record in bench.records.values()}
    added, skipped, waiting, again = [], [], [], 0
    try:
        for done, path in enumerate(found, start=1):
            name = _name(path, root)
            try:
                picture = read_picture(path)
                record = _record(picture, values[name], name)
                twin = _twin(record, taken, near)
                if record.sha256 in before:
                    again += 1
                elif twin:
                    skipped.append(Skipped(name, twin))
                else:
                    _store(picture, bench.folder / record.image)
                    waiting.append(record)
                    added.append(record.id)
                    taken[record.sha256] = record.id, int(record.phash, 16)
            except PictureError as error:
                skipped.append(Skipped(name, str(error)))
            if len(waiting) >= _SAVE_EVERY:
                bench.update(waiting)
                waiting = []
            if progress is not None:
                progress(done, len(found))
    finally:
        if waiting:
            bench.update(waiting)
    return Ingested(added, again, skipped)


def _files(root: Path) -> list[Path]:
    """Pictures of a folder and those below it, by name; links are not followed."""
    endings = {*FORMATS.values(), ".jpeg"}
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in endings and path.is_file() and not path.is_symlink()
    )
    if not found:
        raise BenchError(f"{root}: holds no picture ({', '.join(sorted(endings))})")
    return found


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _metadata(root: Path) -> dict[str, dict[str, str]]:
    """What the folder's metadata says, by file name."""
    found: dict[str, dict[str, str]] = {}
    for where, values in [
        line for name in METADATA if (root / name).is_file() for line in _rows(root / name)
    ]:
        name = values.pop("file_name", None)
        unknown = sorted(set(values) - {*_GIVEN, *_CAPTIONS})
        if not isinstance(name, str) or name in found or unknown:
            raise BenchError(
                f"{where}: needs a 'file_name' of its own, got {name!r}; unknown {unknown or 'nothing'}"
            )
        wrong = [key for key, value in values.items() if not isinstance(value, str)]
        if wrong:
            raise BenchError(f"{where}: {', '.join(map(repr, wrong))} must be texts")
        found[name] = values
    return found


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchError(f"{path}: cannot be read as UTF-8 CSV ({error})") from error
    return [
        (f"{path}, row {number}", {str(key): value for key, value in row.items() if value})
        for number, row in enumerate(rows, start=1)
    ]


def _facts(name: str, given: Mapping[str, str], defaults: Defaults) -> dict[str, str]:
    """What is known of a picture: by its metadata, its place, the defaults, in this order."""
    place = name.split("/")
    placed = dict(zip(("culture", "category"), place[:-1], strict=False)) if len(place) == 3 else {}
    values = {name: value for name, value in defaults._asdict().items() if value} | placed | dict(given)
    try:
        culture = known_culture(values.get("culture", ""))
    except ValueError as error:
        raise BenchError(
            f"{name}: {error}; say it in metadata.jsonl, with folders <culture>/<category>, or for all"
        ) from error
    if not values.get("category", "").strip():
        raise BenchError(
            f"{name}: nothing says its category; say it in metadata.jsonl, with folders "
            "<culture>/<category>, or for all"
        )
    return {"region": culture.region} | values


def _record(picture: Picture, values: Mapping[str, str], name: str) -> Record:
    digest = exact_hash(picture.data)
    plain: dict[str, Any] = {key: values[key].strip() for key in _GIVEN if values.get(key)}
    record = Record(
        id=f"{values['culture']}-{digest[:16]}", image=f"{IMAGES}/{digest[:16]}{picture.suffix}",
        sha256=digest, phash=perceptual_hash(picture.image), width=picture.image.width,
        height=picture.image.height, **plain,
    )  # fmt: skip
    if not any(values.get(key) for key in _CAPTIONS):
        return record
    try:
        return with_captions(record, Captions(**{key: values[key] for key in _CAPTIONS if values.get(key)}))
    except (TypeError, ValueError) as error:
        raise BenchError(f"{name}: its captions cannot be used ({error})") from error


def _twin(record: Record, taken: Mapping[str, tuple[str, int]], near: int) -> str:
    """What says that a picture is there already; empty where nothing does."""
    if record.sha256 in taken:
        return f"is the same file as that of {taken[record.sha256][0]}"
    mine = int(record.phash, 16)
    for other, phash in taken.values():
        if (mine ^ phash).bit_count() <= near:
            return f"looks like the picture of {other}"
    return ""


def _store(picture: Picture, path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(picture.data)

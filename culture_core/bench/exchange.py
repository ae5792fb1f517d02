"""Benches in and out: Hugging Face imagefolders, parquet files, and prompt pairs for training.

An imagefolder is `<split>/images/*` with `<split>/metadata.jsonl`, and a README.md that names the splits; it
needs no library, and `datasets.load_dataset(folder)` reads it. Parquet holds the same with the pictures
inside, and needs the package datasets.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..atomic import atomic_path
from ..pairs import save_pairs
from ..splits import BENCH_SPLITS
from .hashes import exact_hash, perceptual_hash
from .ingestion import PictureError, decoded, read_picture
from .records import IMAGES, Bench, BenchError, Record, read_jsonl, record_from

if TYPE_CHECKING:
    from datasets import Features

Progress = Callable[[int, int], None]
"""Gets (records done, records in all). What it raises ends the work."""

IMAGEFOLDER, PARQUET, PAIRS = "imagefolder", "parquet", "pairs"
FORMATS = (IMAGEFOLDER, PARQUET, PAIRS)
METADATA = "metadata.jsonl"
_SPANS = ("modifiers", "nouns_cultural", "nouns_neutral")
_WHOLE = ("width", "height")


class Exported(NamedTuple):
    """What was written."""

    folder: Path
    counts: dict[str, int]
    """Records by split."""


def export(
    bench: Bench,
    folder: str | os.PathLike[str],
    format: str = IMAGEFOLDER,
    splits: Sequence[str] = BENCH_SPLITS,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write the accepted records of some splits.

    Args:
        folder: made where it is missing.
        format: `imagefolder`; `parquet`, a file a split with the pictures inside; `pairs`, `<split>.jsonl` of
            prompt pairs beside their pictures, as `train-sae`, `detect` and `train-enhancer` read them.
        overwrite: write into a folder that holds something; files of the same names are replaced.

    Raises:
        BenchError: for a folder that holds something, an unknown format or split, no records, or a library
            that is missing.
    """
    folder = Path(folder)
    unknown = sorted(set(splits) - set(BENCH_SPLITS))
    if format not in FORMATS or unknown:
        raise BenchError(f"unknown format {format!r} or splits {unknown}: use {', '.join(FORMATS)}")
    chosen = {split: bench.accepted(split) for split in BENCH_SPLITS if split in splits}
    chosen = {split: records for split, records in chosen.items() if records}
    if not chosen:
        raise BenchError(
            f"no record is accepted and in a split of {', '.join(splits)}: review and split first"
        )
    if folder.exists() and not overwrite and any(folder.iterdir()):
        raise BenchError(f"{folder} holds something: choose another folder, or overwrite it")
    write = {IMAGEFOLDER: _write_imagefolder, PARQUET: _write_parquet, PAIRS: _write_pairs}[format]
    total, done = sum(map(len, chosen.values())), 0
    for split, records in chosen.items():
        write(bench, split, records, folder)
        done += len(records)
        if progress is not None:
            progress(done, total)
    if format != PAIRS:
        _write_card(folder, chosen, format)
    return Exported(folder, {split: len(records) for split, records in chosen.items()})


def import_folder(folder: str | os.PathLike[str], bench: Bench, progress: Progress | None = None) -> int:
    """Take an exported imagefolder, or a folder of parquet files, into a bench; returns how many records.

    Everything is checked as if it came from a stranger. Records that the bench has already must be the same.

    Raises:
        BenchError: for anything that is not as `export` writes it, or a record that the bench has otherwise.
            Records before it are not kept.
    """
    folder = Path(folder)
    rows = list(_rows_of(folder))
    if not rows:
        raise BenchError(f"{folder}: holds neither <split>/{METADATA} nor <split>.parquet")
    found: dict[str, tuple[Record, bytes]] = {}
    for done, (where, values, data) in enumerate(rows, start=1):
        record = _checked(where, values, data)
        if record.id in found or bench.records.get(record.id, record) != record:
            raise BenchError(f"{where}: there is another record {record.id!r} already")
        found[record.id] = record, data
        if progress is not None:
            progress(done, len(rows))
    for record, data in found.values():
        with atomic_path(bench.folder / record.image) as temporary:
            temporary.write_bytes(data)
    bench.update(record for record, _ in found.values())
    return len(found)


def features() -> "Features":
    """The columns of a bench, for Hugging Face's datasets.

    Raises:
        BenchError: where the library is missing.
    """
    library = _datasets()
    text, whole = library.Value("string"), library.Value("int32")
    spans = library.Sequence(library.Sequence(whole))
    columns = {"image": library.Image()}
    for field in fields(Record):
        if field.name != "image":
            kind = spans if field.name in _SPANS else whole if field.name in _WHOLE else text
            columns[field.name] = kind
    return library.Features(columns)


def _write_imagefolder(bench: Bench, split: str, records: Sequence[Record], folder: Path) -> None:
    _copy_pictures(bench, records, folder / split)
    with (
        atomic_path(folder / split / METADATA) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as file,
    ):
        for record in records:
            file.write(json.dumps({"file_name": record.image, **_row(record)}, ensure_ascii=False) + "\n")


def _write_pairs(bench: Bench, split: str, records: Sequence[Record], folder: Path) -> None:
    _copy_pictures(bench, records, folder)
    save_pairs([record.pair() for record in records], folder / f"{split}.jsonl")


def _write_parquet(bench: Bench, split: str, records: Sequence[Record], folder: Path) -> None:
    library = _datasets()

    def rows() -> Iterator[dict[str, Any]]:
        for record in records:
            data = bench.image_path(record).read_bytes()
            yield {"image": {"bytes": data, "path": Path(record.image).name}, **_row(record)}

    columns: dict[str, list[Any]] = {name: [] for name in features()}
    for row in rows():
        for name, column in columns.items():
            column.append(row[name])
    table = library.Dataset.from_dict(columns, features=features())
    with atomic_path(folder / f"{split}.parquet") as temporary:
        table.to_parquet(str(temporary))


def _copy_pictures(bench: Bench, records: Sequence[Record], folder: Path) -> None:
    for record in records:
        with atomic_path(folder / record.image) as temporary:
            shutil.copyfile(bench.image_path(record), temporary)


def _row(record: Record) -> dict[str, Any]:
    """Every column but the picture, so that all rows have the same."""
    values = {field.name: getattr(record, field.name) for field in fields(Record) if field.name != "image"}
    return {name: [list(s) for s in value] if name in _SPANS else value for name, value in values.items()}


def _write_card(folder: Path, chosen: dict[str, list[Record]], format: str) -> None:
    """README.md, whose head tells datasets which files are which split."""
    ending = "/**" if format == IMAGEFOLDER else ".parquet"
    records = [record for own in chosen.values() for record in own]
    licences = Counter(record.licence or "unknown" for record in records)
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split in chosen:
        lines += [f"  - split: {split}", f"    path: {split}{ending}"]
    lines += ["---", "", "# CultureBench", "", "Pictures of cultures, each with a caption that names the"]
    lines += ["culture and the same caption without it. Do not train on `test` or `neuron_detection`.", ""]
    lines += [f"- {split}: {len(own)} records" for split, own in chosen.items()]
    lines += ["", "Licences, by picture (column `licence`; whom to credit: `source`):", ""]
    lines += [f"- {licence}: {count}" for licence, count in sorted(licences.items())]
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows_of(folder: Path) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """(place, values, the picture's bytes) of all splits."""
    for split in BENCH_SPLITS:
        metadata, parquet = folder / split / METADATA, folder / f"{split}.parquet"
        if metadata.is_file():
            for where, values in read_jsonl(metadata):
                yield where, values, _picture_of(where, values.pop("file_name", None), folder / split)
        elif parquet.is_file():
            yield from _parquet_rows(parquet)


def _picture_of(where: str, name: object, folder: Path) -> bytes:
    path = folder / name if isinstance(name, str) else folder
    inside = isinstance(name, str) and "://" not in name and path.resolve().is_relative_to(folder.resolve())
    if not inside:
        raise BenchError(f"{where}: 'file_name' must be a path inside {folder}, got {name!r}")
    try:
        return read_picture(path).data
    except PictureError as error:
        raise BenchError(f"{where}: {name} {error}") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    _datasets()
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=64):
                for values in batch.to_pylist():
                    number += 1
                    where = f"{path}, row {number}"
                    picture = values.pop("image", None)
                    data = picture.get("bytes") if isinstance(picture, dict) else None
                    # A path alone would point to a file of whoever made this one.
                    if not isinstance(data, bytes):
                        raise BenchError(f"{where}: 'image' must hold the picture itself")
                    yield where, values, data
    except (pyarrow.ArrowException, OSError) as error:
        raise BenchError(f"{path}: cannot be read as parquet ({error})") from error


def _checked(where: str, values: dict[str, Any], data: bytes) -> Record:
    """A record whose picture is the one that it describes."""
    given = {name: value for name, value in values.items() if value is not None}
    try:
        picture = decoded(data)
    except PictureError as error:
        raise BenchError(f"{where}: the picture {error}") from error
    digest = exact_hash(data)
    record = record_from({**given, "image": f"{IMAGES}/{digest[:16]}{picture.suffix}"}, where)
    told = replace(
        record, sha256=digest, phash=perceptual_hash(picture.image), width=picture.image.width,
        height=picture.image.height,
    )  # fmt: skip
    if told != record:
        raise BenchError(f"{where}: the picture is not the one that the record describes")
    return record


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise BenchError("parquet needs the package datasets: pip install datasets") from error
    return datasets

"""Records of a culture benchmark, and the folder that holds them.

A bench is a folder with `records.jsonl`, one record a line, and the pictures under `images/`.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from ..atomic import atomic_path
from ..cultures import culture as known_culture
from ..pairs import PairError, PromptPair, Span
from ..paths import path_inside
from ..splits import BENCH_SPLITS
from ..strict_json import parse_object

RECORDS, IMAGES = "records.jsonl", "images"
ACCEPTED, REJECTED = "accepted", "rejected"
_SPANS = ("modifiers", "nouns_cultural", "nouns_neutral")


class BenchError(ValueError):
    """A record, or a bench, that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Record:
    """One picture of a culture, with the same caption with and without the culture.

    A record begins without captions; `caption`, `translate` and a review fill it.

    Raises:
        BenchError: for a value that makes no sense; the message names it.
    """

    id: str
    image: str
    """Path of the picture inside the bench's folder."""
    sha256: str
    """Of the picture's file, hexadecimal: the exact hash."""
    phash: str
    """Perceptual hash of the picture, hexadecimal, see `hashes.perceptual_hash`."""
    width: int
    height: int
    culture: str
    """A key of `culture_core.cultures.CULTURES`."""
    category: str
    """What kind of thing it shows, such as food or clothing."""
    region: str
    """Where it is from; the culture's region where nothing finer is known."""
    licence: str = ""
    """SPDX identifier where there is one, such as CC-BY-4.0."""
    source: str = ""
    """Where the picture comes from and whom to credit."""
    language: str | None = None
    """ISO 639-1 code of the language of both captions."""
    cultural: str | None = None
    """Caption that names the culture."""
    neutral: str | None = None
    """The same caption without it."""
    modifiers: tuple[Span, ...] = ()
    """Spans of what names the culture in `cultural`, code points."""
    nouns_cultural: tuple[Span, ...] = ()
    nouns_neutral: tuple[Span, ...] = ()
    noun: str | None = None
    """English name of the thing; records of one culture and noun stay in one split."""
    english: str | None = None
    """English gloss of `cultural`."""
    english_neutral: str | None = None
    captioned_by: str | None = None
    """The model that wrote the captions; None: they were given."""
    translated_by: str | None = None
    reviewer: str | None = None
    """Who decided."""
    decision: str | None = None
    """`accepted`, `rejected`, or None before the review."""
    reason: str | None = None
    """Why; a rejection needs one."""
    split: str | None = None
    """`train`, `test` or `neuron_detection`; accepted records alone have one."""

    def __post_init__(self) -> None:
        self._check_values()
        if self.captioned:
            try:
                pair = self.pair()
            except PairError as error:
                raise BenchError(f"record {self.id!r}: {error}") from error
            for name in _SPANS:  # lists become tuples
                object.__setattr__(self, name, getattr(pair, name))
        elif any(getattr(self, name) for name in (*_SPANS, "cultural", "neutral", "language")):
            self._fail("captions need all of 'language', 'cultural' and 'neutral' with their spans")

    @property
    def captioned(self) -> bool:
        return None not in (self.language, self.cultural, self.neutral)

    def pair(self) -> PromptPair:
        """The captions as a prompt pair.

        Raises:
            BenchError: where there are none yet.
        """
        if self.language is None or self.cultural is None or self.neutral is None:
            self._fail("has no captions yet")
        return PromptPair(
            self.id, self.culture, self.language, self.cultural, self.neutral, self.modifiers,
            self.nouns_cultural, self.nouns_neutral, self.image, self.category, self.region, self.english,
            self.split, self.noun,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Everything that is known, for JSON."""
        return {name: value for name, value in asdict(self).items() if value not in (None, (), "")}

    def _check_values(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _SPANS:
                continue
            if field.name in ("width", "height"):
                good = type(value) is int and value > 0
            elif field.default is None:
                good = value is None or (isinstance(value, str) and bool(value.strip()))
            else:
                good = isinstance(value, str) and (field.default == "" or bool(value.strip()))
            if not good:
                self._fail(f"{field.name!r} is {value!r}")
        known_culture(self.culture)
        _check_path(self)
        if self.decision not in (None, ACCEPTED, REJECTED):
            self._fail(f"the decision {self.decision!r} must be {ACCEPTED} or {REJECTED}")
        if self.decision == REJECTED and not self.reason:
            self._fail("is rejected without a reason")
        if self.decision and not self.reviewer:
            self._fail("has a decision and no reviewer")
        if self.split not in (None, *BENCH_SPLITS):
            self._fail(f"the split {self.split!r} must be one of {', '.join(BENCH_SPLITS)}")
        if self.split and self.decision != ACCEPTED:
            self._fail("has a split without being accepted")

    def _fail(self, text: str) -> NoReturn:
        raise BenchError(f"record {self.id!r}: {text}")


class Bench:
    """The records of a folder.

    Changes are merged into the file record by record, so that a review and a captioning run at the same time
    do not undo each other's work.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """The bench of a folder, or an empty one where there is none yet.

        Raises:
            BenchError: for records that cannot be read.
        """
        self.folder = Path(folder)
        self.path = self.folder / RECORDS
        self.records: dict[str, Record] = _read(self.path) if self.path.is_file() else {}

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Bench":
        """A bench that must be there.

        Raises:
            BenchError: where it is not.
        """
        if not (Path(folder) / RECORDS).is_file():
            raise BenchError(f"{folder} is no bench: it has no {RECORDS}; make one with `bench ingest`")
        return cls(folder)

    def __len__(self) -> int:
        return len(self.records)

    def image_path(self, record: Record) -> Path:
        """Where a record's picture lies.

        Raises:
            BenchError: where a link leads out of the bench.
        """
        path = self.folder / record.image
        if path_inside(self.folder, record.image) is None:
            raise BenchError(f"record {record.id!r}: {path} leads out of the bench")
        return path

    def accepted(self, split: str | None = None) -> list[Record]:
        """Accepted records; those of one split where it is named."""
        return [
            record
            for record in self.records.values()
            if record.decision == ACCEPTED and split in (None, record.split)
        ]

    def pairs(self, split: str | None = None) -> list[PromptPair]:
        """Prompt pairs of the accepted records, with their splits."""
        return [record.pair() for record in self.accepted(split)]

    def update(self, changed: Iterable[Record]) -> None:
        """Put records in the place of those of the same id, or behind the others, and write them all."""
        current = _read(self.path) if self.path.is_file() else {}
        self.records = current | {record.id: record for record in changed}
        with (
            atomic_path(self.path) as temporary,
            open(temporary, "w", encoding="utf-8", newline="\n") as file,
        ):
            for record in self.records.values():
                file.write(json.dumps(record.to_json(), ensure_ascii=False) + "\n")

    def decide(
        self, id: str, decision: str | None, reviewer: str, reason: str | None = None, **changes: Any
    ) -> Record:
        """Accept or reject a record, or take a decision back with None; a changed decision loses its split.

        Raises:
            BenchError: for an unknown record, one without captions that shall be accepted, or a rejection
                without a reason.
        """
        if id not in self.records:
            raise BenchError(f"there is no record {id!r}")
        record = replace(
            self.records[id], decision=decision, reviewer=reviewer.strip() or None,
            reason=(reason or "").strip() or None, split=None, **changes,
        )  # fmt: skip
        if decision == ACCEPTED and not record.captioned:
            raise BenchError(f"record {id!r} has no captions yet: it cannot be accepted")
        before = self.records[id]
        if decision == ACCEPTED and replace(record, split=before.split, reason=before.reason) == before:
            record = replace(record, split=before.split)
        self.update([record])
        return record


def record_from(values: Mapping[str, Any], where: str) -> Record:
    """A record from what a file holds.

    Args:
        where: place in the file, for messages.

    Raises:
        BenchError: for fields that are missing, unknown or wrong.
    """
    known = {field.name for field in fields(Record)}
    needed = [field.name for field in fields(Record)[:9]]
    missing, unknown = [name for name in needed if name not in values], sorted(set(values) - known)
    if missing or unknown:
        raise BenchError(f"{where}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
    try:
        return Record(**values)
    except ValueError as error:
        raise BenchError(f"{where}: {error}") from error


def read_jsonl(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(place, object) of every line of a JSONL file.

    Raises:
        BenchError: for a file that cannot be read, or a line that is no JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: cannot be read as a UTF-8 text file ({error})") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            found.append((where, parse_object(line)))
        except ValueError as error:
            raise BenchError(f"{where}: is {error}; write one JSON object a line") from error
    return found


def _read(path: Path) -> dict[str, Record]:
    records: dict[str, Record] = {}
    for where, values in read_jsonl(path):
        record = record_from(values, where)
        if record.id in records:
            raise BenchError(f"{where}: the id {record.id!r} occurs twice")
        records[record.id] = record
    return records


def _check_path(record: Record) -> None:
    parts = Path(record.image).parts
    if len(parts) != 2 or parts[0] != IMAGES or parts[1] in ("..", ".") or "\\" in record.image:
        raise BenchError(
            f"record {record.id!r}: the image {record.image!r} must be {IMAGES}/<file> in the bench's folder"
        )

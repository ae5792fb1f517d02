"""Prompt pairs: the same content with and without a culture modifier (paper, section 4.1)."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from .atomic import atomic_path
from .strict_json import parse_object

Span = tuple[int, int]
"""Start and end of a piece of text in Unicode code points, end excluded."""

_TEXT = ("id", "culture", "language", "cultural", "neutral")
_SPANS = {"modifiers": "cultural", "nouns_cultural": "cultural", "nouns_neutral": "neutral"}
_EXTRA = ("image", "category", "region", "english", "split", "noun")


class PairError(ValueError):
    """A prompt pair, or a file of them, that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class PromptPair:
    """One content as a cultural and as a neutral prompt, in one language.

    Raises:
        PairError: where a text is empty, a span leaves its text, or a modifier overlaps a noun.
    """

    id: str
    culture: str
    """Code of the culture, a key of `culture_core.cultures.CULTURES`."""
    language: str
    """ISO 639-1 code of the language that both prompts are written in."""
    cultural: str
    """Modifier + noun."""
    neutral: str
    """Noun only."""
    modifiers: tuple[Span, ...]
    """Spans of the culture modifiers in `cultural`."""
    nouns_cultural: tuple[Span, ...]
    nouns_neutral: tuple[Span, ...]
    image: str | None = None
    """Path or address of a picture that shows the cultural prompt."""
    category: str | None = None
    region: str | None = None
    english: str | None = None
    """English gloss of the cultural prompt."""
    split: str | None = None
    """What it may be used for, see `culture_core.splits`."""
    noun: str | None = None
    """What pairs about the same thing share in all languages, where the category is coarser than that."""

    def __post_init__(self) -> None:
        for name in _TEXT:
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise PairError(
                    f"prompt pair {self.id!r}: {name!r} must be a text that is not empty, got {value!r}"
                )
        for name in _EXTRA:
            if not isinstance(getattr(self, name), str | None):
                raise PairError(
                    f"prompt pair {self.id!r}: {name!r} must be a text, got {getattr(self, name)!r}"
                )
        for name, text in _SPANS.items():
            spans = _checked_spans(self.id, name, getattr(self, name), getattr(self, text))
            object.__setattr__(self, name, spans)
        _check_apart(self)


def load_pairs(path: str | os.PathLike[str]) -> list[PromptPair]:
    """Prompt pairs from a JSONL file, one object a line.

    Raises:
        PairError: for a file that cannot be read, a line that is not a pair, or an id that occurs twice.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PairError(f"{path}: cannot be read as a UTF-8 text file ({error})") from error
    pairs: dict[str, PromptPair] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        pair = _parse(line, f"{path}, line {number}")
        if pair.id in pairs:
            raise PairError(
                f"{path}, line {number}: the id {pair.id!r} occurs twice; every pair needs its own"
            )
        pairs[pair.id] = pair
    if not pairs:
        raise PairError(f"{path}: holds no prompt pair; write one JSON object a line")
    return list(pairs.values())


def save_pairs(pairs: Iterable[PromptPair], path: str | os.PathLike[str]) -> None:
    """Write prompt pairs as JSONL; the file appears whole or not at all, and replaces one that is there."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for pair in pairs:
            record = {name: value for name, value in asdict(pair).items() if value is not None}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _parse(line: str, where: str) -> PromptPair:
    try:
        record = parse_object(line)
    except ValueError as error:
        raise PairError(f"{where}: is {error}; write one JSON object a line") from error
    known = {field.name for field in fields(PromptPair)}
    missing = [name for name in (*_TEXT, *_SPANS) if name not in record]
    unknown = sorted(set(record) - known)
    if missing or unknown:
        raise PairError(f"{where}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
    try:
        return PromptPair(**record)
    except PairError as error:
        raise PairError(f"{where}: {error}") from error


def _checked_spans(pair: str, name: str, spans: object, text: str) -> tuple[Span, ...]:
    if not isinstance(spans, list | tuple) or not spans:
        raise PairError(f"prompt pair {pair!r}: {name!r} must list at least one [start, end], got {spans!r}")
    checked = []
    for span in spans:
        whole = isinstance(span, list | tuple) and len(span) == 2 and all(type(edge) is int for edge in span)
        if not whole or not 0 <= span[0] < span[1] <= len(text):
            raise PairError(
                f"prompt pair {pair!r}: {name!r} holds {span!r}, which is no piece of its text of "
                f"{len(text)} code points; write [start, end] with 0 <= start < end"
            )
        checked.append((span[0], span[1]))
    return tuple(checked)


def _check_apart(pair: PromptPair) -> None:
    for modifier in pair.modifiers:
        for noun in pair.nouns_cultural:
            if modifier[0] < noun[1] and noun[0] < modifier[1]:
                raise PairError(f"prompt pair {pair.id!r}: modifier {modifier} and noun {noun} overlap")

"""Whether a bench is fit for use: what is wrong with it, and what to look at."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ..cultures import CULTURES
from ..marks import Marked
from ..splits import BENCH_SPLITS
from .hashes import NEAR, exact_hash, near_pairs, perceptual_hash
from .ingestion import PictureError, read_picture
from .records import ACCEPTED, Bench, Record
from .scripts import foreign_letters, script_problem
from .splitting import SHARES, ties

Progress = Callable[[int, int], None]
"""Gets (pictures checked, pictures in all). What it raises ends the work."""

ERROR, WARNING = "error", "warning"
SHARE_SLACK = 0.03
"""By how much a split's share of all records may miss its own."""
LARGEST_RATIO = 2.0
"""Of the records of the largest culture to those of the smallest."""
_OPEN = re.compile(
    r"(CC0|CC[- ]BY(?![- ](NC|ND))|PDDL|PDM|public[ -]domain|MIT|Apache|BSD|GPL|LGPL|ODbL|ODC-By|Unlicense)",
    re.IGNORECASE,
)
_LIMITED = re.compile(r"\b(NC|ND|non-?commercial|no-?deriv\w*)\b", re.IGNORECASE)
_SHOWN = 20
"""Problems of one kind that a report lists."""


class Problem(NamedTuple):
    """Something that is wrong, or odd."""

    level: str
    """`error`: the bench must not be used so; `warning`: look at it."""
    check: str
    """What was checked: picture, spans, language, licence, review, leakage or balance."""
    record: str | None
    """Id; None: it is about the whole."""
    text: str

    def __str__(self) -> str:
        return f"{self.level}: {self.check}: {f'{self.record}: ' if self.record else ''}{self.text}"


def validate(bench: Bench, near: int = NEAR, progress: Progress | None = None) -> list[Problem]:
    """Check all records, their pictures, and the splits as a whole; errors come first.

    That records and spans are well-formed has been checked when the bench was read.

    Args:
        near: bits of the perceptual hash in which pictures of one motif may differ.
    """
    records, found = list(bench.records.values()), []
    for done, record in enumerate(records, start=1):
        found += [Problem(level, check, record.id, text) for level, check, text in _of_record(bench, record)]
        if progress is not None:
            progress(done, len(records))
    accepted = [record for record in bench.accepted() if record.captioned]
    found += _leaks(accepted, near)
    found += _unbalanced(accepted)
    return sorted(found, key=lambda problem: problem.level != ERROR)


def report(problems: Sequence[Problem], records: int) -> str:
    """The problems for people, at most `_SHOWN` of a kind."""
    errors = sum(problem.level == ERROR for problem in problems)
    lines = [f"{records} records: {errors} errors, {len(problems) - errors} warnings"]
    kinds: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        kinds[problem.level, problem.check].append(problem)
    for own in kinds.values():
        lines += [str(problem) for problem in own[:_SHOWN]]
        if len(own) > _SHOWN:
            lines.append(f"… and {len(own) - _SHOWN} more {own[0].level}s of {own[0].check}")
    return "\n".join(lines)


_Finding = tuple[str, str, str]
"""(level, check, text)"""


def _of_record(bench: Bench, record: Record) -> Iterator[_Finding]:
    yield from _picture(bench, record)
    yield from _licence(record)
    if record.captioned:
        yield from _spans(record)
        yield from _language(record)
    if record.decision is None:
        yield WARNING, "review", "has not been reviewed" if record.captioned else "has no captions yet"
    if record.decision == ACCEPTED and not record.captioned:
        yield ERROR, "review", "was accepted without captions"
    if record.decision == ACCEPTED and record.split is None:
        yield WARNING, "review", "is accepted and in no split"


def _picture(bench: Bench, record: Record) -> Iterator[_Finding]:
    try:
        picture = read_picture(bench.image_path(record))
    except PictureError as error:
        yield ERROR, "picture", f"{record.image} {error}"
        return
    except ValueError as error:
        yield ERROR, "picture", str(error)
        return
    if exact_hash(picture.data) != record.sha256 or picture.image.size != (record.width, record.height):
        yield ERROR, "picture", f"{record.image} is another picture than when it was taken in"
    elif perceptual_hash(picture.image) != record.phash:
        yield ERROR, "picture", f"{record.image} has another perceptual hash than its record says"


def _licence(record: Record) -> Iterator[_Finding]:
    if not record.licence or record.licence.lower() in ("unknown", "none", "n/a"):
        yield ERROR, "licence", "has no licence"
    elif _LIMITED.search(record.licence):
        yield WARNING, "licence", f"{record.licence!r} limits what others may do with it"
    elif not _OPEN.match(record.licence):
        yield WARNING, "licence", f"{record.licence!r} is not known to be an open licence"
    if not record.source:
        yield ERROR, "licence", "has no source"


def _spans(record: Record) -> Iterator[_Finding]:
    pair = record.pair()
    cultural = Marked(pair.cultural, pair.modifiers, pair.nouns_cultural)
    neutral = Marked(pair.neutral, (), pair.nouns_neutral)
    for marked in (cultural, neutral):
        for start, end in (*marked.modifiers, *marked.nouns):
            piece = marked.text[start:end]
            if piece != piece.strip() or not any(letter.isalnum() for letter in piece):
                yield (
                    ERROR,
                    "spans",
                    f"{piece!r} in {marked.text!r} has white space at its edge, or no letter",
                )
        spans = sorted((*marked.modifiers, *marked.nouns))
        if any(second[0] < first[1] for first, second in zip(spans, spans[1:], strict=False)):
            yield ERROR, "spans", f"spans overlap in {marked.text!r}"
    for start, end in pair.modifiers:
        if pair.cultural[start:end].casefold() in pair.neutral.casefold():
            yield ERROR, "spans", f"the neutral caption {pair.neutral!r} has {pair.cultural[start:end]!r} too"
    if len(pair.nouns_cultural) != len(pair.nouns_neutral):
        yield WARNING, "spans", "the captions have different numbers of nouns"


def _language(record: Record) -> Iterator[_Finding]:
    language = record.language or ""
    for text in (record.cultural or "", record.neutral or ""):
        if problem := script_problem(text, language):
            yield ERROR, "language", problem
        elif letters := foreign_letters(text, language):
            yield WARNING, "language", f"{text!r} has letters that {language!r} lacks: {letters}"
    for text in filter(None, (record.english, record.english_neutral)):
        if problem := script_problem(text, "en"):
            yield WARNING, "language", f"English gloss: {problem}"
    if record.language not in (record.culture, "en"):
        yield WARNING, "language", f"captions in {record.language!r} for the culture {record.culture!r}"


def _leaks(records: Sequence[Record], near: int) -> Iterator[Problem]:
    """Whatever two splits share, once for every record after the first."""
    placed = [record for record in records if record.split]
    first: dict[tuple[Any, ...], Record] = {}
    for record in placed:
        for tie in ties(record):
            other = first.setdefault(tie, record)
            if other.split != record.split:
                yield Problem(ERROR, "leakage", record.id, _shared(record, other, tie[0]))
    for i, j in near_pairs([record.phash for record in placed], near):
        if placed[i].split != placed[j].split:
            yield Problem(ERROR, "leakage", placed[j].id, _shared(placed[j], placed[i], "a similar picture"))
    twins = [(i, j) for i, j in near_pairs([record.phash for record in records], near)]
    for i, j in twins:
        if records[i].split == records[j].split:
            text = f"looks like the picture of {records[i].id}"
            yield Problem(WARNING, "picture", records[j].id, text)


def _shared(record: Record, other: Record, what: str) -> str:
    return f"in {record.split}, has {what} as {other.id} in {other.split}"


def _unbalanced(records: Sequence[Record]) -> Iterator[Problem]:
    cultures = Counter(record.culture for record in records)
    if not cultures:
        yield Problem(WARNING, "balance", None, "no record is accepted yet")
        return
    missing = [code for code in CULTURES if code not in cultures]
    if missing:
        yield Problem(WARNING, "balance", None, f"no records of {', '.join(missing)}")
    (most, large), (least, small) = cultures.most_common(1)[0], cultures.most_common()[-1]
    if large > LARGEST_RATIO * small:
        yield Problem(WARNING, "balance", None, f"{most} has {large} records, {least} has {small}")
    splits = Counter(record.split for record in records if record.split)
    total = splits.total()
    for split in BENCH_SPLITS if total else ():
        share = splits[split] / total
        if abs(share - SHARES[split]) > SHARE_SLACK:
            text = f"{split} has {share:.1%} of the records, it should have {SHARES[split]:.0%}"
            yield Problem(WARNING, "balance", None, text)
        lacking = cultures.keys() - {record.culture for record in records if record.split == split}
        if lacking:
            text = f"{split} has no records of {', '.join(sorted(lacking))}"
            yield Problem(WARNING, "balance", None, text)
    by_category: dict[str, set[str]] = defaultdict(set)
    for record in records:
        by_category[record.category].add(record.culture)
    for category, own in sorted(by_category.items()):
        if lacking := cultures.keys() - own:
            text = f"the category {category} has no records of {', '.join(sorted(lacking))}"
            yield Problem(WARNING, "balance", None, text)

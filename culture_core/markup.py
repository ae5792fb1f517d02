"""Prompt pairs from a short text that people write: nouns in braces, culture modifiers in brackets.

    # culture: text. Both prompts come from one line; | separates alternatives, and every combination is made.
    th: {ชาม|บ้าน} [สไตล์ไทย]
    ja: [和風の] {茶碗|家}
    it/en: a {bowl|house} [in the Italian style] on a table

The neutral prompt is the line without its modifiers. The language is the culture's own unless it follows the
culture after a slash.
"""

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from .cultures import CULTURES
from .pairs import PairError, PromptPair, Span

MAX_PAIRS = 100_000
"""Of one line: alternatives multiply."""

_LINE = re.compile(r"\s*(?P<culture>[a-z-]+)\s*(?:/\s*(?P<language>[a-z-]+)\s*)?:\s*(?P<text>.*\S)\s*")
_PART = re.compile(r"\{(?P<noun>[^{}\[\]]*)\}|\[(?P<modifier>[^{}\[\]]*)\]|(?P<plain>[^{}\[\]]+)")
_NOUN, _MODIFIER, _PLAIN = "noun", "modifier", "plain"


class _Part(NamedTuple):
    kind: str
    text: str


class _Prompt(NamedTuple):
    text: str
    nouns: tuple[Span, ...]
    modifiers: tuple[Span, ...]


def pairs_from_markup(text: str, where: str = "markup") -> list[PromptPair]:
    """The prompt pairs that a text in this module's markup describes.

    Args:
        text: lines as shown above; empty ones and those that start with # are skipped.
        where: the text's name in error messages.

    Raises:
        PairError: for a line that is not markup, names an unknown culture, lacks a noun or a modifier, or
            makes more than `MAX_PAIRS`; or where there is no line at all. The message names the line.
    """
    pairs: list[PromptPair] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            pairs += _pairs_of(line, number, f"{where}, line {number}")
    if not pairs:
        raise PairError(f"{where}: holds no line such as 'th: {{ชาม}} [สไตล์ไทย]'")
    return pairs


def _pairs_of(line: str, number: int, where: str) -> list[PromptPair]:
    found = _LINE.fullmatch(line)
    if not found:
        raise PairError(f"{where}: must start with a culture and a colon, such as 'th: {{ชาม}} [สไตล์ไทย]'")
    culture, language = found["culture"], found["language"] or found["culture"]
    if culture not in CULTURES:
        raise PairError(f"{where}: unknown culture '{culture}': use one of {', '.join(CULTURES)}")
    choices = _choices(found["text"], where)
    return [
        _pair(parts, culture, language, f"{culture}-{language}-{number}-{count}")
        for count, parts in enumerate(itertools.product(*choices), start=1)
    ]


def _choices(text: str, where: str) -> list[list[_Part]]:
    """The alternatives of every part of a line, in order."""
    choices, end = [], 0
    for found in _PART.finditer(text):
        if found.start() != end:
            break
        end = found.end()
        choices.append(list(_alternatives(found, where)))
    if end != len(text):
        raise PairError(f"{where}: a brace or bracket at '{text[end : end + 12]}' has no partner")
    kinds = {parts[0].kind for parts in choices}
    for kind, example in ((_NOUN, "{bowl}"), (_MODIFIER, "[Thai style]")):
        if kind not in kinds:
            raise PairError(f"{where}: has no {kind}; write one as {example}")
    count = 1
    for parts in choices:
        count *= len(parts)
        if count > MAX_PAIRS:
            raise PairError(f"{where}: makes more than {MAX_PAIRS} pairs; take alternatives out")
    return choices


def _alternatives(found: re.Match[str], where: str) -> Iterator[_Part]:
    kind = found.lastgroup or _PLAIN
    for text in [found[kind]] if kind == _PLAIN else found[kind].split("|"):
        text = " ".join(text.split()) if kind != _PLAIN else re.sub(r"\s+", " ", text)
        if not text:
            raise PairError(f"{where}: an empty alternative in '{found[0]}'")
        yield _Part(kind, text)


def _pair(parts: tuple[_Part, ...], culture: str, language: str, name: str) -> PromptPair:
    cultural = _prompt(parts)
    neutral = _prompt(tuple(part for part in parts if part.kind != _MODIFIER))
    spans = cultural.modifiers, cultural.nouns, neutral.nouns
    return PromptPair(name, culture, language, cultural.text, neutral.text, *spans)


def _prompt(parts: tuple[_Part, ...]) -> _Prompt:
    """The parts as one text with single spaces, and where its nouns and modifiers are in it."""
    text = ""
    spans: dict[str, list[Span]] = {_NOUN: [], _MODIFIER: [], _PLAIN: []}
    for part in parts:
        piece = part.text.lstrip() if not text or text.endswith(" ") else part.text
        spans[part.kind].append((len(text), len(text) + len(piece)))
        text += piece
    return _Prompt(text.rstrip(), tuple(spans[_NOUN]), tuple(spans[_MODIFIER]))

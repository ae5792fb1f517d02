"""Captions as people and models write them: `[…]` around what names a culture, `<…>` around nouns."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from .pairs import Span

_PIECES = re.compile(r"\[([^\[\]<>]*)\]|<([^\[\]<>]*)>|([^\[\]<>]+)|(.)", re.DOTALL)


class Marked(NamedTuple):
    """A caption without its marks, and where they stood, in code points."""

    text: str
    modifiers: tuple[Span, ...]
    nouns: tuple[Span, ...]


def read_marks(marked: str) -> Marked:
    """Take the marks out of a caption; white space just inside them does not count.

    Raises:
        ValueError: for marks that are empty, nested, or not closed.
    """
    text = ""
    modifiers: list[tuple[int, int]] = []
    nouns: list[tuple[int, int]] = []
    for piece in _PIECES.finditer(marked):
        modifier, noun, plain, stray = piece.groups()
        if stray is not None:
            raise ValueError(
                f"{marked!r}: the mark {stray!r} is nested or has no partner; write [modifier] and <noun>"
            )
        if plain is not None:
            text += plain
            continue
        inside = noun if modifier is None else modifier
        if not inside.strip():
            raise ValueError(f"{marked!r}: there is nothing between the marks {piece.group()!r}")
        start = len(text) + len(inside) - len(inside.lstrip())
        (nouns if modifier is None else modifiers).append((start, start + len(inside.strip())))
        text += inside
    return Marked(text, tuple(modifiers), tuple(nouns))


def write_marks(text: str, modifiers: Sequence[Span], nouns: Sequence[Span]) -> str:
    """A caption with its marks."""
    edges = [(edge, mark) for span in modifiers for edge, mark in zip(span, "[]", strict=True)]
    edges += [(edge, mark) for span in nouns for edge, mark in zip(span, "<>", strict=True)]
    # From the end, so that earlier places stay; where one span ends and the next begins, it closes first.
    for edge, mark in sorted(edges, key=lambda place: (place[0], place[1] in "[<"), reverse=True):
        text = text[:edge] + mark + text[edge:]
    return text

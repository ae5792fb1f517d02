"""Which tokens of an encoded prompt an edit may touch, told from the token ids alone.

An edit inside a text encoder sees rows of token ids, never the text: ComfyUI's prompt weights, chunks and
templates have already been applied. Everything here therefore works on ids and on the pieces of the
vocabulary.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MODES = ("content", "words", "all")

# Scripts that are written without spaces, or whose particles are glued to the word: there a phrase may begin
# and end anywhere; elsewhere "man" must not be found inside "woman".
_GLUED_SCRIPTS = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR"}
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class SpecialTokens:
    """Ids that frame a prompt; None where the encoder has no such token."""

    start: int | None = None
    end: int | None = None
    pad: int | None = None


@dataclass(frozen=True)
class TokenSelection:
    """The artist's choice of tokens."""

    mode: str = "content"
    """`content`: the prompt's own tokens; `words`: those of the listed words; `all`: begin and end tokens
    too."""
    words: tuple[str, ...] = field(default=())
    """Words or phrases for the mode `words`."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"Unknown token selection '{self.mode}'; use one of: {', '.join(MODES)}.")
        if self.mode == "words" and not self.words:
            raise ValueError(
                "The token selection 'words' needs at least one word: list them separated by commas."
            )

    @classmethod
    def from_text(cls, mode: str, words: str = "") -> TokenSelection:
        """Build a selection from a node's widgets; `words` is comma-separated and only read in the mode
        `words`."""
        listed = [word.strip() for word in re.split(r"[,，、،;]", words)]
        return cls(mode, tuple(word for word in listed if word) if mode == "words" else ())


def attended_positions(row: Sequence[int | None], special: SpecialTokens) -> list[bool]:
    """Mark what the encoder reads: everything up to the first end token, that one included; no padding.

    `row` holds token ids, and None where a vector (textual inversion) takes the place of a token.
    """
    stop = special.end if special.end is not None else special.pad
    begin = 0
    if special.pad not in (special.start, special.end):
        while begin < len(row) and row[begin] == special.pad:  # left-padding encoders
            begin += 1
    end = next((i for i in range(begin, len(row)) if row[i] == stop), None)
    length = len(row) if end is None else end + (special.end is not None)
    return [begin <= i < length for i in range(len(row))]


def content_positions(row: Sequence[int | None], special: SpecialTokens) -> list[bool]:
    """Mark the prompt's own tokens: attended ones less the begin and the end token."""
    attended = attended_positions(row, special)
    return [
        seen and (token is None or token not in (special.start, special.end, special.pad))
        for seen, token in zip(attended, row, strict=True)
    ]


def select_positions(
    row: Sequence[int | None], special: SpecialTokens, selection: TokenSelection, vocabulary: Vocabulary
) -> list[bool]:
    """Mark the tokens of one row that `selection` means.

    A row without content is never marked: it is an empty prompt, or the empty row that ComfyUI encodes beside
    a weighted prompt and then subtracts, where an edit would change the meaning of the weights.
    """
    content = content_positions(row, special)
    if not any(content):
        return content
    if selection.mode == "all":
        return attended_positions(row, special)
    if selection.mode == "words":
        found = find_phrases(row, content, selection.words, vocabulary)
        return [i in found for i in range(len(row))]
    return content


def find_phrases(
    row: Sequence[int | None], content: Sequence[bool], phrases: Sequence[str], vocabulary: Vocabulary
) -> set[int]:
    """Positions of all tokens that spell any of `phrases`, whatever the case, spacing or segmentation."""
    letters = _letters_of(
        [
            vocabulary.spell(token) if wanted and token is not None else b" "
            for token, wanted in zip(row, content, strict=True)
        ]
    )
    found: set[int] = set()
    for phrase in phrases:
        wanted = [char for char in _normalise(phrase) if not char.isspace()]
        size = len(wanted)
        for i in range(len(letters) - size + 1 if size else 0):
            window = letters[i : i + size]
            if [letter.char for letter in window] == wanted and _is_whole(letters, i, i + size):
                found.update(*(letter.tokens for letter in window))
    return found


def align_pieces(text: str, pieces: Sequence[bytes]) -> list[tuple[int, int] | None] | None:
    """The (start, end) in `text`, in code points, that each piece spells; None for a piece of white space.

    Case, spaces and compatibility forms may differ between both. None as a whole where anything else does.
    """
    letters = _letters_of(pieces)
    source = [
        (folded, index)
        for index, char in enumerate(text)
        for folded in _normalise(char)
        if not folded.isspace()
    ]
    if [letter.char for letter in letters] != [char for char, _ in source]:
        return None
    spans: list[tuple[int, int] | None] = [None] * len(pieces)
    for letter, (_, index) in zip(letters, source, strict=True):
        for token in letter.tokens:
            start = spans[token][0] if spans[token] else index
            spans[token] = (start, index + 1)
    return spans


@dataclass(frozen=True)
class _Letter:
    char: str
    tokens: frozenset[int]
    after_space: bool


def _normalise(text: str) -> str:
    """Case-folded compatibility form, character by character, so that a position can be traced back."""
    return "".join(
        unicodedata.normalize("NFKC", char).casefold() for char in unicodedata.normalize("NFC", text)
    )


def _letters_of(pieces: Sequence[bytes]) -> list[_Letter]:
    """The text that pieces spell, without spaces, each character with the piece or pieces that spell it."""
    owners = [position for position, piece in enumerate(pieces) for _ in piece]
    text = b"".join(pieces).decode("utf-8", "surrogateescape")
    letters, offset, after_space = [], 0, True
    for char in text:
        size = len(char.encode("utf-8", "surrogateescape"))
        tokens = frozenset(owners[offset : offset + size])
        offset += size
        after_space = after_space or char.isspace()
        for folded in _normalise(char):
            if not folded.isspace():
                letters.append(_Letter(folded, tokens, after_space))
                after_space = False
    return letters


def _is_whole(letters: Sequence[_Letter], start: int, end: int) -> bool:
    """Whether letters[start:end] is a word of its own, by the rules of its script."""
    return not (_glued(letters, start) or _glued(letters, end))


def _glued(letters: Sequence[_Letter], boundary: int) -> bool:
    if boundary in (0, len(letters)) or letters[boundary].after_space:
        return False
    return all(
        char.isalnum() and unicodedata.name(char, "").split(" ")[0] not in _GLUED_SCRIPTS
        for char in (letters[boundary - 1].char, letters[boundary].char)
    )


def _byte_alphabet() -> dict[str, int]:
    """The printable stand-ins that byte-level vocabularies (GPT-2's and its heirs') use for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    alphabet.update({chr(256 + i): byte for i, byte in enumerate(others)})
    return alphabet


_BYTES = _byte_alphabet()


class Vocabulary:
    """Spells token ids: SentencePiece (`▁a`, `<0xE3>`), WordPiece (`a`, `##b`) or byte-level BPE (`Ġa`,
    `a</w>`)."""

    def __init__(self, pieces: Mapping[int, str]) -> None:
        """`pieces` maps a token id to its piece of the vocabulary."""
        self._pieces = pieces
        if any("▁" in piece for piece in pieces.values()):
            self._spell = _spell_sentencepiece
        elif sum(piece.startswith("##") for piece in pieces.values()) > 100:
            self._spell = _spell_wordpiece
        else:
            self._spell = _spell_bytes

    def spell(self, token: int) -> bytes:
        """UTF-8 of what the token spells, spaces included; empty for an unknown id."""
        return self._spell(self._pieces.get(token, ""))


def _spell_sentencepiece(piece: str) -> bytes:
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte.group(1), 16)]) if byte else piece.replace("▁", " ").encode()


def _spell_wordpiece(piece: str) -> bytes:
    return piece[2:].encode() if piece.startswith("##") else b" " + piece.encode()


def _spell_bytes(piece: str) -> bytes:
    data = bytes(_BYTES[char] for char in piece.removesuffix("</w>") if char in _BYTES)
    return data + b" " if piece.endswith("</w>") else data

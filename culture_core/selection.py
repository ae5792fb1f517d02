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
from difflib import SequenceMatcher

MODES = ("content", "words", "all")
PROMPT_START = "<Prompt Start>"
"""What Lumina2's prompts have between the system prompt and the user's."""

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
    before: tuple[int, ...] = ()
    """Chat template in front of a prompt, begin token aside."""
    after: tuple[int, ...] = ()
    """Chat template behind a prompt, end token and padding aside."""


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
    """Mark the prompt's own tokens: attended ones less the begin and the end token and the chat template."""
    attended = attended_positions(row, special)
    inside = [
        position
        for position, (seen, token) in enumerate(zip(attended, row, strict=True))
        if seen and (token is None or token not in (special.start, special.end, special.pad))
    ]
    ids = [row[position] for position in inside]
    first = _agreeing(ids, special.before)
    last = len(inside) - _agreeing(ids[first:][::-1], special.after[::-1])
    wanted = set(inside[first:last])
    return [position in wanted for position in range(len(row))]


def _agreeing(ids: Sequence[int | None], template: Sequence[int]) -> int:
    """How many ids at the beginning are the template's; 0 where it is another one.

    The last ones may differ: a tokenizer may join them with the prompt's first character, a line break say.
    """
    count = next((i for i, (a, b) in enumerate(zip(ids, template, strict=False)) if a != b), None)
    count = min(len(ids), len(template)) if count is None else count
    return count if count >= max(1, len(template) - 2) else 0


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
    content = _behind_marker(row, content, vocabulary)
    if selection.mode == "all":
        return attended_positions(row, special)
    if selection.mode == "words":
        found = find_phrases(row, content, selection.words, vocabulary)
        return [i in found for i in range(len(row))]
    return content


def _behind_marker(row: Sequence[int | None], content: list[bool], vocabulary: Vocabulary) -> list[bool]:
    """Without what stands up to the marker that ends a system prompt, where the prompt has one."""
    spelled = b"".join(vocabulary.spell(token) for token in row if token is not None)
    if b"prompt" not in spelled.lower():  # nearly always; the search below is slow
        return content
    found = find_phrases(row, content, (PROMPT_START,), vocabulary)
    return [mark and place > max(found, default=-1) for place, mark in enumerate(content)]


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
        wanted = fold(phrase)
        size = len(wanted)
        for i in range(len(letters) - size + 1 if size else 0):
            window = letters[i : i + size]
            if [letter.char for letter in window] == wanted and _is_whole(letters, i, i + size):
                found.update(*(letter.tokens for letter in window))
    return found


def align_pieces(
    text: str, pieces: Sequence[bytes | None], exact: bool = False
) -> list[tuple[int, int] | None] | None:
    """The (start, end) in `text`, in code points, that each piece spells; None for a piece of white space.

    Case, spaces and compatibility forms may differ between both. A tokenizer may also have left out or
    changed some characters (accents, control characters), or not know them (a piece that is None): such a
    piece gets what stands between its neighbours. None as a whole where less than half of the letters
    agree.
    """
    letters = _letters_of([piece or b"" for piece in pieces])
    source = [(folded, index) for index, char in enumerate(text) for folded in fold(char)]
    theirs, ours = [letter.char for letter in letters], [char for char, _ in source]
    if theirs == ours:
        blocks: Sequence[tuple[int, int, int]] = [(0, 0, len(ours))]
    elif exact:
        return None
    else:
        blocks = SequenceMatcher(None, theirs, ours, autojunk=False).get_matching_blocks()
        if 2 * sum(size for *_, size in blocks) < len(theirs):
            return None
    spans: list[tuple[int, int] | None] = [None] * len(pieces)
    for first, start, size in blocks:
        for letter, (_, index) in zip(
            letters[first : first + size], source[start : start + size], strict=True
        ):
            for token in letter.tokens:
                span = spans[token]
                spans[token] = (span[0] if span else index, index + 1)
    if theirs != ours or None in pieces:
        _fill_gaps(text, pieces, spans)
    return spans


def _fill_gaps(text: str, pieces: Sequence[bytes | None], spans: list[tuple[int, int] | None]) -> None:
    """Give pieces that no letter could be found for the text between their neighbours."""
    for place, piece in enumerate(pieces):
        if spans[place] is not None or (piece is not None and not piece.strip()):
            continue
        start = next((span[1] for span in reversed(spans[:place]) if span), 0)
        end = next((span[0] for span in spans[place + 1 :] if span), len(text))
        gap = text[start:end]
        if gap.strip():
            # The rest of the gap goes to the pieces that follow in it.
            following = place + 1 < len(pieces) and spans[place + 1] is None
            word = gap.split()[0] if following else gap.strip()
            begin = start + gap.index(word)
            spans[place] = (begin, begin + len(word))


@dataclass(frozen=True)
class _Letter:
    char: str
    tokens: frozenset[int]
    after_space: bool


def fold(text: str) -> list[str]:
    """Case-folded and decomposed, without white space and invisible characters.

    Character by character, so that a position can be traced back; composed and decomposed spellings are the
    same.
    """
    folded = (unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", c).casefold()) for c in text)
    return [
        char
        for part in folded
        for char in part
        if not char.isspace() and unicodedata.category(char) not in ("Cc", "Cf")
    ]


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
        for folded in fold(char):
            letters.append(_Letter(folded, tokens, after_space))
            after_space = False
    return letters


def _is_whole(letters: Sequence[_Letter], start: int, end: int) -> bool:
    """Whether letters[start:end] is a word of its own, by the rules of its script."""
    return not (_glued(letters, start) or _glued(letters, end))


def _glued(letters: Sequence[_Letter], boundary: int) -> bool:
    if boundary in (0, len(letters)) or letters[boundary].after_space:
        return False
    if unicodedata.category(letters[boundary].char).startswith("M"):  # an accent belongs to what it sits on
        return True
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

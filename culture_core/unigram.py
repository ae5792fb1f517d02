"""A Unigram tokenizer in the `tokenizers` library, exact to the code point.

Text is normalised code point by code point, runs of spaces become one, spaces become `▁` with one in front,
the most probable pieces are found, and `<s> … </s>` goes around them.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer

BREAK = "\x01"
"""A control character: it is never inside of a grapheme, and the normalisation deletes it."""
GRAPHEME_INSIDE = r"(?!\A)(?=[^\x00-\x7f])"
"""Every place where a grapheme may be broken: inside of the text, before a code point beyond ASCII (nothing
else continues a grapheme, but for CR LF)."""


def build_normaliser(table: dict[str, str]) -> Normalizer:
    """The table applied code point by code point, then runs of spaces made one."""
    from tokenizers import Regex, normalizers

    # `Precompiled` looks up short graphemes whole, and then drops their combining marks: break all graphemes
    # up first. It cannot delete the first character of a text either: deletions are a step of their own.
    deleted = "".join(f"\\x{{{ord(source):x}}}" for source, target in table.items() if not target)
    replaced = {source: target for source, target in table.items() if target}
    return normalizers.Sequence(
        [
            normalizers.Replace(Regex(GRAPHEME_INSIDE), BREAK),
            normalizers.Precompiled(compile_charsmap(replaced)),
            normalizers.Replace(Regex(f"[{deleted}]"), ""),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )


def build_tokenizer(
    pieces: list[tuple[str, float]], normalisation: dict[str, str], special: dict[str, str]
) -> Tokenizer:
    """The tokenizer of a vocabulary.

    `pieces`: (text, log probability) in id order; `normalisation`: code point -> replacement; `special`: role
    (`bos_token`, `eos_token`, `unk_token`, `mask_token` …) -> piece.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import Unigram

    ids = {piece: index for index, (piece, _) in enumerate(pieces)}
    bos, eos, mask = special["bos_token"], special["eos_token"], special["mask_token"]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=ids[special["unk_token"]], byte_fallback=False))
    tokenizer.normalizer = build_normaliser(normalisation)
    # The library makes one unknown token of neighbouring unknown characters; standing alone, each is one.
    alone = pre_tokenizers.Split(Regex(f"[^{_character_class(pieces)}]"), behavior="isolated")
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([metaspace, alone])
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, ids[bos]), (eos, ids[eos])],
    )
    tokenizer.add_special_tokens(
        [AddedToken(name, normalized=False, lstrip=name == mask) for name in dict.fromkeys(special.values())]
    )
    return tokenizer


def _character_class(pieces: list[tuple[str, float]]) -> str:
    """The inside of a regular expression's `[…]` that matches every character of the pieces."""
    points = sorted({ord(character) for piece, _ in pieces for character in piece})
    starts = [point for before, point in zip([-2, *points], points, strict=False) if point != before + 1]
    ends = [point for point, after in zip(points, [*points[1:], -2], strict=True) if after != point + 1]
    return "".join(f"\\x{{{start:x}}}-\\x{{{end:x}}}" for start, end in zip(starts, ends, strict=True))


def compile_charsmap(table: dict[str, str]) -> bytes:
    """SentencePiece's `precompiled_charsmap`: u32 size, a double-array trie, NUL-ended replacements.

    A unit of the trie (darts-clone) has 32 bits: 0-7 label, 8 "a key ends here", 9 "the offset is in 256s",
    10-31 offset; children sit at `position ^ offset ^ label`, a value at label 0 with bit 31 set.
    """
    replacements = bytearray()
    root: dict[int, Any] = {}
    for key, value in sorted(table.items()):
        node = root
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = len(replacements)  # label 0 ends a key
        replacements += value.encode() + b"\0"
    units = _double_array(root)
    trie = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(trie)) + trie + bytes(replacements)


def _double_array(root: dict[int, Any]) -> list[int]:
    """Place the nodes of a byte trie breadth first, each at the next base where all its children fit.

    Every node has a base of its own, or it would answer to the labels of another node's children.
    """
    units: dict[int, int] = {0: 0}
    queue = deque([(root, 0)])
    base = 0
    while queue:
        node, position = queue.popleft()
        base += 1
        while any((base ^ label) in units for label in node):
            base += 1
        offset = position ^ base
        if offset >= 1 << 21:
            raise ValueError("The normalisation map is too large for a trie with short offsets.")
        units[position] |= offset << 10 | (0x100 if 0 in node else 0)
        for label, child in sorted(node.items()):
            units[base ^ label] = 1 << 31 | child if label == 0 else label
            if label:
                queue.append((child, base ^ label))
    size = -(-(max(units) + 1) // 256) * 256  # whole blocks: a lookup may step to any label of the last one
    return [units.get(index, 0) for index in range(size)]

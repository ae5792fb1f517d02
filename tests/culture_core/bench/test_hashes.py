"""Pictures that are the same, or nearly."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from culture_core.bench.hashes import BITS, NEAR, near_pairs, perceptual_hash
from culture_core.miniature.captions import NOUNS
from culture_core.miniature.scenes import draw_scenes


def hexadecimal(bits: np.ndarray) -> str:
    return np.packbits(bits).tobytes().hex()


def recompressed(picture: Image.Image) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=30)
    return Image.open(data).convert("RGB")


CHANGES = (
    recompressed,
    lambda picture: picture.resize((150, 150), Image.Resampling.BICUBIC),
    lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
    lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
)


def test_a_changed_picture_is_near_and_another_one_is_not():
    specs = [(noun, code) for code in ("th", "ja") for noun in NOUNS]
    plain = [Image.fromarray(scene) for scene in draw_scenes(specs, 3)]
    changed = [CHANGES[number % len(CHANGES)](picture) for number, picture in enumerate(plain)]
    hashes = [perceptual_hash(picture) for picture in (*plain, *changed)]
    assert set(near_pairs(hashes)) == {(i, i + len(plain)) for i in range(len(plain))}


@pytest.mark.parametrize("block", [3, 2048])
def test_near_pairs_are_those_of_a_count_bit_by_bit(block, monkeypatch):
    monkeypatch.setattr("culture_core.bench.hashes._BLOCK", block)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, (4, BITS))
    rows = [
        np.where(np.arange(BITS) < flips, 1 - row, row) for row in base for flips in (0, 10, NEAR, NEAR + 1)
    ]
    hashes = [hexadecimal(row) for row in rows]
    literal = {(i, j) for j in range(len(rows)) for i in range(j) if (rows[i] != rows[j]).sum() <= NEAR}
    assert set(near_pairs(hashes)) == literal and len(literal) == 20
    assert len(list(near_pairs(hashes))) == len(literal) and not list(near_pairs([]))


@pytest.mark.parametrize("text", ["", "zz", "00" * 8, "00" * 33])
def test_what_is_no_hash_is_refused(text):
    with pytest.raises(ValueError, match="256 bits"):
        list(near_pairs([text]))

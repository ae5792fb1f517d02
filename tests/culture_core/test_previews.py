"""The preview of a shared file: what is written is small, and what a stranger wrote does no harm."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from culture_core.previews import (
    MAX_BYTES,
    MAX_EDGE,
    decode_preview,
    encode_preview,
    preview_entry,
    read_preview_entry,
)


def noise(width: int, height: int) -> Image.Image:
    """Nothing is larger as a JPEG."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def jpeg(picture: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", **options)
    return stream.getvalue()


def test_a_small_picture_keeps_its_size_and_nearly_its_pixels():
    picture = Image.linear_gradient("L").convert("RGB")
    again = decode_preview(read_preview_entry(preview_entry(encode_preview(picture))))
    assert again.size == picture.size and again.mode == "RGB"
    assert np.abs(np.asarray(again, int) - np.asarray(picture, int)).mean() < 2


@pytest.mark.parametrize(("width", "height"), [(1024, 1024), (3000, 500), (200, 4000)])
def test_the_worst_of_pictures_stays_within_the_limits_and_undistorted(width, height):
    data = encode_preview(noise(width, height))
    small = decode_preview(data)
    assert len(data) <= MAX_BYTES and max(small.size) <= MAX_EDGE
    assert small.width / small.height == pytest.approx(width / height, rel=0.02)


def test_transparency_and_grey_are_no_obstacle():
    for mode in ("RGBA", "L", "P"):
        assert decode_preview(encode_preview(Image.new(mode, (8, 8)))).size == (8, 8)


BAD = {
    "another kind of picture": lambda: b"\x89PNG\r\n\x1a\n" + bytes(100),
    "cut off": lambda: jpeg(noise(64, 64))[:900],
    "no picture": lambda: b"import os",
    "too many pixels": lambda: jpeg(Image.new("L", (MAX_EDGE + 1, 1))),
    "progressive": lambda: jpeg(noise(64, 64), progressive=True),
    "too many bytes": lambda: jpeg(noise(64, 64)) + bytes(MAX_BYTES),
    "empty": lambda: b"",
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_picture_is_refused(case):
    with pytest.raises(ValueError, match="the preview"):
        decode_preview(BAD[case]())
    with pytest.raises(ValueError, match="the preview"):
        read_preview_entry(preview_entry(BAD[case]()))


def test_a_header_that_promises_too_many_pixels_is_refused_before_they_are_made():
    data = bytearray(jpeg(Image.new("L", (16, 16))))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\x1f\x40\x1f\x40"
    with pytest.raises(ValueError, match="8000 x 8000"):
        decode_preview(bytes(data))


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "https://example.com/a.jpg",
        "data:text/html;base64,PGI+",
        "data:image/jpeg;base64,*",
        "data:image/jpeg;base64,/9j\n/",
        "data:image/jpeg;base64," + "A" * (2 * MAX_BYTES),
        json.dumps({"data": base64.b64encode(b"x").decode()}),
    ],
)
def test_an_entry_that_is_no_data_uri_of_a_jpeg_is_refused(entry):
    with pytest.raises(ValueError, match="the preview"):
        read_preview_entry(entry)

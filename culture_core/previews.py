"""The preview picture that a shared file carries: a small JPEG in its metadata.

It stands under the key that other programs read as well (Stability's model specification), so that ComfyUI's
model library shows it. A stranger's picture is decoded by Pillow's JPEG reader alone, and only after its size
has been looked at.
"""

import base64
import binascii
import io

from PIL import Image, ImageOps

KEY = "modelspec.thumbnail"
"""Metadata entry of the preview, a data URI."""
MAX_BYTES = 256 << 10
"""Of the JPEG. ComfyUI shows the metadata of files whose whole header stays below 1 MiB."""
MAX_EDGE = 1024
"""Pixels of the longer side."""

_START = "data:image/jpeg;base64,"
_QUALITIES = (90, 80, 65, 50)


def encode_preview(picture: Image.Image) -> bytes:
    """A picture as a JPEG of at most `MAX_BYTES` and `MAX_EDGE`; a larger one is scaled down."""
    picture = picture.convert("RGB")
    edge = min(MAX_EDGE, max(picture.size))
    while True:
        small = picture if max(picture.size) <= edge else ImageOps.contain(picture, (edge, edge))
        for quality in _QUALITIES:
            stream = io.BytesIO()
            small.save(stream, "JPEG", quality=quality, optimize=True)
            if stream.tell() <= MAX_BYTES:
                return stream.getvalue()
        edge //= 2


def decode_preview(data: bytes) -> Image.Image:
    """The picture of a JPEG that may come from anywhere.

    Raises:
        ValueError: for anything but a whole baseline JPEG within the limits.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"the preview has {len(data)} bytes, {MAX_BYTES} are allowed")
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            # Known from the header: nothing is decoded yet.
            if max(picture.size) > MAX_EDGE:
                raise ValueError(f"the preview is {picture.width} x {picture.height}, {MAX_EDGE} are allowed")
            # Each of its passes costs a whole decode, and there may be thousands.
            if "progressive" in picture.info:
                raise ValueError("the preview is a progressive JPEG, only baseline ones are read")
            return picture.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the preview is no JPEG, or a damaged one ({error})") from error


def preview_entry(data: bytes) -> str:
    """The metadata entry of a JPEG."""
    return _START + base64.b64encode(data).decode("ascii")


def read_preview_entry(entry: str) -> bytes:
    """The JPEG in a metadata entry, checked by decoding it once.

    Raises:
        ValueError: for an entry that `preview_entry` would not give, or a picture that cannot be decoded.
    """
    if not entry.startswith(_START) or len(entry) > len(_START) + 4 * (MAX_BYTES // 3 + 1):
        raise ValueError(f"the preview must be a '{_START}…' of at most {MAX_BYTES >> 10} KiB")
    try:
        data = base64.b64decode(entry[len(_START) :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"the preview is no base64 ({error})") from error
    decode_preview(data)
    return data

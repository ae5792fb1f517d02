"""Pictures as they are sent to a model."""

import base64
import hashlib
import io

from PIL import Image


def prepared(image: Image.Image, longest_edge: int) -> Image.Image:
    """The picture in RGB, transparency on white, scaled down where an edge is longer than wanted."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if max(image.size) > longest_edge:
        image.thumbnail((longest_edge, longest_edge), Image.Resampling.LANCZOS)
    return image


def image_hash(image: Image.Image) -> str:
    """SHA-256 of a picture's pixels, the same for every file format and for its metadata."""
    image = image.convert("RGB")
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def data_url(image: Image.Image) -> str:
    """The picture as a PNG inside a URL, without its metadata."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"

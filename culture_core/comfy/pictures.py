"""Pictures between Pillow and ComfyUI's IMAGE, [B, height, width, 3] in 0 to 1."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..sheets import picture_grid
from .inputs import expect


def image_tensor(pictures: Iterable[Image.Image]) -> Tensor:
    """Pictures of one size as an IMAGE."""
    return torch.stack(
        [torch.from_numpy(np.array(picture.convert("RGB"))).float() / 255 for picture in pictures]
    )


def pil_images(images: Tensor) -> list[Image.Image]:
    """An IMAGE as pictures; transparency is left out, a single channel is grey.

    Raises:
        ValueError: for anything else.
    """
    # Cut off, not rounded, as Save Image does: a sheet then holds the very pixels of its pictures' files.
    if expect(images, Tensor, "a node that gives IMAGE").dim() != 4:
        raise ValueError(f"pictures must be [B, height, width, C], got {tuple(images.shape)}")
    pixels = (images.float().cpu().clamp(0, 1) * 255).to(torch.uint8)
    pixels = pixels.expand(*pixels.shape[:-1], 3) if pixels.shape[-1] == 1 else pixels[..., :3]
    return [Image.fromarray(picture) for picture in pixels.numpy()]


def image_grid(images: Sequence[Tensor], labels: Sequence[str], columns: int, title: str) -> Tensor:
    """A sheet [1, height, width, 3] of the pictures of several IMAGEs.

    Args:
        labels: one a picture, or one an IMAGE of several; or a single text with a label a line.
        columns: pictures a row; 0: automatic.

    Raises:
        ValueError: for other than as many labels, or a sheet that is too large.
    """
    batches = [pil_images(image) for image in images]
    # One text is written by hand, a line a picture; several come from another node.
    texts = [line for line in labels[0].splitlines() if line.strip()] if len(labels) == 1 else list(labels)
    if len(texts) == len(batches):
        texts = [text for text, batch in zip(texts, batches, strict=True) for _ in batch]
    return image_tensor([picture_grid([p for batch in batches for p in batch], texts, columns, title)])

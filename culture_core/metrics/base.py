"""What all metrics share: their shape, and how a missing library or file is said."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..vlm.images import prepared


class MetricError(ValueError):
    """A metric that cannot be taken; the message says why and what to do."""


class Scorer(Protocol):
    """Scores a picture against a text."""

    name: str

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> list[float]: ...

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Which texts are longer than the model reads; it scores against their beginning."""
        ...

    def settings(self) -> dict[str, Any]:
        """What the scores depend on, besides pictures and texts; JSON can hold it."""
        ...


class Embedder(Protocol):
    """Gives a picture's features."""

    name: str

    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """[N, d], float32 on the CPU."""
        ...

    def settings(self) -> dict[str, Any]: ...


class Distance(Protocol):
    """How different two pictures look; 0 for the same."""

    name: str

    def distance(self, first: Sequence[Image.Image], second: Sequence[Image.Image]) -> list[float]: ...

    def settings(self) -> dict[str, Any]: ...


def optional(module: str) -> ModuleType:
    """A module of the extra `metrics`.

    Raises:
        MetricError: where it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MetricError(
            f"this metric needs {module.split('.')[0].replace('_', '-')} ({error}): install the extra with "
            'pip install "torchmetrics>=1.9" "torch-fidelity>=0.4"'
        ) from error


def weights_file(folder: Path | None, name: str, what: str, url: str) -> Path:
    """A file of weights in the folder for them, or where torch keeps downloads.

    Raises:
        MetricError: where it is in neither.
    """
    folders = [*([folder] if folder else []), Path(torch.hub.get_dir()) / "checkpoints"]
    for place in folders:
        if (place / name).is_file():
            return place / name
    raise MetricError(
        f"{what} needs the file {name}: download it from {url} and put it into "
        f"{' or '.join(map(str, folders))}" + ("" if folder else ", or name a folder for weights")
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .pth file; nothing in it is run.

    Raises:
        MetricError: for a file that holds anything else.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
            raise ValueError("it holds other things than tensors")
    except Exception as error:  # torch and pickle raise a dozen kinds for a damaged file
        raise MetricError(f"{path} cannot be read as weights: {error}; download it again") from error
    return found


def placed(net: nn.Module, device: str) -> nn.Module:
    """A network on a device.

    Raises:
        MetricError: where there is no such device.
    """
    try:
        return net.to(device)
    except (RuntimeError, AssertionError) as error:  # torch's ways to say that there is none
        raise MetricError(f"the device {device} cannot be used here: {error}") from error


def pixels(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Tensor:
    """Bytes [3, height, width] of a picture, transparency on white, scaled to (width, height)."""
    image = prepared(image, max(image.size))
    if image.size != size:
        image = image.resize(size, resample)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)

"""Neutral prompts with pictures of a culture: what an enhancer learns from."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..checkpoints import write_safetensors
from ..enhancer import Batch
from ..fingerprint import fingerprint_values
from ..pairs import PairError, PromptPair, load_pairs
from ..paths import path_inside
from ..splits import ENHANCER_TRAINING, VALIDATION, check_usable, left_out, usable
from .image_model import to_pixels


class PictureModel(Protocol):
    """What pairs need of an image model."""

    vae: Any

    @property
    def multiple(self) -> int:
        """What the edges of pictures must be multiples of, pixels."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents [B, C, h, w] of pictures [B, 3, H, W] from −1 to 1."""


class ImagePairs:
    """Pairs with pictures, all of one size, with their latents.

    Pictures are scaled and cut in the middle. Latents are computed once, by `encode`, and kept in memory or
    in a folder.
    """

    def __init__(
        self,
        pairs: Sequence[PromptPair],
        folder: str | os.PathLike[str],
        model: PictureModel,
        size: int,
        store: Path | None = None,
    ) -> None:
        """Pairs whose pictures lie in a folder; those without a picture are left out.

        Args:
            folder: that the pictures' paths begin in, and that no path may leave.
            size: edge of the pictures, pixels.
            store: folder for the latents; it may serve several runs.

        Raises:
            PairError: for no pictures, one that is missing, unreadable or outside the folder, a size that the
                model cannot take, or a pair of a split that may not be trained on.
        """
        check_usable(pairs, ENHANCER_TRAINING)
        if size < model.multiple or size % model.multiple:
            raise PairError(
                f"pictures of {size} pixels do not fit this model: use a multiple of {model.multiple}"
            )
        self.pairs = [pair for pair in pairs if pair.image is not None]
        if not self.pairs:
            raise PairError(
                "none of the pairs has a picture: give 'image', a path relative to the file of the pairs"
            )
        self._model, self._size, self._store = model, size, store
        self._paths = [_path_of(pair, Path(folder)) for pair in self.pairs]
        self._digests = [_digest(path, pair) for path, pair in zip(self._paths, self.pairs, strict=True)]
        self._latents: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def digest(self) -> str:
        """SHA-256 of prompts, pictures and their size."""
        parts = [str(self._size), *(p.neutral for p in self.pairs), *self._digests]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def encode(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Compute all latents that are not there yet; so every picture has been read before the training."""
        for row in range(len(self)):
            self._latent(row)
            if progress is not None:
                progress(row + 1, len(self))

    def latents(self, rows: Sequence[int]) -> Tensor:
        """[B, C, h, w] float32 on the CPU."""
        return torch.stack([self._latent(row) for row in rows])

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """[B, 3, H, W] from −1 to 1, on the CPU."""
        return torch.stack([self._picture(row) for row in rows])

    def batches(self, size: int, seed: int = 0) -> Iterator[Batch]:
        """(prompts, None, indices) without end, every pair once before any comes again."""
        generator = torch.Generator().manual_seed(seed)
        waiting: list[int] = []
        while True:
            while len(waiting) < size:
                waiting += torch.randperm(len(self), generator=generator).tolist()
            rows, waiting = waiting[:size], waiting[size:]
            yield [self.pairs[row].neutral for row in rows], None, rows

    def _picture(self, row: int) -> Tensor:
        try:
            with Image.open(self._paths[row]) as picture:
                upright = ImageOps.exif_transpose(picture).convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise PairError(
                f"prompt pair {self.pairs[row].id!r}: {self._paths[row]} is no readable picture ({error})"
            ) from error
        return to_pixels(ImageOps.fit(upright, (self._size, self._size), Image.Resampling.LANCZOS))

    def _latent(self, row: int) -> Tensor:
        if row in self._latents:
            return self._latents[row]
        path = self._stored(row)
        if path is not None and path.is_file():
            try:
                return load_file(path)["latent"]
            except (SafetensorError, KeyError, OSError) as error:
                raise PairError(f"{path}: is no readable latent ({error}); delete it") from error
        latent = self._model.encode(self._picture(row)[None])[0].cpu()
        if path is None:
            self._latents[row] = latent
        else:
            write_safetensors(path, {"latent": latent}, {})
        return latent

    def _stored(self, row: int) -> Path | None:
        """Where a latent is kept: named after the picture, its size and the VAE."""
        if self._store is None:
            return None
        weights = [parameter for _, parameter in zip(range(4), self._model.vae.parameters(), strict=False)]
        key = f"{self._digests[row]} {self._size} {fingerprint_values(weights)}"
        return self._store / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"


class LoadedPairs(NamedTuple):
    """The pairs of a file by what they may serve for."""

    training: list[PromptPair]
    validation: list[PromptPair]
    left_out: str
    """What is said of pairs that serve for neither, such as those of the split "test"; empty without any."""


def load_image_pairs(path: Path) -> LoadedPairs:
    """Pairs of a JSONL file, by their split.

    Raises:
        PairError: as `load_pairs`, and where nothing is left for training.
    """
    pairs = load_pairs(path)
    try:
        training = usable(pairs, ENHANCER_TRAINING)
    except PairError as error:
        raise PairError(f"{path}: {error}") from error
    held = [pair for pair in pairs if pair.split == VALIDATION]
    others = [pair for pair in pairs if pair.split != VALIDATION]
    return LoadedPairs(training, held, left_out(others, ENHANCER_TRAINING))


def _path_of(pair: PromptPair, folder: Path) -> Path:
    """The picture of a pair; a file of pairs may come from anyone, so it must lie in the folder."""
    name = pair.image or ""
    path = folder / name
    if "://" in name or Path(name).is_absolute() or path_inside(folder, name) is None:
        raise PairError(
            f"prompt pair {pair.id!r}: the picture {name!r} must be a path relative to the file of the "
            "pairs, inside its folder"
        )
    if not path.is_file():
        raise PairError(f"prompt pair {pair.id!r}: the picture {path} is not there")
    return path


def _digest(path: Path, pair: PromptPair) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PairError(f"prompt pair {pair.id!r}: {path} cannot be read ({error})") from error

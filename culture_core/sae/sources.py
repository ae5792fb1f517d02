"""Where training vectors come from: a matrix in memory, or a feature store on disk that may outgrow it."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..atomic import atomic_path
from ..checkpoints import write_safetensors
from ..paths import path_inside
from ..strict_json import parse_object

BLOCK = 256
"""Neighbouring vectors of a store that stay together when blocks are shuffled."""
INDEX = "index.json"
MAX_WIDTH = 1 << 20
DTYPES = {"float32": torch.float32, "float16": torch.float16}
_FORMAT, _VERSION = "culture-features", 1


class Vectors(Protocol):
    """N vectors of width d, float32 when taken."""

    width: int
    in_memory: bool

    def __len__(self) -> int: ...

    def take(self, rows: Tensor) -> Tensor:
        """The vectors [n, d] at rows [n]."""

    def digest(self) -> str:
        """SHA-256 that tells these vectors from others."""

    def groups(self) -> Tensor | None:
        """[N], vectors with equal numbers are held out together; None: each by itself."""


class MatrixVectors:
    """A matrix [N, d] in memory, or a device's."""

    in_memory = True

    def __init__(self, matrix: Tensor, groups: Tensor | None, device: torch.device) -> None:
        """Vectors of a matrix of any float type, on a device.

        Raises:
            ValueError: for no finite float matrix of at least two rows, or groups of another number.
        """
        if matrix.dim() != 2 or len(matrix) < 2 or not matrix.is_floating_point():
            raise ValueError(f"features must be a float matrix [N, d] with N >= 2, got {tuple(matrix.shape)}")
        if not bool(matrix.isfinite().all()):
            raise ValueError("the features hold NaN or infinite values: look at the encoder that made them")
        if groups is not None and groups.shape != matrix.shape[:1]:
            raise ValueError(f"groups must be one number a vector, {len(matrix)}, got {tuple(groups.shape)}")
        self._matrix, self._groups = matrix.detach().to(device, torch.float32), groups
        self.width = matrix.shape[1]

    def __len__(self) -> int:
        return len(self._matrix)

    def take(self, rows: Tensor) -> Tensor:
        return self._matrix[rows.to(self._matrix.device)]

    def digest(self) -> str:
        return hashlib.sha256(self._matrix.cpu().contiguous().numpy().data).hexdigest()

    def groups(self) -> Tensor | None:
        return self._groups


@dataclass(frozen=True)
class Shard:
    """One file of a store."""

    file: str
    vectors: int
    texts: int
    """Texts whose vectors the store holds up to the end of this shard."""
    sha256: str


class FeatureStore:
    """Vectors in a folder of safetensors shards: `features` [n, d] and `texts` [n], the text each is of.

    An `index.json` lists the shards; what it does not list does not exist. Shards are mapped, not read:
    taking rows needs the memory of these rows.
    """

    in_memory = False

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open a store that `culture_core.features.write_features` wrote.

        Raises:
            ValueError: for a folder without a readable index, an incomplete store, or missing shards.
        """
        self.folder = Path(folder)
        index = read_index(self.folder)
        if index is None:
            raise ValueError(f"{self.folder}: holds no feature store (no {INDEX}); write_features makes one")
        if not index["complete"]:
            done = index["shards"][-1].texts if index["shards"] else 0
            raise ValueError(
                f"{self.folder}: the store is not complete, {done} texts are done; "
                "call write_features again, it goes on from there"
            )
        self.identity: dict[str, Any] = index["identity"]
        self.width: int = index["width"]
        self.shards: list[Shard] = index["shards"]
        for shard in self.shards:
            if not (self.folder / shard.file).is_file():
                raise ValueError(f"{self.folder}: the shard {shard.file} is missing; write the store anew")
        self._ends = torch.tensor([shard.vectors for shard in self.shards]).cumsum(0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def take(self, rows: Tensor) -> Tensor:
        result = torch.empty(len(rows), self.width)
        # In the order of the disk, each shard opened once.
        rows, order = rows.cpu().sort()
        start = 0
        for shard, end in zip(self.shards, self._ends.tolist(), strict=True):
            low, high = torch.searchsorted(rows, torch.tensor([start, end])).tolist()
            if low < high:
                result[order[low:high]] = self._tensor(shard, "features")[rows[low:high] - start].float()
            start = end
        return result

    def digest(self) -> str:
        """Of the shards' own hashes, so that a store of any size needs no reading."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()

    def groups(self) -> Tensor:
        """The text that each vector is of, [N]."""
        return torch.cat([self._tensor(shard, "texts").clone() for shard in self.shards])

    def verify(self) -> None:
        """Read every shard and compare it with the hash of when it was written.

        Raises:
            ValueError: naming the first shard that differs.
        """
        for shard in self.shards:
            if _hash(self.folder / shard.file) != shard.sha256:
                raise ValueError(f"{self.folder / shard.file}: was changed; write the store anew")

    def _tensor(self, shard: Shard, name: str) -> Tensor:
        path = self.folder / shard.file
        try:
            with safe_open(path, framework="pt") as file:
                tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: is no readable shard ({error}); write the store anew") from error
        expected = (shard.vectors, self.width) if name == "features" else (shard.vectors,)
        known = tensor.is_floating_point() if name == "features" else tensor.dtype == torch.long
        if tuple(tensor.shape) != expected or not known:
            raise ValueError(f"{path}: has another shape than the index says; write the store anew")
        return tensor


class StoreWriter:
    """Writes a store shard by shard, and goes on where an earlier writer of the same store stopped."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        identity: dict[str, Any],
        width: int,
        dtype: str,
        shard_vectors: int,
    ) -> None:
        """A writer.

        Args:
            identity: says what the store is of, JSON. A store of something else is not touched.
            shard_vectors: size from which a shard is closed.

        Raises:
            ValueError: for an unknown dtype, or a folder that holds another store.
        """
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}: use {' or '.join(DTYPES)}")
        if shard_vectors < 1:
            raise ValueError(f"shard_vectors is {shard_vectors}: it must be at least 1")
        self.folder, self.width, self._dtype, self._size = Path(folder), width, DTYPES[dtype], shard_vectors
        self.identity = {**identity, "dtype": dtype, "shard_vectors": shard_vectors}
        index = read_index(self.folder)
        if index is not None and (index["identity"], index["width"]) != (self.identity, width):
            raise ValueError(f"{self.folder}: holds features of something else; give another folder")
        self.complete = index is not None and index["complete"]
        self._shards: list[Shard] = [] if index is None else index["shards"]
        self._waiting: list[tuple[Tensor, Tensor]] = []

    @property
    def texts(self) -> int:
        """Texts that are on disk."""
        return self._shards[-1].texts if self._shards else 0

    def add(self, vectors: Tensor, texts: Tensor, done: int) -> None:
        """Take vectors [n, d] of texts [n]; `done` texts are done with them.

        Raises:
            ValueError: for vectors that are not finite in the store's type.
        """
        vectors = vectors.to("cpu", self._dtype)
        if not bool(vectors.isfinite().all()):
            raise ValueError(
                f"the features of texts {int(texts.min())} to {done - 1} hold NaN, infinite values or values "
                "too large for the dtype: use float32, or look at the encoder"
            )
        self._waiting.append((vectors, texts.to("cpu", torch.long)))
        if sum(len(part) for part, _ in self._waiting) >= self._size:
            self._flush(done)

    def close(self, done: int) -> None:
        """Write what is left; the store is complete then."""
        if self._waiting:
            self._flush(done)
        if not self._shards:
            raise ValueError("there are no features to write: give texts with content tokens")
        self.complete = True
        self._write_index()

    def _flush(self, done: int) -> None:
        vectors, texts = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        name = f"{len(self._shards):06d}.safetensors"
        write_safetensors(self.folder / name, {"features": vectors, "texts": texts}, {"format": _FORMAT})
        self._shards.append(Shard(name, len(vectors), done, _hash(self.folder / name)))
        self._waiting = []
        self._write_index()

    def _write_index(self) -> None:
        content = {
            "format": _FORMAT, "format_version": _VERSION, "identity": self.identity, "width": self.width,
            "complete": self.complete, "shards": [vars(shard) for shard in self._shards],
        }  # fmt: skip
        with atomic_path(self.folder / INDEX) as path:
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def read_index(folder: Path) -> dict[str, Any] | None:
    """The index of a store, with `Shard`s; None where there is none.

    Raises:
        ValueError: for one that cannot be read or is of an unknown version.
    """
    path = folder / INDEX
    if not path.exists():
        return None
    try:
        index = parse_object(path.read_text(encoding="utf-8"))
        if index["format"] != _FORMAT or index["format_version"] > _VERSION:
            raise ValueError(f"{index['format']} {index['format_version']} is unknown: update the pack")
        index["shards"] = [Shard(**shard) for shard in index["shards"]]
        if not all(_is_shard(shard, folder) for shard in index["shards"]):
            raise ValueError("a shard is misnamed or empty")
        width, complete = index["width"], index["complete"]
        if not isinstance(index["identity"], dict) or type(width) is not int or not 1 <= width <= MAX_WIDTH:
            raise ValueError("a field is missing or wrong")
        if not isinstance(complete, bool) or (complete and not index["shards"]):
            raise ValueError("a field is missing or wrong")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is no readable index of a feature store ({error})") from error
    return index


def _is_shard(shard: Shard, folder: Path) -> bool:
    whole = all(type(number) is int and number >= 1 for number in (shard.vectors, shard.texts))
    plain = isinstance(shard.file, str) and Path(shard.file).name == shard.file
    # Of the sums of vectors int64 is kept.
    small = whole and shard.vectors < 1 << 40
    return small and plain and isinstance(shard.sha256, str) and path_inside(folder, shard.file) is not None


class Batches:
    """The batch of every step of a run; it depends on the seed and the step alone.

    Vectors in memory are shuffled as a whole, every epoch anew. Those of a store are shuffled as blocks of
    neighbours, and then within windows: one window is in memory at once.
    """

    def __init__(self, vectors: Vectors, rows: Tensor, batch: int, window: int, seed: int) -> None:
        """Batches of the vectors at some rows.

        Args:
            rows: [T] ascending, the training vectors.
            window: vectors of a store in memory at once.
        """
        self._vectors, self._rows, self._batch, self._seed = vectors, rows, batch, seed
        self._window = window // batch * batch
        self._per_epoch = len(rows) // batch
        self._epoch, self._part = -1, (-1, -1)
        self._order = self._loaded = torch.empty(0)

    def __call__(self, step: int) -> Tensor:
        """Vectors [batch, d]."""
        epoch, position = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
        size = self._batch if self._vectors.in_memory else self._window
        part, offset = divmod(position * self._batch, size)
        if (epoch, part) != self._part:
            self._loaded = torch.empty(0)  # let the old window go before the new one comes
            self._loaded = self._vectors.take(self._order[part * size : (part + 1) * size])
            self._part = (epoch, part)
        return self._loaded[offset : offset + self._batch]

    def _shuffled(self, epoch: int) -> Tensor:
        """All rows in the order of an epoch."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        count = len(self._rows)
        if self._vectors.in_memory or count <= self._window:
            return self._rows[torch.randperm(count, generator=generator)]
        blocks = self._rows.split(BLOCK)
        order = torch.cat([blocks[i] for i in torch.randperm(len(blocks), generator=generator).tolist()])
        for window in order.split(self._window):  # views
            window.copy_(window[torch.randperm(len(window), generator=generator)])
        return order


def in_parts(vectors: Vectors, rows: Tensor, size: int) -> Iterator[Tensor]:
    """The vectors at some rows, so many at a time."""
    for part in rows.split(size):
        yield vectors.take(part)


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

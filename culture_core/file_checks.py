"""Reading a safetensors file that may hold anything: every problem becomes an error that names the file."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .strict_json import parse_object

MAX_FILE_BYTES = 8 << 30
MAX_METADATA = 1 << 20
"""Characters of one metadata entry."""

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_AGAIN = "get the file again from where it came from"
_UNWRITTEN = "nothing was written"


class FileError(ValueError):
    """A file that cannot be read or written; the message names it and says what to do."""


@dataclass(frozen=True)
class Format:
    """A kind of file."""

    key: str
    """Value of the metadata entry `format`."""
    name: str
    """What people call it."""
    version: int
    """Newest version that can be read."""


@dataclass(frozen=True)
class Content:
    """What a file holds or is going to hold, with checks that raise `FileError`."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, Tensor]
    reading: bool = True

    def fail(self, text: str) -> NoReturn:
        """Raise a `FileError` with the text.

        Raises:
            FileError: always.
        """
        raise FileError(f"{self.path}: {text}; {_AGAIN if self.reading else _UNWRITTEN}")

    def check_names(self, expected: set[str]) -> None:
        """The tensors must be exactly these."""
        missing, extra = expected - self.tensors.keys(), self.tensors.keys() - expected
        if missing or extra:
            self.fail(f"lacks the tensors {sorted(missing)[:5]} and has {sorted(extra)[:5]} too many")

    def matrix_shape(self, name: str, max_rows: int, max_columns: int) -> tuple[int, int]:
        """Shape of a tensor that must be a matrix of a sensible size."""
        shape = tuple(self.tensors[name].shape)
        if len(shape) != 2 or not (1 <= shape[0] <= max_rows and 1 <= shape[1] <= max_columns):
            self.fail(f"{name!r} is {shape}, it must be a matrix of at most {max_rows} x {max_columns}")
        return shape

    def floats(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor as float32; it must be of this shape, of floats, and finite."""
        tensor = self.tensors[name]
        if tuple(tensor.shape) != shape or tensor.dtype not in _FLOATS:
            self.fail(f"{name!r} is {tuple(tensor.shape)} of {tensor.dtype}, it must be {shape} of floats")
        # Largest and smallest are NaN where one value is; `isfinite` would take the tensor's memory again.
        if tensor.numel() and not all(bool(edge.isfinite()) for edge in tensor.aminmax()):
            self.fail(f"{name!r} holds NaN or infinite values")
        return tensor.to("cpu", torch.float32, copy=True)

    def indices(self, name: str, limit: int) -> Tensor:
        """A tensor that must list different whole numbers from 0 to below `limit`, at least one."""
        tensor = self.tensors[name]
        if tensor.dtype != torch.int64 or tensor.dim() != 1 or not 1 <= len(tensor) <= limit:
            self.fail(f"{name!r} must be a list of int64 with 1 to {limit} entries")
        if int(tensor.min()) < 0 or int(tensor.max()) >= limit or len(tensor.unique()) != len(tensor):
            self.fail(f"{name!r} must hold different numbers from 0 to {limit - 1}")
        return tensor.to("cpu", copy=True)

    def whole(self, key: str, low: int, high: int) -> int:
        """A metadata entry that must be a whole number in a range."""
        value = self.metadata.get(key, "")
        number = int(value) if re.fullmatch(r"[0-9]{1,12}", value, re.ASCII) else -1
        if not low <= number <= high:
            self.fail(f"{key!r} is {value[:40]!r}, it must be a number from {low} to {high}")
        return number

    def json_object(self, key: str) -> dict[str, Any]:
        """A metadata entry that must be a JSON object without NaN and infinities."""
        try:
            return parse_object(self.metadata.get(key, ""))
        except ValueError as error:
            self.fail(f"the metadata entry {key!r} is missing or {error}")

    def check_metadata(self) -> None:
        """No metadata entry may be absurdly long."""
        long = [key[:40] for key, value in self.metadata.items() if len(value) > MAX_METADATA]
        if long:
            self.fail(f"the metadata entries {long} are too long")


def read_content(path: Path, kind: Format, kinds: dict[str, Format]) -> Content:
    """Content of a file of one kind; the tensors are read only once kind and version are right.

    Args:
        kinds: all kinds by key, to say what a file of another kind is.

    Raises:
        FileError: for a file that cannot be opened, is damaged, of another kind, or newer.
    """
    _check_kind(read_head(path, kind.name), kind, kinds)
    return read_tensors(path, kind.name)


def read_head(path: Path, name: str) -> Content:
    """Metadata of a safetensors file, without its tensors.

    Args:
        name: what the file should be, for the messages.

    Raises:
        FileError: for a file that cannot be opened or is damaged, and for metadata of absurd length.
    """
    return _read(path, name, tensors=False)


def read_tensors(path: Path, name: str) -> Content:
    """Metadata and tensors of a safetensors file; arguments and errors are those of `read_head`."""
    return _read(path, name, tensors=True)


def check_file(path: Path, name: str) -> None:
    """A path must be that of a file of a sensible size.

    Raises:
        FileError: where it is not.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise FileError(
            f"{path}: cannot be opened ({error.strerror}); look at the name and the folder"
        ) from error
    if not path.is_file() or size > MAX_FILE_BYTES:
        raise FileError(f"{path}: is no {name}: it must be a file of at most {MAX_FILE_BYTES >> 30} GiB")


def _read(path: Path, name: str, tensors: bool) -> Content:
    check_file(path, name)
    try:
        with safe_open(path, framework="pt") as file:
            content = Content(path, file.metadata() or {}, {})
            content.check_metadata()
            if tensors:
                content.tensors.update((key, file.get_tensor(key)) for key in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FileError(
            f"{path}: is no safetensors file, or a damaged or truncated one ({error}); {_AGAIN}"
        ) from error
    return content


def _check_kind(head: Content, kind: Format, kinds: dict[str, Format]) -> None:
    found = head.metadata.get("format", "")
    if found != kind.key:
        what = f"a {kinds[found].name}" if found in kinds else "a safetensors file of another kind"
        raise FileError(f"{head.path}: is {what}, not a {kind.name}; choose a file of the right kind")
    version = head.whole("format_version", 1, 1 << 30)
    if version > kind.version:
        raise FileError(
            f"{head.path}: has format version {version}, this pack reads {kind.version}; update the pack"
        )

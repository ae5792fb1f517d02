"""Files of `torch.save`, which are pickles: read without running code of theirs, made into safetensors."""

import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from .atomic import atomic_path
from .file_checks import FileError
from .strict_json import parse_object

SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_SAFE = (2, 6)
"""Before torch 2.6 a crafted file could run code in spite of `weights_only=True`."""
_WRAPPERS = ("state_dict", "module", "model")
"""Under which training programs put the weights beside other things."""
_INDEX = "pytorch_model.bin.index.json"
_USUAL = ("pytorch_model.bin", "open_clip_pytorch_model.bin")


class Converted(NamedTuple):
    """What was written."""

    tensors: int
    left_out: list[str]
    """Names of what is no tensor."""


def load_pickle(path: Path) -> dict[str, Any]:
    """What a file of `torch.save` holds by name; no code of the file is run.

    Raises:
        FileError: for a file that is missing, damaged, or needs code to be run.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _SAFE:
        raise FileError(f"{path}: is read by torch 2.6 or newer only, which is safe from code in the file")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
            if size > os.path.getsize(path):  # torch does not compress
                raise FileError(f"{path}: unpacks to more than it is, which no file of torch.save does")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileError:
        raise
    except Exception as error:  # torch raises a dozen kinds for what is damaged or no plain tensor
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise FileError(
            f"{path}: is no file of plain tensors, or a damaged one ({reason}); "
            "files that need code to be run are not read"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise FileError(f"{path}: holds no tensors by name")
    return found


def is_plain(value: object) -> bool:
    """Whether it is a tensor that has all its memory: one may repeat it, and so claim a size that no file
    has."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def convert_pickle(source: Path, output: Path) -> Converted:
    """Write the weights in a pickled file, or in the parts of a Hugging Face folder, as one safetensors file;
    one that is there is replaced.

    Raises:
        FileError: as `load_pickle`, and for a source without tensors, or a folder with several files.
    """
    kept: dict[str, Tensor] = {}
    left_out: list[str] = []
    for path in _parts(source):
        for name, value in _weights(load_pickle(path)).items():
            if is_plain(value):
                kept[name] = value
            else:
                left_out.append(name)
    if not kept:
        raise FileError(f"{source}: holds no tensors by name")
    memory: set[int] = set()
    plain = {name: _own(tensor, memory) for name, tensor in kept.items()}
    with atomic_path(output) as temporary:
        save_file(plain, temporary, metadata={"format": "pt"})
    return Converted(len(plain), left_out)


def _weights(found: dict[str, Any]) -> dict[str, Any]:
    inner = next((found[name] for name in _WRAPPERS if isinstance(found.get(name), dict)), None)
    if inner is None or any(isinstance(value, Tensor) and value.ndim for value in found.values()):
        return found
    return {str(name): value for name, value in inner.items()}


def _own(tensor: Tensor, memory: set[int]) -> Tensor:
    """The tensor, copied where it shares its memory with others: safetensors keeps each by itself."""
    storage = tensor.untyped_storage()
    whole = tensor.is_contiguous() and storage.nbytes() == tensor.numel() * tensor.element_size()
    if whole and storage.data_ptr() not in memory:
        memory.add(storage.data_ptr())
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _parts(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise FileError(f"{source} is not there")
    if (source / _INDEX).is_file():
        try:
            index = parse_object((source / _INDEX).read_text(encoding="utf-8"))
            # The last part of a name alone: no way out of the folder.
            return [source / name for name in sorted({Path(n).name for n in index["weight_map"].values()})]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(f"{source / _INDEX} is no readable index ({error}): fetch it again") from error
    found = sorted(file for file in source.iterdir() if file.suffix in SUFFIXES)
    usual = [source / name for name in _USUAL if source / name in found]
    if len(usual or found) != 1:
        listed = ", ".join(file.name for file in found) or "none"
        raise FileError(f"{source}: expected one file of torch.save ({', '.join(SUFFIXES)}), found {listed}")
    return usual or found

"""Reading a text tower as it was published: a Hugging Face folder, or one safetensors file."""

from pathlib import Path
from typing import Any, NamedTuple

import comfy.utils
from torch import Tensor

from ...strict_json import parse_object
from ..errors import TextEncoderError
from ..folders import PACK_MODELS
from .scaled import with_scales

_NAMES = ("model.safetensors", "open_clip_model.safetensors", "model.fp16.safetensors")
"""The usual ones, the most exact first."""
_INDEX = "model.safetensors.index.json"


class Published(NamedTuple):
    """What is in a folder or a file."""

    path: Path
    """What the user chose."""
    weights: dict[str, Tensor]
    config: dict[str, Any]
    """Of its config.json; empty where there is none."""
    folders: tuple[Path, ...]
    """Where its tokenizer may be."""


def read_published(path: Path) -> Published:
    """Read a folder with weights (in it, or in its subfolder `text_encoder`) or one safetensors file.

    Beside a file `x.safetensors`, a folder `x` may hold its config.json and its tokenizer.

    Raises:
        TextEncoderError: for a folder without weights in safetensors, or a broken file.
    """
    folders = _folders(path)
    if path.is_file():
        return Published(path, read_weights(path), _read_config(path, folders), folders)
    parts = (path, path / "text_encoder")
    weights: dict[str, Tensor] = {}
    for file in _weight_files(path, parts):
        weights |= _read_tensors(file)
    return Published(path, with_scales(weights, path), _read_config(path, parts), folders)


def state_of(path: Path) -> str:
    """Changes whenever one of the files does that `read_published` and the tokenizer may read."""
    files = [path] if path.is_file() else []
    for folder in _folders(path):
        files += sorted(file for file in folder.glob("*") if file.is_file())
    states = ((file, file.stat()) for file in files)
    return " ".join(f"{file.name}:{state.st_mtime_ns}:{state.st_size}" for file, state in states)


def _folders(path: Path) -> tuple[Path, ...]:
    """Where a tower's tokenizer may be."""
    return (path.with_suffix(""),) if path.is_file() else (path, path / "tokenizer", path / "text_encoder")


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, with scales as `scaled.with_scales` gives them.

    Raises:
        TextEncoderError: for another kind of file, a broken one, or weights in an unknown form.
    """
    return with_scales(_read_tensors(path), path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        output = path.with_suffix(".safetensors")
        raise TextEncoderError(f"{path} is no safetensors file.{_how_to_convert(path, output)}")
    try:
        return comfy.utils.load_torch_file(str(path), safe_load=True)
    except Exception as error:  # safetensors and ComfyUI raise several kinds for a broken file
        raise TextEncoderError(
            f"{path} is truncated or no safetensors file ({error}): fetch it again."
        ) from error


def _weight_files(folder: Path, parts: tuple[Path, ...]) -> list[Path]:
    for part in parts:
        if (part / _INDEX).is_file():
            return _listed_files(part / _INDEX)
        found = sorted(part.glob("*.safetensors"))
        usual = [part / name for name in _NAMES if part / name in found]
        if usual or len(found) == 1:
            return (usual or found)[:1]
        if found:
            listed = ", ".join(file.name for file in found)
            raise TextEncoderError(
                f"{folder} holds several files of weights ({listed}): keep one of them, or name the right "
                "one model.safetensors."
            )
    pickled = next((file for part in parts for file in sorted(part.glob("*.bin"))), None)
    hint = _how_to_convert(pickled.parent, pickled.with_name("model.safetensors")) if pickled else ""
    raise TextEncoderError(f"{folder} lacks model.safetensors, a text encoder's weights.{hint}")


def _listed_files(index: Path) -> list[Path]:
    try:
        listed = _read_json(index)["weight_map"].values()
        # The last part of a name alone: no way out of the folder.
        return [index.parent / name for name in sorted({Path(name).name for name in listed})]
    except (KeyError, TypeError, AttributeError) as error:
        raise TextEncoderError(f"{index} lists no files of weights ({error}): fetch it again.") from error


def _how_to_convert(source: Path, output: Path) -> str:
    return (
        " Pickles (.bin, .pt) may run code when they are opened, so none is read here. This converts one "
        f"without running any, with ComfyUI's Python in {PACK_MODELS.parent}: "
        f'python -m culture_core convert "{source}" --to safetensors --output "{output}"'
    )


def _read_config(source: Path, folders: tuple[Path, ...]) -> dict[str, Any]:
    """The text model's part of the config.json."""
    path = next((folder / "config.json" for folder in folders if (folder / "config.json").is_file()), None)
    if path is None:
        return {}
    config = _read_json(path)
    inner = config.get("text_config")
    return config | inner if isinstance(inner, dict) else config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return parse_object(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TextEncoderError(f"{path} is not readable JSON ({error}): fetch the folder again.") from error

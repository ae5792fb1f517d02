"""Writing the pack's files into ComfyUI's output folder, and nowhere else."""

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import folder_paths
from torch import Tensor

from ..files import CultureSAE, EnhancerFile, save_culture_sae, save_enhancer
from ..previews import encode_preview
from ..sheets import picture_grid
from .folders import output_folder
from .inputs import expect
from .pictures import pil_images

CHECKPOINTS = "culture_checkpoints"
"""Folder for unfinished trainings; no loader node lists it."""
NAME_BYTES = 200
"""A name may have 255 on most disks, with the number behind it."""
_PLAIN_NAME = re.compile(r"\w[\w .-]{0,99}")


def save_to_output(
    item: CultureSAE | EnhancerFile,
    prefix: str,
    author: str = "",
    licence: str = "",
    description: str = "",
    preview: Tensor | None = None,
) -> Path:
    """Write a culture SAE or a layer enhancer under the next free number; returns where.

    Args:
        prefix: name before the number, with subfolders and ComfyUI's `%year%` and the like if wanted.
        author: this and the other texts replace what the item says of itself, unless they are empty.
        preview: an IMAGE that replaces the item's preview; several pictures become one sheet.

    Raises:
        ValueError: for a prefix that is no file name or leads out of the folder, or a preview
            that is too large.
        FileError: where the content is damaged or cannot be written.
    """
    kind = "culture_sae" if isinstance(item, CultureSAE) else "culture_enhancer"
    if kind == "culture_enhancer":
        expect(item, EnhancerFile, "Load Layer Enhancer, Load Culture SAE or a node that makes one")
    _check_prefix(prefix)
    root = output_folder(kind)
    folder, name, number, *_ = folder_paths.get_save_image_path(prefix, str(root))
    if not Path(folder).resolve().is_relative_to(root.resolve()):
        raise ValueError(f"The folder {folder} is a link out of {root}: choose another prefix.")
    given = {"author": author.strip(), "licence": licence.strip(), "description": description.strip()}
    changes: dict[str, Any] = {field: text for field, text in given.items() if text}
    if preview is not None:
        changes["preview"] = encode_preview(picture_grid(pil_images(preview)))
    path = Path(folder) / f"{name}_{number:05}_.safetensors"
    if isinstance(item, CultureSAE):
        return save_culture_sae(replace(item, **changes), path)
    return save_enhancer(replace(item, **changes), path)


def checkpoint_path(name: str) -> Path | None:
    """Where the checkpoint of that name is kept; None for no name.

    Raises:
        ValueError: for a name that is not plain.
    """
    plain = name.strip().removesuffix(".safetensors")
    if not plain:
        return None
    if not _PLAIN_NAME.fullmatch(plain) or len(plain.encode()) > NAME_BYTES:
        raise ValueError(
            f"The checkpoint name {name!r} is no plain file name: use letters, digits, spaces, dots, - "
            f"and _, start with a letter or digit, and keep to 100 letters (or {NAME_BYTES} bytes). It is "
            f"kept in the output folder, under {CHECKPOINTS}."
        )
    return output_folder(CHECKPOINTS) / f"{plain}.safetensors"


def _check_prefix(prefix: str) -> None:
    parts = re.split(r"[\\/]", prefix)
    away = PurePosixPath(prefix).is_absolute() or bool(PureWindowsPath(prefix).anchor) or ".." in parts
    long = len(prefix.encode("utf-8", "replace")) > NAME_BYTES
    if away or long or not parts[-1].strip(" .") or not prefix.isprintable():
        shown = f"{prefix[:60]!r}{'…' if len(prefix) > 60 else ''}"
        raise ValueError(
            f"The filename prefix {shown} cannot be used: write a name such as 'my-culture' or "
            f"'folder/my-culture', of {NAME_BYTES} bytes at most; the file stays inside the output folder."
        )

"""Where ComfyUI finds the pack's files."""

from contextlib import suppress
from pathlib import Path

import folder_paths

from ..embedded_encoder import ENCODER_NAME

PACK_MODELS = Path(__file__).resolve().parents[2] / "models"
OWN_KINDS = {
    "culture_sae": ".safetensors",
    "culture_enhancer": ".safetensors",
    "culture_pairs": ".jsonl",
    "culture_adapters": ".safetensors",
}
"""Folders of ComfyUI's `models` that belong to this pack, with the extension of their files."""
SAVED_KINDS = ("culture_sae", "culture_enhancer")
"""Kinds that nodes write, into folders of these names in ComfyUI's output folder."""


def register_model_folders() -> None:
    """Make ComfyUI look for this pack's kinds of files in `models/<kind>`, for all kinds in the pack's
    `models`, and for those that nodes save where they are saved.

    Folders that the user set in `extra_model_paths.yaml` stay, and stay first.
    """
    for kind, extension in OWN_KINDS.items():
        folder_paths.add_model_folder_path(kind, str(Path(folder_paths.models_dir) / kind))
        # An empty set of extensions would list every file.
        paths, extensions = folder_paths.folder_names_and_paths[kind]
        folder_paths.folder_names_and_paths[kind] = (paths, set(extensions) | {extension})
    for folder in sorted(PACK_MODELS.iterdir()) if PACK_MODELS.is_dir() else []:
        if folder.is_dir() and folder.name in folder_paths.folder_names_and_paths:
            folder_paths.add_model_folder_path(folder.name, str(folder))
    for kind in SAVED_KINDS:
        folder_paths.add_model_folder_path(kind, str(output_folder(kind)))


def output_folder(name: str) -> Path:
    """A folder in ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory()) / name


def model_files(kind: str) -> list[str]:
    """Names of the files of one kind, as a node's combo shows them."""
    return folder_paths.get_filename_list(kind)


def model_path(kind: str, name: str) -> Path:
    """Where the file is.

    Raises:
        FileNotFoundError: where no folder of that kind has it.
    """
    found = folder_paths.get_full_path(kind, name) if isinstance(name, str) else None
    if found is None:
        folders = " or ".join(folder_paths.get_folder_paths(kind))
        raise FileNotFoundError(
            f"'{name}' is not there: put it into {folders}, and press R to refresh the list."
        )
    return Path(found)


def file_state(path: Path) -> str:
    """Changes whenever the file does; what a loader node gives ComfyUI's cache."""
    state = path.stat()
    return f"{state.st_mtime_ns}:{state.st_size}"


def text_encoder_folders() -> list[str]:
    """Names of the Hugging Face folders under `models/text_encoders`, and of the examples' one,
    which a command fetches."""
    found = {ENCODER_NAME}
    for root in map(Path, folder_paths.get_folder_paths("text_encoders")):
        if root.is_dir():
            found.update(folder.name for folder in root.iterdir() if _holds_encoder(folder))
    return sorted(found)


def text_encoder_names() -> list[str]:
    """Names of the folders, and of the single files beside them."""
    files = folder_paths.get_filename_list("text_encoders")
    return text_encoder_folders() + [name for name in files if Path(name).name == name and _is_weights(name)]


def text_encoder_path(name: str) -> Path:
    """The folder or the single file of a text encoder.

    Raises:
        FileNotFoundError: for one that is missing; the message says how to get the examples' one.
    """
    return model_path("text_encoders", name) if _is_weights(str(name)) else text_encoder_folder(str(name))


def text_encoder_folder(name: str) -> Path:
    """The folder of a text encoder. Nothing is downloaded: a graph may come from a stranger.

    Raises:
        FileNotFoundError: for a folder that is missing; the message says how to get the examples' one.
    """
    roots = [Path(root) for root in folder_paths.get_folder_paths("text_encoders")]
    if Path(name).name == name:  # a name only, no way out of the folders
        for root in roots:
            with suppress(OSError, ValueError):  # a name that no file can have
                if _holds_encoder(root / name):
                    return root / name
    searched = " or ".join(map(str, roots))
    hint = (
        f" Fetch it with `python -m culture_core fetch-encoder`, run with ComfyUI's Python in "
        f"{PACK_MODELS.parent}."
        if name == ENCODER_NAME
        else ""
    )
    raise FileNotFoundError(f"There is no folder '{name}' with a text encoder in {searched}.{hint}")


def _holds_encoder(folder: Path) -> bool:
    """Whether it is a Hugging Face folder of one model, a diffusers folder of a pipeline, or open_clip's."""
    patterns = ("config.json", "*.safetensors")
    return any(any(part.glob(name)) for part in (folder, folder / "text_encoder") for name in patterns)


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors")

"""What commands share: reading an encoder, progress bars, refusing to overwrite."""

import argparse
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from ..encoders import HFTextEncoder


class CommandError(ValueError):
    """A command that cannot be carried out; the message says why and what to do."""


def add_encoder_arguments(parser: argparse.ArgumentParser) -> None:
    """Which text encoder; `read_encoder` loads it."""
    parser.add_argument(
        "--encoder", type=Path, required=True, metavar="FOLDER",
        help="text encoder, a Hugging Face folder (config.json, model.safetensors, tokenizer files)",
    )  # fmt: skip
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="tokens a chunk (the model's usual length)"
    )
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, cuda:1 … (%(default)s)")


def read_encoder(options: argparse.Namespace) -> HFTextEncoder:
    """The encoder that the options name. Nothing is downloaded, no code of the folder is run.

    Raises:
        CommandError: for a folder that is missing or holds no text encoder that the library knows.
    """
    from transformers import AutoModel, AutoTokenizer, CLIPTextModel

    folder = options.encoder
    if not (folder / "config.json").is_file():
        raise CommandError(f"{folder} is no Hugging Face folder: it has no config.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise CommandError(f"{folder} cannot be loaded: {error}") from error
    if hasattr(model, "text_model") and not isinstance(model, CLIPTextModel):
        model = CLIPTextModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return HFTextEncoder(model.to(options.device), tokenizer, options.max_length)


def progress_bar(label: str, unit: str) -> Callable[..., None]:
    """A callback (done, total, …) that moves a bar on stderr; a third argument is shown as the loss."""
    bar: tqdm | None = None

    def report(done: int, total: int, loss: float | None = None) -> None:
        nonlocal bar
        bar = bar if bar is not None else tqdm(total=total, desc=label, unit=unit, leave=False)
        bar.update(done - bar.n)
        if loss is not None:
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        if done >= total:
            bar.close()

    return report


def new_file(path: Path, overwrite: bool) -> Path:
    """A path to write to.

    Raises:
        CommandError: where a file is there already and may not be replaced, or the folder is missing.
    """
    if path.exists() and not overwrite:
        raise CommandError(f"{path} is there already: choose another name, or add --overwrite")
    if not path.parent.is_dir():
        raise CommandError(f"the folder {path.parent} is not there: make it first")
    return path

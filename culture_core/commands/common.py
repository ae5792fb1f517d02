"""What commands share: reading an encoder, progress bars, refusing to overwrite.

Nothing heavy is imported before a command runs, so that help is instant.
"""

import argparse
import atexit
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..atomic import atomic_path

if TYPE_CHECKING:
    from accelerate import Accelerator
    from PIL import Image
    from torch import Tensor, nn

    from ..encoders import HFTextEncoder

FEATURES = ("attention_output", "hidden_state")
"""As `culture_core.encoders.FEATURES`, without importing it."""

_CLASSES = {
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
}
"""transformers' class of the text encoder alone, where `AutoModel` gives more, by `model_type`."""
_AS_SAVED = ("CLIPTextModelWithProjection", "Gemma3ForCausalLM")
"""Classes that a folder must be read with if it was saved from them: the first projects what it pools, and
the weights of the second have names that the bare model does not know."""


class CommandError(ValueError):
    """A command that cannot be carried out; the message says why and what to do."""


class UsageError(CommandError):
    """Arguments that do not go together."""


def add_encoder_arguments(parser: argparse._ActionsContainer, required: bool = True) -> None:
    """Which text encoder; `read_encoder` loads it."""
    parser.add_argument(
        "--encoder", type=Path, required=required, metavar="FOLDER",
        help="text encoder, a Hugging Face folder (config.json, model.safetensors, tokenizer files)",
    )  # fmt: skip
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="tokens a chunk (the model's usual length)"
    )
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, cuda:1 … (%(default)s)")


def add_layer_arguments(parser: argparse._ActionsContainer, required: bool = True) -> None:
    """Which feature of which layer."""
    parser.add_argument(
        "--layer", type=int, required=required, metavar="N", help="layer, from 0; `probe` names a good one"
    )
    parser.add_argument(
        "--feature", choices=FEATURES, required=required,
        help="what to decompose: what the layer's attention block adds, or what leaves the whole layer; the "
        "hidden state usually carries more of a culture",
    )  # fmt: skip


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """What a shared file says of itself."""
    parser.add_argument("--author", default="", help="who made it, kept in the file")
    parser.add_argument("--licence", default="", help="what others may do with it, kept in the file")
    parser.add_argument("--description", default="", help="what it is for, kept in the file")


def add_overwrite_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace what is at the output already")


def positive(text: str) -> int:
    """For argparse: a whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small: give 1 or more")
    return number


def read_encoder(options: argparse.Namespace) -> "HFTextEncoder":
    """The encoder that the options name. Nothing is downloaded, no code of the folder is run.

    Raises:
        CommandError: for a folder that is missing or holds no text encoder that the library knows.
    """
    from ..encoders import HFTextEncoder

    model, tokenizer = _load(options.encoder)
    try:
        model = model.to(options.device)
    except (RuntimeError, AssertionError) as error:  # torch's ways to say that there is no such device
        raise CommandError(f"--device {options.device} cannot be used here: {error}") from error
    return HFTextEncoder(model, tokenizer, options.max_length)


def _load(folder: Path) -> tuple["nn.Module", Callable[..., Any]]:
    """The text model of a Hugging Face folder, without heads, and its tokenizer."""
    import transformers

    if not (folder / "config.json").is_file():
        raise CommandError(f"{folder} is no Hugging Face folder: it has no config.json")
    transformers.utils.logging.set_verbosity_error()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, found = getattr(transformers, _model_class(config)).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # transformers raises a dozen kinds for a damaged folder
        raise CommandError(f"{folder} cannot be loaded: {error}") from error
    # Without a warning, transformers makes up what is missing. No encoder here uses a pooler.
    missing = sorted(key for key in found["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise CommandError(f"{folder} lacks weights of its text encoder: {', '.join(missing[:3])} …")
    return model.model if hasattr(model, "lm_head") else model, tokenizer


def _model_class(config: Any) -> str:
    saved = next((name for name in _AS_SAVED if name in (config.architectures or ())), None)
    return saved or _CLASSES.get(config.model_type, "AutoModel")


def processes(options: argparse.Namespace) -> "Accelerator | None":
    """Accelerate of a run that was started in several processes, None of any other; `options.device` becomes
    this process's.

    Raises:
        CommandError: where Accelerate is missing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise CommandError("several processes need the package accelerate: pip install accelerate") from error
    accelerator = Accelerator(cpu=options.device == "cpu")
    # An interpreter that ends while the group's threads run may abort.
    atexit.register(accelerator.end_training)
    options.device = str(accelerator.device)
    return accelerator


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


def new_picture(path: Path | None, overwrite: bool) -> Path | None:
    """A path to write a picture to, where one is wanted.

    Raises:
        CommandError: as `new_file`, and for a name that does not end in .png.
    """
    if path is not None and path.suffix.lower() != ".png":
        raise CommandError(f"{path}: the name of a picture must end in .png")
    return None if path is None else new_file(path, overwrite)


def write_picture(path: Path, picture: "Image.Image") -> None:
    """Write a PNG file; it appears whole or not at all."""
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def numbers(values: "Tensor") -> Any:
    """A tensor as nested lists that JSON can hold: what is not finite is None."""
    if values.dim() == 0:
        value = values.item()
        return value if math.isfinite(value) else None
    return [numbers(value) for value in values]


def add_picture_argument(parser: argparse.ArgumentParser) -> None:
    """A folder for pictures: `picture_folder` checks it, `write_pictures` fills it."""
    parser.add_argument("--picture", type=Path, metavar="FOLDER", help="folder to draw pictures into (PNG)")


def picture_folder(folder: Path | None, overwrite: bool) -> None:
    """See that pictures can go into a folder, before the work is done that they show.

    Raises:
        CommandError: where it holds pictures that may not be replaced.
    """
    if folder is not None and not overwrite and any(folder.glob("*.png")):
        raise CommandError(f"{folder} has pictures already: choose another folder, or add --overwrite")


def write_pictures(folder: Path | None, pictures: "Mapping[str, Image.Image]") -> list[str]:
    """Write pictures as PNG files into a folder, which is made where it is missing; returns their paths.

    Args:
        pictures: by file name without ending.
    """
    if folder is None:
        return []
    paths = [folder / f"{name}.png" for name in pictures]
    for path, picture in zip(paths, pictures.values(), strict=True):
        write_picture(path, picture)
    return [str(path) for path in paths]

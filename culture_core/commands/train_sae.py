"""Train a sparse autoencoder (SAE) on one layer of a text encoder.

This comes after `probe`, which names the layer, and before `detect`, which finds the neurons of cultures
among the SAE's latents. Until then the file holds no cultures. The SAE learns from what the encoder makes of
the words of prompts: give prompt pairs, plain texts with one prompt a line, or both. More and more varied
text is better; a few thousand words are only memorised. Pairs of the splits "test", "unseen" and
"neuron_detection" are left out, and lines of the texts that are one of their prompts with them.

  python -m culture_core train-sae --encoder models/text_encoders/multilingual-e5-small \\
      --pairs models/culture_pairs/miniature.jsonl --texts captions.txt \\
      --layer 11 --feature hidden_state --output thai.safetensors

Ctrl-C keeps what has been learnt in a checkpoint beside the output, and the same command takes the run up
from there. It ends as the undisturbed run does. The checkpoint is deleted when the SAE is written.

Features that outgrow memory: --store FOLDER writes them to disk as they come (again resumable), and trains
from there. Several GPUs: `accelerate launch -m culture_core train-sae …`; each process takes a part of every
batch, and the first one alone writes.

What the numbers mean:
  variance left unexplained (FVU)  0: the SAE rebuilds every vector, 1: no better than the mean. Far higher on
                                   held-out prompts than in training: the SAE memorises, give it more text.
  dead latents                     nothing activates them: too many latents for the data.
  dense latents                    more than half of the vectors activate them: they tell nothing apart.
"""

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import (
    CommandError,
    UsageError,
    add_encoder_arguments,
    add_file_arguments,
    add_layer_arguments,
    add_overwrite_argument,
    new_file,
    new_picture,
    processes,
    progress_bar,
    read_encoder,
    write_picture,
)

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from ..encoders import HFTextEncoder
    from ..sae import FeatureStore, SAEConfig, SAEReport, TopKSAE

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder_arguments(parser)
    parser.add_argument(
        "--pairs", type=Path, nargs="+", default=[], metavar="FILE", help="prompt pairs, JSONL"
    )
    parser.add_argument(
        "--texts", type=Path, nargs="+", default=[], metavar="FILE.txt", help="prompts, one a line, UTF-8"
    )
    add_layer_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors", help="where to")
    parser.add_argument(
        "--preset", choices=("auxk", "sparsity"), default="auxk",
        help="the paper's sparsity coefficient 1/32 read as weight of the loss that revives dead latents, "
        "with k = 32, or as share of active latents, with k = 128 (%(default)s)",
    )  # fmt: skip
    for name, kind, text in (
        ("latents", int, "number of latents (4096)"),
        ("k", int, "latents that may be active at once (the preset's)"),
        ("steps", int, "training steps (2000)"),
        ("batch-size", int, "vectors a step (256)"),
        ("learning-rate", float, "of AdamW, constant (0.0004)"),
        ("seed", int, "of all random numbers; the same seed gives the same SAE (0)"),
    ):
        parser.add_argument(f"--{name}", type=kind, metavar="N", help=text)
    parser.add_argument(
        "--revival", choices=("auxk", "restart", "none"),
        help="what is done for dead latents: a loss of their own, a new start at what is explained worst, or "
        "nothing (the preset's)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16", "float16"),
        help="what is multiplied in; bfloat16 is fast on GPUs (float32)",
    )  # fmt: skip
    parser.add_argument(
        "--store", type=Path, metavar="FOLDER", help="keep the features in this folder, not in memory"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="where an interrupted run is kept (beside the output)"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the loss over the steps")
    add_file_arguments(parser)
    add_overwrite_argument(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..files import CultureSAE, save_culture_sae
    from ..reports import loss_picture, training_figures

    config = _config(options)
    output, picture, checkpoint = _outputs(options)
    texts, left_out = _texts(options)
    accelerator = processes(options)
    encoder = read_encoder(options)
    features, prompts = _features(encoder, texts, options, accelerator)
    sae, report, resumed = _train(features, prompts, config, checkpoint, options.device, accelerator)
    figures = training_figures(report, config)
    culture_sae = CultureSAE(
        sae.cpu().requires_grad_(False), options.layer, options.feature, encoder.fingerprint(),
        training=figures | {"prompts": len(texts)}, author=options.author, licence=options.licence,
        description=options.description,
    )  # fmt: skip
    if accelerator is None or accelerator.is_main_process:
        if picture is not None:
            write_picture(picture, loss_picture(report.losses))
        save_culture_sae(culture_sae, output, options.overwrite)  # last: a run whose output is there is done
        checkpoint.unlink(missing_ok=True)
    return {
        "output": str(output), "picture": None if picture is None else str(picture),
        "encoder": encoder.info.family, "layer": options.layer, "feature": options.feature,
        "latents": config.n_latents, "k": config.k, "steps": len(report.losses), "resumed_after": resumed,
        "loss": report.losses[-1], "prompts": len(texts), "figures": figures, "warnings": report.warnings,
        "processes": 1 if accelerator is None else accelerator.num_processes, "left_out": left_out,
    }  # fmt: skip


def describe(result: dict[str, Any]) -> str:
    from ..reports import training_summary

    resumed = f", taken up after step {result['resumed_after']}" if result["resumed_after"] else ""
    lines = [
        f"{result['output']}: {result['latents']} latents, {result['k']} active at once, of layer "
        f"{result['layer']}, {result['feature']} ({result['encoder']})",
        f"{result['steps']} steps{resumed}, last loss {result['loss']:.4f}, {result['prompts']} prompts",
        *training_summary(result["figures"], result["warnings"]),
        *filter(None, [result["left_out"]]),
    ]
    if result["picture"]:
        lines.append(f"The loss is drawn in {result['picture']}")
    return "\n".join([*lines, "Next: find the neurons of cultures with `detect`."])


def _config(options: argparse.Namespace) -> "SAEConfig":
    from ..sae import PAPER_PRESETS

    names = {
        "n_latents": "latents", "k": "k", "steps": "steps", "batch_size": "batch_size",
        "learning_rate": "learning_rate", "seed": "seed", "revival": "revival", "precision": "precision",
    }  # fmt: skip
    given = {field: getattr(options, name) for field, name in names.items()}
    return replace(PAPER_PRESETS[options.preset], **{k: v for k, v in given.items() if v is not None})


def _outputs(options: argparse.Namespace) -> tuple[Path, Path | None, Path]:
    """Output, picture and checkpoint; what would only fail after the training fails now."""
    if options.output.suffix.lower() != ".safetensors":
        raise CommandError(f"{options.output}: the name must end in .safetensors")
    output = new_file(options.output, options.overwrite)
    checkpoint = options.checkpoint or output.with_suffix(".checkpoint.safetensors")
    if checkpoint.resolve() == output.resolve():
        raise UsageError("--checkpoint and --output are the same file: the checkpoint is deleted in the end")
    again = options.overwrite or checkpoint.is_file()
    return output, new_picture(options.picture, again), checkpoint


def _texts(options: argparse.Namespace) -> tuple[list[str], str]:
    """(texts, what is said of pairs that may not be trained on)."""
    from ..pairs import load_pairs
    from ..reports import training_texts
    from ..splits import SAE_TRAINING, left_out

    if not options.pairs and not options.texts:
        raise UsageError("give prompts to learn from: --pairs, --texts or both")
    pairs = [pair for path in options.pairs for pair in load_pairs(path)]
    lines = []
    for path in options.texts:
        try:
            lines += path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{path}: cannot be read as a UTF-8 text file ({error})") from error
    texts = training_texts(pairs, lines)
    if not texts:
        raise CommandError("there is no prompt in these files: write one a line")
    return texts, left_out(pairs, SAE_TRAINING)


def _features(
    encoder: "HFTextEncoder", texts: list[str], options: argparse.Namespace, accelerator: "Accelerator | None"
) -> tuple["Tensor | FeatureStore", "Tensor | None"]:
    """The features at all content tokens, and which prompt each is of, which a store knows by itself."""
    from ..features import content_features, write_features

    bar = progress_bar("reading", "prompt")

    def progress(done: int) -> None:
        if accelerator is None or accelerator.is_main_process:
            bar(done, len(texts))

    place = (encoder, texts, options.layer, options.feature)
    if options.store is None:
        return content_features(*place, progress)
    if accelerator is None:
        return write_features(*place, options.store, progress=progress), None
    # One process writes, the others open what is there then.
    with accelerator.main_process_first():
        return write_features(*place, options.store, progress=progress), None


def _train(
    features: "Tensor | FeatureStore",
    prompts: "Tensor | None",
    config: "SAEConfig",
    checkpoint: Path,
    device: str,
    accelerator: "Accelerator | None",
) -> tuple["TopKSAE", "SAEReport", int]:
    """(SAE, report, steps that a checkpoint had done before)."""
    from ..sae import train_sae

    bar, before = progress_bar("training", "step"), None

    def progress(done: int, total: int, loss: float) -> None:
        nonlocal before
        before = done - 1 if before is None else before
        bar(done, total, loss)

    try:
        sae, report = train_sae(features, config, prompts, progress, checkpoint, device, accelerator)
    except KeyboardInterrupt:
        if checkpoint.is_file():
            log.error("The run is kept in %s: the same command goes on from there.", checkpoint)
        raise
    # A checkpoint may hold the whole run.
    return sae, report, len(report.losses) if before is None else before

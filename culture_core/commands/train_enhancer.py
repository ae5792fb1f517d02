"""Train a layer enhancer on pictures of a culture, with a diffusers pipeline.

The enhancer is a small network behind one layer of the text encoder (find the layer with `probe`). It learns
from pairs of a neutral prompt ("a chair") and a picture that shows the culture (a Thai chair): the prompt
goes in, the picture is what the image model shall then see in the noise. Nothing but the enhancer changes.

  python -m culture_core train-enhancer --pipeline models/stable-diffusion-v1-5 --pairs thai/pairs.jsonl \\
      --layer 9 --output thai.safetensors --device cuda --precision bfloat16 --gradient-checkpointing \\
      --validate-every 500 --validation sheets --dry-run

Begin with --dry-run: it measures the memory and time of a step and says what to change where it will not
fit. The pairs are a JSONL file as for `probe`, each with "image", a path relative to that file. Pairs of the
split "validation" are not trained on; their prompts are what the validation sheets show. Pairs of the splits
"test", "unseen" and "neuron_detection" are left out. Give pairs of other languages or subjects with plain
pictures too, or the enhancer colours everything.

Losses, all at a random noise level, without sampling a whole picture:
  pixel    the model's one-step guess, decoded, against the picture: the paper's; takes most memory
  latent   the same before decoding
  denoise  what the image model itself was trained with (noise, velocity or flow)

Pipelines of Stable Diffusion 1, 2, XL and 3, Flux and AltDiffusion, as folders on disk with safetensors.
Where a pipeline has several text encoders, --encoder-name says which one.

Ctrl-C keeps what has been learnt in a checkpoint beside the output, and so does a crash, at the latest
--checkpoint-every steps ago; the same command takes the run up from there and ends as the undisturbed run
does. The checkpoint is deleted when the enhancer is written. Several GPUs: `accelerate launch -m culture_core
train-enhancer …`; each process takes batches of its own, and the first one alone writes.
"""

import argparse
import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import atomic_path
from .common import (
    CommandError,
    UsageError,
    add_file_arguments,
    add_overwrite_argument,
    new_file,
    new_picture,
    picture_folder,
    positive,
    processes,
    progress_bar,
    write_picture,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..enhancer import EnhancerConfig, EnhancerReport, LayerEnhancer
    from ..enhancer_training import ImageModel, ImagePairs, Place, Validation

log = logging.getLogger(__name__)

_LOSSES = ("pixel", "latent", "denoise")
_PRECISIONS = ("float32", "bfloat16", "float16")
_HALF_SCALE = 2.0**14
"""Of the loss in float16."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pipeline", type=Path, required=True, metavar="FOLDER", help="diffusers pipeline (model_index.json)"
    )
    parser.add_argument(
        "--pairs", type=Path, required=True, metavar="FILE", help="prompt pairs with pictures, JSONL"
    )
    parser.add_argument(
        "--layer", type=int, required=True, metavar="N", help="layer, from 0; `probe` names a good one"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors", help="where to")
    parser.add_argument(
        "--encoder-name", default="text_encoder", metavar="NAME",
        help="which of the pipeline's text encoders, such as text_encoder_2 (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--loss", choices=_LOSSES, default="pixel", help="see above (%(default)s)")
    parser.add_argument("--steps", type=positive, default=2000, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--learning-rate", type=float, default=5e-5, metavar="X", help="of AdamW, constant (%(default)s)"
    )
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N", help="pictures (%(default)s)")
    parser.add_argument(
        "--accumulate", type=positive, default=1, metavar="N", help="batches a step (%(default)s)"
    )
    parser.add_argument(
        "--ema", type=float, metavar="X", help="the enhancer ends as a moving average of this decay, 0.99 say"
    )
    parser.add_argument(
        "--bottleneck", type=positive, metavar="N", help="inner width (a quarter of the encoder's)"
    )
    parser.add_argument(
        "--size",
        type=positive,
        metavar="N",
        help="edge of the pictures, pixels (what the model was made for)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    parser.add_argument(
        "--precision", choices=_PRECISIONS, default="float32",
        help="of the frozen models; the enhancer and the VAE's weights keep float32 (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--gradient-checkpointing", action="store_true", help="less memory for a third more time"
    )
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, cuda:1 … (%(default)s)")
    parser.add_argument(
        "--latents", type=Path, metavar="FOLDER", help="keep the pictures' latents here, not in memory"
    )
    parser.add_argument(
        "--validation", type=Path, metavar="FOLDER",
        help="draw pictures here, without the enhancer and with it as it is then (not its moving average)",
    )  # fmt: skip
    parser.add_argument(
        "--validate-every", type=positive, default=500, metavar="N", help="steps between (%(default)s)"
    )
    parser.add_argument(
        "--validation-prompts", type=positive, default=4, metavar="N", help="prompts a sheet (%(default)s)"
    )
    parser.add_argument(
        "--sampling-steps", type=positive, default=25, metavar="N", help="of those pictures (%(default)s)"
    )
    parser.add_argument(
        "--log", type=Path, metavar="FILE.jsonl", help="loss of every step (beside the output)"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the loss over the steps")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="where an interrupted run is kept (beside the output)"
    )
    parser.add_argument(
        "--checkpoint-every", type=positive, default=100, metavar="N", help="steps between (%(default)s)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="report memory and time of a step, and write nothing"
    )
    add_file_arguments(parser)
    add_overwrite_argument(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..enhancer import LayerEnhancer
    from ..enhancer_training import ImagePairs, Place, load_image_pairs
    from ..files import EnhancerFile, save_enhancer
    from ..pipelines import named_encoder
    from ..reports import loss_picture

    config = _config(options)
    output, checkpoint, log_path, picture = _outputs(options)
    training, held, left_out = load_image_pairs(options.pairs)
    accelerator = processes(options)
    model = _model(options)
    encoder = named_encoder(model.pipe, options.encoder_name)
    if not 0 <= options.layer < encoder.info.layers:
        raise CommandError(
            f"--layer {options.layer} is not there: {options.encoder_name} has the layers 0 to "
            f"{encoder.info.layers - 1}"
        )
    place = Place(encoder, options.layer)
    size = options.size or model.size
    pairs = ImagePairs(training, options.pairs.parent, model, size, options.latents)
    width = encoder.info.width
    enhancer = LayerEnhancer(width, options.bottleneck or max(1, width // 4), options.seed).to(model.device)
    _encode(pairs, options, accelerator)
    if options.dry_run:
        return _dry_run(enhancer, model, place, pairs, config, options)
    main = accelerator is None or accelerator.is_main_process
    validation = _validation(model, place, held or pairs.pairs, size, options) if main else None
    report, resumed = _train(
        enhancer, model, place, pairs, config, options, checkpoint, log_path, validation, accelerator
    )
    figures = {
        "loss": options.loss, "last_loss": report.losses[-1], "config": asdict(config),
        "parameters": report.parameters, "pictures": len(pairs), "data_hash": pairs.digest(), "size": size,
        "batch_size": options.batch_size, "precision": options.precision,
        "pipeline": type(model.pipe).__name__, "encoder": options.encoder_name,
        "processes": 1 if accelerator is None else accelerator.num_processes,
    }  # fmt: skip
    if main:
        file = EnhancerFile(
            enhancer.cpu().requires_grad_(False), options.layer, encoder.fingerprint(), training=figures,
            author=options.author, licence=options.licence, description=options.description,
        )  # fmt: skip
        if picture is not None:
            write_picture(picture, loss_picture(report.losses, title="Enhancer training"))
        save_enhancer(file, output, options.overwrite)  # last: a run whose output is there is done
        checkpoint.unlink(missing_ok=True)
    return {
        "output": str(output), "picture": picture and str(picture), "log": str(log_path),
        "validation": options.validation and str(options.validation), "layer": options.layer,
        "steps": len(report.losses), "resumed_after": resumed, "loss": report.losses[-1], "figures": figures,
        "left_out": left_out,
    }  # fmt: skip


def describe(result: dict[str, Any]) -> str:
    if "memory" in result:
        return _describe_cost(result)
    figures = result["figures"]
    resumed = f", taken up after step {result['resumed_after']}" if result["resumed_after"] else ""
    lines = [
        f"{result['output']}: enhancer of layer {result['layer']} of {figures['encoder']}, "
        f"{figures['parameters']:,} parameters",
        f"{result['steps']} steps{resumed} on {figures['pictures']} pictures of {figures['size']} pixels, "
        f"last loss ({figures['loss']}) {result['loss']:.4f}",
        f"The loss of every step is in {result['log']}",
    ]
    if result["left_out"]:
        lines.append(result["left_out"])
    if result["picture"]:
        lines.append(f"The loss is drawn in {result['picture']}")
    if result["validation"]:
        lines.append(f"Pictures with and without the enhancer are in {result['validation']}")
    return "\n".join([*lines, "Next: use it with the node Apply Layer Enhancer, or culture_core.pipelines."])


def _describe_cost(result: dict[str, Any]) -> str:
    memory = result["memory"]
    lines = [
        f"Models, frozen             {_size(memory['frozen'])}",
        f"Enhancer and its optimiser {_size(memory['trained'])}",
        f"Activations of a step      {_size(memory['activations'])}",
    ]
    if memory["peak"] is not None:
        lines.append(f"Most in use at once        {_size(memory['peak'])}")
    if memory["capacity"] is not None:
        lines.append(f"Memory of the device       {_size(memory['capacity'])}")
    lines.append(
        f"A step takes {result['seconds_per_step']:.3g} s, the {result['steps']} steps "
        f"{result['seconds_per_step'] * result['steps'] / 60:.1f} min, validation aside"
    )
    lines.append("It fits." if result["fits"] else "It does not fit. What helps most, first:")
    return "\n".join([*lines, *(f"  {text}" for text in result["advice"])])


def _size(count: int) -> str:
    return f"{count / 2**20:11,.1f} MiB"


def _config(options: argparse.Namespace) -> "EnhancerConfig":
    from ..enhancer import EnhancerConfig

    return EnhancerConfig(
        learning_rate=options.learning_rate, steps=options.steps, accumulate=options.accumulate,
        ema=options.ema, checkpoint_every=options.checkpoint_every, seed=options.seed,
        loss_scale=_HALF_SCALE if options.precision == "float16" else 1.0,
    )  # fmt: skip


def _outputs(options: argparse.Namespace) -> tuple[Path, Path, Path, Path | None]:
    """Output, checkpoint, log and picture; what would only fail after the training fails now."""
    if options.output.suffix.lower() != ".safetensors":
        raise CommandError(f"{options.output}: the name must end in .safetensors")
    output = new_file(options.output, options.overwrite)
    checkpoint = options.checkpoint or output.with_suffix(".checkpoint.safetensors")
    if checkpoint.resolve() == output.resolve():
        raise UsageError("--checkpoint and --output are the same file: the checkpoint is deleted in the end")
    # A run that is taken up goes on with its own log, sheets and picture.
    again = options.overwrite or checkpoint.is_file()
    log_path = new_file(options.log or output.with_suffix(".loss.jsonl"), again)
    if not options.dry_run:
        picture_folder(options.validation, again)
    return output, checkpoint, log_path, new_picture(options.picture, again)


def _model(options: argparse.Namespace) -> "ImageModel":
    from ..enhancer_training import ImageModel, load_pipeline

    pipe = load_pipeline(options.pipeline, options.precision)
    try:
        pipe = pipe.to(options.device)
    except (RuntimeError, AssertionError) as error:  # torch's ways to say that there is no such device
        raise CommandError(f"--device {options.device} cannot be used here: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    return ImageModel(pipe)


def _encode(pairs: "ImagePairs", options: argparse.Namespace, accelerator: "Accelerator | None") -> None:
    """Compute all latents; in a folder the first process does it for all."""
    bar = progress_bar("encoding", "picture")
    main = accelerator is None or accelerator.is_main_process
    if accelerator is None or options.latents is None:
        pairs.encode(bar if main else None)
        return
    with accelerator.main_process_first():
        pairs.encode(bar if main else None)


def _validation(
    model: "ImageModel", place: "Place", pairs: list[Any], size: int, options: argparse.Namespace
) -> "Validation | None":
    from ..enhancer_training import Validation
    from ..reports import spread

    if options.validation is None:
        return None
    prompts = list(dict.fromkeys(pair.neutral for pair in spread(pairs, options.validation_prompts)))
    return Validation(
        model, place, prompts, options.validation, size, options.sampling_steps, options.seed
    )  # fmt: skip


def _dry_run(
    enhancer: "LayerEnhancer",
    model: "ImageModel",
    place: "Place",
    pairs: "ImagePairs",
    config: "EnhancerConfig",
    options: argparse.Namespace,
) -> dict[str, Any]:
    import torch

    from ..enhancer_training.step_cost import advice, measure_step

    settings = (options.loss, options.batch_size, options.gradient_checkpointing)
    try:
        cost = measure_step(enhancer, model, place, pairs, settings[0], config, *settings[1:])
    except torch.cuda.OutOfMemoryError as error:
        tips = "\n".join(f"  {text}" for text in advice(None, model, *settings))
        raise CommandError(f"A step does not fit into memory. What helps most, first:\n{tips}") from error
    memory = {name: getattr(cost, name) for name in ("frozen", "trained", "activations", "peak", "capacity")}
    return {
        "memory": memory, "seconds_per_step": cost.seconds, "steps": config.steps, "fits": cost.fits,
        "advice": advice(cost, model, *settings),
    }  # fmt: skip


def _train(
    enhancer: "LayerEnhancer",
    model: "ImageModel",
    place: "Place",
    pairs: "ImagePairs",
    config: "EnhancerConfig",
    options: argparse.Namespace,
    checkpoint: Path,
    log_path: Path,
    validation: "Validation | None",
    accelerator: "Accelerator | None",
) -> tuple["EnhancerReport", int]:
    """(report, steps that a checkpoint had done before)."""
    import torch

    from ..enhancer_training import train_on_pictures
    from ..enhancer_training.step_cost import advice

    bar, loss_log = progress_bar("training", "step"), _LossLog(log_path)
    settings = (options.loss, options.batch_size, options.gradient_checkpointing)

    def progress(done: int, total: int, loss: float) -> None:
        loss_log.write(done, loss)
        bar(done, total, loss)
        if validation is not None and (done % options.validate_every == 0 or done == total):
            validation.draw(enhancer, done)

    try:
        report = train_on_pictures(
            enhancer, model, place, pairs, settings[0], config, *settings[1:], progress, checkpoint,
            accelerator,
        )  # fmt: skip
    except KeyboardInterrupt:
        if checkpoint.is_file():
            log.error("The run is kept in %s: the same command goes on from there.", checkpoint)
        raise
    except torch.cuda.OutOfMemoryError as error:
        tips = "\n".join(f"  {text}" for text in advice(None, model, *settings))
        raise CommandError(f"Memory ran out ({error}). What helps most, first:\n{tips}") from error
    return report, len(report.losses) if loss_log.before is None else loss_log.before


class _LossLog:
    """A JSONL file with a line a step; a run that is taken up goes on where its checkpoint stands."""

    def __init__(self, path: Path) -> None:
        self._path, self._started = path, time.monotonic()
        self.before: int | None = None
        """Steps done before the first one written."""

    def write(self, step: int, loss: float) -> None:
        if self.before is None:
            self.before = step - 1
            self._cut()
        record = {"step": step, "loss": loss, "seconds": round(time.monotonic() - self._started, 2)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _cut(self) -> None:
        """Without the steps that a killed run did after its last checkpoint, or another run's."""
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else []
        with atomic_path(self._path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines[: self.before]), encoding="utf-8")

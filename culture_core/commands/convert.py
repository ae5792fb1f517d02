"""Turn SAEs of other libraries into culture SAEs and back, and pickled weights into safetensors.

Libraries: sparsify (cfg.json, sae.safetensors), SAELens (cfg.json, sae_weights.safetensors) and
dictionary_learning (config.json, ae.pt). Each keeps an SAE in a folder; which library's it is, is told from
the files. Outputs stay the same to float32 precision.

  python -m culture_core convert sparsify_run/layers.11 --to culture-sae --output e5.safetensors \\
      --encoder models/text_encoders/multilingual-e5-small --layer 11 --feature hidden_state

  python -m culture_core convert models/culture_sae/miniature.safetensors \\
      --to sae-lens --output sae_lens_folder

An SAE of another library does not say which text encoder, layer and feature it was trained on: you must
know. It has no neurons of cultures either; `detect` finds them. On the way out the neurons stay behind, since
other libraries have no place for them, and activations come in the encoder's own units, `scale` times ours.

Only plain Top-K SAEs can be converted, neither other activations (JumpReLU, batch Top-K, gated) nor
transcoders.

Text encoders and PEA adapters that were published as pickles (pytorch_model.bin, .pt, .pth, .ckpt) become
safetensors, which the node Load Multilingual Text Encoder reads; give the file, or a folder with one or with
the parts of one:

  python -m culture_core convert models/text_encoders/AltDiffusion-m9/text_encoder --to safetensors \\
      --output models/text_encoders/AltDiffusion-m9/text_encoder/model.safetensors

Pickles, dictionary_learning's ae.pt too, are read without running code of theirs, and by this command alone.
"""

import argparse
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
    read_encoder,
)

if TYPE_CHECKING:
    from ..sae import TopKSAE

CULTURE_SAE = "culture-sae"
SAFETENSORS = "safetensors"
TARGETS = (CULTURE_SAE, "sparsify", "sae-lens", "dictionary-learning", SAFETENSORS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, help="culture SAE, folder of another library, or pickled weights"
    )
    parser.add_argument("--to", choices=TARGETS, required=True, help="what to make of it")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="PATH",
        help="file of a culture SAE or of weights, otherwise a folder",
    )
    needed = parser.add_argument_group("needed for, and only for, --to culture-sae")
    add_encoder_arguments(needed, required=False)
    add_layer_arguments(needed, required=False)
    add_file_arguments(parser)
    add_overwrite_argument(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..files import load_culture_sae
    from ..sae.formats import export_sae, import_sae

    if options.to == SAFETENSORS:
        return _to_safetensors(options)
    if options.to == CULTURE_SAE:
        return _to_culture_sae(options)
    if options.source.is_dir():
        imported = import_sae(options.source)
        sae, source, notes, origin = imported.sae, imported.library, imported.notes, {}
    else:
        item = load_culture_sae(options.source)
        sae, source, notes = item.sae, CULTURE_SAE, []
        origin = {"model": item.encoder["family"], "layer": str(item.layer), "feature": item.feature}
        if item.cultures:
            notes = [
                f"the neurons of {len(item.cultures)} cultures stayed behind: there is no place for them"
            ]
    export_sae(sae, options.output, options.to, options.overwrite, origin)
    return _result(options, source, sae, notes)


def describe(result: dict[str, Any]) -> str:
    if result["to"] == SAFETENSORS:
        left_out = result["left_out"]
        lines = [f"{result['output']}: {result['tensors']} tensors"]
        if left_out:
            lines.append(f"Left out, as no tensors: {', '.join(left_out[:5])}{' …' * (len(left_out) > 5)}")
        return "\n".join(lines)
    lines = [
        f"{result['output']}: {result['to']} of {result['latents']} latents, {result['k']} active at once, "
        f"from {result['from']}",
        *(f"Note: {note}" for note in result["notes"]),
    ]
    if result["to"] == CULTURE_SAE:
        lines.append("Next: find the neurons of cultures with `detect`.")
    return "\n".join(lines)


def _to_culture_sae(options: argparse.Namespace) -> dict[str, Any]:
    from ..files import CultureSAE, save_culture_sae
    from ..sae.formats import import_sae

    missing = [f"--{name}" for name in ("encoder", "layer", "feature") if getattr(options, name) is None]
    if missing:
        raise UsageError(
            f"--to culture-sae also needs {', '.join(missing)}: the SAE does not say what it was trained on"
        )
    if options.source.is_file():
        raise CommandError(f"{options.source}: is no folder of another library")
    new_file(options.output, options.overwrite)
    imported = import_sae(options.source)
    encoder = read_encoder(options)
    item = CultureSAE(
        imported.sae, options.layer, options.feature, encoder.fingerprint(),
        training={"imported_from": imported.library, "notes": imported.notes}, author=options.author,
        licence=options.licence, description=options.description,
    )  # fmt: skip
    save_culture_sae(item, options.output, options.overwrite)
    return _result(options, imported.library, imported.sae, imported.notes)


def _to_safetensors(options: argparse.Namespace) -> dict[str, Any]:
    from ..pickles import convert_pickle

    if options.output.suffix != ".safetensors":
        raise CommandError(f"{options.output}: the name must end in .safetensors")
    new_file(options.output, options.overwrite)
    tensors, left_out = convert_pickle(options.source, options.output)
    return {
        "output": str(options.output), "from": str(options.source), "to": SAFETENSORS, "tensors": tensors,
        "left_out": left_out,
    }  # fmt: skip


def _result(options: argparse.Namespace, source: str, sae: "TopKSAE", notes: list[str]) -> dict[str, Any]:
    return {
        "output": str(options.output), "from": source, "to": options.to, "width": sae.d_in,
        "latents": sae.n_latents, "k": sae.k, "notes": notes,
    }  # fmt: skip

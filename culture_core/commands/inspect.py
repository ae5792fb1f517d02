"""Say what a file holds, without using it.

Reads culture SAEs, layer enhancers and checkpoints of their training (safetensors), and the folders in which
sparsify, SAELens and dictionary_learning keep SAEs. Everything is checked as it is before use, so that a file
that this command describes can be loaded; no code of a file is run.

  python -m culture_core inspect models/culture_sae/miniature.safetensors
  python -m culture_core inspect my_culture.safetensors --preview preview.png

What the numbers mean:
  k          latents that may be active at once
  neurons    latents that were chosen for a culture
  chosen     how: up to the elbow of the ranking, a given count, or by the best measured effect; and what the
             ranking subtracts, the mean or the maximum of the other cultures
  best       the strength at which the culture showed best on validation prompts
  limit      the strength beyond which nouns suffered there
  preview    a picture that the file carries; --preview writes it as PNG
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import CommandError, add_overwrite_argument, new_picture, write_picture

if TYPE_CHECKING:
    from ..files import CultureSAE, EnhancerFile


_APART = ("cultures", "overlap", "training", "notes")
"""Of a result, what `describe` writes after the rest."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="file, or folder of another library")
    parser.add_argument("--preview", type=Path, metavar="PNG", help="write the file's preview picture there")
    add_overwrite_argument(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..file_checks import FileError, read_head
    from ..files import ENHANCER, SAE, CultureSAE, load_culture_sae, load_enhancer

    path = options.file
    new_picture(options.preview, options.overwrite)
    if path.is_dir() and options.preview is None:
        return {"file": str(path), **_foreign(path)}
    metadata = read_head(path, "file of this pack").metadata
    kind = metadata.get("format")
    if kind in (SAE.key, ENHANCER.key):
        item = load_culture_sae(path) if kind == SAE.key else load_enhancer(path)
        found = _sae(item) if isinstance(item, CultureSAE) else _enhancer(item)
        found["preview"] = _preview(item, options.preview)
    elif options.preview is not None:
        raise CommandError(f"{path} is no file that carries a preview: nothing was written")
    elif "run" in metadata:
        found = _checkpoint(path)
    else:
        raise FileError(f"{path}: is a safetensors file, but none of this pack's")
    return {"file": str(path), **found}


def _preview(item: "CultureSAE | EnhancerFile", target: Path | None) -> dict[str, Any] | None:
    """What is told of the preview; it is written where a target is given."""
    from ..previews import decode_preview

    if not item.preview:
        if target is not None:
            raise CommandError(f"{item.path} has no preview: nothing was written")
        return None
    picture = decode_preview(item.preview)
    if target is not None:
        write_picture(target, picture)
    told = {"width": picture.width, "height": picture.height, "bytes": len(item.preview)}
    return told | ({"written": str(target)} if target else {})


def describe(result: dict[str, Any]) -> str:
    from ..reports import training_summary

    plain = {key: value for key, value in result.items() if key not in _APART}
    width = max(map(len, plain))
    lines = [f"{key:{width}}  {_text(value)}" for key, value in plain.items() if value not in (None, "")]
    training = result.get("training", {})
    lines += training_summary(training)
    notes = result.get("notes", training.get("notes"))
    if result.get("cultures"):
        lines += ["", "culture  neurons   best  limit  chosen            name"]
        lines += [
            f"{code:7s} {one['neurons']:8d}  {_number(one['best'])}  {_number(one['limit'])}  "
            f"{one['chosen'] or '':16s}  {one['name']}"
            for code, one in result["cultures"].items()
        ]
        shared = result["overlap"]["shared"]
        lines += ["", f"latents of more than one culture: {len(shared)}"]
    lines += [f"Note: {note}" for note in notes] if isinstance(notes, list) else []
    return printable("\n".join(lines))


def printable(text: str) -> str:
    """Text of a stranger's file, without what could control a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)


def _sae(item: "CultureSAE") -> dict[str, Any]:
    from ..cultures import CULTURES
    from ..overlap import overlap

    cultures = {}
    for code, neurons in item.cultures.items():
        strengths, selection = item.strengths.get(code), item.selection.get(code)
        cultures[code] = {
            "name": CULTURES[code].name if code in CULTURES else code,
            "neurons": len(neurons.indices),
            "best": strengths.best if strengths else None,
            "limit": strengths.limit if strengths else None,
            "chosen": f"{selection.rule}, {selection.contrast or selection.score}" if selection else None,
        }
    sae = item.sae
    shape = {"feature": item.feature, "width": sae.d_in, "latents": sae.n_latents, "k": sae.k}
    common = {"overlap": overlap(item.cultures).to_json()} if cultures else {}
    return {"kind": "culture SAE", **_place(item), **shape, **_told(item), "cultures": cultures, **common}


def _enhancer(item: "EnhancerFile") -> dict[str, Any]:
    enhancer = item.enhancer
    shape = {"width": enhancer.width, "bottleneck": enhancer.bottleneck}
    return {"kind": "layer enhancer", **_place(item), **shape, **_told(item)}


def _place(item: "CultureSAE | EnhancerFile") -> dict[str, Any]:
    shape = {key: item.encoder[key] for key in ("family", "layers", "width", "heads", "vocabulary")}
    return {"encoder": shape, "encoder_key": item.encoder_key, "layer": item.layer}


def _told(item: "CultureSAE | EnhancerFile") -> dict[str, Any]:
    return {
        "author": item.author,
        "licence": item.licence,
        "description": item.description,
        "training": item.training,
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    from ..checkpoints import read_checkpoint
    from ..file_checks import FileError
    from ..strict_json import parse_object

    identity, tensors = read_checkpoint(path)
    try:
        config = parse_object(identity or "").get("config")
    except ValueError as error:
        raise FileError(f"{path}: is a checkpoint whose run is {error}; delete it to start anew") from error
    losses = tensors.get("losses")
    if not isinstance(config, dict) or losses is None or losses.dim() != 1:
        raise FileError(f"{path}: is a checkpoint of another program or version; delete it to start anew")
    trained = "an SAE" if any(name.startswith("sae.") for name in tensors) else "a layer enhancer"
    return {
        "kind": f"checkpoint of {trained}'s training",
        "steps_done": len(losses),
        "steps": config.get("steps"),
        "configuration": config,
    }


def _foreign(path: Path) -> dict[str, Any]:
    from ..sae.formats import import_sae

    sae, library, notes = import_sae(path)
    return {
        "kind": f"SAE of {library}", "width": sae.d_in, "latents": sae.n_latents, "k": sae.k, "notes": notes,
    }  # fmt: skip


def _text(value: object) -> str:
    return ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)


def _number(value: float | None) -> str:
    return "    -" if value is None else f"{value:5.3g}"

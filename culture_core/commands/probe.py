"""Find the layer of a text encoder in which a culture modifier acts on its noun.

This is the first step: the layer that it names is the one to give to `train-sae`. Prompt pairs say the same
with a culture modifier ("Thai style chair") and without ("chair").

  python -m culture_core probe --encoder models/text_encoders/multilingual-e5-small \\
      --pairs models/culture_pairs/miniature.jsonl --picture curves.png

What the numbers mean, layer by layer:
  ΔCA      how much attention passes between modifier and noun, less what passes between the noun and other
           words of the neutral prompt. The key layer is where it stands out from both neighbours.
  causal   activation patching: the share of the way from the neutral to the cultural conditioning that the
           noun moves when only this layer's attention output is taken over; 0 not at all, 1 all the way.
Attention shows where the model looks, patching what it uses. Where they name different layers, try both.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .common import (
    CommandError,
    add_encoder_arguments,
    add_overwrite_argument,
    new_picture,
    numbers,
    positive,
    progress_bar,
    read_encoder,
    write_picture,
)

if TYPE_CHECKING:
    from ..probing import LayerProbe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder_arguments(parser)
    parser.add_argument("--pairs", type=Path, required=True, metavar="FILE", help="prompt pairs, JSONL")
    parser.add_argument(
        "--direction", choices=("modifier_to_noun", "noun_to_modifier", "visible"),
        help="whose attention counts; visible: whichever the mask lets through (visible for encoders whose "
        "tokens see only those before them, otherwise modifier_to_noun, the paper's)",
    )  # fmt: skip
    parser.add_argument(
        "--reference", choices=("context", "none"), default="context",
        help="what stands in for the modifier in a neutral prompt: its other words, or nothing (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--languages", nargs="+", metavar="CODE", help="only pairs in these languages")
    parser.add_argument("--per-language", action="store_true", help="also probe each language by itself")
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="at most so many pairs, spread evenly over all of them"
    )
    parser.add_argument(
        "--batch", type=positive, default=32, metavar="N", help="pairs at a time (%(default)s)"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the curves")
    add_overwrite_argument(parser)


def run(options: argparse.Namespace) -> dict:
    from ..pairs import load_pairs
    from ..probing import probe_layers
    from ..reports import by_language, probe_picture, probe_report, spread, tiled

    picture = new_picture(options.picture, options.overwrite)
    groups = by_language(load_pairs(options.pairs))
    unknown = set(options.languages or ()) - groups.keys()
    if unknown:
        raise CommandError(
            f"{options.pairs} has no pairs in {', '.join(sorted(unknown))}; it has {', '.join(groups)}"
        )
    pairs = [pair for code in options.languages or groups for pair in groups[code]]
    chosen = spread(pairs, options.limit)
    encoder = read_encoder(options)
    subjects = {"": chosen} | (by_language(chosen) if options.per_language else {})
    probes = {
        name: probe_layers(
            encoder, group, direction=options.direction, reference=options.reference,
            batch_size=options.batch, progress=progress_bar(f"probing {name}".strip(), "pair"),
        )
        for name, group in subjects.items()
    }  # fmt: skip
    if picture is not None:
        drawn = [probe_picture(probe, name) for name, probe in probes.items()]
        write_picture(picture, tiled(drawn, columns=4))
    whole = probes.pop("")
    return {
        "encoder": encoder.info.family,
        **_figures(whole),
        "languages": {name: _figures(probe) for name, probe in probes.items()},
        "picture": None if picture is None else str(picture),
        "report": probe_report(whole, f"{encoder.info.family}, {options.encoder.name}"),
    }


def describe(result: dict) -> str:
    lines = [result["report"]]
    if result["languages"]:
        lines += ["", *(f"{name:8s} {probe['reason']}" for name, probe in result["languages"].items())]
    if result["picture"]:
        lines += ["", f"The curves are drawn in {result['picture']}"]
    return "\n".join(lines)


def _figures(probe: "LayerProbe") -> dict:
    curves = ("delta_ca", "interval", "ca_cultural", "ca_neutral", "prominence", "causal")
    names = ("layer", "reason", "direction", "reference", "pairs")
    return {
        **{name: getattr(probe, name) for name in names},
        "skipped": list(probe.skipped),
        "curves": {name: numbers(getattr(probe, name)) for name in curves},
    }

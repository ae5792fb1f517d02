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
Attention shows where the model looks, patching what it uses. Where they name different layers, --criterion
says which counts, and it is worth to try both.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from PIL import Image

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
    parser.add_argument(
        "--criterion", choices=("auto", "attention", "causal"), default="auto",
        help="what chooses the layer: where attention stands out (the paper's), what patching moves most, or "
        "the former where it is certain and the latter otherwise (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--no-patching",
        action="store_true",
        help="leave activation patching out, which takes most of the time",
    )
    parser.add_argument("--languages", nargs="+", metavar="CODE", help="only pairs in these languages")
    parser.add_argument(
        "--per-language", action="store_true", help="also tell and draw each language by itself"
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="at most so many pairs, spread evenly over all of them"
    )
    parser.add_argument(
        "--batch", type=positive, default=32, metavar="N", help="pairs at a time (%(default)s)"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the curves")
    add_overwrite_argument(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..pairs import load_pairs
    from ..probing import probe_by_language
    from ..reports import language_report, probe_report, spread

    picture = new_picture(options.picture, options.overwrite)
    pairs = load_pairs(options.pairs)
    known = dict.fromkeys(pair.language for pair in pairs)
    unknown = set(options.languages or ()) - known.keys()
    if unknown:
        raise CommandError(
            f"{options.pairs} has no pairs in {', '.join(sorted(unknown))}; it has {', '.join(known)}"
        )
    wanted = options.languages or known
    encoder = read_encoder(options)
    probes = probe_by_language(
        encoder, spread([pair for pair in pairs if pair.language in wanted], options.limit),
        direction=options.direction, reference=options.reference, batch_size=options.batch,
        criterion=options.criterion, patching=not options.no_patching,
        progress=progress_bar("probing", "pair"),
    )  # fmt: skip
    shown = probes.languages if options.per_language else {}
    if picture is not None:
        write_picture(picture, _drawn(probes.overall, shown))
    return {
        "encoder": encoder.info.family,
        **_figures(probes.overall),
        "languages": {name: _figures(probe) for name, probe in shown.items()},
        "picture": None if picture is None else str(picture),
        "report": probe_report(probes.overall, f"{encoder.info.family}, {options.encoder.name}"),
        "language_report": language_report(shown) if shown else "",
    }


def _drawn(overall: "LayerProbe", languages: "dict[str, LayerProbe]") -> "Image.Image":
    """The curves of all pairs, and below them those of each language and their attention."""
    from ..cultures import CULTURES
    from ..plots import stacked
    from ..probe_pictures import attention_map, causal_curves, language_curves
    from ..reports import probe_picture

    names = {code: culture.language for code, culture in CULTURES.items()}
    kinds = [language_curves, attention_map] if languages else []
    if languages and overall.layer_causal is not None:
        kinds.insert(1, causal_curves)
    return stacked([probe_picture(overall), *(draw(languages, names) for draw in kinds)])


def describe(result: dict[str, Any]) -> str:
    lines = [result["report"]]
    if result["languages"]:
        lines += ["", result["language_report"]]
    if result["picture"]:
        lines += ["", f"The curves are drawn in {result['picture']}"]
    return "\n".join(lines)


def _figures(probe: "LayerProbe") -> dict[str, Any]:
    curves = ("delta_ca", "interval", "ca_cultural", "ca_neutral", "prominence", "causal")
    names = (
        "layer",
        "layer_attention",
        "layer_causal",
        "criterion",
        "reason",
        "direction",
        "reference",
        "pairs",
    )
    return {
        **{name: getattr(probe, name) for name in names},
        "skipped": list(probe.skipped),
        "curves": {name: numbers(getattr(probe, name)) for name in curves},
    }

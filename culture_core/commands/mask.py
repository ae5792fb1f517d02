"""Mask the culture neurons of cultural prompts, and random latents in their place, and compare.

Each culture's neurons are silenced in the text encoder while its cultural prompts are encoded. If they carry
the culture, it can no longer be read from the conditioning at the nouns (nearest centroid of the other nouns'
cultural prompts), and the conditioning moves towards that of the neutral prompts. Two controls are drawn from
the other latents that are active on these prompts: as many that fire about as often (the paper's control),
and as many as it takes to remove the same norm. No image model is needed.

  read     prompts whose culture is still read, with Wilson's 95 % interval
  moved    share of the way to the neutral prompts' conditioning, 1 is all of it
  cosine   between the direction of the move and the direction to the neutral prompts
  ±        standard deviation between draws

example:
  python -m culture_core mask models/culture_sae/miniature.safetensors \\
      --encoder models/text_encoders/multilingual-e5-small --pairs models/culture_pairs/miniature.jsonl
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import (
    CommandError,
    add_encoder_arguments,
    add_overwrite_argument,
    add_picture_argument,
    picture_folder,
    positive,
    progress_bar,
    read_encoder,
    write_pictures,
)

if TYPE_CHECKING:
    from PIL import Image

    from ..controls import Controls

SHOWN = ("read", "moved", "cosine")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sae", type=Path, metavar="SAE", help="culture SAE with neurons")
    add_encoder_arguments(parser)
    parser.add_argument(
        "--pairs", type=Path, required=True, metavar="FILE", help="prompt pairs, a JSONL file"
    )
    parser.add_argument(
        "--draws", type=positive, default=3, metavar="N", help="random draws a control (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first draw (%(default)s)")
    parser.add_argument(
        "--tokens",
        choices=("content", "all"),
        default="content",
        help="tokens on which latents are masked (%(default)s)",
    )
    add_picture_argument(parser)
    add_overwrite_argument(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..controls import measure_controls
    from ..effect import MaskedEffect, Place
    from ..features import noun_features
    from ..files import check_encoder, load_culture_sae
    from ..pairs import load_pairs

    picture_folder(options.picture, options.overwrite)
    culture_sae, pairs = load_culture_sae(options.sae), load_pairs(options.pairs)
    cultures = {pair.culture for pair in pairs} & culture_sae.cultures.keys()
    if len(cultures) < 2:
        raise CommandError(
            f"{options.sae} and {options.pairs} have {len(cultures)} cultures in common, two are needed to "
            "tell cultures apart: give pairs of the SAE's cultures, or detect neurons first"
        )
    encoder = read_encoder(options)
    check_encoder(culture_sae.encoder, encoder.fingerprint(), culture_sae.path)
    used = [pair for pair in pairs if pair.culture in cultures]
    neurons = {code: found for code, found in culture_sae.cultures.items() if code in cultures}
    sae, place = culture_sae.sae, Place(culture_sae.layer, culture_sae.feature)
    features = noun_features(encoder, used, *place).cultural
    measure = MaskedEffect(encoder, sae, place, used, options.tokens)
    found = measure_controls(
        sae, neurons, features, measure, options.draws, options.seed,
        progress=progress_bar("masking", "measurements"),
    )  # fmt: skip
    counts = dict(Counter(pair.culture for pair in used))
    pictures = {"masked": _by_culture(found, list(counts))} if options.picture else {}
    return {
        "prompts": counts,
        "tokens": options.tokens,
        "neutral_read": measure.neutral_read().percent,
        "rows": found.to_json(),
        "table": found.table(SHOWN),
        "pictures": write_pictures(options.picture, pictures),
    }


def describe(result: dict[str, Any]) -> str:
    prompts = result["prompts"]
    lines = [
        f"{sum(prompts.values())} cultural prompts of {len(prompts)} cultures, masked on {result['tokens']} "
        f"tokens; of their neutral partners {result['neutral_read']:.1f} % are read as the culture\n",
        result["table"],
    ]
    return "\n".join([*lines, *(f"\nPicture: {path}" for path in result["pictures"])])


def _by_culture(found: "Controls", codes: list[str]) -> "Image.Image":
    """Percent of each culture's prompts that are still read as it, a row a treatment."""
    from ..plots import heat_map

    values = [[row.figures[f"read_{code}"].mean for code in codes] for row in found.rows]
    return heat_map(
        values, [row.treatment for row in found.rows], codes, "Prompts still read as their culture, %",
        "masked", decimals=0, highest=100.0,
    )  # fmt: skip

"""Find the culture neurons of a culture SAE.

Ranks the SAE's latents for every culture of the prompt pairs by how much its cultural prompts use them (WFS,
the share of the noun tokens on which a latent is active times its mean activation there), drops those that
the neutral prompts use as well, and keeps the first ones: up to the elbow of the ranking, a given number, or
what moves prompts kept from the detection best (--by-effect). The new file has everything of the old one, the
neurons, and every figure behind their choice. Pairs of the splits "test" and "unseen" are left out.

example:
  python -m culture_core detect sae.safetensors --encoder models/text_encoders/multilingual-e5-small \\
      --pairs pairs.jsonl --output with-neurons.safetensors --count 40 --contrast maximum --picture pictures
"""

import argparse
from pathlib import Path
from typing import Any

from .common import (
    add_encoder_arguments,
    add_overwrite_argument,
    add_picture_argument,
    new_file,
    picture_folder,
    progress_bar,
    read_encoder,
    write_pictures,
)

ELBOW = "elbow"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sae", type=Path, metavar="SAE", help="culture SAE, with neurons or without")
    add_encoder_arguments(parser)
    parser.add_argument(
        "--pairs", type=Path, required=True, metavar="FILE", help="prompt pairs, a JSONL file"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="culture SAE to write")
    how_many = parser.add_mutually_exclusive_group()
    how_many.add_argument(
        "--count", type=_count, metavar="N", help="neurons a culture, or elbow: up to the elbow (elbow)"
    )
    how_many.add_argument(
        "--by-effect", action="store_true",
        help="choose number and contrast of each culture by how far amplifying the neurons moves the "
        "conditioning of neutral prompts to the cultural ones, on nouns kept from the detection (or on the "
        "pairs of the split validation); takes minutes",
    )  # fmt: skip
    parser.add_argument(
        "--contrast", choices=("mean", "maximum"), default="mean",
        help="what of the other cultures' WFS is subtracted for the ranking (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--tau", type=float, default=0.5, metavar="T",
        help="drop latents whose WFS on neutral prompts is at least this share of that on cultural ones "
        "(%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0, help="of the choice of nouns to keep back (%(default)s)"
    )
    add_picture_argument(parser)
    add_overwrite_argument(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..detection import DetectOptions, detect_in
    from ..files import load_culture_sae, save_culture_sae
    from ..pairs import load_pairs

    output = new_file(options.output, options.overwrite)
    picture_folder(options.picture, options.overwrite)
    chosen = DetectOptions(
        count=options.count or None, contrast=options.contrast, tau=options.tau, by_effect=options.by_effect,
        seed=options.seed,
    )  # fmt: skip
    culture_sae, pairs = load_culture_sae(options.sae), load_pairs(options.pairs)
    found = detect_in(culture_sae, read_encoder(options), pairs, chosen, progress_bar("detecting", "prompts"))
    save_culture_sae(found.culture_sae, output, options.overwrite)
    written = write_pictures(options.picture, found.pictures() if options.picture else {})
    return {
        "output": str(output),
        "cultures": {
            code: {
                "neurons": found.culture_sae.cultures[code].indices.tolist(),
                **found.culture_sae.selection[code].to_json(),
            }
            for code in found.detected
        },
        "overlap": found.overlap.to_json(),
        "left_out": found.left_out,
        "pictures": written,
        "report": found.report,
    }


def describe(result: dict[str, Any]) -> str:
    lines = [result["report"], "", f"{result['output']} has the neurons."]
    if result["left_out"]:
        lines.append(f"{result['left_out']} pairs of splits that detection may not see were left out.")
    if result["pictures"]:
        lines.append(f"Pictures: {', '.join(result['pictures'])}")
    return "\n".join(lines)


def _count(text: str) -> int:
    """A number of neurons; 0 stands for the elbow."""
    if text == ELBOW:
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 1 nor {ELBOW}")
    return int(text)

"""Measure the pictures of a run: agreement with the text, taste, distance to real pictures, diversity.

The run's metadata.jsonl names each picture's system, item, neutral prompt and English gloss. Metrics:

  clip                 cosine with the neutral prompt in its own language (CLIPScore)
  clip_english         cosine with the English gloss
  image_reward         ImageReward against the English gloss, the only language that it reads
  lpips                distance to the reference's pictures of the same item
  fid, kid             distance of all pictures of a system from the reference's
  diversity            over the seeds of an item: LPIPS spread and Vendi score
  diversity_miniature  the same by the miniature's CNN, for its drawings; needs nothing else

CLIPScore's model is SigLIP 2, because English CLIP cannot read 13 of the 15 cultures' languages. Nothing is
downloaded but this model, with --download. The weights of LPIPS, FID and KID are looked for in --weights; for
what is missing, the message has the address. ImageReward needs an environment of its own: the message says
how to make it.

The output folder gets metrics.jsonl and metrics.json. Stopped and run again, it goes on; run with other
metrics, it adds them.

example:
  python -m culture_core metrics run --metrics clip clip_english --download --output measured
  python -m culture_core metrics run --metrics kid lpips --reference real --weights weights --output measured
"""

import argparse
from pathlib import Path
from typing import Any

from .common import progress_bar

METRICS = (
    "clip", "clip_english", "image_reward", "lpips", "fid", "kid", "diversity", "diversity_miniature",
)  # fmt: skip
DEFAULT_MODEL = "google/siglip2-base-patch16-256"
"""As in `culture_core.metrics`, without importing it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument(
        "--metrics", nargs="+", choices=METRICS, default=["clip"], metavar="NAME", help="see above (clip)"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="where to keep the figures"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="FOLDER", help="real pictures, with a metadata.jsonl like a run's"
    )
    parser.add_argument(
        "--judged", type=Path, metavar="FOLDER",
        help="output of `judge` on this run: the share of each picture's culture weights its diversity",
    )  # fmt: skip
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="MODEL",
        help="CLIP, AltCLIP, Chinese CLIP, SigLIP or SigLIP 2: a folder, or a name on the hub (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--download", action="store_true", help="fetch that model if it is not here yet")
    parser.add_argument(
        "--weights", type=Path, metavar="FOLDER", help="weights of LPIPS, FID, KID and ImageReward"
    )
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, cuda:1 … (%(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..judges.run import read_run
    from ..metrics import Instruments, measure_run
    from ..metrics.clip_score import WHY

    judged = read_run(options.judged) if options.judged else []
    model = Path(options.model) if Path(options.model).is_dir() else options.model
    found = measure_run(
        options.run, options.metrics, options.output, options.reference,
        progress_bar("measuring", "%"),
        instruments=Instruments(model, options.weights, options.device, options.download),
        quality={item.file: item.verdict.share(item.culture) for item in judged},
    )  # fmt: skip
    why = WHY if options.model == DEFAULT_MODEL and "clip" in options.metrics else None
    return {**found, "output": str(options.output), "why": why}


def describe(result: dict[str, Any]) -> str:
    lines = []
    for system, figures in result["systems"].items():
        lines.append(f"{system or 'pictures'}:")
        lines += [f"  {name:20s} {_said(figure)}" for name, figure in figures.items()]
    for name, count in result["too_long"].items():
        if count:
            lines.append(f"{name}: {count} texts are longer than the model reads; their beginning was taken.")
    if any("image_reward" in figures for figures in result["systems"].values()):
        lines.append("image_reward read the English gloss of each prompt: it knows no other language.")
    if result["why"]:
        lines.append(f"Model of clip: {result['why']}")
    lines.append(f"{result['output']} has metrics.jsonl and metrics.json.")
    return "\n".join(lines)


def _said(figure: dict[str, Any]) -> str:
    if "vendi" in figure:
        parts = [f"Vendi {figure['vendi']:.2f} of {figure['pictures']:.1f}"]
        parts += [f"spread {figure['spread']:.4f}"] if figure["spread"] is not None else []
        quality = figure["quality_vendi"]
        parts += [f"times quality {quality:.2f}"] if quality is not None else []
        return ", ".join([*parts, f"{figure['groups']} items"])
    if "value" in figure:
        low_high = figure["interval"] and " ({:.4f} to {:.4f})".format(*figure["interval"])
        return f"{figure['value']:.4f}{low_high or ''}" + (
            f"; {figure['warning']}" if figure["warning"] else ""
        )
    hessel = f", CLIPScore {figure['hessel']:.4f}" if "hessel" in figure else ""
    return f"{figure['mean']:.4f}{hessel}, {figure['pictures']} pictures"

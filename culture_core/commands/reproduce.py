"""Reproduce the paper's whole study in miniature: train, choose, measure, and write one report.

Two small text-to-image systems over the real encoder multilingual-e5-small, one like AltDiffusion and one
like PEA-Diffusion, go through everything the paper does to the large ones. Three repetitions took 77 minutes
on two CPU cores that had other work besides; --quick makes a short run of 8 to 10, to see that everything
works: it is trained too little for its figures to mean much. What is made is kept in the output folder,
checkpoints too: after an interruption, the same command goes on.

  python -m culture_core reproduce --output output/reproduce
"""

import argparse
from pathlib import Path
from typing import Any

from .common import add_overwrite_argument, progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, default=Path("output/reproduce"), metavar="FOLDER",
        help="where the report and all that it is made from is kept (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a short run: less training, one repetition")
    add_overwrite_argument(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..miniature.logs import MODELS
    from ..reproduce.report import make_report
    from ..reproduce.study import QUICK, Sizes, Study

    name = "report-quick" if options.quick else "report"
    study = Study(
        MODELS, options.output / "cache", QUICK if options.quick else Sizes(),
        lambda stage: progress_bar(stage, "steps"),
    )  # fmt: skip
    document, outcome = make_report(study)
    # What is written last stands for all: the report itself.
    tables = document.write_csv(options.output / f"{name}-tables", overwrite=options.overwrite)
    markdown = document.write_markdown(options.output / f"{name}.md", overwrite=options.overwrite)
    page = document.write_html(options.output / f"{name}.html", overwrite=options.overwrite)
    return {
        "report": str(page), "markdown": str(markdown), "tables": len(tables),
        "minutes": sum(study.cache.seconds.values()) / 60, "outcome": outcome,
    }  # fmt: skip


def describe(result: dict[str, Any]) -> str:
    lines = [f"{result['report']} ({result['minutes']:.0f} minutes of work in all)"]
    lines += [" | ".join(str(cell) for cell in line) for line in result["outcome"]]
    return "\n".join(lines)

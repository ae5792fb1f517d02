"""Study a finished run: compare its systems, ablations or strengths, in one report.

All is read from files: the run's folder (pictures and metadata.jsonl), the output of `judge` about it, and
metrics' figures. Systems are compared on the same prompts and seeds, with intervals (bootstrap, in which the
seeds of a prompt stand or fall together), McNemar's exact test, and Holm's correction. The output folder gets
report.html, which needs no other file, report.md, and every table as CSV and LaTeX.

  evaluate  all systems against one of them (the paper's Tables 2 and 6)
  ablate    neurons and layers taken away or added, and random ones (Tables 1, 3 and 5)
  sweep     systems that ran at several strengths (Fig. 10 and 11)

examples:
  python -m culture_core judge runs/first --judge vlm --output judged
  python -m culture_core study evaluate runs/first --judged judged --metrics metrics --output report
  python -m culture_core study ablate runs/first --judged judged --output report \\
      --treatment "pack=amplified" --treatment "noise=amplified, random (norm)"
  python -m culture_core study sweep runs/strengths --judged judged --output report
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import CommandError, UsageError, add_overwrite_argument, positive, progress_bar

if TYPE_CHECKING:
    from ..studies.measured import Measured
    from ..studies.parts import Study

DRAWS = 2000
"""As `culture_core.significance.DRAWS`, without importing it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="evaluate|ablate|sweep")
    _add_evaluate(kinds.add_parser("evaluate", help="systems against one of them"))
    _add_ablate(kinds.add_parser("ablate", help="what masking leaves, and which gap is closed"))
    _add_sweep(kinds.add_parser("sweep", help="what the strength does"))
    for kind in kinds.choices.values():
        kind.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
        kind.add_argument(
            "--judged", type=Path, nargs="+", default=[], metavar="FOLDER",
            help="outputs of `judge` about the run; the first is CultureVQA, others stand beside it",
        )  # fmt: skip
        kind.add_argument(
            "--metrics",
            type=Path,
            nargs="+",
            default=[],
            metavar="FOLDER",
            help="metrics' figures of the run",
        )
        kind.add_argument(
            "--systems", nargs="+", default=[], metavar="NAME", help="these alone, in this order (all)"
        )
        kind.add_argument(
            "--output", type=Path, required=True, metavar="FOLDER", help="where to write the report"
        )
        kind.add_argument(
            "--bootstrap",
            type=positive,
            default=DRAWS,
            metavar="N",
            help="resamples of prompts (%(default)s)",
        )
        add_overwrite_argument(kind)
        kind.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--baseline", default="", metavar="NAME", help="system to compare with (the first)")
    parser.add_argument(
        "--split", action="append", default=[], metavar="NAME=FILE",
        help="compare on the prompts of this list too, such as 'out of domain=others.jsonl' (JSON lines with "
        "item); may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--by", nargs="+", default=[], metavar="FIELD",
        help="compare by the values of fields of the run's metadata too, such as category",
    )  # fmt: skip
    parser.add_argument("--paper", action="store_true", help="put the paper's Table 2 beside")


def _add_ablate(parser: argparse.ArgumentParser) -> None:
    for name in ("neutral", "explicit"):
        parser.add_argument(f"--{name}", default="", metavar="NAME", help=f"system with {name} prompts")
    parser.add_argument(
        "--treatment", action="append", default=[], metavar="SYSTEM=TREATMENT",
        help="what a system is: neutral, explicit, amplified, enhanced, masked, or a control: 'amplified, "
        "random (frequency)', 'amplified, random (norm)', 'masked, random (frequency)', 'masked, random "
        "(norm)', 'enhanced, random layer'; without it, the field `treatment` of the metadata says it, or "
        "the system's name",
    )  # fmt: skip
    parser.add_argument(
        "--paper", choices=("alt", "pea"), default="",
        help="put the paper's figures of AltDiffusion or PEA-Diffusion beside",
    )  # fmt: skip


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--choose", default="", metavar="MEASURE",
        help="which measure says what strength is best: culture_vqa, or a metric's name (culture_vqa)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..studies import read_measured
    from ..studies.parts import new_folder

    new_folder(options.output, options.overwrite)
    measured = read_measured(options.run, options.judged, options.metrics, options.systems)
    study = _KINDS[options.kind](options, measured)
    files = study.write(options.output, options.overwrite)
    return {"kind": options.kind, **study.result, "files": [str(path) for path in files]}


def describe(result: dict[str, Any]) -> str:
    from .inspect import printable

    lines = _DESCRIBED[result["kind"]](result)
    lines += ["", "Read with care:", *(f"  {warning}" for warning in result["warnings"])] * bool(
        result["warnings"]
    )
    return printable("\n".join([*lines, "", f"{result['files'][0]} is the report."]))


def _evaluate(options: argparse.Namespace, measured: "Measured") -> "Study":
    from ..studies import evaluate

    splits = {name: _items(Path(file)) for name, file in _pairs("--split", options.split).items()}
    return evaluate(
        measured, options.baseline, options.by, splits, options.paper, options.bootstrap,
        progress_bar("comparing", "splits"),
    )  # fmt: skip


def _ablate(options: argparse.Namespace, measured: "Measured") -> "Study":
    from ..studies import ablate

    given = {name: kind for kind in ("neutral", "explicit") if (name := getattr(options, kind))}
    return ablate(
        measured, given | _pairs("--treatment", options.treatment), options.paper, options.bootstrap
    )


def _sweep(options: argparse.Namespace, measured: "Measured") -> "Study":
    from ..studies import sweep

    return sweep(measured, options.choose, options.bootstrap)


_KINDS = {"evaluate": _evaluate, "ablate": _ablate, "sweep": _sweep}


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, sign, value = text.rpartition("=")
        if not sign or not name.strip() or not value.strip():
            raise UsageError(f"{option} {text!r}: give it as NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


def _items(path: Path) -> list[str]:
    """Ids of the prompts of a list."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
        return [json.loads(line)["item"] for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CommandError(
            f"{path}: it must be JSON lines, each with item, a prompt's id ({error})"
        ) from error


def _evaluated(result: dict[str, Any]) -> list[str]:
    lines = _figures(result["figures"])
    found = next(iter(result["comparisons"].values()))
    return [*lines, "", f"Differences to {result['baseline']}:", *map(_difference, found)] if found else lines


def _ablated(result: dict[str, Any]) -> list[str]:
    lines = _figures(result["figures"])
    for title, key in (("Explicit score left", "left"), ("Gap closed", "gap_closed")):
        shown = {
            name: one for name, one in result[key].items() if name.startswith("masked") == (key == "left")
        }
        lines += ["", title, *(f"  {name}: {_estimate(one)}" for name, one in shown.items())] * bool(shown)
    return lines


def _swept(result: dict[str, Any]) -> list[str]:
    lines = _figures(result["figures"])
    for name, best in result["best"].items():
        alike = ", ".join(f"{strength:g}" for strength in best["not_told_apart"])
        lines.append(
            f"{name}: best strength {best['all']:g}" + (f", not told apart from {alike}" if alike else "")
        )
    return lines


_DESCRIBED = {"evaluate": _evaluated, "ablate": _ablated, "sweep": _swept}


def _figures(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    part = figures[0]["of"]
    width = max(len(one["system"]) for one in figures)
    return [
        f"{one['system']:{width}}  {one['measure']}  {_estimate((one['value'], one['low'], one['high']))}  "
        f"({one['pictures']} pictures)"
        for one in figures
        if one["of"] == part
    ]  # fmt: skip


def _difference(one: Mapping[str, Any]) -> str:
    return (
        f"  {one['system']}  {one['measure']}  {_estimate((one['difference'], one['low'], one['high']))}, "
        f"p corrected {one['p_holm']:.3g}"
    )


def _estimate(estimate: Sequence[float | None]) -> str:
    value, low, high = estimate
    if value is None:
        return "undefined"
    return f"{value:.4g}" if low is None else f"{value:.4g} ({low:.4g} to {high:.4g})"

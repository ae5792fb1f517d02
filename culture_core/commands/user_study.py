"""Ask people what the pictures of a run show, and analyse what they answer.

`build` makes a questionnaire of a finished run: one HTML page that needs no server and sends nothing, in 16
languages, and a key file. Give raters the page (by mail, or on any web space) and each a code of their own;
the key stays with you, it alone knows the systems. Each rater answers three tasks and sends back the file
that the page lets them download. `analyse` reads those files.

  MCC  multiple choice of culture: which of the 15, or unrecognisable
  SCC  single-culture check: is it this culture, yes, no or unknown; some questions, the foils, name another
  CSR  culture similarity rating, 1 to 5

Nobody sees one prompt of two systems in one task; every picture is judged equally often. Where systems are
compared, the interval says how sure the difference is for other raters (bootstrap), p for other prompts
(sign-flip test over items); trust what both support.

examples:
  python -m culture_core user-study build runs/first --output study --raters 30
  python -m culture_core user-study analyse answers/*.json --key study/key.private.json --output results
"""

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import atomic_path
from .common import CommandError, add_overwrite_argument, positive, progress_bar, write_picture

PAGE, KEY = "questionnaire.html", "key.private.json"
RESULTS = ("analysis.json", "scores.csv", "comparisons.csv", "ratings.csv", "analysis.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, metavar="build|analyse")
    _add_build(steps.add_parser("build", help="a questionnaire and its key from a run"))
    _add_analyse(steps.add_parser("analyse", help="scores, intervals and agreement from answers"))
    for step in steps.choices.values():
        add_overwrite_argument(step)
        step.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="folder of a finished run: pictures and metadata.jsonl"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help=f"for {PAGE} and {KEY}")
    parser.add_argument("--raters", type=positive, required=True, metavar="N", help="how many people answer")
    parser.add_argument(
        "--questions", type=positive, default=20, metavar="N", help="questions a task and rater (%(default)s)"
    )
    parser.add_argument(
        "--ratings", type=positive, default=3, metavar="N",
        help="raters who judge each picture in each task, at least; more mean fewer prompts (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--foils", type=float, default=0.2, metavar="SHARE",
        help="share of SCC questions that name another culture than the picture's (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--checks", type=int, default=1, metavar="N", help="attention checks a task and rater (%(default)s)"
    )
    parser.add_argument("--systems", nargs="+", default=(), metavar="NAME", help="take these systems alone")
    parser.add_argument(
        "--note", default="", help="text for the first and last screen: who asks, where to send"
    )
    parser.add_argument(
        "--edge",
        type=positive,
        default=512,
        metavar="N",
        help="longest side of a picture, pixels (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the assignment and the codes (%(default)s)")


def _add_analyse(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "answers", type=Path, nargs="+", metavar="FILE", help="the raters' files, JSON or CSV"
    )
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help=f"{KEY}, written by build")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help=f"for {', '.join(RESULTS)}"
    )
    parser.add_argument(
        "--max-failed", type=int, default=0, metavar="N",
        help="attention checks that a rater may fail and still count (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--bootstrap", type=positive, default=2000, metavar="N", help="resamples of raters (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (%(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    return _build(options) if options.step == "build" else _analyse(options)


def describe(result: dict[str, Any]) -> str:
    return _describe_study(result) if "page" in result else _describe_analysis(result)


def _build(options: argparse.Namespace) -> dict[str, Any]:
    from ..user_study.design import TASKS, design_study
    from ..user_study.page import write_questionnaire
    from ..user_study.pictures import read_run

    page, key = _new_files(options, (PAGE, KEY))
    study = design_study(
        read_run(options.run, options.systems), options.raters, options.questions, options.ratings,
        options.foils, options.checks, options.seed,
    )  # fmt: skip
    write_questionnaire(
        study, options.run, page, options.note, options.edge, progress_bar("pictures", "pictures")
    )
    study.write_key(key)
    questions = next(iter(study.raters.values())).questions
    asked = sum(one.check is None for one in questions)
    return {
        "page": str(page),
        "key": str(key),
        "study": study.id,
        "systems": study.systems,
        "items": len({picture.item for picture in study.pictures.values()}),
        "cultures": sorted({picture.culture for picture in study.pictures.values()}),
        "questions": len(questions),
        "ratings": round(asked / len(TASKS) * len(study.raters) / len(study.pictures), 2),
        "megabytes": round(page.stat().st_size / 1e6, 1),
        "raters": list(study.raters),
    }


def _describe_study(result: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"{result['page']}  for the raters, {result['megabytes']} MB",
            f"{result['key']}  for you alone: it says which picture is of which system",
            "",
            f"{result['items']} items of {len(result['cultures'])} cultures, each drawn by "
            f"{len(result['systems'])} systems: {', '.join(result['systems'])}",
            f"{result['questions']} questions a rater, {result['ratings']:.1f} ratings a picture and task",
            "",
            f"Codes, one a rater (a link may end in #CODE): {' '.join(result['raters'])}",
        ]
    )


def _analyse(options: argparse.Namespace) -> dict[str, Any]:
    from ..user_study.analysis import analyse_study
    from ..user_study.answers import collect_answers
    from ..user_study.design import read_key

    paths = dict(zip(RESULTS, _new_files(options, RESULTS), strict=True))
    study = read_key(options.key)
    sheets, refused = collect_answers(options.answers, study)
    if not sheets:
        raise CommandError("no file can be used:\n" + "\n".join(dict.fromkeys(refused.values())))
    found = analyse_study(study, sheets, options.max_failed, options.bootstrap, options.seed)
    result = {**found.to_json(), "refused": refused, "silent": sorted(study.raters.keys() - sheets.keys())}
    _write_json(paths["analysis.json"], result)
    _write_table(paths["scores.csv"], [_flat(row) for row in result["scores"]])
    _write_table(paths["comparisons.csv"], result["comparisons"])
    _write_table(paths["ratings.csv"], found.rating_rows())
    write_picture(paths["analysis.png"], found.picture())
    return {**result, "files": [str(path) for path in paths.values()]}


def _describe_analysis(result: dict[str, Any]) -> str:
    from ..user_study.analysis import MEASURES
    from .inspect import printable

    raters = result["raters"]
    partial = sum(one["answered"] < one["questions"] for one in raters.values())
    lines = [
        f"{len(raters)} raters answered ({partial} of them not all), {len(result['silent'])} did not; "
        f"{len(result['excluded'])} failed attention checks and do not count"
        + "".join(
            f"\n  {code}: failed {raters[code]['failed']} of {raters[code]['checks']}"
            for code in result["excluded"]
        )
    ]
    lines += [f"Refused: {reason}" for reason in dict.fromkeys(result["refused"].values())]
    width = max(len(one["system"]) for one in result["scores"])
    for measure, title in MEASURES.items():
        rows = [one for one in result["scores"] if one["measure"] == measure]
        lines += ["", title] if rows else []
        lines += [f"  {one['system']:{width}}  {_figures(one)}" for one in rows]
        for one in (one for one in result["comparisons"] if one["measure"] == measure):
            lines.append(
                f"    {one['system']} - {one['other']}: {one['difference']:+.2f}{_interval(one)}, "
                f"p {_p(one['p'])}, corrected {_p(one['p_holm'])} ({one['items']} items)"
            )
    lines += ["", "Krippendorff's alpha (1 is full agreement, 0 chance)"]
    for one in result["agreement"]:
        ordinal = "" if one["ordinal"] is None else f", ordinal {one['ordinal']:.3f}"
        nominal = "unknown" if one["nominal"] is None else f"{one['nominal']:.3f}"
        lines.append(f"  {one['task']}  nominal {nominal}{ordinal} ({one['pictures']} pictures)")
    return printable("\n".join([*lines, "", *result["files"]]))


def _figures(score: dict[str, Any]) -> str:
    behind = f", {score['ratings']} ratings of {score['raters']} raters"
    if score["mean_times_20"] is not None:
        return f"{score['mean']:.2f}{_interval(score)}, x 20 = {score['mean_times_20']:.1f}{behind}"
    return f"{score['mean']:.1f}{_interval(score)}, {score['no_answer']} without answer{behind}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _interval(row: dict[str, Any]) -> str:
    return "" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})"


def _new_files(options: argparse.Namespace, names: Sequence[str]) -> list[Path]:
    """Paths in the output folder, which is made.

    Raises:
        CommandError: where a file is there already and may not be replaced.
    """
    paths = [options.output / name for name in names]
    there = [str(path) for path in paths if path.exists()]
    if there and not options.overwrite:
        raise CommandError(f"{there[0]} is there already: choose another folder, or add --overwrite")
    options.output.mkdir(parents=True, exist_ok=True)
    return paths


def _flat(score: Mapping[str, Any]) -> dict[str, Any]:
    """A score as a row: how often each answer was given as one text."""
    return {**score, "answers": "; ".join(f"{name}: {count}" for name, count in score["answers"].items())}


def _write_json(path: Path, record: dict[str, Any]) -> None:
    import json

    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(record, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8"
        )


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)

"""Judge the cultures that a folder of pictures shows (CultureVQA).

A judge is asked which of the cultures each picture shows, or none. The pictures' own cultures stand in the
folder's metadata.jsonl (file_name and culture, a line a picture), or the pictures lie in subfolders named
after them (th, ja, fr …). Vision-language models are asked three times a picture, with the options in another
order each time. Which judges there are is this machine's configuration: the miniature's CNN, one server that
CULTURE_VLM_URL, CULTURE_VLM_MODEL and CULTURE_VLM_KEY describe, and those in a file (see the README).

The output folder gets answers.jsonl, answers.csv, summary.json and confusion.png. Stopped and run again, it
goes on; pictures that have an answer are not asked about again.

example:
  python -m culture_core judge pictures --judge vlm --output judged
  python -m culture_core judge others --judge vlm --output judged-others --against judged
"""

import argparse
import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import atomic_path
from .common import positive, progress_bar, write_picture

if TYPE_CHECKING:
    from ..judges.by_vlm import VLMJudge
    from ..judges.folders import LabelledPicture
    from ..judges.results import Judged

logger = logging.getLogger(__name__)

ROTATIONS, WORKERS = 3, 4
"""As in `culture_core.judges`, without importing it."""
GRADED = ("relevance", "exaggeration")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="pictures whose cultures are known")
    parser.add_argument("--judge", default="miniature", metavar="NAME", help="who is asked (%(default)s)")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="where to keep the answers"
    )
    parser.add_argument(
        "--rotations", type=positive, default=ROTATIONS, metavar="N",
        help="how often a vision-language model is asked about a picture (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the order of the options (%(default)s)")
    parser.add_argument(
        "--grade", action="append", choices=GRADED, default=[],
        help="also ask for a grade from 1 to 5, how much of the culture there is or how exaggerated it is; "
        "may be given twice",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=positive, default=WORKERS, metavar="N",
        help="pictures at a time that a server is asked about (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER",
        help="the output of an earlier run, to compare with: another system's pictures of the same names, or "
        "another judge of the same pictures",
    )  # fmt: skip
    parser.add_argument(
        "--estimate", action="store_true",
        help="only say what it will cost, from asking about the first picture, whose answer is kept",
    )  # fmt: skip


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..judges import open_judge
    from ..judges.by_vlm import VLMJudge
    from ..judges.folders import read_folder
    from ..judges.pictures import confusion_picture
    from ..judges.results import compare, summarise
    from ..judges.run import judge_folder, read_run

    pictures = read_folder(options.folder)
    other = read_run(options.against) if options.against else None
    judge = open_judge(options.judge, options.seed, options.rotations)
    asks = judge if isinstance(judge, VLMJudge) else None
    estimate = asks and _estimate(asks, pictures, options.grade)
    if estimate:
        logger.info("Estimate for all %d pictures: %s", len(pictures), estimate)
    if options.estimate:
        return {"pictures": len(pictures), "judge": judge.name, "estimate": estimate}
    found = judge_folder(
        judge, pictures, options.output, graded=options.grade, workers=options.workers,
        progress=progress_bar("judging", "pictures"),
    )  # fmt: skip
    if not found.judged:
        raise ValueError(f"no picture could be judged; the first reason: {next(iter(found.failed.values()))}")
    summary = summarise(found.judged)
    comparison = compare(found.judged, other) if other is not None else None
    result = {
        "judge": judge.name, "output": str(options.output), "pictures": len(found.judged),
        "failed": found.failed, "cost": _spent(asks), "summary": summary.to_json(),
        "comparison": comparison and comparison.to_json(), "table": summary.table(),
        "compared": comparison and comparison.describe(str(options.output), str(options.against)),
    }  # fmt: skip
    _write_text(options.output / "summary.json", json.dumps(result, ensure_ascii=False, indent=1))
    _write_text(options.output / "answers.csv", _csv(found.judged))
    write_picture(options.output / "confusion.png", confusion_picture(summary, f"CultureVQA by {judge.name}"))
    return result


def describe(result: dict[str, Any]) -> str:
    if "summary" not in result:
        said = result["estimate"] or "it costs nothing"
        return f"{result['pictures']} pictures, judge {result['judge']}: {said}"
    lines = [f"Judge: {result['judge']}", result["table"], ""]
    lines += [result["compared"], ""] if result["compared"] else []
    lines += [f"Used now: {result['cost']}"] if result["cost"] else []
    if result["failed"]:
        lines.append(f"{len(result['failed'])} pictures got no answer: run it again to ask once more.")
    lines.append(f"{result['output']} has the answers, summary.json and confusion.png.")
    return "\n".join(lines)


def _estimate(judge: "VLMJudge", pictures: "Sequence[LabelledPicture]", graded: Sequence[str]) -> str | None:
    """Tokens and cost of all pictures; None for a judge that costs nothing."""
    from PIL import Image

    from ..judges.questions import GRADED as QUESTIONS
    from ..vlm import VLMRefusal

    with Image.open(pictures[0].path) as image:
        questions = [QUESTIONS[key] for key in graded]
        try:
            usage = judge.estimate(image, len(pictures), pictures[0].culture, questions)
        except VLMRefusal:
            return "unknown, the model declined to answer about the first picture"
    return usage.describe(judge.server.settings.prices) if usage and judge.server else None


def _spent(judge: "VLMJudge | None") -> str | None:
    server = judge.server if judge else None
    return server.usage.describe(server.settings.prices) if server else None


def _csv(judged: "Sequence[Judged]") -> str:
    text = io.StringIO()
    keys = list(dict.fromkeys(key for item in judged for key in item.grades))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "culture", "seen", "right", "share", "flipped", "answers", "models", *keys])
    for item in judged:
        verdict = item.verdict
        writer.writerow([
            item.file, item.culture, verdict.label or "invalid", int(item.right),
            f"{verdict.share(item.culture):.4f}", "" if verdict.flipped is None else int(verdict.flipped),
            " ".join(answer or "invalid" for answer in verdict.answers),
            " ".join(dict.fromkeys(verdict.models)), *(item.grades.get(key, "") for key in keys),
        ])  # fmt: skip
    return text.getvalue()


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")

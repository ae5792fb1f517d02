"""Build, check and exchange a CultureBench: pictures with captions that name a culture, and that do not.

A bench is a folder. Each action takes it one step further, and each goes on where it was interrupted:

  ingest      pictures of a folder come in, each once (exact and perceptual hash)
  caption     a vision-language model writes a cultural and a neutral caption, or a file gives them
  translate   the same model brings them into the culture's language, or a file does
  review      a person accepts, mends or rejects, on a page that is served to this machine alone
  split       7 : 2 : 1 into train, test and neuron_detection, stratified, without leakage
  validate    pictures, spans, languages, licences, leakage, balance; exit code 1 where there are errors
  statistics  counts by culture, category and region, with pictures
  export      a Hugging Face imagefolder, parquet, or prompt pairs for train-sae, detect and train-enhancer
  import      an exported imagefolder or parquet files come in

  python -m culture_core bench ingest my_bench photos/ --licence CC-BY-4.0 --source "photos by Jane Doe"
  python -m culture_core bench caption my_bench
  python -m culture_core bench translate my_bench
  python -m culture_core bench review my_bench --reviewer jane
  python -m culture_core bench split my_bench
  python -m culture_core bench validate my_bench
  python -m culture_core bench export my_bench exported/

What a picture shows is said by photos/metadata.jsonl or metadata.csv (file_name, culture, category, region,
licence, source, noun), or else by its place, photos/th/food/soup.jpg, or else by options. The model is one
that this machine is configured for (culture_core.vlm): any OpenAI-compatible server, named by the variables
CULTURE_VLM_URL, CULTURE_VLM_KEY and CULTURE_VLM_MODEL, or one of a configuration file, also Qwen3-VL on disk.
Captions that people wrote come from a JSONL file (--given), a line a record:
{"id": "th-…", "language": "th", "cultural": "<ชาม>[สไตล์ไทย]", "neutral": "<ชาม>", "english": "Thai bowl"}
with […] around what names the culture and <…> around the noun.

Records of the splits test and neuron_detection are refused by everything that trains.
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import (
    CommandError,
    UsageError,
    add_overwrite_argument,
    add_picture_argument,
    picture_folder,
    positive,
    progress_bar,
    write_pictures,
)

if TYPE_CHECKING:
    from ..bench import Bench, Written
    from ..vlm import VLM

log = logging.getLogger(__name__)

FORMATS = ("imagefolder", "parquet", "pairs")
"""As `culture_core.bench.exchange.FORMATS`, without importing it."""
SPLITS = ("train", "test", "neuron_detection")
"""As `culture_core.splits.BENCH_SPLITS`."""
NEAR = 20
"""As `culture_core.bench.hashes.NEAR`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="<action>")

    def action(name: str, what: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=what, description=what)
        made.add_argument("bench", type=Path, metavar="BENCH", help="folder of the bench")
        made.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print the result as JSON"
        )
        return made

    made = action("ingest", "take in the pictures of a folder")
    made.add_argument("pictures", type=Path, metavar="FOLDER", help="pictures: JPEG, PNG, WebP")
    for name in ("culture", "category", "region", "licence", "source"):
        made.add_argument(f"--{name}", default="", help="of all pictures that say nothing else")
    _add_near(made)
    for name, what in (
        ("caption", "have captions written for records that have none"),
        ("translate", "have captions brought into the culture's language"),
    ):
        made = action(name, what)
        made.add_argument("--given", type=Path, metavar="FILE.jsonl", help="captions that people wrote")
        made.add_argument("--vlm", default="", metavar="NAME", help="a configured model (the first)")
        made.add_argument("--limit", type=positive, metavar="N", help="at most so many records")
        if name == "caption":
            made.add_argument(
                "--language", choices=("en", "own"), default="en",
                help="English, to be translated, or each culture's own (%(default)s)",
            )  # fmt: skip
    made = action("review", "accept and reject records")
    made.add_argument("--reviewer", required=True, metavar="NAME", help="stands beside every decision")
    made.add_argument("--port", type=int, default=0, metavar="N", help="of the page (any that is free)")
    which = made.add_mutually_exclusive_group()
    which.add_argument("--accept", nargs="+", metavar="ID", help="accept these, without the page")
    which.add_argument("--reject", nargs="+", metavar="ID", help="reject these, without the page")
    made.add_argument("--reason", default="", help="for --reject or --accept")
    made = action("split", "split the accepted records 7 : 2 : 1")
    made.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    made.add_argument(
        "--again", action="store_true",
        help="split everything anew; without it, records keep the split that they have",
    )  # fmt: skip
    _add_near(made)
    _add_near(action("validate", "check everything"))
    made = action("statistics", "count")
    add_picture_argument(made)
    add_overwrite_argument(made)
    made = action("export", "write the accepted records")
    made.add_argument("output", type=Path, metavar="FOLDER", help="where to")
    made.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="(%(default)s)")
    made.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, metavar="SPLIT", help="(all)")
    add_overwrite_argument(made)
    made = action("import", "take in an exported bench")
    made.add_argument("exported", type=Path, metavar="FOLDER", help="imagefolder, or parquet files")


def _add_near(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--near", type=int, default=NEAR, metavar="BITS",
        help="of 256 bits of the perceptual hash, how many may differ between pictures that count as the "
        "same; -1: looks do not count (%(default)s)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> dict[str, Any]:
    return {"action": options.action, **_ACTIONS[options.action](options)}


def describe(result: dict[str, Any]) -> str:
    return result["report"]


def _ingest(options: argparse.Namespace) -> dict[str, Any]:
    from ..bench import Bench, Defaults, ingest

    said = Defaults(*(getattr(options, name) for name in Defaults._fields))
    found = ingest(
        options.pictures, Bench(options.bench), said, options.near, progress_bar("reading", "picture")
    )  # fmt: skip
    lines = [f"{len(found.added)} pictures came in, {found.known} were there, {len(found.skipped)} not taken"]
    lines += [f"  {one.file}: {one.reason}" for one in found.skipped[:20]]
    if len(found.skipped) > 20:
        lines.append(f"  … and {len(found.skipped) - 20} more (--json lists all)")
    return {
        "added": found.added, "known": found.known, "skipped": [one._asdict() for one in found.skipped],
        "report": "\n".join(lines),
    }  # fmt: skip


def _caption(options: argparse.Namespace) -> dict[str, Any]:
    from ..bench import caption

    return _write(
        options,
        lambda bench, vlm, progress: caption(bench, vlm, options.language, options.limit, progress),
    )


def _translate(options: argparse.Namespace) -> dict[str, Any]:
    from ..bench import translate

    return _write(options, lambda bench, vlm, progress: translate(bench, vlm, options.limit, progress))


def _write(
    options: argparse.Namespace, write: "Callable[[Bench, VLM, Callable[[int, int], None]], Written]"
) -> dict[str, Any]:
    from ..bench import Bench, give_captions
    from ..bench.records import read_jsonl

    bench = Bench.open(options.bench)
    if options.given is not None:
        count = give_captions(bench, read_jsonl(options.given))
        return {"done": count, "failed": {}, "cost": 0, "report": f"{count} captions were taken over"}
    found = write(bench, _vlm(options), progress_bar("asking", "record"))
    cost = "unknown" if found.cost is None else f"{found.cost:.4g}"
    lines = [f"{found.done} written, {len(found.failed)} without a usable answer; cost {cost}"]
    lines += [f"  {id}: {reason}" for id, reason in list(found.failed.items())[:20]]
    if found.failed:
        lines.append("The same command asks about those again.")
    return {**found._asdict(), "report": "\n".join(lines)}


def _vlm(options: argparse.Namespace) -> "VLM":
    from ..vlm import open_vlm

    return open_vlm(options.vlm)


def _review(options: argparse.Namespace) -> dict[str, Any]:
    from ..bench import ACCEPTED, REJECTED, Bench, ReviewServer

    bench = Bench.open(options.bench)
    if options.accept or options.reject:
        decision = ACCEPTED if options.accept else REJECTED
        for id in options.accept or options.reject:
            bench.decide(id, decision, options.reviewer, options.reason)
    elif options.reason:
        raise UsageError("--reason goes with --accept or --reject")
    else:
        with ReviewServer(options.bench, options.reviewer, options.port) as server:
            log.info("Open %s in a browser on this machine. Ctrl-C ends the review.", server.url)
            try:
                server.serve()
            except KeyboardInterrupt:
                log.info("The review ends. All decisions are saved.")
            decided = server.queue()["decided"]
            return {"decided": decided, "report": _counted(decided)}
    from collections import Counter

    decided = dict(Counter(record.decision or "waiting" for record in bench.records.values()))
    return {"decided": decided, "report": _counted(decided)}


def _counted(decided: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(decided.items()))


def _split(options: argparse.Namespace) -> dict[str, Any]:
    from ..bench import Bench, split_records

    bench = Bench.open(options.bench)
    records = bench.accepted()
    found = split_records(records, options.near, options.seed, again=options.again)
    bench.update(replace(record, split=found.splits[record.id]) for record in records)
    counts = {split: sum(one == split for one in found.splits.values()) for split in SPLITS}
    shares = ", ".join(f"{split} {count} ({count / len(records):.1%})" for split, count in counts.items())
    report = f"{shares}\n{found.groups} groups that stay together, the largest of {found.largest} records"
    return {"counts": counts, "groups": found.groups, "largest": found.largest, "report": report}


def _validate(options: argparse.Namespace) -> dict[str, Any]:
    from ..bench import Bench, validate
    from ..bench.validation import ERROR, report

    bench = Bench.open(options.bench)
    problems = validate(bench, options.near, progress_bar("checking", "record"))
    return {
        "problems": [problem._asdict() for problem in problems],
        "failed": any(problem.level == ERROR for problem in problems),
        "report": report(problems, len(bench)),
    }


def _statistics(options: argparse.Namespace) -> dict[str, Any]:
    from ..bench import Bench, statistics
    from ..bench.counts import describe as described
    from ..bench.counts import pictures

    picture_folder(options.picture, options.overwrite)
    figures = statistics(Bench.open(options.bench))
    if options.picture is not None and not figures["accepted"]:
        raise CommandError("no record is accepted yet: there is nothing to draw")
    written = write_pictures(options.picture, pictures(figures) if options.picture else {})
    lines = [described(figures), *(["", f"Pictures: {', '.join(written)}"] if written else [])]
    return {**figures, "pictures": written, "report": "\n".join(lines)}


def _export(options: argparse.Namespace) -> dict[str, Any]:
    from ..bench import Bench, export

    found = export(
        Bench.open(options.bench), options.output, options.format, options.splits, options.overwrite,
        progress_bar("writing", "record"),
    )  # fmt: skip
    counts = ", ".join(f"{split} {count}" for split, count in found.counts.items())
    return {"output": str(found.folder), "counts": found.counts, "report": f"{found.folder}: {counts}"}


def _import(options: argparse.Namespace) -> dict[str, Any]:
    from ..bench import Bench, import_folder

    count = import_folder(options.exported, Bench(options.bench), progress_bar("reading", "record"))
    return {"records": count, "report": f"{count} records came in"}


_ACTIONS = {
    "ingest": _ingest,
    "caption": _caption,
    "translate": _translate,
    "review": _review,
    "split": _split,
    "validate": _validate,
    "statistics": _statistics,
    "export": _export,
    "import": _import,
}

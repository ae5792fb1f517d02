"""Have systems draw an evaluation's prompts: ComfyUI workflows, diffusers pipelines, folders of pictures.

  python -m culture_core generate miniature --system miniature --system "miniature amplified" --output run

What is a system stands in a YAML file (evaluation/systems.yaml has many). Called again, it goes on where it
stopped: nothing is drawn twice. ComfyUI servers are given with --server, or in the variable CULTURE_COMFYUI;
on a Ray cluster, each machine's variable counts.
"""

import argparse
import logging
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import UsageError, positive, progress_bar

if TYPE_CHECKING:
    from ..generators.run import Worker
    from ..generators.systems import System

logger = logging.getLogger(__name__)

SYSTEMS = Path(__file__).resolve().parents[2] / "evaluation" / "systems.yaml"
RETRIES, TIMEOUT = 2, 1800.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "prompts", metavar="PROMPTS",
        help="a CultureBench folder (its test split), a JSONL file of prompt pairs, or: miniature",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="the run's folder")
    parser.add_argument(
        "--systems", type=Path, default=SYSTEMS, metavar="FILE", help="YAML file of systems (%(default)s)"
    )
    parser.add_argument(
        "--system", action="append", default=[], metavar="NAME",
        help="a system of the file; may be given several times (all)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, action="append", default=[], metavar="N", help="may be given several times (0)"
    )
    parser.add_argument(
        "--strength", type=float, action="append", default=[], metavar="X",
        help="of the amplifier or the enhancer, for systems without strengths of their own; may be given "
        "several times",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="take the first N prompts of each culture"
    )
    parser.add_argument(
        "--server", action="append", default=[], metavar="ADDRESS",
        help="address of a ComfyUI server; may be given several times (CULTURE_COMFYUI, or the usual one)",
    )  # fmt: skip
    parser.add_argument(
        "--ray", nargs="?", const="auto", metavar="ADDRESS",
        help="use the ComfyUI servers of a Ray cluster's machines instead",
    )  # fmt: skip
    parser.add_argument(
        "--path", action="append", default=[], metavar="NAME=PLACE",
        help="where a folder or a file is that the systems file names; may be given several times",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="of diffusers pipelines: cpu, cuda … (%(default)s)")
    parser.add_argument(
        "--download", action="store_true", help="allow diffusers to fetch pipelines from the hub"
    )
    parser.add_argument(
        "--retries", type=int, default=RETRIES, metavar="N", help="attempts after the first (%(default)s)"
    )
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT, metavar="S", help="seconds a picture may take (%(default)g)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only count what is to be done")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..generators.folder import RunFolder
    from ..generators.prompts import read_prompts
    from ..generators.run import check_systems, open_run, plan, run_jobs, written_texts
    from ..generators.systems import read_systems

    if options.retries < 0 or not options.timeout > 0:
        raise UsageError("--retries must be 0 or more, --timeout more than 0")
    if options.ray and options.server:
        raise UsageError("give --server or --ray: a cluster's machines know their own servers")
    systems = read_systems(options.systems, options.system, _places(options.path))
    listed = read_prompts(options.prompts)
    prompts = _first(listed, options.limit)
    seeds = options.seed or [0]
    texts = written_texts(options.output)
    if options.dry_run:
        # A text that is not written yet stands for itself: nothing is asked, and its job is not done yet.
        jobs = plan(systems, prompts, seeds, options.strength, lambda p, t: texts.given(p, t) or f"<{t}>")
        run = RunFolder(options.output)
        there = {job.id for job in jobs if (options.output / job.record()["file_name"]).is_file()}
        counts = Counter(job.system for job in jobs)
        return {
            "dry_run": True, "jobs": len(jobs), "done": len(there), "systems": dict(counts),
            "prompts": len(prompts), "output": str(run.folder),
        }  # fmt: skip
    source = Path(options.prompts).resolve().name
    with ExitStack() as stack:
        workers = check_systems(systems, _workers(options, systems, seeds, stack))
        open_run(options.output, systems, listed, source, seeds, options.strength)
        jobs = plan(systems, prompts, seeds, options.strength, texts.text)
        summary = run_jobs(
            options.output, systems, jobs, workers, retries=options.retries,
            progress=progress_bar("drawing", "pictures"),
        )  # fmt: skip
    failed = [f"{f.job.system}, {f.job.item.item}, seed {f.job.seed}: {f.reason}" for f in summary.failed]
    failed += [f"{summary.left} jobs were not tried to the end"] if summary.left else []
    return {
        "output": str(options.output), "pictures": summary.made + summary.before, "new": summary.made,
        "failed": failed, "left": summary.left, "lost": summary.lost, "by_worker": summary.by_worker,
        "systems": dict(Counter(job.system for job in jobs)),
    }  # fmt: skip


def describe(result: dict[str, Any]) -> str:
    systems = ", ".join(f"{name} ({count})" for name, count in result["systems"].items())
    if result.get("dry_run"):
        counts = f"{result['jobs']} pictures of {result['prompts']} prompts, {result['done']} of them done"
        return f"{counts}: {systems}"
    by = ", ".join(f"{name} {count}" for name, count in result["by_worker"].items())
    lines = [
        f"{result['output']} has {result['pictures']} pictures, {result['new']} of them new: {systems}",
        *([f"Drawn by: {by}"] if by else []),
        *([f"Lost on the way: {', '.join(result['lost'])}"] if result["lost"] else []),
    ]
    if result["failed"]:
        lines += [*result["failed"][:10], "Run it again to try once more; failures.jsonl has the reasons."]
    return "\n".join(lines)


def _workers(
    options: argparse.Namespace, systems: "list[System]", seeds: list[int], stack: ExitStack
) -> "list[Worker]":
    """Those that the systems need."""
    from ..generators.cluster import ray_workers
    from ..generators.comfyui import ComfyWorker, server_addresses
    from ..generators.diffusion import PipelineWorker
    from ..generators.foreign import FolderWorker
    from ..generators.systems import DIFFUSERS, FOLDER, WORKFLOW

    kinds = {system.kind for system in systems}
    workers: list[Worker] = []
    if WORKFLOW in kinds and options.ray:
        workers += stack.enter_context(ray_workers(options.ray, options.timeout))
    elif WORKFLOW in kinds:
        addresses = enumerate(server_addresses(options.server), start=1)
        workers += [ComfyWorker(address, f"server {n}", options.timeout) for n, address in addresses]
    if DIFFUSERS in kinds:
        workers.append(PipelineWorker(options.device, options.download))
    if FOLDER in kinds:
        workers.append(FolderWorker(seeds))
    return workers


def _first(prompts: list[Any], limit: int | None) -> list[Any]:
    """The first prompts of each culture."""
    if limit is None:
        return prompts
    counts: Counter[str] = Counter()
    chosen = []
    for prompt in prompts:
        counts[prompt.culture] += 1
        if counts[prompt.culture] <= limit:
            chosen.append(prompt)
    return chosen


def _places(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, (name, _, place) in zip(given, pairs, strict=True) if not (name and place)]:
        raise UsageError(f"--path {wrong[0]}: write NAME=PLACE")
    return {name: place for name, _, place in pairs}

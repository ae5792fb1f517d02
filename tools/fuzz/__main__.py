"""Fuzz everything that reads what a stranger may have made.

    python -m tools.fuzz --cases 100000          the run by hand, about half an hour
    python -m tools.fuzz --target pairs          one target alone
    python -m tools.fuzz --replay                the corpus as it is, each case once

Cases are good ones from tests/fuzz/corpus with a few changes, made by Hypothesis. A case must be accepted or
refused with a declared error whose message names the file, within 2 s of processor time and twice its size
of memory (plus a fixed allowance, see `guards.py`), without a file opened outside of its folder and without a
connection. What fails is kept in --findings, the smallest case of each cause.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from .cases import ACCEPTED, EITHER, Outcome, Scratch, corpus, describe, names, read, write
from .guards import Cost
from .mutations import Files, mutated
from .targets import HAS_COMFYUI, ROOT, TARGETS, clear, put_comfyui_on_path, reader

HANG = 60
"""Seconds after which a case is ended from outside: one that never comes back to Python."""
BROKEN = 3
"""Exit code of a worker whose own code failed."""
CHUNK = 2000
"""Cases of one run of Hypothesis, which remembers all of them."""


def main() -> int:
    options = _options()
    chosen = options.target or [n for n, t in TARGETS.items() if HAS_COMFYUI or not t.needs_comfyui]
    if options.worker:
        return work(chosen, options)
    total = sum(TARGETS[name].share for name in chosen)
    left = {name: max(1, round(options.cases * TARGETS[name].share / total)) for name in chosen}
    return 1 if Supervisor(left, options).run() else 0


def _options() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__, formatter_class=layout)
    parser.add_argument("--cases", type=int, default=5000, help="in all (%(default)s)")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only these; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="other seeds make other cases")
    parser.add_argument("--replay", action="store_true", help="try the corpus and nothing else")
    parser.add_argument("--findings", type=Path, help="folder for cases that fail (a temporary one)")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.findings = options.findings or Path(tempfile.mkdtemp(prefix="culture-fuzz-"))
    return options


class Supervisor:
    """Runs the targets in a process of their own, and in another one when a case has ended it."""

    def __init__(self, left: dict[str, int], options: argparse.Namespace) -> None:
        self.left, self.options = left, options
        self.tallies = {name: Tally(options.findings / name) for name in left}
        self._start = time.monotonic()

    def run(self) -> int:
        """Returns the number of causes found."""
        deaths = 0
        while self.left:
            with tempfile.TemporaryDirectory(dir=_memory()) as scratch:
                if code := self._worker(Path(scratch), self.options.seed + 1000 * deaths):
                    if code == BROKEN:
                        raise RuntimeError("the fuzzer itself is broken, see above")
                    deaths += 1
                    self._died(code, Path(scratch) / "case")
        return sum(len(tally.problems) for tally in self.tallies.values())

    def _worker(self, scratch: Path, seed: int) -> int:
        command = [sys.executable, "-m", "tools.fuzz", "--worker", json.dumps(self.left), "--seed", str(seed)]
        command += ["--findings", str(self.options.findings)] + ["--replay"] * self.options.replay
        command += [word for name in self.left for word in ("--target", name)]
        environment = {**os.environ, "CULTURE_FUZZ_SCRATCH": str(scratch)}
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            for line in process.stdout or ():
                if line.startswith("{"):
                    self._heard(json.loads(line))
        return process.returncode

    def _heard(self, record: dict[str, Any]) -> None:
        name = record["target"]
        self.tallies[name].join(record)
        self.left[name] -= sum(record["results"].values())
        if record["done"]:
            del self.left[name]
            print(f"{name:16s} {self.tallies[name].describe()}", flush=True)

    def _died(self, code: int, case: Path) -> None:
        """A reader has ended the process, or it hung: the case still lies where it was tried."""
        name = next(iter(self.left))
        cause = f"the process ended with {code}"
        self.tallies[name].problems.add(cause)
        _keep(read(case), Outcome("", Cost(), cause), self.options.findings / name)
        self.left[name] -= 1
        if self.options.replay or self.left[name] < 1:
            del self.left[name]


def _memory() -> str | None:
    """A folder in memory, where there is one: cases are many and small."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


# ---------------------------------------------------------------------------------------------- the worker


def work(targets: list[str], options: argparse.Namespace) -> int:
    """Try cases in this process; a line of JSON on stdout for each chunk of them."""
    _be_quiet()
    if any(TARGETS[name].needs_comfyui for name in targets):
        put_comfyui_on_path()
    scratch = Scratch(Path(os.environ["CULTURE_FUZZ_SCRATCH"]))
    for name in targets:
        cases = corpus(name)
        for files in cases.values():  # imports and caches are no case's cost
            scratch.run(reader(name), files, names(cases.values()))
        if options.replay:
            _replay(cases, name, scratch, options.findings / name)
            continue
        count, start = options.worker[name], 0
        while start < count:
            size = min(CHUNK, count - start)
            tally = _chunk(cases, size, options.seed + start, name, scratch, options.findings / name)
            start += size
            tally.report(name, start >= count)
    return 0


def _be_quiet() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CULTURE_VLM_URL="")
    os.environ["RUST_BACKTRACE"] = "0"  # a panic would read the library's symbols


def _replay(cases: dict[str, Files], name: str, scratch: Scratch, findings: Path) -> None:
    tally, known = Tally(findings), names(cases.values())
    for case, files in cases.items():
        outcome = scratch.run(reader(name), files, known)
        wanted = case.partition("-")[0]
        if not outcome.problem and wanted not in (EITHER, outcome.result):
            outcome = Outcome("", outcome.cost, f"{case} was {outcome.result}")
        tally.add(files, outcome)
    tally.report(name, done=True)


def _chunk(
    cases: dict[str, Files], count: int, seed: int, name: str, scratch: Scratch, findings: Path
) -> Tally:
    import hypothesis
    from hypothesis import strategies as st

    tally, read_case, known = Tally(findings), reader(name), names(cases.values())
    # Nine of ten begin with a good case, the others with one that was bad before.
    good = [files for case, files in cases.items() if case.startswith(ACCEPTED)]
    bad = [files for case, files in cases.items() if not case.startswith(ACCEPTED)] or good

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, deadline=None, database=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(st.data())
    def one(data: st.DataObject) -> None:
        source = good if data.draw(st.integers(0, 9)) else bad
        files = mutated(data.draw, data.draw(st.sampled_from(source)))
        faulthandler.dump_traceback_later(HANG, exit=True)
        try:
            tally.add(files, scratch.run(read_case, files, known))
        finally:
            faulthandler.cancel_dump_traceback_later()

    one()
    return tally


class Tally:
    """Counts outcomes, and keeps the smallest case of each problem."""

    def __init__(self, findings: Path) -> None:
        self.findings, self.results = findings, Counter[str]()
        self.problems: set[str] = set()
        self.cost, self.start = Cost(), time.monotonic()

    def add(self, files: Files, outcome: Outcome) -> None:
        self.results[outcome.result or "failed"] += 1
        self._largest(outcome.cost.seconds, outcome.cost.bytes)
        if outcome.problem:
            self.problems.add(outcome.problem)
            _keep(files, outcome, self.findings)

    def join(self, record: dict[str, Any]) -> None:
        """What a worker reports."""
        self.results.update(record["results"])
        self.problems.update(record["problems"])
        self._largest(record["seconds"], record["bytes"])

    def report(self, target: str, done: bool) -> None:
        record = {
            "target": target, "done": done, "results": self.results, "problems": sorted(self.problems),
            "seconds": self.cost.seconds, "bytes": self.cost.bytes,
        }  # fmt: skip
        print(json.dumps(record), flush=True)

    def describe(self) -> str:
        counts = ", ".join(f"{count} {result}" for result, count in sorted(self.results.items()))
        text = f"{sum(self.results.values()):6d} cases: {counts}; at most {self.cost.seconds:.2f} s, "
        causes = "".join(f"\n  ! {cause}" for cause in sorted(self.problems))
        return f"{text}{self.cost.bytes >> 20} MiB{causes}" + (f"\n  in {self.findings}" if causes else "")

    def _largest(self, seconds: float, bytes_: int) -> None:
        self.cost = Cost(max(self.cost.seconds, seconds), max(self.cost.bytes, bytes_))


def _keep(files: Files, outcome: Outcome, findings: Path) -> None:
    plain = "".join(c if c.isalnum() else "_" for c in outcome.problem)[:100]
    folder = findings / plain
    size = sum(map(len, files.values()))
    note = folder / "why.txt"
    if note.is_file() and int(note.read_text(encoding="utf-8").split("\n")[0]) <= size:
        return
    (folder / "case").mkdir(parents=True, exist_ok=True)
    clear(folder / "case")
    write(files, folder / "case")
    text = f"{size}\n{outcome.problem}\n{describe(files)}\n{outcome.detail}\n"
    note.write_text(text, encoding="utf-8", errors="replace")


def _run() -> int:
    try:
        return main()
    except Exception:
        traceback.print_exc()
        return BROKEN


if __name__ == "__main__":
    sys.exit(_run())

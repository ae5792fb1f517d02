"""Runs: every system draws every prompt with every seed at every strength, once.

The list of jobs is this process's. Workers (a ComfyUI server, here or on a machine of a cluster; a diffusers
pipeline; a folder) take jobs from it; this process's main thread puts what they make into the folder.
"""

import hashlib
import json
import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from .base import GeneratorError, Job, JobFailed, JobRefused, Made, Prompt, WorkerLost
from .folder import RunFolder
from .prompts import Texts, prompts_hash
from .systems import System

logger = logging.getLogger(__name__)

RETRIES = 2
"""After the first attempt."""
PATIENCE = 5
"""So many jobs of a system in a row that failed end it: the rest would fare no better."""
BACK_OFF = 1.0
"""Seconds before the second attempt, doubled for each further one."""
Progress = Callable[[int, int], None]


class Worker(Protocol):
    """Someone who does jobs, one at a time."""

    name: str
    """Without an address."""
    kinds: frozenset[str]
    """Kinds of systems that it can do."""

    def check(self, system: System) -> list[str]: ...
    def alive(self) -> bool: ...
    def make(self, system: System, job: Job, stopped: Callable[[], bool]) -> Made: ...


class Failure(NamedTuple):
    """A job that was given up; the next run tries again."""

    job: Job
    reason: str
    attempts: int

    def to_json(self) -> dict[str, Any]:
        return {**self.job.record(), "file_name": None, "reason": self.reason, "attempts": self.attempts}


class Summary(NamedTuple):
    """What a run did."""

    made: int
    """Pictures that are new."""
    before: int
    """Pictures that were there already."""
    failed: list[Failure]
    left: int
    """Jobs that were not tried, or not to the end: nobody was there to do them, or their system was ended."""
    lost: list[str]
    """Workers that could not be reached any more."""
    by_worker: dict[str, int]


def plan(
    systems: Sequence[System],
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    strengths: Sequence[float],
    text: Callable[[Prompt, str], str],
) -> list[Job]:
    """The jobs of a run.

    Args:
        strengths: for systems with a dial and no strengths of their own.
        text: gives the text of a prompt under a treatment.

    Raises:
        GeneratorError: for a dial without a strength, seeds below 0 or twice, or two systems of one name.
    """
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise GeneratorError(f"seeds must be different whole numbers from 0 on, got {list(seeds)}")
    jobs = []
    for system in systems:
        settings = system.settings()
        for strength in _dial(system, strengths):
            for prompt in prompts:
                written = text(prompt, system.treatment)
                for seed in seeds:
                    id = _job_id(system.name, settings, prompt, written, seed, strength)
                    jobs.append(Job(id, system.name, prompt, written, seed, strength))
    return jobs


def open_run(
    folder: Path,
    systems: Sequence[System],
    prompts: Sequence[Prompt],
    source: str,
    seeds: Sequence[int],
    strengths: Sequence[float],
) -> None:
    """See that a folder is new, or of a run that this one adds to, and note the settings.

    Systems, seeds and strengths may be added; what a name stands for stays.

    Args:
        prompts: the whole list, whatever part of it is drawn now.
        source: name of the prompt list, without a path.

    Raises:
        GeneratorError: where the folder has pictures of other prompts, or of other systems of the same names.
    """
    run = RunFolder(folder)
    hashed = {"source": source, "count": len(prompts), "sha256": prompts_hash(prompts)}
    before = run.read_settings() or {"prompts": hashed, "systems": {}, "seeds": [], "strengths": []}
    now = {system.name: system.settings() for system in systems}
    try:
        changed = [name for name in now if before["systems"].get(name, now[name]) != now[name]]
        other = before["prompts"]["sha256"] != hashed["sha256"]
        merged = {
            "prompts": before["prompts"], "systems": before["systems"] | now,
            "seeds": list(dict.fromkeys([*before["seeds"], *seeds])),
            "strengths": list(dict.fromkeys([*before["strengths"], *strengths])),
        }  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise GeneratorError(f"{folder} is not of such a run: choose another folder") from error
    if other or changed:
        what = "another prompt list" if other else f"other settings of {', '.join(changed)}"
        raise GeneratorError(f"{folder} has pictures of {what}: choose another folder, or another name")
    if folder.is_dir() and not (folder / "run.json").exists() and (folder / "metadata.jsonl").exists():
        raise GeneratorError(f"{folder} has pictures of something else: choose another folder")
    run.write_settings(merged)


def check_systems(systems: Sequence[System], workers: Sequence[Worker]) -> list[Worker]:
    """The workers that can be reached; every system must have one, and run on all of its kind.

    Raises:
        GeneratorError: where not; the message has every problem.
    """
    reached: list[Worker] = []
    problems: dict[str, list[str]] = {}
    for worker in workers:
        try:
            for system in systems:
                if system.kind in worker.kinds:
                    for problem in worker.check(system):
                        problems.setdefault(f"{system.name}: {problem}", []).append(worker.name)
            reached.append(worker)
        except (WorkerLost, JobFailed) as error:
            logger.warning("%s: left out.", error)
    if problems:
        lines = [f"{problem} [{', '.join(names)}]" for problem, names in problems.items()]
        raise GeneratorError("\n".join(lines))
    nobody = [s.name for s in systems if not any(s.kind in worker.kinds for worker in reached)]
    if nobody:
        raise GeneratorError(
            f"nobody is there to do {', '.join(nobody)}: start ComfyUI, and give its address with --server "
            "or CULTURE_COMFYUI"
        )
    return reached


def run_jobs(
    folder: Path,
    systems: Sequence[System],
    jobs: Sequence[Job],
    workers: Sequence[Worker],
    *,
    retries: int = RETRIES,
    back_off: float = BACK_OFF,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Do what is not done yet. Every picture is in the folder, with its line, as soon as it is made.

    Args:
        retries: attempts after the first, of a job that failed or whose worker was lost.
        back_off: seconds before the second attempt, doubled for each further one.
        progress: called in this thread with (done or given up, all); what it raises ends the run.
    """
    run = RunFolder(folder)
    run.recover(jobs)
    todo = [job for job in jobs if job.id not in run.records]
    before = len(jobs) - len(todo)
    progress(before, len(jobs))
    board = _Board({system.name: system for system in systems}, todo, retries, back_off)
    threads = [threading.Thread(target=_work, args=(board, worker), daemon=True) for worker in workers]
    failed: list[Failure] = []
    counts: Counter[str] = Counter()
    try:
        for thread in threads:
            thread.start()
        for worker, job, made in board.results(threads):
            if isinstance(made, Failure):
                failed.append(made)
                logger.warning("%s, %r, seed %d: %s", job.system, job.prompt, job.seed, made.reason)
            else:
                run.keep(job, made)
                counts[worker] += 1
            progress(before + sum(counts.values()) + len(failed), len(jobs))
    finally:
        board.stop()
        for thread in threads:
            thread.join(timeout=10)
        run.write_failures(failure.to_json() for failure in failed)
    made_now = sum(counts.values())
    left = len(todo) - made_now - len(failed)
    return Summary(made_now, before, failed, left, board.lost, dict(counts))


class _Board:
    """The jobs that wait and the results that nobody has taken yet, for all threads."""

    def __init__(
        self, systems: Mapping[str, System], jobs: Sequence[Job], retries: int, back_off: float
    ) -> None:
        self.systems, self.retries, self.back_off = systems, retries, back_off
        self.lost: list[str] = []
        self._waiting = deque((job, 0, 0.0) for job in jobs)
        self._working: Counter[str] = Counter()
        """Jobs in work by kind of system: each may come back."""
        self._in_a_row: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._stopped = False
        # Bounded, so that fast workers do not fill the memory with pictures.
        self._results: queue.Queue[tuple[str, Job, Made | Failure]] = queue.Queue(maxsize=16)

    def stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self, kinds: frozenset[str]) -> tuple[Job, int] | None:
        """A job and its earlier attempts; None once there is none of these kinds any more."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                mine = [entry for entry in self._waiting if self._kind(entry[0]) in kinds]
                ready = next((entry for entry in mine if entry[2] <= now), None)
                if ready:
                    self._waiting.remove(ready)
                    self._working[self._kind(ready[0])] += 1
                    return ready[:2]
                if not mine and not any(self._working[kind] for kind in kinds):
                    return None
                self._changed.wait(min((entry[2] for entry in mine), default=now + 60) - now)
        return None

    def give_back(self, job: Job, attempts: int, reason: str, worker: str, final: bool = False) -> None:
        """A job that did not work out: to be tried again, or given up."""
        again = attempts <= self.retries and not final
        with self._changed:
            self._working[self._kind(job)] -= 1
            if again:
                due = time.monotonic() + self.back_off * 2 ** (attempts - 1)
                # In front: it was its turn.
                self._waiting.appendleft((job, attempts, due))
            else:
                self._count_failure(job.system, reason)
            self._changed.notify_all()
        if not again:
            self._put(worker, job, Failure(job, reason, attempts))

    def finish(self, job: Job, made: Made, worker: str) -> None:
        with self._changed:
            self._working[self._kind(job)] -= 1
            self._in_a_row[job.system] = 0
            self._changed.notify_all()
        self._put(worker, job, made)

    def wait(self, seconds: float) -> None:
        """Sleep, unless the run is stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, seconds)

    def results(self, threads: Sequence[threading.Thread]) -> Iterator[tuple[str, Job, Made | Failure]]:
        """What the workers give, until all of them have ended."""
        while True:
            alive = any(thread.is_alive() for thread in threads)
            try:
                yield self._results.get(timeout=0.2 if alive else 0)
            except queue.Empty:
                if not alive:
                    return

    def _put(self, worker: str, job: Job, result: Made | Failure) -> None:
        while not self._stopped:
            try:
                return self._results.put((worker, job, result), timeout=0.2)
            except queue.Full:
                continue

    def _count_failure(self, system: str, reason: str) -> None:
        self._in_a_row[system] += 1
        if self._in_a_row[system] >= PATIENCE:
            rest = [entry for entry in self._waiting if entry[0].system == system]
            if rest:
                logger.error(
                    "%s: ended after %d failures in a row, %d jobs are left. The last reason: %s",
                    system, PATIENCE, len(rest), reason,
                )  # fmt: skip
            self._waiting = deque(entry for entry in self._waiting if entry[0].system != system)

    def _kind(self, job: Job) -> str:
        return self.systems[job.system].kind


def _work(board: _Board, worker: Worker) -> None:
    """What a worker's thread does."""
    while (taken := board.take(worker.kinds)) is not None:
        job, attempts = taken
        try:
            made = worker.make(board.systems[job.system], job, board.stopped)
        except WorkerLost as error:
            board.give_back(job, attempts + 1, str(error), worker.name)
            if not board.stopped() and not _comes_back(board, worker):
                logger.warning("%s: goes on without it.", error)
                board.lost.append(worker.name)
                return
        except JobFailed as error:
            board.give_back(job, attempts + 1, str(error), worker.name, isinstance(error, JobRefused))
        except Exception as error:  # a fault of this program must end neither the thread nor the run
            logger.exception("%s", worker.name)
            board.give_back(job, attempts + 1, f"{type(error).__name__}: {error}", worker.name, True)
        else:
            board.finish(job, made, worker.name)


def _comes_back(board: _Board, worker: Worker) -> bool:
    """Wait for a worker that was lost, a little longer each time.

    A minute with the usual settings: a server that restarts is there again by then.
    """
    for attempt in range(board.retries + 4):
        if board.stopped():
            return False
        if worker.alive():
            return True
        board.wait(board.back_off * 2**attempt)
    return worker.alive()


def _dial(system: System, strengths: Sequence[float]) -> Sequence[float | None]:
    if system.strengths:
        return system.strengths
    if not system.has_dial:
        return [None]
    if not strengths:
        raise GeneratorError(f"system {system.name!r} has a dial: give it strengths, or the run --strength")
    return list(dict.fromkeys(strengths))


def _job_id(
    name: str, settings: Mapping[str, Any], prompt: Prompt, text: str, seed: int, strength: float | None
) -> str:
    hashed = json.dumps([name, settings, list(prompt), text, seed, strength], sort_keys=True)
    return hashlib.sha256(hashed.encode()).hexdigest()[:20]


def written_texts(folder: Path) -> Texts:
    """The texts of a run; what a language model writes is kept in its folder."""
    from ..vlm import open_vlm

    return Texts(folder / "texts.jsonl", open_vlm)

"""Cases on disk: the corpus, a case that is tried, and what went wrong with it."""

from __future__ import annotations

import json
import os
import shutil
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .guards import ALLOWANCE, SECONDS, Cost, Watch, measured
from .mutations import Files, Link
from .targets import COMFYUI, ROOT, Reader, clear

CORPUS = ROOT / "tests" / "fuzz" / "corpus"
"""A folder a target, in it a folder a case. What a case's name begins with is what must come of it."""
ACCEPTED, REFUSED, EITHER = "accepted", "refused", "either"


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    result: str
    """`accepted` or `refused`; empty where something is wrong."""
    cost: Cost
    problem: str = ""
    """Of one kind for what has one cause; empty where all is well."""
    detail: str = ""


class Scratch:
    """The folder that cases are written into, and what lies beside it to be stumbled on."""

    def __init__(self, base: Path) -> None:
        self.case, self.outside = base / "case", base / "outside"
        for folder in (self.case, self.outside):
            folder.mkdir(parents=True, exist_ok=True)
        for source in ("culture_sae/accepted-whole/sae.safetensors", "pairs/accepted-whole/images/a.png"):
            path = CORPUS / source
            shutil.copy(path, self.outside / f"secret{path.suffix}")
        self.watch = Watch((ROOT, COMFYUI), self.outside)

    def run(self, reader: Reader, files: Files, known: set[str]) -> Outcome:
        """Try a case; `known`: names of files that a good one has."""
        clear(self.case)
        write(files, self.case)
        return check(reader, self.case, self.watch, known)


def corpus(target: str) -> dict[str, Files]:
    """The cases of a target by name."""
    return {folder.name: read(folder) for folder in sorted((CORPUS / target).glob("*")) if folder.is_dir()}


def names(files: Iterable[Files]) -> set[str]:
    """All files' names, one of which a refusal must name."""
    return {Path(name).name for case in files for name in case}


def read(folder: Path) -> Files:
    """The files of a case by their paths in it."""
    return {
        path.relative_to(folder).as_posix(): Link(os.readlink(path))
        if path.is_symlink()
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def write(files: Files, folder: Path) -> None:
    """Lay a case out."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
            if path.name == "models.json":  # holds a key
                path.chmod(0o600)


def check(reader: Reader, folder: Path, watch: Watch, known: set[str]) -> Outcome:
    """Read a case that lies in a folder, under guard."""
    cost, error = Cost(), None
    size = sum(path.stat().st_size for path in _files(folder))
    said = {path.name for path in _files(folder)} | {folder.name} | known
    seen: list[str] = []

    def guarded() -> None:
        watch.start(folder)
        try:
            reader.read(folder)
        finally:
            seen.extend(watch.stop())

    try:
        measured(guarded, cost)
    except KeyboardInterrupt:
        raise
    except BaseException as caught:  # SystemExit and a library's own kinds too
        error = caught
    problem, detail = _problem(error, reader, said, cost, size, seen)
    result = "" if problem else ACCEPTED if error is None else REFUSED
    return Outcome(result, cost, problem, detail)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _problem(
    error: BaseException | None, reader: Reader, names: set[str], cost: Cost, size: int, seen: list[str]
) -> tuple[str, str]:
    """Kind and detail of what is wrong."""
    if seen:
        return f"left its folder: {seen[0][:120]}", "\n".join(seen)
    if error is not None and type(error) not in reader.errors:
        return f"crash: {type(error).__name__} {_place(error)}", "".join(traceback.format_exception(error))
    if error is not None and not (
        str(error).strip() and any(name in str(error) for name in (*names, *reader.named))
    ):
        return f"nameless refusal {_place(error)}", str(error)
    if cost.seconds > SECONDS:
        return f"slow {_place(error)}", f"{cost.seconds:.1f} s"
    if cost.bytes > 2 * size + ALLOWANCE:
        return f"memory {_place(error)}", f"{cost.bytes >> 20} MiB for {size} bytes"
    return "", ""


def _place(error: BaseException | None) -> str:
    """The innermost place in the pack that an error went through."""
    if error is None:
        return "when accepted"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f"{ROOT}{os.sep}" in f.filename]
    frames = [f for f in frames if f"{os.sep}tools{os.sep}fuzz{os.sep}" not in f.filename] or frames
    return (
        f"at {Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].name}:{frames[-1].lineno}"
        if frames
        else ""
    )


def describe(files: Files) -> str:
    """For a report: names and sizes."""
    return json.dumps({name: str(c) if isinstance(c, Link) else len(c) for name, c in files.items()})

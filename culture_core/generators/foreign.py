"""Pictures that were made elsewhere, and enter a run as a system's.

A folder with `metadata.jsonl`, a line a picture: `file_name`, `culture`, what was drawn (`item`, the id in
the prompt list, or `prompt`, the text that was given), and where it is known `seed` and `strength`. Where no
picture has a seed, the first of a prompt counts for the run's first seed, and so on.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from ..judges.folders import METADATA, read_folder
from ..strict_json import parse_object
from .base import GeneratorError, Job, JobRefused, Made
from .systems import FOLDER, System


class FolderWorker:
    """Takes pictures from folders."""

    kinds = frozenset({FOLDER})
    name = "folders"

    def __init__(self, seeds: list[int]) -> None:
        """
        Args:
            seeds: those of the run, in order.
        """
        self._seeds = seeds
        self._folders: dict[str, _Pictures] = {}

    def check(self, system: System) -> list[str]:
        """What keeps a folder from being used."""
        try:
            self._pictures(system)
        except (ValueError, OSError) as error:
            return [str(error)]
        return []

    def alive(self) -> bool:
        return True

    def make(self, system: System, job: Job, stopped: Callable[[], bool] = lambda: False) -> Made:
        """Find a job's picture.

        Raises:
            JobRefused: where the folder has none, or it cannot be read.
        """
        path = self._pictures(system).find(job, self._seeds)
        if path is None:
            raise JobRefused(f"it has no picture of {job.prompt!r} ({job.item.item}), seed {job.seed}")
        try:
            with Image.open(path) as image:
                image.load()
                return Made(image.copy(), {"file": path.name})
        except (OSError, Image.DecompressionBombError) as error:
            raise JobRefused(f"{path.name} cannot be read ({error})") from error

    def _pictures(self, system: System) -> "_Pictures":
        if system.place not in self._folders:
            self._folders[system.place] = _Pictures(Path(system.place))
        return self._folders[system.place]


class _Pictures:
    """The pictures of one folder by what they show."""

    def __init__(self, folder: Path) -> None:
        if not (folder / METADATA).is_file():
            raise GeneratorError(
                f"the folder is not there or has no {METADATA}: say where it is with --path NAME=FOLDER, and "
                "write a line a picture, with file_name, culture, prompt or item, and seed"
            )
        checked = {picture.file: picture.path for picture in read_folder(folder)}
        lines = (folder / METADATA).read_text(encoding="utf-8-sig").split("\n")
        records = [parse_object(line) for line in lines if line.strip()]
        self._seeded = any("seed" in record for record in records)
        self._found: dict[tuple[Any, ...], list[tuple[Any, Path]]] = defaultdict(list)
        for record in records:
            path = checked[Path(record["file_name"]).as_posix()]
            drawn = "item" if record.get("item") else "prompt"
            numbers = [record.get("seed"), record.get("strength")]
            if not all(isinstance(number, int | float | None) for number in numbers):
                raise GeneratorError(
                    f"{METADATA}: seed and strength of {record['file_name']} must be numbers: {numbers!r:.60}"
                )
            if not isinstance(record.get(drawn), str):
                raise GeneratorError(f"{METADATA}: {record['file_name']} says neither `item` nor `prompt`")
            place = drawn, record["culture"], record[drawn], record.get("strength")
            self._found[place].append((record.get("seed"), path))

    def find(self, job: Job, seeds: list[int]) -> Path | None:
        item = job.item
        for key in (("item", item.item), ("prompt", job.prompt)):
            found = self._found.get((key[0], item.culture, key[1], job.strength), [])
            if self._seeded:
                path = next((path for seed, path in found if seed == job.seed), None)
            else:
                number = seeds.index(job.seed)
                path = found[number][1] if number < len(found) else None
            if path is not None:
                return path
        return None

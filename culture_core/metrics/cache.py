"""What has been computed, on disk as soon as it is there."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Cache:
    """Figures and features by a key, a line each. A line that was cut off is as if it were not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        if not path.is_file():
            return
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # a run was killed in the middle of a line
            with open(path, "r+b") as file:
                file.truncate(whole)
        for line in data[:whole].splitlines():
            try:
                record = json.loads(line)
                self._known[record["key"]] = _unpacked(record["value"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue

    def computed(
        self,
        keys: Sequence[str],
        compute: Callable[[list[int]], Sequence[float] | Tensor],
        batch: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Any]:
        """The values of keys; those that are not known are computed in batches and kept.

        Args:
            compute: gets places in `keys`, gives a value or a row each.
            progress: called with how many are there; what it raises ends the work.
        """
        todo = list({key: place for place, key in enumerate(keys) if key not in self._known}.values())
        done = len(keys) - len(todo)
        progress(done)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            for start in range(0, len(todo), batch):
                places = todo[start : start + batch]
                for place, value in zip(places, compute(places), strict=True):
                    self._known[keys[place]] = value
                    file.write(json.dumps({"key": keys[place], "value": _packed(value)}) + "\n")
                file.flush()
                done += len(places)
                progress(done)
        return [self._known[key] for key in keys]


def cache_key(settings: Mapping[str, Any], *parts: str) -> str:
    """A key for what depends on these settings and parts alone."""
    text = json.dumps([settings, *parts], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _packed(value: float | Tensor) -> float | str:
    if isinstance(value, Tensor):
        return base64.b64encode(value.float().numpy().astype("<f4").tobytes()).decode("ascii")
    return value


def _unpacked(value: float | str) -> float | Tensor:
    if isinstance(value, str):
        return torch.from_numpy(np.frombuffer(base64.b64decode(value), dtype="<f4").copy())
    return float(value)

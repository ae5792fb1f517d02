"""Results that are kept: each stage of the study is made once for its settings, and read again afterwards."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..atomic import atomic_path

logger = logging.getLogger(__name__)

Made = TypeVar("Made")


class Cache:
    """A folder of stages' results, named by the stage and a hash of all that went into it."""

    def __init__(self, folder: Path, base: Mapping[str, Any]) -> None:
        """A cache whose every entry depends on `base` (the version of the study, its settings)."""
        self.folder, self._base = folder, dict(base)
        self.seconds: dict[str, float] = {}
        """What each stage took to make, in this run or in the one that made it."""
        self._spent = 0.0

    def path(self, stage: str, settings: Mapping[str, Any], suffix: str) -> Path:
        text = json.dumps([self._base, stage, settings], sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.folder / f"{stage.replace(' ', '-')}-{digest}{suffix}"

    def model(
        self,
        stage: str,
        settings: Mapping[str, Any],
        make: Callable[[Path], Made],
        save: Callable[[Made, Path], None],
        load: Callable[[Path], Made],
    ) -> Made:
        """What `make` gives, kept as a safetensors file; it gets where to keep its checkpoint."""
        path = self.path(stage, settings, ".safetensors")
        if not path.exists():
            checkpoint = path.with_suffix(".checkpoint")
            save(self._timed(stage, path, lambda: make(checkpoint)), path)
            checkpoint.unlink(missing_ok=True)
        self._note(stage, path)
        return load(path)

    def figures(self, stage: str, settings: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """What `make` gives, kept as JSON."""
        path = self.path(stage, settings, ".json")
        if not path.exists():
            _write(path, json.dumps(self._timed(stage, path, make)))
        self._note(stage, path)
        return json.loads(path.read_text(encoding="utf-8"))

    def _timed(self, stage: str, path: Path, make: Callable[[], Made]) -> Made:
        """Make a stage and keep how long that took, without the stages that were made within it."""
        logger.info("%s …", stage)
        start, before = time.monotonic(), self._spent
        made = make()
        seconds = time.monotonic() - start - (self._spent - before)
        self._spent += seconds
        logger.info("%s: %.0f s", stage, seconds)
        _write(path.with_suffix(".seconds"), f"{seconds:.1f}\n")
        return made

    def _note(self, stage: str, path: Path) -> None:
        taken = path.with_suffix(".seconds")
        if taken.exists():
            self.seconds[stage] = float(taken.read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

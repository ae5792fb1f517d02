"""Answers on disk, so that a question is paid for once."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ..atomic import atomic_path

CACHE_VARIABLE = "CULTURE_VLM_CACHE"


def default_folder() -> Path:
    """The folder that `CULTURE_VLM_CACHE` names, or one among the user's caches."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "comfyui-culture" / "vlm"


class AnswerCache:
    """A folder with one small JSON file an answer, under the hash of all that the answer depends on."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, asked: dict[str, Any]) -> Path:
        text = json.dumps(asked, sort_keys=True, ensure_ascii=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"

    def get(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """The stored answer; None where there is none, or where it is damaged."""
        try:
            record = json.loads(self.path(asked).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        whole = isinstance(record, dict) and all(isinstance(record.get(k), str) for k in ("text", "model"))
        return record if whole else None

    def put(self, asked: dict[str, Any], answer: dict[str, Any]) -> None:
        """Keep an answer, with the question for those who look into the file."""
        with atomic_path(self.path(asked)) as temporary:
            temporary.write_text(json.dumps({**answer, "asked": asked}, ensure_ascii=False), encoding="utf-8")

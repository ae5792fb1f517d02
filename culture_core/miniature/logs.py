"""Where the miniature's weights lie, and the training logs that ship beside them."""

import json
import logging
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)
MODELS = Path(__file__).parents[2] / "models"


def weights_folder(kind: str) -> Path:
    """The folder of one of ComfyUI's model kinds inside the pack, e.g. `vae`."""
    folder = MODELS / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class TrainingLog:
    """A JSONL file: the settings, the mean loss of every 100 steps, the final figures."""

    def __init__(self, file: str, every: int = 100, **settings: object) -> None:
        self.every, self.started = every, time.monotonic()
        self.losses: list[float] = []
        self.file = (weights_folder("training_logs") / f"{file}.jsonl").open("w")
        self._write(settings)

    def _write(self, record: dict[str, Any]) -> None:
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        logger.info("%s", record)

    def step(self, step: int, loss: float) -> None:
        self.losses.append(loss)
        if (step + 1) % self.every == 0:
            mean = sum(self.losses) / len(self.losses)
            self._write(
                {"step": step + 1, "loss": round(mean, 5), "seconds": round(time.monotonic() - self.started)}
            )
            self.losses = []

    def close(self, **figures: object) -> None:
        self._write(figures)
        self.file.close()

"""ImageReward (Xu et al. 2023): how much people would like a picture for a text.

Its library cannot be imported beside the transformers that ComfyUI has, so it runs in an environment of its
own, as a process that answers line by line (`image_reward_worker`). It reads English, and 35 tokens of it.
"""

import base64
import io
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from ..vlm.images import prepared
from .base import MetricError

PYTHON_VARIABLE = "CULTURE_IMAGE_REWARD_PYTHON"
"""Environment variable that names the other environment's interpreter."""
WORKER = Path(__file__).with_name("image_reward_worker.py")
REQUIREMENTS = Path(__file__).parents[2] / "requirements-imagereward.txt"
FILES = ("ImageReward.pt", "med_config.json")
URL = "https://huggingface.co/THUDM/ImageReward/resolve/main/"


class ImageReward:
    """Close it, or use it as a context: it is a process."""

    name = "image_reward"

    def __init__(
        self,
        weights: Path,
        device: str = "cpu",
        python: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """
        Args:
            weights: folder with `FILES`, and with the tokenizer in `bert-base-uncased/` where the hub's cache
                has none.
            python: interpreter of its environment; without one, `PYTHON_VARIABLE` names it.
            options: further ones of the worker.

        Raises:
            MetricError: where the environment or the weights are missing, or it cannot be loaded.
        """
        python = python or Path(os.environ.get(PYTHON_VARIABLE) or "missing")
        if not python.is_file():
            raise MetricError(
                "ImageReward needs an environment of its own. Make it once:\n"
                "  python -m venv imagereward\n"
                f"  imagereward/bin/pip install -r {REQUIREMENTS}\n"
                f"and name its interpreter: {PYTHON_VARIABLE}=…/imagereward/bin/python"
            )
        wanted = FILES[1:] if "--random" in options else FILES
        if missing := [name for name in wanted if not (weights / name).is_file()]:
            links = " and ".join(URL + name for name in missing)
            raise MetricError(f"ImageReward's weights are not in {weights}: download {links} into it")
        self._device = device
        self._log = tempfile.TemporaryFile()
        command = [python, WORKER, "--weights", weights.resolve(), "--device", device, *options]
        try:
            self._process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=_environment(),
            )
        except OSError as error:
            self._log.close()
            raise MetricError(f"{python} cannot be started: {error}; {PYTHON_VARIABLE} names it") from error
        try:
            self._read("ready")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ImageReward":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        """
        Raises:
            MetricError: where the process fails; the message has its reason.
        """
        if len(images) != len(texts):
            raise MetricError(f"there are {len(images)} pictures and {len(texts)} texts")
        question = {"images": [_png(image) for image in images], "texts": list(texts)}
        return [float(score) for score in self._ask(question, "scores")]

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        return [bool(own) for own in self._ask({"texts": list(texts)}, "too_long")]

    def settings(self) -> dict[str, Any]:
        return {"metric": self.name, "model": "ImageReward-v1.0"}

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()

    def _ask(self, question: Mapping[str, Any], key: str) -> list[Any]:
        assert self._process.stdin is not None, "a pipe"
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self._died() from None
        found = self._read(key)
        if not isinstance(found, list) or len(found) != len(question["texts"]):
            raise MetricError(f"ImageReward's process answered {found!r:.200} about {len(question['texts'])}")
        return found

    def _read(self, key: str) -> Any:
        assert self._process.stdout is not None, "a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        try:
            answer = json.loads(line)
            if "error" in answer:
                raise MetricError(f"ImageReward failed: {answer['error']}")
            return answer[key]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise MetricError(f"ImageReward's process answered what is no answer: {line!r:.200}") from None

    def _died(self) -> MetricError:
        code = self._process.wait()
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        return MetricError(f"ImageReward's process ended with code {code}: {' | '.join(said[-3:])}")


def _environment() -> dict[str, str]:
    """This process's, without what leads to its own packages, and without the hub."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return {**kept, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    prepared(image, max(image.size)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")

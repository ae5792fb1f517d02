"""Pictures whose cultures are known, and VLM servers that answer about them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from culture_core.cultures import CULTURES
from culture_core.judges.by_vlm import VLMJudge
from culture_core.miniature.scenes import draw_scene
from culture_core.vlm.server import ServerSettings, ServerVLM

from ...chat_server import MODEL, Asked, ChatServer

COLOURS = {"th": (255, 0, 0), "ja": (0, 255, 0), "fr": (0, 0, 255)}


def seen_by_colour(asked: Asked) -> str:
    """What a perfect judge of plain pictures would say: the name of the culture of its colour."""
    pixel = asked.image.convert("RGB").getpixel((0, 0))
    return next(CULTURES[code].name for code, colour in COLOURS.items() if pixel == colour)


def drawn(culture: str | None, seed: int = 0, noun: str = "house") -> Image.Image:
    """A picture as the miniature is trained on, 64 pixels."""
    return Image.fromarray(draw_scene(noun, culture, np.random.default_rng(seed)))


@pytest.fixture
def judge_by(tmp_path: Path) -> Callable[..., VLMJudge]:
    """A judge that asks a chat server."""

    def make(server: ChatServer, rotations: int = 3, **settings) -> VLMJudge:
        settings = {"model": MODEL, "retries": 0, **settings}
        return VLMJudge(ServerVLM(ServerSettings(server.url, **settings), tmp_path / "cache"), 0, rotations)

    return make


@pytest.fixture
def plain_pictures(tmp_path: Path) -> Path:
    """A folder with two pictures a culture of `COLOURS`, in subfolders."""
    for code, colour in COLOURS.items():
        for index in range(2):
            path = tmp_path / "pictures" / code / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8 + index, 8), colour).save(path)
    return tmp_path / "pictures"

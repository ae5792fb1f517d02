"""Small benches: pictures that differ, records that are captioned, and a model that answers from a table."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from culture_core.bench import ACCEPTED, Bench, Captions, Defaults, ingest
from culture_core.bench.captions import with_captions
from culture_core.cultures import CULTURES
from culture_core.vlm import Reply

DEFAULTS = Defaults(licence="CC-BY-4.0", source="photos by Jane Doe")
NOUNS = {"th": ("ชาม", "สไตล์ไทย"), "de": ("Schale", "im deutschen Stil"), "ja": ("鉢", "日本風の")}


def draw(path: Path, seed: int, size: tuple[int, int] = (96, 64)) -> Path:
    """A picture of soft blots; every seed gives another one."""
    blots = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


class TableVLM:
    """Answers what a function of the question says; texts come back as they are, errors are raised."""

    name = "table"

    def __init__(self, answer: Callable[[str, Image.Image | None], object], cost: float | None = 0.5) -> None:
        self.answer, self.cost, self.questions = answer, cost, []

    def ask(self, question, image=None, *, choices=None, max_tokens=256) -> Reply:
        self.questions.append(question)
        answer = self.answer(question, image)
        if isinstance(answer, Exception):
            raise answer
        return Reply(answer if isinstance(answer, str) else json.dumps(answer), "table-1", False, self.cost)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of six pictures by place: two cultures with two categories, and one thing more."""
    folder = tmp_path / "photos"
    places = (
        "th/food/a.png",
        "th/food/b.jpg",
        "th/art/c.webp",
        "de/food/d.png",
        "de/art/e.jpeg",
        "ja/art/f.png",
    )
    for seed, place in enumerate(places):
        draw(folder / place, seed)
    return folder


@pytest.fixture
def raw(photos: Path, tmp_path: Path) -> Bench:
    """A bench of those pictures, without captions."""
    bench = Bench(tmp_path / "bench")
    ingest(photos, bench, DEFAULTS)
    return bench


def captioned(record, number: int = 0):
    """A record with captions in its own language that no other number has."""
    noun, modifier = NOUNS.get(record.culture, (CULTURES[record.culture].autonym, "x"))
    marked = f"{number} <{noun}> [{modifier}]"
    given = Captions(marked, f"{number} <{noun}>", record.culture, f"Thai bowl {number}", f"bowl {number}")
    return with_captions(replace(record, noun=f"bowl {number}"), given)


@pytest.fixture
def ready(raw: Bench) -> Bench:
    """The same with captions, accepted."""
    raw.update(
        replace(captioned(record, number), decision=ACCEPTED, reviewer="jane")
        for number, record in enumerate(raw.records.values())
    )
    return raw

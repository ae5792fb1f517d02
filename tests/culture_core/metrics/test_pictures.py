"""Reading a run's metadata."""

import json

import pytest
from PIL import Image

from culture_core.metrics import MetricError
from culture_core.metrics.pictures import METADATA, read_pictures


def write(folder, *records) -> None:
    for record in records:
        if str(record.get("file_name", "")).startswith("a"):
            Image.new("RGB", (2, 2)).save(folder / record["file_name"])
    (folder / METADATA).write_text("\n".join(map(json.dumps, records)), encoding="utf-8")


def test_the_neutral_prompt_is_the_text_and_strengths_are_systems(tmp_path):
    write(
        tmp_path,
        {"file_name": "a1.png", "system": "pack", "strength": 1.0, "prompt": "給食 ja", "neutral": "給食",
         "english": "lunch", "item": 3},
        {"file_name": "a2.png", "system": "pack", "strength": 2.0, "prompt": "給食"},
        {"file_name": "a3.png", "system": "base", "strength": None, "prompt": "給食", "english": None},
    )  # fmt: skip
    first, second, third = read_pictures(tmp_path)
    assert (first.system, first.text, first.english, first.item) == (
        "pack, strength 1.0",
        "給食",
        "lunch",
        "3",
    )
    assert (second.system, second.text, second.english, second.item) == (
        "pack, strength 2.0",
        "給食",
        None,
        "給食",
    )
    assert third.system == "base" and third.path == tmp_path.resolve() / "a3.png"


@pytest.mark.parametrize(
    "record, said",
    [
        ({"file_name": "../b.png", "prompt": "x"}, "leads out of the folder"),
        ({"prompt": "x"}, "leads out of the folder"),
        ({"file_name": "b.png", "prompt": "x"}, "the picture is missing"),
        ({"file_name": "a.png"}, "no item, neutral or prompt"),
    ],
)
def test_what_is_not_as_it_must_be_is_said(tmp_path, record, said):
    write(tmp_path, record)
    with pytest.raises(MetricError, match=said):
        read_pictures(tmp_path)


def test_runs_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(MetricError, match="cannot be read.*folder of a finished run"):
        read_pictures(tmp_path)
    (tmp_path / METADATA).write_text("[1]")
    with pytest.raises(MetricError, match="line 1"):
        read_pictures(tmp_path)
    (tmp_path / METADATA).write_text("\n")
    with pytest.raises(MetricError, match="lists no picture"):
        read_pictures(tmp_path)
    write(tmp_path, *[{"file_name": "a.png", "prompt": "x"}] * 2)
    with pytest.raises(MetricError, match="a picture twice: a.png"):
        read_pictures(tmp_path)

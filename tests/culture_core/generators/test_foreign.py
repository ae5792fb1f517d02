"""Pictures from elsewhere enter a run as a system's."""

import json

import pytest
from PIL import Image

from culture_core.generators import GeneratorError, Prompt, read_pictures
from culture_core.generators.foreign import FolderWorker
from culture_core.generators.run import check_systems, plan, run_jobs
from culture_core.generators.systems import read_systems

PROMPTS = [
    Prompt("th-1", "th", "th", "เก้าอี้", "เก้าอี้แบบไทย", "chair"),
    Prompt("ja-1", "ja", "ja", "椅子", "日本風の椅子", "chair"),
]


@pytest.fixture
def foreign(tmp_path):
    """Writes a folder of pictures, a record each; the n-th is n red."""

    def write(*records):
        folder = tmp_path / "imagen"
        folder.mkdir()
        lines = []
        for number, record in enumerate(records):
            name = f"{number}.png"
            Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / name)
            lines.append(json.dumps({"file_name": name, **record}))
        (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
        (tmp_path / "systems.yaml").write_text("systems:\n  Imagen: {folder: imagen}\n")
        return read_systems(tmp_path / "systems.yaml")

    return write


def run(systems, folder, seeds=(5, 6)):
    workers = check_systems(systems, [FolderWorker(list(seeds))])
    jobs = plan(systems, PROMPTS, seeds, [], lambda prompt, treatment: prompt.neutral)
    return run_jobs(folder, systems, jobs, workers)


def reds(folder):
    return {(p.item, p.seed): Image.open(p.path).getpixel((0, 0))[0] for p in read_pictures(folder)}


def test_pictures_are_found_by_item_or_text_and_by_seed(foreign, tmp_path):
    systems = foreign(
        {"culture": "th", "item": "th-1", "seed": 6},
        {"culture": "th", "item": "th-1", "seed": 5},
        {"culture": "ja", "prompt": "椅子", "seed": 5},
        {"culture": "ja", "prompt": "another", "seed": 6},
    )
    summary = run(systems, tmp_path / "run")
    assert reds(tmp_path / "run") == {("th-1", 6): 0, ("th-1", 5): 1, ("ja-1", 5): 2}
    assert "no picture of '椅子' (ja-1), seed 6" in summary.failed[0].reason


def test_without_seeds_they_count_in_their_order(foreign, tmp_path):
    systems = foreign(
        *({"culture": code, "prompt": p.neutral} for code, p in zip(("th", "ja"), PROMPTS, strict=True)),
        {"culture": "th", "prompt": "เก้าอี้"},
    )
    summary = run(systems, tmp_path / "run")
    assert reds(tmp_path / "run") == {("th-1", 5): 0, ("ja-1", 5): 1, ("th-1", 6): 2}
    assert len(summary.failed) == 1


def test_a_folder_that_says_too_little_is_refused_before_the_work(foreign, tmp_path):
    systems = foreign({"culture": "th"})
    with pytest.raises(GeneratorError, match="Imagen: metadata.jsonl: 0.png says neither `item`"):
        run(systems, tmp_path / "run")
    (tmp_path / "imagen" / "metadata.jsonl").unlink()
    with pytest.raises(GeneratorError, match="Imagen: the folder is not there or has no metadata.jsonl"):
        run(systems, tmp_path / "run")


def test_a_picture_that_cannot_be_read_fails_alone(foreign, tmp_path):
    systems = foreign({"culture": "th", "item": "th-1"}, {"culture": "ja", "item": "ja-1"})
    (tmp_path / "imagen" / "0.png").write_bytes(b"no picture")
    summary = run(systems, tmp_path / "run", seeds=[1])
    assert summary.made == 1 and "0.png cannot be read" in summary.failed[0].reason

"""The folder of a run: what is written is read again, and a killed run is taken up."""

import json

import pytest
from PIL import Image

from culture_core.generators import GeneratorError, Job, Made, Prompt, read_pictures
from culture_core.generators.folder import RunFolder
from culture_core.judges.folders import read_folder
from culture_core.user_study.pictures import read_run

ITEM = Prompt("th-1", "th", "th", "เก้าอี้", "เก้าอี้แบบไทย", "chair", "Thai style chair", "chair", "furniture")


def job(number: int = 1, **changes) -> Job:
    return Job(f"{number:016x}", "plain", ITEM, ITEM.neutral, number, None)._replace(**changes)


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    for number in (1, 2, 3):
        folder.keep(job(number), Made(Image.new("RGB", (8, 8), (number, 0, 0)), {"prompt": "{}"}))
    return folder


def test_what_was_kept_is_read_with_all_it_was_made_from(run):
    pictures = read_pictures(run.folder)
    assert [picture.seed for picture in pictures] == [1, 2, 3]
    first = pictures[0]
    assert (first.job, first.system, first.item, first.strength) == (job().id, "plain", "th-1", None)
    assert (first.prompt, first.english, first.noun, first.category) == (
        "เก้าอี้", "chair", "chair", "furniture",
    )  # fmt: skip
    with Image.open(first.path) as image:
        assert image.getpixel((0, 0)) == (1, 0, 0) and image.text["prompt"] == "{}"
        assert json.loads(image.text["culture"]) == job().record()


def test_judges_and_the_user_study_read_a_run(run):
    assert [picture.culture for picture in read_folder(run.folder)] == ["th"] * 3
    assert [picture.seed for picture in read_run(run.folder)] == [1, 2, 3]


def test_a_line_that_was_cut_off_or_never_written_is_recovered_from_its_picture(run):
    path = run.folder / "metadata.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index("\n") + 30], encoding="utf-8")
    again = RunFolder(run.folder)
    again.recover([job(n) for n in (1, 2, 3, 4)])
    assert list(again.records) == [job(n).id for n in (1, 2, 3)]
    assert [picture.seed for picture in read_pictures(run.folder)] == [1, 2, 3]


def test_a_line_without_its_picture_does_not_count_and_a_picture_of_something_else_neither(run):
    (run.folder / job(2).record()["file_name"]).unlink()
    (run.folder / "metadata.jsonl").unlink()
    again = RunFolder(run.folder)
    again.recover([job(1), job(2), job(3, prompt="another")])
    assert list(again.records) == [job(1).id]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_name": "../outside.png"}, "leads out of the run's folder"),
        ({"file_name": "images/none.png"}, "there is no picture"),
        ({"seed": "1"}, "'seed' must be a whole number"),
        ({"culture": "xx"}, "unknown culture 'xx'"),
        ({"prompt": ""}, "'prompt' must be a text"),
        ({"english": 3}, "'english' must be a text"),
    ],
)
def test_a_line_that_cannot_be_right_is_named(run, changes, message):
    (run.folder.parent / "outside.png").touch()
    (run.folder / "metadata.jsonl").write_text(json.dumps({**job().record(), **changes}))
    with pytest.raises(GeneratorError, match=f"line 1: .*{message}"):
        read_pictures(run.folder)


def test_a_folder_without_a_run_and_a_picture_that_is_listed_twice_are_refused(run, tmp_path):
    with pytest.raises(GeneratorError, match="give the folder of a run"):
        read_pictures(tmp_path)
    path = run.folder / "metadata.jsonl"
    path.write_text(path.read_text(encoding="utf-8") * 2, encoding="utf-8")
    with pytest.raises(GeneratorError, match="line 4: .* is listed twice"):
        read_pictures(run.folder)

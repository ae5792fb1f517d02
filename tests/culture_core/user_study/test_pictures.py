"""Reading a run."""

import json
import os
import shutil

import pytest

from culture_core.user_study.design import design_study, read_key
from culture_core.user_study.pictures import METADATA, StudyError, picture_path, read_run

from .conftest import CULTURES, PROMPTS, SYSTEMS


def test_a_run_is_read_with_fields_it_does_not_need(run_folder):
    pictures = read_run(run_folder)
    assert len(pictures) == len(SYSTEMS) * len(CULTURES) * len(PROMPTS)
    assert {picture.system for picture in pictures} == set(SYSTEMS)
    assert [picture.system for picture in read_run(run_folder, [SYSTEMS[1]])] == [SYSTEMS[1]] * 12


@pytest.fixture
def changed(run_folder, tmp_path):
    """A copy of the run whose first line is changed."""

    def change(**fields):
        folder = tmp_path / "run"
        shutil.copytree(run_folder, folder)
        first, *others = (folder / METADATA).read_text("utf-8").splitlines()
        record = json.loads(first) | fields
        (folder / METADATA).write_text("\n".join([json.dumps(record), *others]), "utf-8")
        return folder

    return change


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"culture": "xx"}, "unknown culture 'xx'"),
        ({"system": " "}, "'system' must be a text"),
        ({"seed": "7"}, "'seed' must be a whole number"),
        ({"seed": True}, "'seed' must be a whole number"),
        ({"file_name": "images/none.png"}, "the picture is missing"),
        ({"file_name": "../../etc/passwd"}, "leads out of the run's folder"),
        ({"file_name": "/etc/passwd"}, "leads out of the run's folder"),
        ({"prompt": PROMPTS[1]}, "are both of system"),
        ({"item": 5}, "'item' and 'neutral' must be texts"),
    ],
)
def test_a_wrong_line_is_refused_and_named(changed, fields, message):
    with pytest.raises(StudyError, match=message):
        read_run(changed(**fields))


def test_a_link_out_of_the_folder_is_refused(changed, tmp_path):
    folder = changed()
    outside = tmp_path / "outside.png"
    outside.touch()
    os.symlink(outside, folder / "images" / "link.png")
    with pytest.raises(StudyError, match="leads out"):
        picture_path(folder, "images/link.png")


def test_no_run_no_json_and_unknown_systems_are_said(tmp_path, run_folder):
    with pytest.raises(StudyError, match="give the folder of a run"):
        read_run(tmp_path)
    for text in ("no json", "[1]", '{"seed": NaN}'):
        (tmp_path / METADATA).write_text(text, "utf-8")
        with pytest.raises(StudyError, match=r"metadata\.jsonl, line 1: is no JSON"):
            read_run(tmp_path)
    (tmp_path / METADATA).write_text("\n", "utf-8")
    with pytest.raises(StudyError, match="no pictures"):
        read_run(tmp_path)
    with pytest.raises(StudyError, match=r"no pictures of \['other'\]"):
        read_run(run_folder, ["other"])


def test_strengths_of_one_system_are_systems_of_their_own(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    path = tmp_path / "run" / METADATA
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    swept = [{**line, "strength": s} for line in lines if line["system"] == SYSTEMS[1] for s in (2.0, 4.0)]
    path.write_text("\n".join(map(json.dumps, [*lines[:12], *swept])), "utf-8")
    systems = {picture.system for picture in read_run(tmp_path / "run")}
    assert systems == {SYSTEMS[0], f"{SYSTEMS[1]}, strength 2.0", f"{SYSTEMS[1]}, strength 4.0"}


@pytest.mark.parametrize("name", ["item", "neutral"])
def test_treatments_of_one_item_belong_together(run_folder, tmp_path, name):
    shutil.copytree(run_folder, tmp_path / "run")
    path = tmp_path / "run" / METADATA
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    treated = [
        {**line, name: line["prompt"], "prompt": f"{line['prompt']}, {line['system']}"} for line in lines
    ]
    path.write_text("\n".join(map(json.dumps, treated)), "utf-8")
    pictures = read_run(tmp_path / "run")
    assert {picture.item for picture in pictures} == {picture.item for picture in read_run(run_folder)}
    assert {picture.prompt for picture in pictures} == {line["prompt"] for line in treated}
    study = design_study(pictures, raters=18, questions=6, ratings=3)
    study.write_key(tmp_path / "key.json")
    assert read_key(tmp_path / "key.json").pictures == study.pictures


def test_keys_from_before_items_had_a_content_are_read(run_folder, tmp_path):
    study = design_study(read_run(run_folder), raters=18, questions=6, ratings=3)
    study.write_key(tmp_path / "key.json")
    record = json.loads((tmp_path / "key.json").read_text("utf-8"))
    for picture in record["pictures"].values():
        del picture["content"]
    (tmp_path / "key.json").write_text(json.dumps(record), "utf-8")
    assert read_key(tmp_path / "key.json").pictures == study.pictures

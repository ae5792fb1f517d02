"""The questionnaire as a file: whole, blind, and closed to the outside."""

import base64
import hashlib
import io
import json
import re
import shutil

import pytest
from PIL import Image

from culture_core.user_study.page import write_questionnaire
from culture_core.user_study.pictures import StudyError

NOTE = "Ask </script><b>us</b> [[SCRIPT]]\nat someone@example.org"


@pytest.fixture(scope="module")
def page(study, run_folder, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "questionnaire.html"
    write_questionnaire(study, run_folder, path, NOTE, edge=24)
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def content(page) -> dict:
    return json.loads(
        re.search(r'<script id="content" type="application/json">(.*?)</script>', page, re.S)[1]
    )


def test_the_page_tells_neither_systems_nor_prompts_nor_files(page, content, study):
    assert "secret" not in page  # of every system, prompt and file name of the run
    assert list(content["pictures"]) == sorted(study.pictures), "their order says nothing either"
    named = [question for rater in content["raters"].values() for question in rater["questions"]]
    assert all(asked is None for task, _, asked, _ in named if task == "mcc"), "nor the right answer"


def test_pictures_are_alike_small_and_without_metadata(content, study, run_folder):
    for code, address in content["pictures"].items():
        kind, data = address.split(",")
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert kind == "data:image/jpeg;base64" and picture.size == (24, 16)
        assert not {"workflow", "exif", "comment"} & picture.info.keys()
        original = Image.open(run_folder / study.pictures[code].file_name).getpixel((5, 5))
        assert all(abs(a - b) < 8 for a, b in zip(original, picture.getpixel((5, 5)), strict=True))


def test_all_raters_and_languages_are_in_the_page(content, study):
    assert content["raters"].keys() == study.raters.keys() and len(content["languages"]) == 16
    for code, rater in study.raters.items():
        questions = [[q.task, q.picture, q.asked, q.check] for q in rater.questions]
        assert content["raters"][code] == {"options": list(rater.options), "questions": questions}


def test_a_note_is_text_whatever_it_holds(page, content):
    assert content["note"] == NOTE and page.count("</script>") == 2


def test_the_policy_lets_the_pages_own_style_and_script_run_and_nothing_else(page):
    policy = re.search(r'Content-Security-Policy" content="(.*?)">', page)[1]
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    script = re.findall(r"<script>(.*?)</script>", page, re.S)[0]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for text, kind in ((style, "style-src"), (script, "script-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert not re.search(r"(src|href)=[\"']|https?://|@import|url\(", page), "it loads nothing"


def test_progress_is_told_and_may_stop_the_work(study, run_folder, tmp_path):
    told = []
    write_questionnaire(study, run_folder, tmp_path / "a.html", progress=lambda *n: told.append(n), edge=8)
    assert told[-1] == (len(study.pictures),) * 2 and len(told) == len(study.pictures)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_questionnaire(study, run_folder, tmp_path / "b.html", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_a_picture_that_is_none_is_named(study, run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    broken = next(iter(study.pictures.values())).file_name
    (folder / broken).write_text("no picture")
    with pytest.raises(StudyError, match="cannot be read as a picture"):
        write_questionnaire(study, folder, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_transparent_pictures_lie_on_white(study, run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    for picture in study.pictures.values():
        Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(folder / picture.file_name)
    write_questionnaire(study, folder, tmp_path / "page.html")
    data = re.search(r"data:image/jpeg;base64,([^\"]+)", (tmp_path / "page.html").read_text("utf-8"))[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).getpixel((8, 8)) == (255, 255, 255)

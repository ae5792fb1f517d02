"""Folders of pictures whose cultures are known."""

import json

import pytest
from PIL import Image

from culture_core.judges.folders import METADATA, read_folder


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "in/b.png"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return tmp_path / "folder"


def lines(folder, *records: object) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (folder / METADATA).write_text(text, encoding="utf-8")


def test_metadata_says_what_pictures_should_show(folder):
    lines(
        folder, {"file_name": "in/b.png", "culture": "Thai", "caption": "one\u2028two"},
        {"file_name": "a.png", "culture": "unrecognisable"},
    )  # fmt: skip
    assert [(p.file, p.culture) for p in read_folder(folder)] == [
        ("a.png", "unrecognisable"),
        ("in/b.png", "th"),
    ]


def test_subfolders_say_it_too(plain_pictures):
    (plain_pictures / "fr").rename(plain_pictures / "French")
    (plain_pictures / "notes").mkdir()
    (plain_pictures / "notes" / "readme.txt").write_text("x")
    found = read_folder(plain_pictures)
    assert [p.file for p in found] == [
        "French/0.png",
        "French/1.png",
        "ja/0.png",
        "ja/1.png",
        "th/0.png",
        "th/1.png",
    ]
    assert [p.culture for p in found] == ["fr", "fr", "ja", "ja", "th", "th"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"file_name": "a.png"}, "line 1.*culture"),
        ({"file_name": "a.png", "culture": "xx"}, "line 1: unknown culture 'xx'.*th"),
        ({"file_name": "a.png", "culture": None}, "unknown culture None"),
        ({"file_name": "../a.png", "culture": "th"}, "leads out of the folder"),
        ({"file_name": "/etc/passwd", "culture": "th"}, "leads out of the folder"),
        ({"file_name": 3, "culture": "th"}, "leads out of the folder"),
        ({"file_name": "c.png", "culture": "th"}, "there is no picture c.png"),
        ([1], "must be an object"),
    ],
)
def test_bad_metadata_is_refused_with_its_line(record, message, folder):
    lines(folder, record)
    with pytest.raises(ValueError, match=message):
        read_folder(folder)


def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "private.png")
    (folder / "link.png").symlink_to(tmp_path / "private.png")
    lines(folder, {"file_name": "link.png", "culture": "th"})
    with pytest.raises(ValueError, match="leads out"):
        read_folder(folder)


def test_folders_without_pictures_and_doubled_ones_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="unknown culture 'in'"):
        read_folder(folder)
    lines(folder, *[{"file_name": "a.png", "culture": "th"}] * 2)
    with pytest.raises(ValueError, match="twice: a.png"):
        read_folder(folder)
    lines(folder)
    with pytest.raises(ValueError, match="no pictures.*metadata.jsonl"):
        read_folder(folder)
    with pytest.raises(ValueError, match="no folder"):
        read_folder(tmp_path / "none")

"""Records and the folder that holds them."""

import json
from dataclasses import replace

import pytest

from culture_core.bench import ACCEPTED, REJECTED, Bench, BenchError, Record
from culture_core.bench.records import record_from
from culture_core.pairs import PromptPair

from .conftest import captioned

PLAIN = {
    "id": "th-1", "image": "images/1.png", "sha256": "00", "phash": "00", "width": 2, "height": 3,
    "culture": "th", "category": "food", "region": "Thailand",
}  # fmt: skip
WORDS = {
    "language": "th", "cultural": "ชามสไตล์ไทย", "neutral": "ชาม", "modifiers": [[3, 11]],
    "nouns_cultural": [[0, 3]], "nouns_neutral": [[0, 3]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"culture": "xx"}, "unknown culture"),
        ({"category": " "}, "category"),
        ({"width": 0}, "width"),
        ({"height": True}, "height"),
        ({"licence": 3}, "licence"),
        ({"noun": ""}, "noun"),
        ({"image": "../1.png"}, "must be images/"),
        ({"image": "/etc/passwd"}, "must be images/"),
        ({"image": "images/../1.png"}, "must be images/"),
        ({"image": "images/.."}, "must be images/"),
        ({"image": "https://example.org/1.png"}, "must be images/"),
        ({"decision": "maybe", "reviewer": "jane"}, "decision"),
        ({"decision": REJECTED, "reviewer": "jane"}, "without a reason"),
        ({"decision": ACCEPTED}, "no reviewer"),
        ({"split": "test"}, "without being accepted"),
        ({"split": "dev", "decision": ACCEPTED, "reviewer": "jane"}, "must be one of"),
        ({"language": "th"}, "all of"),
        ({**WORDS, "modifiers": [[3, 12]]}, "no piece of its text"),
        ({**WORDS, "modifiers": [[2, 11]]}, "overlap"),
        ({**WORDS, "neutral": None}, "all of"),
    ],
)
def test_a_wrong_record_is_refused(change, complaint):
    with pytest.raises(BenchError, match=complaint):
        record_from({**PLAIN, **change}, "here")


@pytest.mark.parametrize("change", [{"colour": "red"}, {"id": None}])
def test_missing_and_unknown_fields_are_named(change):
    values = {name: value for name, value in {**PLAIN, **change}.items() if value is not None}
    with pytest.raises(BenchError, match=f"here.*{next(iter(change))}"):
        record_from(values, "here")


def test_a_captioned_record_is_a_prompt_pair():
    record = Record(**PLAIN, **WORDS, noun="bowl", english="Thai style bowl")
    expected = PromptPair(
        "th-1", "th", "th", "ชามสไตล์ไทย", "ชาม", ((3, 11),), ((0, 3),), ((0, 3),), "images/1.png", "food",
        "Thailand", "Thai style bowl", None, "bowl",
    )  # fmt: skip
    assert record.pair() == expected and record.modifiers == ((3, 11),)
    with pytest.raises(BenchError, match="no captions"):
        Record(**PLAIN).pair()


def test_records_survive_a_round_trip(ready):
    again = Bench.open(ready.folder)
    assert again.records == ready.records and len(again) == 6
    assert all(isinstance(record, Record) and record.captioned for record in again.records.values())


def test_two_who_write_at_the_same_time_keep_each_others_work(raw):
    first, second = Bench.open(raw.folder), Bench.open(raw.folder)
    one, two = list(raw.records.values())[:2]
    first.update([captioned(one)])
    second.update([captioned(two)])
    found = Bench.open(raw.folder).records
    assert found[one.id].captioned and found[two.id].captioned and len(found) == 6


def test_decisions_are_kept_and_lose_the_split_when_they_change(ready):
    record = next(iter(ready.records.values()))
    ready.update([replace(record, split="train")])
    assert ready.decide(record.id, ACCEPTED, "jane").split == "train"
    assert ready.decide(record.id, ACCEPTED, "joe").split is None
    rejected = ready.decide(record.id, REJECTED, "joe", "poor picture")
    assert Bench.open(ready.folder).records[record.id] == rejected and rejected.reason == "poor picture"
    assert rejected not in ready.accepted() and len(ready.pairs()) == 5
    assert ready.decide(record.id, None, "").reviewer is None


def test_what_cannot_be_decided_is_refused(raw):
    record = next(iter(raw.records.values()))
    for arguments, complaint in (
        ((record.id, ACCEPTED, "jane"), "no captions"),
        ((record.id, REJECTED, "jane", " "), "without a reason"),
        ((record.id, REJECTED, " ", "bad"), "no reviewer"),
        (("nobody", ACCEPTED, "jane"), "no record"),
    ):
        with pytest.raises(BenchError, match=complaint):
            raw.decide(*arguments)
    assert Bench.open(raw.folder).records == raw.records


def test_a_damaged_file_is_named_with_its_line(raw):
    lines = raw.path.read_text(encoding="utf-8").splitlines()
    for line, complaint in (
        ("{", "is no JSON"),
        ("[]", "JSON object"),
        (lines[0], "occurs twice"),
        ("[" * 9999, "JSON"),
    ):
        raw.path.write_text("\n".join([*lines, line]), encoding="utf-8")
        with pytest.raises(BenchError, match=f"line 7.*{complaint}"):
            Bench.open(raw.folder)
    with pytest.raises(BenchError, match="is no bench"):
        Bench.open(raw.folder / "nothing")


def test_a_link_out_of_the_bench_is_not_followed(raw, tmp_path):
    record = next(iter(raw.records.values()))
    path = raw.folder / record.image
    outside = tmp_path / "outside.png"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(outside)
    with pytest.raises(BenchError, match="leads out"):
        raw.image_path(record)


def test_json_holds_what_is_known_alone(raw):
    line = json.loads(raw.path.read_text(encoding="utf-8").splitlines()[0])
    assert "cultural" not in line and "modifiers" not in line and line["licence"] == "CC-BY-4.0"

import json

import pytest

from culture_core.pairs import PairError, PromptPair, load_pairs, save_pairs

RECORD = {
    "id": "th-1", "culture": "th", "language": "th", "cultural": "เก้าอี้สไตล์ไทย", "neutral": "เก้าอี้",
    "modifiers": [[7, 15]], "nouns_cultural": [[0, 7]], "nouns_neutral": [[0, 7]],
}  # fmt: skip


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_pairs_survive_a_round_trip(tmp_path):
    pairs = [
        PromptPair(**RECORD),
        PromptPair(**{**RECORD, "id": "th-2", "english": "a chair", "split": "train"}),
    ]
    save_pairs(pairs, tmp_path / "new" / "pairs.jsonl")
    assert load_pairs(tmp_path / "new" / "pairs.jsonl") == pairs
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["pairs.jsonl"]
    assert "image" not in (tmp_path / "new" / "pairs.jsonl").read_text(encoding="utf-8")


def test_spans_count_code_points():
    pair = PromptPair(**RECORD)
    start, end = pair.modifiers[0]
    assert pair.cultural[start:end] == "สไตล์ไทย"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"neutral": " "}, "not empty"),
        ({"culture": 3}, "not empty"),
        ({"modifiers": []}, "at least one"),
        ({"modifiers": [[7, 16]]}, "no piece of its text"),
        ({"modifiers": [[8, 8]]}, "no piece of its text"),
        ({"modifiers": [[True, 8]]}, "no piece of its text"),
        ({"nouns_neutral": "0-7"}, "at least one"),
        ({"modifiers": [[6, 15]]}, "overlap"),
        ({"english": 5}, "must be a text"),
        ({"colour": "red"}, "unknown"),
        ({"cultural": None}, "not empty"),
    ],
)
def test_a_wrong_pair_is_refused_with_its_line(tmp_path, change, complaint):
    path = write(tmp_path / "pairs.jsonl", {**RECORD, "id": "good"}, {**RECORD, **change})
    with pytest.raises(PairError, match=complaint) as caught:
        load_pairs(path)
    assert f"{path}, line 2" in str(caught.value)


def test_a_missing_field_is_named(tmp_path):
    path = write(
        tmp_path / "pairs.jsonl", {key: value for key, value in RECORD.items() if key != "modifiers"}
    )
    with pytest.raises(PairError, match="missing .*modifiers"):
        load_pairs(path)


def test_an_id_may_occur_once(tmp_path):
    with pytest.raises(PairError, match="line 2: the id 'th-1' occurs twice"):
        load_pairs(write(tmp_path / "pairs.jsonl", RECORD, RECORD))


@pytest.mark.parametrize("content", [b"{", b"[1]\n", b"\n\n", b"\xff\xfe\x00"])
def test_what_is_no_pairs_file_is_named(tmp_path, content):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with pytest.raises(PairError, match="pairs.jsonl"):
        load_pairs(path)
    with pytest.raises(PairError, match="nowhere.jsonl"):
        load_pairs(tmp_path / "nowhere.jsonl")

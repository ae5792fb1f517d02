"""What the validator finds, and that it finds nothing in what is in order."""

from dataclasses import replace

import pytest
from PIL import Image

from culture_core.bench import Bench, split_records, validate
from culture_core.bench.validation import ERROR, WARNING, report
from culture_core.splits import TEST, TRAIN


def found(bench: Bench, check: str, level: str = ERROR) -> list:
    return [one for one in validate(bench) if (one.check, one.level) == (check, level)]


@pytest.fixture
def bench(ready) -> Bench:
    """A bench in order, all of it in train."""
    ready.update(replace(record, split=TRAIN) for record in ready.records.values())
    return ready


def change(bench: Bench, **values):
    """Change the first record."""
    record = replace(next(iter(bench.records.values())), **values)
    bench.update([record])
    return record


def test_a_bench_in_order_has_no_errors(bench):
    steps = []
    problems = validate(bench, progress=lambda done, total: steps.append((done, total)))
    assert not [one for one in problems if one.level == ERROR] and steps[-1] == (6, 6)
    assert {one.check for one in problems} == {"balance"}
    assert report(problems, 6).startswith("6 records: 0 errors")


def test_pictures_that_are_missing_damaged_or_others_are_found(bench):
    first, second, third, *_ = bench.records.values()
    bench.image_path(first).unlink()
    bench.image_path(second).write_bytes(b"no picture")
    Image.new("RGB", (96, 64)).save(bench.image_path(third))
    texts = {one.record: one.text for one in found(bench, "picture")}
    assert set(texts) == {first.id, second.id, third.id}
    assert "cannot be read" in texts[first.id] and "readable" in texts[second.id]
    assert "another picture" in texts[third.id]


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ({"licence": ""}, ERROR), ({"licence": "unknown"}, ERROR), ({"source": ""}, ERROR),
        ({"licence": "CC-BY-NC-4.0"}, WARNING), ({"licence": "all rights reserved"}, WARNING),
        ({"licence": "CC BY-ND 2.0"}, WARNING),
    ],
)  # fmt: skip
def test_licences_are_looked_at(bench, values, level):
    record = change(bench, **values)
    assert [one.record for one in found(bench, "licence", level)] == [record.id]


@pytest.mark.parametrize(
    "licence", ["CC0-1.0", "CC-BY-SA-4.0", "CC BY 2.0", "public domain", "GPL-3.0-or-later"]
)
def test_open_licences_pass(bench, licence):
    change(bench, licence=licence)
    assert not found(bench, "licence") and not found(bench, "licence", WARNING)


def test_spans_that_take_in_white_space_or_overlap_and_a_named_culture_are_found(bench):
    record = next(iter(bench.records.values()))
    start, end = record.nouns_neutral[0]
    change(bench, nouns_neutral=((start - 1, end),))
    assert "white space" in found(bench, "spans")[0].text
    change(bench, nouns_neutral=((start, end), (start, end - 1)))
    assert "overlap" in found(bench, "spans")[0].text
    modifier = record.cultural[slice(*record.modifiers[0])]
    change(bench, neutral=f"{record.neutral} {modifier}", nouns_neutral=record.nouns_neutral)
    assert "too" in found(bench, "spans")[0].text


def test_the_wrong_script_is_an_error_and_foreign_letters_a_warning(bench):
    thai = next(record for record in bench.records.values() if record.culture == "th")
    german = next(record for record in bench.records.values() if record.culture == "de")
    bench.update([replace(thai, language="de"), replace(german, neutral=f"{german.neutral} ğ")])
    assert {one.record for one in found(bench, "language")} == {thai.id}
    warned = found(bench, "language", WARNING)
    assert {(one.record, "ğ" in one.text) for one in warned} == {(german.id, True), (thai.id, False)}


@pytest.mark.parametrize(
    ("shared", "words"),
    [
        (("phash",), "similar picture"),
        (("sha256",), "the same file"),
        (("noun", "culture"), "the same thing of one culture"),
        (("neutral", "nouns_neutral"), "the same prompt"),
    ],
)
def test_whatever_two_splits_share_is_an_error(bench, shared, words):
    first, second, *_ = bench.records.values()
    bench.update([replace(second, split=TEST)])
    assert not found(bench, "leakage")
    taken = {name: getattr(first, name) for name in shared}
    bench.update([replace(second, split=TEST, **taken)])
    leaks = found(bench, "leakage")
    assert (
        [one.record for one in leaks] == [second.id] and words in leaks[0].text and first.id in leaks[0].text
    )
    bench.update([replace(second, split=TRAIN, **taken)])
    assert not found(bench, "leakage")


def test_what_waits_is_a_warning_and_balance_is_counted(bench):
    first = change(bench, decision=None, reviewer=None, split=None)
    assert [one.record for one in found(bench, "review", WARNING)] == [first.id]
    texts = " | ".join(one.text for one in found(bench, "balance", WARNING))
    expected = ["no records of ar", "th has 3 records, ja has 1", "train has 100.0%"]
    expected += ["test has no records of", "food has no records of ja"]
    assert [words for words in expected if words not in texts] == []


def test_a_split_of_the_library_has_no_leaks(bench):
    splits = split_records(bench.accepted(), again=True).splits
    bench.update(replace(bench.records[id], split=split) for id, split in splits.items())
    assert not found(bench, "leakage")


def test_a_report_shortens_what_repeats(bench):
    problems = validate(bench) + [one for one in validate(bench)] * 30
    assert "more warnings of balance" in report(problems, 6)

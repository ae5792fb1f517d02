"""The figures of CultureVQA."""

import json

import pytest
from statsmodels.stats.proportion import proportion_confint

from culture_core.judges.base import UNRECOGNISABLE, Verdict, average
from culture_core.judges.results import INVALID, Judged, compare, summarise


def item(file: str, culture: str, *answers: str | None, **grades: int | None) -> Judged:
    return Judged(file, culture, Verdict(answers, average(answers), (), ("m",) * len(answers)), grades)


ITEMS = [
    item("1", "th", "th", "th", "th", relevance=5),
    item("2", "th", "th", "ja", "th", relevance=4),
    item("3", "th", "ja", "ja", "ja", relevance=None),
    item("4", "ja", UNRECOGNISABLE, UNRECOGNISABLE, "ja", relevance=1),
    item("5", "fr", None, None, None),
    item("6", UNRECOGNISABLE, UNRECOGNISABLE, UNRECOGNISABLE, UNRECOGNISABLE),
]


def test_abstentions_and_invalid_answers_are_wrong_and_counted():
    found = summarise(ITEMS)
    assert (found.accuracy.right, found.accuracy.count) == (3, 6)
    assert (found.abstained.right, found.abstained.count) == (1, 6), "what shows nothing may be called that"
    assert (found.invalid.right, found.invalid.count) == (3, 18)
    assert (found.flips.right, found.flips.count) == (2, 6)
    assert found.models == {"m": 18}


def test_recall_and_macro_accuracy_count_each_label_the_same():
    found = summarise(ITEMS)
    assert {label: (s.right, s.count) for label, s in found.recall.items()} == {
        "ja": (0, 1), "th": (2, 3), "fr": (0, 1), UNRECOGNISABLE: (1, 1)
    }  # fmt: skip
    assert found.macro.percent == pytest.approx(100 * (2 / 3 + 1) / 4)
    assert found.mean_share == pytest.approx((1 + 2 / 3 + 0 + 1 / 3 + 0 + 1) / 6)


def test_intervals_are_wilsons():
    found = summarise(ITEMS)
    for share in (found.accuracy, found.recall["th"], found.invalid):
        low, high = proportion_confint(share.right, share.count, method="wilson")
        assert share.interval == pytest.approx((100 * low, 100 * high), abs=0.01)
    even = summarise([item(str(i), c, "th") for i, c in enumerate(["th", "ja"] * 10)])
    assert even.macro.interval == pytest.approx(even.accuracy.interval), "equal counts: both are one"


def test_the_confusion_matrix_counts_every_picture_once():
    found = summarise(ITEMS)
    assert found.confusion["th"] == {**dict.fromkeys(found.confusion["th"], 0), "th": 2, "ja": 1}
    assert found.confusion["fr"][INVALID] == 1 and found.confusion["ja"][UNRECOGNISABLE] == 1
    assert sum(sum(row.values()) for row in found.confusion.values()) == len(ITEMS)
    assert len(found.confusion["th"]) == 17


def test_grades_are_averaged_by_culture_without_invalid_ones():
    assert summarise(ITEMS).grades == {"relevance": {"th": (4.5, 2, 1), "ja": (1, 1, 0)}}


def test_a_judge_that_looks_once_has_no_flip_rate():
    found = summarise([item("1", "th", "th")])
    assert found.flips is None and "looked at once" in found.table()


def test_the_figures_fit_json_and_a_table():
    found = summarise(ITEMS)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["macro_accuracy"]["percent"] > 40
    assert "Thai                     3  66.7 %" in found.table() and "relevance" in found.table()


def test_no_pictures_are_refused():
    with pytest.raises(ValueError, match="no picture"):
        summarise([])


def test_two_sets_are_compared_picture_by_picture():
    other = [
        item("2", "th", "ja"), item("1", "th", "th"), item("4", "ja", "ja"), item("5", "fr", "fr"),
        item("9", "fr", "fr"),
    ]  # fmt: skip
    found = compare(ITEMS, other)
    assert (found.pictures, found.first.right, found.second.right) == (4, 2, 3)
    assert (found.mcnemar.first_only, found.mcnemar.second_only) == (1, 2)
    assert found.agreement.agreed == 0.25
    said = found.describe("ours", "theirs")
    assert "exact p = 1" in said and "kappa" in said
    json.dumps(found.to_json(), allow_nan=False)


def test_what_cannot_be_compared_is_said():
    with pytest.raises(ValueError, match="no picture of the same name"):
        compare(ITEMS, [item("x", "th", "th")])
    with pytest.raises(ValueError, match="1 should show th in one, and ja"):
        compare(ITEMS, [item("1", "ja", "th")])

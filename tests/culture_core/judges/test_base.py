"""A verdict from several answers."""

import pytest

from culture_core.judges.base import UNRECOGNISABLE, Verdict, average, verdict_of


def asked(*answers: str | None) -> Verdict:
    return Verdict(answers, average(answers))


@pytest.mark.parametrize(
    ("answers", "label"),
    [
        (("th", "th", "ja"), "th"),
        (("ja", "th", "th"), "th"),
        (("ja", "th", "fr"), "ja"),  # all alike: the first, whose order was shuffled as the others' were
        (("th", None, None), None),
        (("th", "ja", None), "th"),
        ((None, "ja", "th"), "ja"),
        ((None, None, None), None),
        ((UNRECOGNISABLE, UNRECOGNISABLE, "th"), UNRECOGNISABLE),
    ],
)
def test_the_label_is_what_most_answers_say(answers, label):
    assert asked(*answers).label == label


def test_shares_are_averaged_over_all_answers_invalid_ones_included():
    verdict = asked("th", "ja", None)
    assert verdict.share("th") == pytest.approx(1 / 3) and verdict.share("fr") == 0
    assert sum(verdict.shares.values()) == pytest.approx(2 / 3)


def test_an_answer_that_changes_with_the_order_has_flipped():
    assert asked("th", "th", "ja").flipped and asked("th", None).flipped
    assert asked("th", "th").flipped is False and asked(None, None).flipped is False
    assert asked("th").flipped is None


def test_a_judge_that_is_sure_to_a_degree_is_asked_once():
    verdict = verdict_of({"th": 0.2, "ja": 0.5, UNRECOGNISABLE: 0.3}, "m")
    assert (verdict.label, verdict.flipped, verdict.share("th")) == ("ja", None, 0.2)


def test_a_verdict_survives_json():
    verdict = Verdict(("th", None), {"th": 0.5}, ("Thai", "?"), ("m", "n"), None)
    assert Verdict.from_json(verdict.to_json()) == verdict

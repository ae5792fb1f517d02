"""A VLM behind a real server, and one on this machine, as judges."""

from collections import Counter

import pytest
from PIL import Image

from culture_core.judges import UNRECOGNISABLE, labels
from culture_core.judges.by_vlm import VLMJudge
from culture_core.judges.questions import EXAGGERATION, RELEVANCE
from culture_core.vlm import VLMError
from culture_core.vlm.usage import Prices, Usage

from ...chat_server import ChatServer, chosen, failed, in_turn, said
from .conftest import COLOURS, seen_by_colour

RED = Image.new("RGB", (9, 9), COLOURS["th"])


def test_a_picture_is_asked_about_in_three_orders(judge_by):
    with ChatServer(lambda asked: chosen(seen_by_colour(asked), model="tiny-vl:latest")) as server:
        verdict = judge_by(server).judge(RED)
    assert (verdict.label, verdict.flipped, verdict.shares) == ("th", False, {"th": 1.0})
    assert verdict.models == ("tiny-vl:latest",) * 3 and verdict.texts == ("Thai",) * 3
    first = [asked.choices[0] for asked in server.asked]
    assert len(set(first)) == 3 and all(
        sorted(a.choices) == sorted(server.asked[0].choices) for a in server.asked
    )


def test_a_judge_that_always_takes_the_first_option_flips_and_prefers_no_label(judge_by):
    with ChatServer(lambda asked: chosen(asked.choices[0])) as server:
        judge = judge_by(server)
        verdicts = [judge.judge(Image.new("RGB", (9, 9), (0, 0, shade))) for shade in range(16)]
    assert all(verdict.flipped for verdict in verdicts)
    seen = Counter(verdict.label for verdict in verdicts)
    assert len(seen) > 5 and max(seen.values()) < 7


def test_invalid_answers_and_refusals_are_answers_of_their_own(judge_by):
    answers = in_turn(said("I think it is Thai."), said(None, refusal="No."), chosen("Thai"))
    with ChatServer(answers) as server:
        verdict = judge_by(server).judge(RED)
    assert verdict.answers == (None, None, "th") and verdict.label is None and verdict.flipped
    assert verdict.texts == ("I think it is Thai.", "(refused)", "Thai") and verdict.share("th") == 1 / 3


def test_an_abstention_is_a_label(judge_by):
    with ChatServer(in_turn(chosen(UNRECOGNISABLE))) as server:
        assert judge_by(server).judge(RED).label == UNRECOGNISABLE


def test_a_server_without_structured_output_judges_too(judge_by):
    def answer(asked):
        return failed(400) if asked.choices else said(f" {seen_by_colour(asked)}.\n")

    with ChatServer(answer) as server:
        assert judge_by(server).judge(RED).answers == ("th",) * 3


def test_a_failure_is_no_verdict(judge_by):
    with ChatServer(in_turn(chosen("Thai"), failed(500))) as server, pytest.raises(VLMError, match="500"):
        judge_by(server).judge(RED)


def test_graded_questions_are_asked_about_one_culture(judge_by):
    with ChatServer(lambda a: chosen("4") if "exaggerate" in a.text else chosen("very")) as server:
        judge = judge_by(server)
        assert judge.grade(RED, "th", EXAGGERATION).value == 4
        assert judge.grade(RED, "th", RELEVANCE)[:2] == (None, "very")
    assert server.asked[0].choices == list("12345") and "Thai culture" in server.asked[0].text


def test_the_estimate_is_that_of_all_questions_about_all_pictures(judge_by):
    prices = Prices(1.0, 1.0)
    with ChatServer(in_turn(chosen("Thai", usage=(200, 10)))) as server:
        judge = judge_by(server, prices=prices)
        assert judge.estimate(RED, 100, "th") == Usage(300, 60_000, 3000)
        assert judge.estimate(RED, 100, "th", [RELEVANCE]) == Usage(400, 80_000, 4000)
        assert len(server.asked) == 4
        assert judge.judge(RED).cost == 0, "the answers of the estimate are kept"
        assert judge.judge(Image.new("RGB", (5, 5))).cost == pytest.approx(3 * 210e-6)


def test_a_local_model_is_held_to_the_options(qwen3_vl):
    from culture_core.vlm.local import LocalVLM

    judge = VLMJudge(LocalVLM(qwen3_vl))
    verdict = judge.judge(RED)
    assert set(verdict.answers) <= set(labels()) and len(verdict.answers) == 3
    assert not judge.parallel and judge.estimate(RED, 5, "th") is None and verdict.cost == 0


@pytest.mark.parametrize("rotations", [0, 17])
def test_impossible_rotations_are_refused(rotations, judge_by):
    with ChatServer(in_turn(chosen("Thai"))) as server, pytest.raises(ValueError, match="use 1 to 16"):
        judge_by(server, rotations)

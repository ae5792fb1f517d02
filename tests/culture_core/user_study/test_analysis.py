"""The figures behind the answers."""

import json
import random
from collections import Counter

import numpy as np
import pytest

from culture_core.shares import Share
from culture_core.user_study.analysis import analyse_study
from culture_core.user_study.answers import Answer, Sheet
from culture_core.user_study.pictures import StudyError

from .conftest import SYSTEMS, right

PLAIN, AMPLIFIED, MODIFIER = SYSTEMS


@pytest.fixture
def sheets(study):
    """Answers of all raters by a rule (rater, question) → answer; checks are passed."""

    def answer(rule) -> dict[str, Sheet]:
        return {
            code: Sheet(
                code, "th",
                {n: Answer(q.check or rule(code, q), 2.0) for n, q in enumerate(rater.questions, start=1)},
            )
            for code, rater in study.raters.items()
        }  # fmt: skip

    return answer


@pytest.fixture
def mixed(study, sheets):
    """The plain system is hardly recognised, the others mostly."""
    draw, see = random.Random(5), right(study)

    def rule(code, question):
        plain = study.pictures[question.picture].system == PLAIN
        if question.task == "csr":
            return draw.choice("112" if plain else "345")
        return see(question) if draw.random() < (0.1 if plain else 0.8) else draw.choice(("unknown", "no"))

    def answer(code, question):
        given = rule(code, question)
        return "unrecognisable" if question.task == "mcc" and given in ("no", "unknown") else given

    return sheets(answer)


def of(found, measure):
    return {score.system: score for score in found.scores if score.measure == measure}


def test_raters_who_see_everything_give_full_marks(study, sheets):
    found = analyse_study(study, sheets(lambda code, question: right(study)(question)))
    for system in SYSTEMS:
        assert of(found, "mcc")[system].mean == of(found, "scc")[system].mean == 100
        assert of(found, "csr")[system].mean == 5 and of(found, "csr")[system].mean_times_20 == 100
        assert of(found, "scc_foil").get(system, of(found, "mcc")[system]).low is not None
    assert all(score.mean == 0 for score in of(found, "scc_foil").values()), "no other culture is confirmed"
    assert all(one.difference == 0 and one.p == 1 for one in found.comparisons)
    assert [one.nominal for one in found.agreement] == [1, 1, None], "csr has no spread to agree on"


def test_shares_and_means_are_those_of_the_answers(study, mixed):
    found = analyse_study(study, mixed)
    for system in SYSTEMS:
        for task in ("mcc", "scc", "csr"):
            given = [
                (q, mixed[code].answers[n].answer)
                for code, rater in study.raters.items()
                for n, q in enumerate(rater.questions, start=1)
                if q.task == task and q.check is None and study.pictures[q.picture].system == system
            ]
            if task == "scc":
                given = [(q, a) for q, a in given if q.asked == study.pictures[q.picture].culture]
            score = of(found, task)[system]
            assert score.ratings == len(given)
            assert score.answers == {**dict.fromkeys(score.answers, 0), **Counter(a for _, a in given)}
            if task == "csr":
                assert score.mean == pytest.approx(np.mean([int(a) for _, a in given]))
                assert score.mean_times_20 == pytest.approx(20 * score.mean)
            else:
                good = sum(a in ("yes", study.pictures[q.picture].culture) for q, a in given)
                assert (score.mean, score.low, score.high) == pytest.approx(
                    (100 * good / len(given), *Share(good, len(given)).interval)
                )
                assert score.no_answer == sum(a in ("unknown", "unrecognisable") for _, a in given)


def test_the_interval_of_csr_is_a_bootstrap_over_raters(study, mixed):
    found = of(analyse_study(study, mixed, bootstrap=4000), "csr")[PLAIN]
    own = {  # a slow literal one
        code: [
            int(mixed[code].answers[n].answer)
            for n, q in enumerate(rater.questions, start=1)
            if q.task == "csr" and q.check is None and study.pictures[q.picture].system == PLAIN
        ]
        for code, rater in study.raters.items()
    }
    draw = random.Random(0)
    means = [
        np.mean([score for code in draw.choices(list(own), k=len(own)) for score in own[code]])
        for _ in range(4000)
    ]
    assert (found.low, found.high) == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=0.06)
    assert found.low < found.mean < found.high


def test_a_worse_system_is_found_and_equal_ones_are_not_told_apart(study, mixed):
    found = analyse_study(study, mixed)
    for measure in ("mcc", "scc", "csr"):
        pairs = {(one.system, one.other): one for one in found.comparisons if one.measure == measure}
        worse = pairs[AMPLIFIED, PLAIN]
        assert worse.difference > (1 if measure == "csr" else 30)
        assert worse.low > 0 and worse.p <= worse.p_holm < 0.05
        equal = pairs[AMPLIFIED, MODIFIER]
        assert equal.low < 0 < equal.high and equal.p > 0.05
        means = {system: score.mean for system, score in of(found, measure).items()}
        if measure != "scc":  # there some items have foils alone
            assert worse.items == 12
            assert worse.difference == pytest.approx(means[AMPLIFIED] - means[PLAIN])


def test_raters_who_fail_checks_do_not_count_and_are_named(study, mixed):
    careless, *others = mixed
    questions = study.raters[careless].questions
    number = next(n for n, q in enumerate(questions, start=1) if q.task == "csr" and q.check)
    wrong = "1" if questions[number - 1].check != "1" else "2"
    answers = mixed[careless].answers | {number: Answer(wrong, 1.0)}
    sheets = mixed | {careless: Sheet(careless, "th", answers)}
    found = analyse_study(study, sheets)
    assert found.excluded == [careless] and found.raters[careless]["failed"] == 1
    assert found.scores == analyse_study(study, {code: mixed[code] for code in others}).scores
    assert analyse_study(study, sheets, max_failed=1).scores == analyse_study(study, mixed).scores
    rows = found.rating_rows()
    assert len(rows) == 18 * 18, "raw ratings are all kept"
    assert {row["rater"] for row in rows if row["excluded"]} == {careless}
    assert {row["prompt"] for row in rows} == {"bowl-secret", "chair-secret", "hat-secret"}
    with pytest.raises(StudyError, match="1 failed more than 0 attention checks"):
        analyse_study(study, {careless: sheets[careless]})


def test_answers_of_a_rater_who_stopped_count_as_far_as_they_go(study, mixed):
    first, second, *_ = mixed
    part = Sheet(first, "th", {n: a for n, a in mixed[first].answers.items() if n <= 5})
    found = analyse_study(study, {first: part, second: mixed[second]})
    assert found.raters[first]["answered"] == 5 and found.raters[first]["questions"] == 21
    assert sum(rating.rater == first for rating in found.ratings) in (4, 5)


def test_one_rater_alone_has_no_bootstrap_interval_and_no_agreement(study, mixed):
    code = next(iter(mixed))
    found = analyse_study(study, {code: mixed[code]})
    assert all(score.low is None for score in of(found, "csr").values())
    assert all(score.low is not None for score in of(found, "mcc").values())
    assert all(one.nominal is None and one.pictures == 0 for one in found.agreement)


def test_raters_who_guess_agree_by_chance_and_ordinal_is_for_csr_alone(study, sheets):
    draw = random.Random(3)
    choices = {"mcc": ("th", "ar", "ja"), "scc": ("yes", "no"), "csr": tuple("12345")}
    found = analyse_study(study, sheets(lambda code, question: draw.choice(choices[question.task])))
    for one in found.agreement:
        assert abs(one.nominal) < 0.25 and (one.ordinal is not None) == (one.task == "csr")
        assert one.pictures > 25


def test_the_result_is_json_and_a_picture(study, mixed):
    found = analyse_study(study, mixed, seed=3)
    assert found == analyse_study(study, mixed, seed=3)
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert len(record["scores"]) == 12 and len(record["comparisons"]) == 9 and not record["excluded"]
    assert found.picture().width >= 800 and found.picture().height > 4 * 150

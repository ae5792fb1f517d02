"""The assignment of pictures to raters, and its key."""

import itertools
import json
from collections import Counter

import pytest

from culture_core.cultures import CULTURES
from culture_core.user_study.design import TASKS, design_study, read_key
from culture_core.user_study.pictures import Picture, StudyError, read_run

from .conftest import ordinary


def pictures_of(systems: int, items: int, cultures: int = 5) -> list[Picture]:
    codes = list(CULTURES)[:cultures]
    return [
        Picture(f"{s}-{i}.png", f"system {s}", f"prompt {i}", "en", codes[i % cultures], 0)
        for s, i in itertools.product(range(systems), range(items))
    ]


@pytest.mark.parametrize("systems, items, raters, questions", [
    (3, 12, 9, 6), (2, 10, 8, 5), (4, 14, 13, 7), (5, 25, 17, 10), (6, 9, 20, 9), (1, 6, 4, 6), (4, 8, 37, 8),
])  # fmt: skip
def test_pictures_are_judged_equally_often_and_no_rater_sees_an_item_twice(systems, items, raters, questions):
    study = design_study(pictures_of(systems, items), raters, questions, ratings=1, foils=0)
    for task in TASKS:
        asked = list(ordinary(study, task))
        judged = Counter(question.picture for _, question in asked)
        assert len(asked) == raters * questions
        assert judged.keys() == study.pictures.keys()
        assert max(judged.values()) - min(judged.values()) <= 1
        for code in study.raters:
            seen = [study.pictures[question.picture] for rater, question in asked if rater == code]
            assert len({picture.item for picture in seen}) == questions
            share = Counter(picture.system for picture in seen)
            assert max(share.values()) - min(share[s] for s in study.systems) <= 2


def test_where_shares_do_not_straddle_rounds_systems_are_equal_to_within_one():
    study = design_study(pictures_of(3, 12), raters=18, questions=6, ratings=3)
    for code, task in itertools.product(study.raters, TASKS):
        own = [study.pictures[q.picture].system for rater, q in ordinary(study, task) if rater == code]
        assert sorted(Counter(own).values()) == [2, 2, 2]


def test_cultures_come_in_blocks_that_hold_each_once(study):
    for code in study.raters:
        own = [study.pictures[q.picture].culture for rater, q in ordinary(study, "mcc") if rater == code]
        assert max(Counter(own).values()) <= 2 and len(set(own)) == 4  # six questions, four cultures


def test_one_item_comes_from_another_system_in_the_next_task(study):
    for code in study.raters:
        seen = {
            task: {
                study.pictures[q.picture].item: study.pictures[q.picture].system
                for rater, q in ordinary(study, task) if rater == code
            }
            for task in TASKS
        }  # fmt: skip
        assert all(len({seen[task][item] for task in TASKS}) == 3 for item in seen["mcc"])


def test_only_the_first_task_knows_no_culture_and_tasks_are_in_order(study):
    for rater in study.raters.values():
        assert [task for task, _ in itertools.groupby(q.task for q in rater.questions)] == list(TASKS)
        for question in rater.questions:
            assert (question.asked is None) == (question.task == "mcc" or question.check is not None)


def test_foils_name_another_culture_as_often_as_asked(study):
    for code in study.raters:
        own = [q for rater, q in ordinary(study, "scc") if rater == code]
        assert sum(q.asked != study.pictures[q.picture].culture for q in own) == 2  # a third of six
        assert all(
            q.asked == study.pictures[q.picture].culture for r, q in ordinary(study, "csr") if r == code
        )


def test_every_task_has_its_checks_and_never_first(study):
    assert {len(rater.questions) for rater in study.raters.values()} == {21}
    for rater in study.raters.values():
        for task in TASKS:
            own = [q for q in rater.questions if q.task == task]
            assert sum(q.check is not None for q in own) == 1 and own[0].check is None
    expected = {q.check for rater in study.raters.values() for q in rater.questions}
    assert len(expected) > 5, "not always the same answer is asked for"


def test_a_seed_settles_everything(run_folder, study):
    pictures = read_run(run_folder)
    again = design_study(pictures[::-1], raters=18, questions=6, ratings=3, foils=1 / 3, seed=1)
    other = design_study(pictures, raters=18, questions=6, ratings=3, foils=1 / 3, seed=2)
    assert again == study
    assert other.id != study.id and not other.pictures.keys() & study.pictures.keys()
    assert len({rater.options for rater in study.raters.values()}) == 18, (
        "options are in another order for each"
    )


def test_ratings_decide_how_many_items_are_taken():
    few = design_study(pictures_of(2, 30), raters=12, questions=5, ratings=3)
    assert len(few.pictures) == 2 * 10  # 12 x 5 answers are 3 of 20 pictures
    judged = Counter(q.picture for _, q in ordinary(few, "csr"))
    assert set(judged.values()) == {3}
    with pytest.raises(StudyError, match="3 ratings of each picture need 6 raters or more"):
        design_study(pictures_of(2, 30), raters=5, questions=5, ratings=3)


def test_items_that_a_system_lacks_are_left_out():
    pictures = pictures_of(2, 6)
    study = design_study(pictures[:-1], raters=4, questions=6, ratings=1)
    assert {p.prompt for p in study.pictures.values()} == {f"prompt {i}" for i in range(5)}
    with pytest.raises(StudyError, match="finish the run"):
        design_study([pictures[0], pictures[-1]], raters=4)


@pytest.mark.parametrize(
    "wrong", [{"raters": 0}, {"questions": 0}, {"ratings": 0}, {"foils": 1}, {"checks": -1}]
)
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="must be 1 or more"):
        design_study(pictures_of(2, 6), **({"raters": 4} | wrong))


def test_a_key_comes_back_as_it_was(study, tmp_path):
    study.write_key(tmp_path / "key.json")
    assert read_key(tmp_path / "key.json") == study


def first(record, name):
    return next(iter(record[name].values()))


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.pop("raters"),
        lambda record: record.update(raters={}),
        lambda record: record.update(id=5),
        lambda record: record.update(pictures=[]),
        lambda record: first(record, "pictures").update(culture="xx"),
        lambda record: first(record, "pictures").update(system=["a"]),
        lambda record: first(record, "pictures").update(extra=1),
        lambda record: first(record, "raters").update(options=["th"]),
        lambda record: first(record, "raters")["questions"][0].update(task="other"),
        lambda record: first(record, "raters")["questions"][0].update(task=["mcc"]),
        lambda record: first(record, "raters")["questions"][0].update(picture="none"),
        lambda record: first(record, "raters")["questions"][0].update(asked="th"),
        lambda record: first(record, "raters")["questions"][0].update(check="maybe"),
        lambda record: first(record, "raters")["questions"][-1].update(asked="xx", check=None),
    ],
)
def test_a_damaged_key_is_refused(study, tmp_path, damage):
    path = tmp_path / "key.json"
    study.write_key(path)
    record = json.loads(path.read_text("utf-8"))
    damage(record)
    path.write_text(json.dumps(record), "utf-8")
    with pytest.raises(StudyError, match="is damaged"):
        read_key(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "culture-user-study-key", "version": 2}', "[" * 9999]
)
def test_what_is_no_key_is_refused(tmp_path, text):
    path = tmp_path / "key.json"
    path.write_text(text, "utf-8")
    with pytest.raises(StudyError, match="key.json: is no"):
        read_key(path)
    with pytest.raises(StudyError, match="is no file"):
        read_key(tmp_path / "none.json")

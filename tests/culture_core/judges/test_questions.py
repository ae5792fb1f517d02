"""What is asked, in which order, and how answers are read."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from culture_core.cultures import CULTURES, Culture
from culture_core.judges import UNRECOGNISABLE, labels
from culture_core.judges.questions import GRADED, culture_question, orders, read_grade, read_label


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def test_there_are_fifteen_cultures_and_none_of_them(monkeypatch):
    assert len(labels()) == 16 and labels()[-1] == UNRECOGNISABLE
    monkeypatch.setitem(
        CULTURES, "vi", Culture("vi", "Vietnamese", "Tiếng Việt", "Vietnamese", "Vietnam", ("Latn",))
    )
    assert len(labels()) == 17 and read_label("vietnamese", labels()) == "vi"
    assert "- Vietnamese\n" in culture_question(labels())


def test_every_option_is_offered_once_in_every_order():
    for order in orders(picture(0), labels(), 0):
        assert sorted(order) == sorted(labels())
        question = culture_question(order)
        places = [question.index(f"- {CULTURES[c].name if c in CULTURES else c}\n") for c in order]
        assert places == sorted(places)


def test_an_option_moves_through_the_list_from_order_to_order():
    found = orders(picture(0), labels(), 0, 3)
    for label in labels():
        places = sorted(order.index(label) for order in found)
        assert places[1] - places[0] >= 5 and places[2] - places[1] >= 5


def test_orders_depend_on_the_picture_and_the_seed_alone():
    assert orders(picture(0), labels(), 0) == orders(picture(0).copy(), labels(), 0)
    assert orders(picture(0), labels(), 0) != orders(picture(1), labels(), 0)
    assert orders(picture(0), labels(), 0) != orders(picture(0), labels(), 1)


def test_over_many_pictures_each_option_comes_first_alike_often():
    first = Counter(orders(picture(seed), labels(), 0, 1)[0][0] for seed in range(1600))
    # 100 each are expected, with a standard deviation of 9.7.
    assert len(first) == 16 and min(first.values()) > 60 and max(first.values()) < 140


@pytest.mark.parametrize("text", ["Thai", " thai\n", "THAI.", "**Thai**", '"Thai"', "`Thai`"])
def test_a_label_may_be_dressed(text):
    assert read_label(text, labels()) == "th"


@pytest.mark.parametrize(
    "text", ["", "th", "Thailand", "Thai culture", "Thai or Dutch", "Not Thai", "A", "1", "-"]
)
def test_anything_else_is_no_label(text):
    assert read_label(text, labels()) is None


@pytest.mark.parametrize(
    ("text", "grade"),
    [("3", 3), (" 5.\n", 5), *((text, None) for text in ("0", "6", "3/5", "three", "²", "2.5", ""))],
)
def test_a_grade_is_one_digit_from_1_to_5(text, grade):
    assert read_grade(text) == grade


def test_graded_questions_name_the_culture_and_all_five_grades():
    for question in GRADED.values():
        text = question.about("th")
        assert "Thai" in text and "{" not in text and all(f"\n{n}: " in text for n in range(1, 6))

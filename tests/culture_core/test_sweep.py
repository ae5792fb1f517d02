"""Lists of strengths."""

from __future__ import annotations

import pytest

from culture_core.sweep import MAX_VALUES, prompt_list, strength_sweep, sweep_labels


def test_both_ends_are_included_and_steps_are_even() -> None:
    assert strength_sweep(0, 4, 5) == [0, 1, 2, 3, 4]
    assert strength_sweep(-1, 0.5, 4) == [-1, -0.5, 0, 0.5]


def test_a_range_may_fall() -> None:
    assert strength_sweep(2, 0, 3) == [2, 1, 0]


def test_one_step_is_the_start_alone() -> None:
    assert strength_sweep(1.5, 4, 1) == [1.5]


def test_steps_that_binary_fractions_miss_are_rounded() -> None:
    assert strength_sweep(0, 0.3, 4) == [0, 0.1, 0.2, 0.3]


@pytest.mark.parametrize("values", ["0, 1, 2.5", " 0 1\n2.5 ", "0;1;2.5", ",0,1,,2.5,"])
def test_a_list_replaces_the_range(values: str) -> None:
    assert strength_sweep(7, 8, 9, values) == [0, 1, 2.5]


@pytest.mark.parametrize("values", ["0, one", "1,,x", "nan", "0, inf"])
def test_a_list_of_something_else_is_refused_with_the_word(values: str) -> None:
    with pytest.raises(ValueError, match=r"'(one|x|nan|inf)' is no number.*0, 1, 2\.5"):
        strength_sweep(0, 1, 2, values)


def test_strengths_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="13 is out of range: use -1 to 12"):
        strength_sweep(0, 1, 2, "1 13")
    with pytest.raises(ValueError, match="-2 is out of range"):
        strength_sweep(-2, 1, 2)


def test_the_number_of_strengths_is_limited() -> None:
    for steps in (0, MAX_VALUES + 1):
        with pytest.raises(ValueError, match=f"steps is {steps}"):
            strength_sweep(0, 1, steps)
    with pytest.raises(ValueError, match=f"{MAX_VALUES + 1} strengths"):
        strength_sweep(0, 1, 2, "1 " * (MAX_VALUES + 1))


def test_labels_read_as_short_numbers_after_their_name() -> None:
    assert sweep_labels([0.0, -1.0, 2.5], "strength") == ["strength 0", "strength -1", "strength 2.5"]
    assert sweep_labels([1.0], " ") == ["1"]


def test_a_prompt_list_has_a_prompt_a_line() -> None:
    assert prompt_list("teapot\n\n  急須 \r\nإبريق شاي\n") == ["teapot", "急須", "إبريق شاي"]


@pytest.mark.parametrize("text", ["", " \n\t\n", "a\n" * (MAX_VALUES + 1)])
def test_a_prompt_list_without_prompts_or_with_too_many_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"write 1 to {MAX_VALUES}, one a line"):
        prompt_list(text)

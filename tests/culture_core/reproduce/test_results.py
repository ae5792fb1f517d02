"""The figures to beat, from rows whose figures are known."""

import pytest

from culture_core.reproduce.results import TARGETS, Results, outcome
from culture_core.reproduce.systems import KINDS

COUNT = 180


def row(culture: float = 1.0, noun: float = 1.0, clip: float = 0.3, diversity: float = 0.5) -> dict:
    """Pictures of 30 combinations, of which these shares are right; every combination alike."""
    groups = [f"combination {index % 30}" for index in range(COUNT)]
    return {
        "culture": [index < culture * COUNT for index in range(COUNT)],
        "noun": [index < noun * COUNT for index in range(COUNT)],
        "clip": [clip] * COUNT, "group": groups, "diversity": dict.fromkeys(groups, diversity),
    }  # fmt: skip


def figures(**changed: dict) -> dict[str, tuple[str, str]]:
    """Figure and verdict of the first system by the target's name; both systems have the same rows."""
    rows = {
        "neutral": row(culture=0, noun=179 / 180), "explicit": row(), "amplified": row(culture=0.95),
        "enhanced": row(), "masked": row(culture=0.1), "masked, random (frequency)": row(culture=0.98),
        "English, amplified": row(culture=0.9),
    }  # fmt: skip
    lines = outcome(Results({kind: [{**rows, **changed}] for kind in KINDS}))
    assert [line[0] for line in lines] == [target.name for target in TARGETS]
    return {line[0]: (line[2].value, line[2].mark) for line in lines}


def test_every_figure_that_is_good_enough_is_reached() -> None:
    assert {verdict for _, verdict in figures().values()} == {"reached"}


def test_nouns_stand_beside_the_neutral_prompts_in_percent() -> None:
    found = figures(amplified=row(noun=161 / 180), enhanced=row(noun=175 / 180))
    # Wilson's interval of 179 of 180 begins at 96.9 %.
    assert found["noun accuracy %, amplified"] == ("89.4 (neutral 99.4, from 96.9)", "missed")
    assert found["noun accuracy %, fine-tuned"] == ("97.2 (neutral 99.4, from 96.9)", "reached")


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({"amplified": row(culture=0.89)}, "amplified: gap closed"),
        ({"enhanced": row(culture=0.99)}, "fine-tuned: gap closed"),
        ({"masked": row(culture=0.21)}, "masked: explicit score left"),
        ({"masked, random (frequency)": row(culture=0.96)}, "random mask: explicit score left"),
        ({"amplified": row(clip=0.29)}, "CLIP-type score, amplified"),
        ({"enhanced": row(diversity=0.49)}, "diversity, fine-tuned"),
        ({"English, amplified": row(culture=0.79)}, "neutral English + neurons: judged the culture %"),
    ],
)
def test_a_figure_that_falls_short_is_missed_and_no_other(changed: dict, missed: str) -> None:
    assert [name for name, (_, verdict) in figures(**changed).items() if verdict == "missed"] == [missed]


def test_without_a_gap_nothing_is_reached_by_closing_it() -> None:
    assert figures(explicit=row(culture=0))["amplified: gap closed"] == ("undefined", "missed")

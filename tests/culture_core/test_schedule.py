"""Strengths over a sampling run."""

import pytest

from culture_core.schedule import Stretch, parse_schedule


def test_each_strength_holds_until_the_next_share() -> None:
    assert parse_schedule("0: 4, 0.25: 2; 0.5: -1") == [
        Stretch(0.0, 0.25, 4.0),
        Stretch(0.25, 0.5, 2.0),
        Stretch(0.5, 1.0, -1.0),
    ]


def test_a_ramp_moves_evenly_and_stays_where_nothing_changes() -> None:
    assert parse_schedule("0: 4\n0.5: 0", ramp=4) == [
        Stretch(0.0, 0.125, 4.0),
        Stretch(0.125, 0.25, 3.0),
        Stretch(0.25, 0.375, 2.0),
        Stretch(0.375, 0.5, 1.0),
        Stretch(0.5, 1.0, 0.0),
    ]


@pytest.mark.parametrize("ramp", [0, 1, 3])
def test_stretches_cover_the_run_without_gap(ramp: int) -> None:
    stretches = parse_schedule("0: 1, 0.1: 5, 0.7: 2", ramp)
    assert stretches[0].start == 0 and stretches[-1].end == 1
    assert all(a.end == b.start for a, b in zip(stretches, stretches[1:], strict=False))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begin with the strength at share 0"),
        ("0.2: 1", "begin with the strength at share 0"),
        ("0: 1, 0: 2", "must rise"),
        ("0: 1, 1.2: 2", "must rise from 0 and stay below 1"),
        ("0 1", "is no 'share: strength' pair"),
        ("0: strong", "is no 'share: strength' pair"),
        ("0: 99", "out of range"),
        ("0: nan", "out of range"),
        ("0: 1, nan: 2", "must rise"),
    ],
)
def test_bad_schedules_say_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_schedule(text)

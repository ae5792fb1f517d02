"""Strengths that change over a sampling run: `0: 4, 0.3: 2, 0.7: 0`."""

import re
from itertools import pairwise
from typing import NamedTuple

from .amplifier import MAX_STRENGTH, MIN_STRENGTH


class Stretch(NamedTuple):
    """A part of the sampling run with one strength; begin and end are shares of the run, 0 to 1."""

    start: float
    end: float
    strength: float


def parse_schedule(text: str, ramp: int = 0) -> list[Stretch]:
    """Stretches of a schedule written as `share: strength` pairs, separated by commas, semicolons or lines.

    Each strength holds until the next share; with a ramp it moves there evenly.

    Args:
        ramp: into how many stretches the way from one strength to the next is cut; 0: it jumps. Each stretch
            costs one more encode of the prompt.

    Raises:
        ValueError: for anything but pairs of numbers, shares that do not begin at 0, do not rise or leave
            0 to 1, or strengths out of range.
    """
    if ramp < 0:
        raise ValueError(f"ramp is {ramp}: use 0 (the strength jumps) or a number of stretches")
    points = [_point(entry) for entry in re.split(r"[,;\n]", text) if entry.strip()]
    shares = [share for share, _ in points]
    if not points or shares[0] != 0:
        raise ValueError(
            f"the schedule {text!r} must begin with the strength at share 0, such as '0: 3, 0.5: 0'"
        )
    if not all(a < b for a, b in pairwise([*shares, 1.0])):
        raise ValueError(f"the shares of the schedule {text!r} must rise from 0 and stay below 1")
    stretches = []
    for (start, strength), (end, after) in pairwise([*points, (1.0, points[-1][1])]):
        cuts = 1 if strength == after else max(ramp, 1)
        edges = [*(start + (end - start) * part / cuts for part in range(cuts)), end]
        for part, (low, high) in enumerate(pairwise(edges)):
            stretches.append(Stretch(low, high, strength + (after - strength) * part / cuts))
    return stretches


def _point(entry: str) -> tuple[float, float]:
    share, colon, strength = entry.partition(":")
    try:
        point = float(share), float(strength)
    except ValueError:
        point = None
    if not colon or point is None:
        raise ValueError(f"{entry.strip()!r} is no 'share: strength' pair, such as '0.3: 2'")
    if not MIN_STRENGTH <= point[1] <= MAX_STRENGTH:
        raise ValueError(
            f"the strength {point[1]:g} is out of range: use {MIN_STRENGTH:g} to {MAX_STRENGTH:g}"
        )
    return point

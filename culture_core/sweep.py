"""Strengths and prompts to compare side by side."""

import math
import re

from .amplifier import MAX_STRENGTH, MIN_STRENGTH

MAX_VALUES = 100


def strength_sweep(start: float, stop: float, steps: int, values: str = "") -> list[float]:
    """Evenly spaced strengths from start to stop, both included; or those listed in `values`.

    Args:
        steps: how many; one gives `start` alone.
        values: numbers separated by commas, semicolons or white space, such as "0, 1, 2.5"; empty to use the
            range.

    Raises:
        ValueError: for a list that holds something else than numbers, or strengths out of range.
    """
    listed = [_number(word) for word in re.split(r"[,;\s]+", values.strip(" ,;\n\t")) if word]
    if not listed and not 1 <= steps <= MAX_VALUES:
        raise ValueError(f"steps is {steps}: use 1 to {MAX_VALUES}")
    pitch = (stop - start) / max(steps - 1, 1)
    # Rounded, so that 0.1 + 0.2 reads 0.3.
    found = listed or [round(start + index * pitch, 6) for index in range(steps)]
    if len(found) > MAX_VALUES:
        raise ValueError(f"the list holds {len(found)} strengths: use at most {MAX_VALUES}")
    wrong = [value for value in found if not MIN_STRENGTH <= value <= MAX_STRENGTH]
    if wrong:
        raise ValueError(f"strength {wrong[0]:g} is out of range: use {MIN_STRENGTH:g} to {MAX_STRENGTH:g}")
    return found


def prompt_list(text: str) -> list[str]:
    """The prompts of a text, one a line; empty lines are left out.

    Raises:
        ValueError: for no prompt, or too many.
    """
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(found) <= MAX_VALUES:
        raise ValueError(f"the list holds {len(found)} prompts: write 1 to {MAX_VALUES}, one a line")
    return found


def sweep_labels(strengths: list[float], name: str = "") -> list[str]:
    """A label for each strength: its number, after a name if there is one."""
    return [f"{name.strip()} {value:g}".strip() for value in strengths]


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(
            f"{word!r} is no number: list strengths such as '0, 1, 2.5', with a point for decimals"
        )
    return value

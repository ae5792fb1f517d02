"""JSON from anyone: what is wrong with it is a `ValueError`, also where Python's reader says it otherwise."""

import json
import math
from typing import Any, NoReturn


def parse_json(text: str) -> Any:
    """A JSON value without NaN, infinities and halves of characters.

    Raises:
        ValueError: for anything else, also for what is nested too deeply.
    """
    try:
        value = json.loads(text, parse_constant=_reject_constant, parse_float=_finite)
        if "\\u" in text:  # half of a character, which could be written nowhere again
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({error})") from error


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object without NaN and infinities.

    Raises:
        ValueError: for anything else.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")

"""JSON that a stranger wrote."""

import pytest

from culture_core.strict_json import parse_json, parse_object


@pytest.mark.parametrize(
    "text",
    ["", "{", "NaN", '{"a": Infinity}', "1e400", 60_000 * "[", '{"a":' * 60_000, r'"\ud800"', "1" * 5000],
)
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="no JSON|no number|too large"):
        parse_json(text)


def test_whole_characters_of_two_halves_stay() -> None:
    assert parse_json(r'["\ud83d\ude00", "\u00e9"]') == ["😀", "é"]


def test_an_object_must_be_one() -> None:
    assert parse_object('{"a": [1, null]}') == {"a": [1, None]}
    with pytest.raises(ValueError, match="no JSON object"):
        parse_object("[]")

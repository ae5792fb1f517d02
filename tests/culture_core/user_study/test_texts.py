"""The questionnaire's languages."""

import re
import unicodedata

import pytest

from culture_core.cultures import CULTURES
from culture_core.user_study.texts import texts

SCRIPTS = {
    "Arab": "ARABIC", "Hans": "CJK", "Jpan": "HIRAGANA", "Kore": "HANGUL", "Thai": "THAI", "Latn": "LATIN",
    "Cyrl": "CYRILLIC",
}  # fmt: skip


def slots(text: str) -> set[str]:
    return set(re.findall(r"\{.*?\}", text))


def test_all_cultures_languages_and_english_are_there():
    assert texts().keys() == {"en", *CULTURES}
    assert texts()["th"]["autonym"] == "ไทย" and texts()["th"]["cultures"]["th"] == "ไทย"
    assert [code for code, one in texts().items() if one["dir"] == "rtl"] == ["ar"]


@pytest.mark.parametrize("code", CULTURES)
def test_a_language_says_all_that_english_says_with_the_same_slots(code):
    english, own = texts()["en"], texts()[code]
    assert own.keys() == english.keys()
    for name, text in english.items():
        if name not in ("cultures", "dir", "autonym"):
            assert own[name].strip() and slots(own[name]) == slots(text), name
    assert list(own["cultures"]) == list(CULTURES) and len(set(own["cultures"].values())) == len(CULTURES)


@pytest.mark.parametrize("code", CULTURES)
def test_a_language_is_in_its_own_script_and_not_in_english(code):
    own, english = texts()[code], texts()["en"]
    script = SCRIPTS[CULTURES[code].scripts[0]]
    for name in ("welcome", "mcc", "scc", "csr", "check", "done"):
        assert own[name] != english[name]
        letters = [c for c in re.sub(r"\{.*?\}", "", own[name]) if c.isalpha()]
        share = sum(unicodedata.name(c).startswith((script, "CJK")) for c in letters) / len(letters)
        assert share > (0.6 if code == "ja" else 0.9), name  # Japanese also writes katakana


def test_answers_to_one_question_differ():
    for one in texts().values():
        assert len({one["yes"], one["no"], one["unknown"]}) == 3 and one["least"] != one["most"]
        assert one["unrecognisable"] not in one["cultures"].values()

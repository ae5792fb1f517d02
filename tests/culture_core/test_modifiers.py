"""The explicit culture modifier."""

import pytest

from culture_core.cultures import CULTURES
from culture_core.miniature.captions import WORDS, caption
from culture_core.modifiers import ENGLISH, OWN, with_modifier


@pytest.mark.parametrize("code", CULTURES)
def test_a_caption_becomes_what_the_miniature_calls_explicit(code: str) -> None:
    # In Thai a space ends a phrase, or does not: the modifier then stands behind both.
    for wrapper in (0, 1, 3) if code == "th" else (0, 1, 2, 3):
        neutral, explicit = (caption(code, "teapot", c, 0, wrapper).text for c in (None, code))
        assert with_modifier(neutral, code, OWN) == explicit


@pytest.mark.parametrize("code", CULTURES)
def test_english_names_every_culture(code: str) -> None:
    assert with_modifier("teapot", code, ENGLISH) == f"teapot in the {CULTURES[code].name} style"


@pytest.mark.parametrize(
    "prompt, named",
    [
        ("a bowl, watercolour", "a bowl in the Japanese style, watercolour"),
        (
            "masterpiece, best quality, a bowl, 8k",
            "masterpiece, best quality, a bowl in the Japanese style, 8k",
        ),
        ("(a bowl, blue:1.3), 8k", "(a bowl, blue:1.3) in the Japanese style, 8k"),
        ("embedding:good, a bowl", "embedding:good, a bowl in the Japanese style"),
        (r"bowl \(blue, old\), 8k", r"bowl \(blue in the Japanese style, old\), 8k"),
        ("A bowl stands there. Light.", "A bowl stands there in the Japanese style. Light."),
        ("version 1.5 of a bowl", "version 1.5 of a bowl in the Japanese style"),
        ("  bowl  ", "  bowl in the Japanese style  "),
        ("((bowl", "((bowl in the Japanese style"),
        ("{bowl}", "{bowl} in the Japanese style"),
        ("masterpiece", "masterpiece"),
        ("", ""),
        (" , ,", " , ,"),
    ],
)
def test_the_modifier_stands_at_the_subject(prompt: str, named: str) -> None:
    assert with_modifier(prompt, "ja", ENGLISH) == named


def test_a_prompt_that_has_the_modifier_stays_as_it_is() -> None:
    for code in WORDS.keys() & CULTURES.keys():
        named = with_modifier(caption(code, "house").text, code)
        assert with_modifier(named, code) == named
    assert with_modifier("Haus Im Deutschen Stil, Regen", "de") == "Haus Im Deutschen Stil, Regen"


def test_what_is_not_known_is_said() -> None:
    with pytest.raises(ValueError, match="unknown culture 'xx'"):
        with_modifier("bowl", "xx")
    with pytest.raises(ValueError, match="language must be one of own, English, got 'de'"):
        with_modifier("bowl", "ja", "de")

"""Languages by their letters."""

import pytest

from culture_core.bench.scripts import foreign_letters, script_problem
from culture_core.cultures import CULTURES
from culture_core.miniature.captions import WORDS


@pytest.mark.parametrize("language", WORDS)
def test_every_language_passes_as_itself(language):
    for word in WORDS[language]:
        assert script_problem(word, language) == "" and foreign_letters(word, language) == "", word


@pytest.mark.parametrize("language", CULTURES)
def test_words_of_another_script_are_noticed(language):
    scripts = set(CULTURES[language].scripts)
    for other, words in WORDS.items():
        apart = not scripts & set(CULTURES[other].scripts if other in CULTURES else ("Latn",))
        if apart and "Jpan" not in scripts and not (language == "zh" and other == "ja"):
            assert all("script" in script_problem(word, language) for word in words), other


def test_a_brand_in_latin_letters_may_stand_in_a_text():
    assert script_problem("รูปถ่ายเก้าอี้จากร้าน IKEA", "th") == ""
    assert "script" in script_problem("chair from IKEA เก้า", "th")


def test_letters_tell_neighbours_apart():
    assert foreign_letters("стілець", "ru") == "і" and foreign_letters("рыба", "uk") == "ы"
    assert foreign_letters("お椀", "zh") == "お" and foreign_letters("straße", "fr") == "ß"


def test_a_text_without_letters_is_noticed_and_an_unknown_language_is_not_judged():
    assert "no letters" in script_problem("12 !", "de")
    assert script_problem("καρέκλα", "el") == ""

"""The language of a prompt."""

import sys
from collections.abc import Iterator

import eldc
import pytest

from benchmarks.prompt_languages import kinds, measure
from culture_core import languages
from culture_core.cultures import CULTURES
from culture_core.languages import (
    CULTURE_OF,
    NAMES,
    Detection,
    MissingDetectorError,
    UnclearLanguageError,
    culture_for,
    detect_culture,
    detection_report,
    prompt_words,
)


@pytest.mark.parametrize(
    "text, language",
    [
        ("บ้านริมทะเลสาบ", "th"),
        ("호수 옆의 집", "ko"),
        ("湖のほとりの家", "ja"),
        ("ランプ", "ja"),
        ("円卓", "ja"),  # Japan's own short form
        ("湖边的老桥", "zh"),
        ("鸟", "zh"),
        ("قبعة حمراء على الكرسي", "ar"),
        ("старый дом у озера под дождём", "ru"),
        ("старий будинок біля озера", "uk"),
        ("ein altes Haus am See", "de"),
        ("un vecchio ponte sul lago", "it"),
        ("łódź", "pl"),
        ("yağmurda eski bir köprü", "tr"),
    ],
)
def test_a_clear_prompt_has_the_culture_of_its_language(text: str, language: str) -> None:
    found = detect_culture(text)
    assert (found.language, found.culture) == (language, language) and 0.1 <= found.confidence <= 1


@pytest.mark.parametrize(
    "text, reason",
    [
        ("casa", "Portuguese or Italian or Spanish"),
        ("椅子", "Chinese or Japanese"),
        ("東京都庁 tower", "mixes scripts"),
        ("123, (1.2)", "no words"),
        ("", "no words"),
        ("xqzw", "No language is known"),
    ],
)
def test_an_unclear_prompt_steers_nothing_and_says_why(text: str, reason: str) -> None:
    found = detect_culture(text)
    assert found.language is None and found.culture is None and reason in found.reason


@pytest.mark.parametrize(
    "text, name", [("an old house at the lake in the rain", "English"), ("ett hus vid sjön", "Swedish")]
)
def test_a_language_without_a_culture_steers_nothing_and_says_why(text: str, name: str) -> None:
    found = detect_culture(text)
    assert found.culture is None and NAMES[found.language] == name
    assert f"no culture goes with {name}" in found.reason


@pytest.mark.parametrize("name", ["the bridge of A Coruña in rain", "Łódź railway station in winter"])
def test_a_foreign_name_does_not_make_the_language(name: str) -> None:
    assert detect_culture(name).language == "en"


@pytest.mark.parametrize(
    "text, words",
    [
        ("(急須:1.2), [湯呑]", "急須 , 湯呑"),
        (r"casa \(vecchia\)", "casa vecchia"),
        ("embedding:easynegative.pt ein Haus <lora:english_style:0.8>", "ein Haus"),
        ("masterpiece, Best  Quality, (ein Haus:1.1), 8k", "ein Haus"),
        ("masterpiece, best quality", "masterpiece, best quality"),
        ("ein Haus BREAK ein Baum", "ein Haus ein Baum"),
    ],
)
def test_syntax_and_quality_tags_are_no_words_of_a_language(text: str, words: str) -> None:
    assert prompt_words(text).replace(" ", "") == words.replace(" ", "")


def test_the_threshold_decides_what_is_clear() -> None:
    lead = detect_culture("parasolka", 0).confidence
    assert 0 < lead < 1
    assert (
        detect_culture("parasolka", lead).language and not detect_culture("parasolka", lead + 1e-6).language
    )
    with pytest.raises(ValueError, match="threshold must be 0 to 1"):
        detect_culture("Haus", 1.5)


def test_a_user_has_the_last_word() -> None:
    assert culture_for("casa", override="pt").culture == "pt"
    assert culture_for("ein altes Haus", override="ja")[:2] == ("de", "ja")
    assert culture_for("casa", override="pt", when_unsure="stop").culture == "pt"
    with pytest.raises(ValueError, match="unknown culture"):
        culture_for("casa", override="xx")


def test_an_unclear_prompt_stops_a_run_only_where_that_is_asked_for() -> None:
    assert culture_for("casa").culture is None
    assert culture_for("an old house at the lake", when_unsure="stop").culture is None
    with pytest.raises(UnclearLanguageError, match="Portuguese.*at override"):
        culture_for("casa", when_unsure="stop")
    with pytest.raises(ValueError, match="when_unsure must be one of off, stop"):
        culture_for("casa", when_unsure="maybe")


def test_a_report_says_what_becomes_of_it() -> None:
    assert detection_report(culture_for("ein altes Haus")).endswith("Culture: German")
    assert "nothing is steered" in detection_report(culture_for("casa"))
    assert detection_report(culture_for("casa", override="pt"), "pt").endswith("Portuguese, chosen by hand")


@pytest.fixture
def fresh_detector() -> Iterator[None]:
    languages._detector.cache_clear()
    yield
    languages._detector.cache_clear()


def test_without_the_detector_letters_still_decide_and_the_rest_says_what_to_install(
    fresh_detector: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "eldc", None)
    assert detect_culture("บ้าน").culture == "th" and detect_culture("椅子").culture is None
    with pytest.raises(MissingDetectorError, match="pip install eldc"):
        detect_culture("ein altes Haus")
    with pytest.raises(MissingDetectorError):
        culture_for("ein altes Haus")
    assert culture_for("ein altes Haus", override="de")[:2] == (None, "de")


def test_settings_of_others_in_the_process_do_not_matter(fresh_detector: None) -> None:
    eldc.init()
    eldc.set_languages(["en", "fr"])
    try:
        assert detect_culture("ein altes Haus am See").language == "de"
        assert eldc.detect("ein altes Haus am See") in ("en", "fr", "und")
    finally:
        eldc.set_languages([])


def test_every_culture_and_every_language_of_the_detector_is_in_the_table() -> None:
    assert set(eldc.LANGUAGES) == set(NAMES) == set(CULTURE_OF)
    assert {culture for culture in CULTURE_OF.values() if culture} == set(CULTURES)
    assert Detection._fields == ("language", "culture", "confidence", "reason")


@pytest.mark.parametrize(
    "kind, acts, right, wrong",
    [
        ("bare noun", 0.68, 0.98, 1),
        ("modifier + noun", 0.93, 1, 0),
        ("neutral caption", 0.84, 0.985, 12),
        ("sentence", 0.97, 1, 0),
        ("noun, English tags", 0.68, 0.98, 1),
        ("other languages", 0.6, 0.94, 3),
    ],
)
def test_most_prompts_are_told_and_few_wrongly(kind: str, acts: float, right: float, wrong: int) -> None:
    found = measure(kinds()[kind])
    assert found.acted >= acts * found.prompts and found.right >= right * found.acted
    assert len(found.wrong_cultures) <= wrong

"""The miniature's prompts: what they mark, and what is never trained on."""

import itertools

import pytest

from culture_core.cultures import CULTURES, culture
from culture_core.miniature.captions import (
    ALL_NOUNS,
    HELD_OUT_NOUNS,
    HELD_OUT_WRAPPER,
    NOUNS,
    WORDS,
    WRAPPERS,
    caption,
    held_out_nouns,
    prompt_pairs,
    split_of,
    training_captions,
)


def test_every_language_has_every_noun_once():
    assert set(WORDS) == {"en", *CULTURES} and len(CULTURES) == 15
    for words in WORDS.values():
        assert len(set(words)) == len(ALL_NOUNS) == 16


@pytest.mark.parametrize("english", [False, True])
def test_spans_cut_out_the_noun_and_leave_the_neutral_prompt(english):
    for split in ("train", "validation", "test", "unseen"):
        for pair in prompt_pairs(split, english):
            word = WORDS[pair.language][ALL_NOUNS.index(pair.category)]
            ((start, end),), ((neutral_start, neutral_end),) = pair.nouns_cultural, pair.nouns_neutral
            assert pair.cultural[start:end] == pair.neutral[neutral_start:neutral_end] == word
            ((first, last),) = pair.modifiers
            rest = pair.cultural[:first] + pair.cultural[last:]
            assert rest.replace(" ", "") == pair.neutral.replace(" ", ""), pair.id


def test_nothing_that_is_held_out_is_trained_on():
    trained = training_captions()
    texts = {made.text for made in trained}
    for made in trained:
        assert made.noun not in HELD_OUT_NOUNS
        assert made.culture is None or made.noun not in held_out_nouns(made.culture)
    for split, english in itertools.product(("validation", "test", "unseen"), (False, True)):
        for pair in prompt_pairs(split, english):
            assert pair.cultural not in texts and pair.neutral not in texts


def test_no_training_caption_is_of_the_held_out_wrapper():
    frames = {language: wrappers[HELD_OUT_WRAPPER].split("{}") for language, wrappers in WRAPPERS.items()}
    for made in training_captions():
        assert not any(frame and frame in made.text for frame in frames[made.language]), made.text


def test_training_captions_mark_the_word_and_the_modifier():
    trained = training_captions()
    assert len({(made.text, made.language) for made in trained}) == len(trained)
    assert {made.language for made in trained} == set(WORDS)
    for made in trained:
        assert made.text[slice(*made.noun_span)] == WORDS[made.language][ALL_NOUNS.index(made.noun)]
        assert (made.modifier_span is None) == (made.culture is None)
        if made.culture and made.language == "en":
            assert CULTURES[made.culture].name in made.text[slice(*made.modifier_span)]


def test_splits_share_nothing():
    seen = {
        split: {(p.culture, p.category) for p in prompt_pairs(split)}
        for split in ("train", "validation", "test")
    }
    for one, other in itertools.combinations(seen.values(), 2):
        assert not one & other
    assert sum(map(len, seen.values())) == len(CULTURES) * len(NOUNS)
    assert {split_of(code, noun) for code in CULTURES for noun in HELD_OUT_NOUNS} == {"unseen"}


def test_a_modifier_exists_in_its_own_language_and_in_english_alone():
    assert caption("en", "house", "th").text == "Thai style house"
    assert caption("de", "house", "de", wrapper=HELD_OUT_WRAPPER).text == "Zeichnung: Haus im deutschen Stil"
    with pytest.raises(ValueError, match="Thai"):
        caption("de", "house", "th")


def test_an_unknown_culture_is_answered_with_the_known_ones():
    assert culture("th").name == "Thai"
    with pytest.raises(ValueError, match="'xx'.*ar, zh"):
        culture("xx")

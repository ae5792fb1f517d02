"""Token selection by ids: pure functions, a small made-up vocabulary."""

import pytest

from culture_core.selection import (
    SpecialTokens,
    TokenSelection,
    Vocabulary,
    align_pieces,
    attended_positions,
    content_positions,
    select_positions,
)

E5 = SpecialTokens(start=0, end=2, pad=1)
CLIP = SpecialTokens(start=8, end=9, pad=9)
PIECES = dict(
    enumerate(["<s>", "<pad>", "</s>", "▁a", "▁old", "▁wo", "man", "▁man", "▁", "和風", "の", "椅子"])
) | {12: "<0xE5>", 13: "<0xAE>", 14: "<0xB6>"}
VOCABULARY = Vocabulary(PIECES)


def test_content_leaves_out_begin_end_and_padding() -> None:
    assert content_positions([0, 3, 7, 2, 1, 1], E5) == [False, True, True, False, False, False]
    assert attended_positions([0, 3, 7, 2, 1, 1], E5) == [True, True, True, True, False, False]


def test_padding_that_is_the_end_token_ends_the_content_at_the_first() -> None:
    assert content_positions([8, 5, 6, 9, 9, 9], CLIP) == [False, True, True, False, False, False]


def test_left_padding_is_no_content() -> None:
    assert content_positions([1, 1, 0, 3, 7], SpecialTokens(start=0, pad=1)) == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_an_encoder_without_end_token_ends_at_its_padding() -> None:
    assert attended_positions([3, 7, 1, 1], SpecialTokens(pad=1)) == [True, True, False, False]


def test_a_textual_inversion_is_content() -> None:
    assert content_positions([0, None, 3, 2], E5) == [False, True, True, False]


@pytest.mark.parametrize("mode", ["content", "words", "all"])
def test_a_row_without_content_is_never_selected(mode: str) -> None:
    words = ("man",) if mode == "words" else ()
    assert not any(select_positions([0, 2, 1, 1], E5, TokenSelection(mode, words), VOCABULARY))


def test_all_selects_begin_and_end_but_no_padding() -> None:
    assert select_positions([0, 3, 2, 1], E5, TokenSelection("all"), VOCABULARY) == [True, True, True, False]


def selected(row: list[int], words: str) -> list[int]:
    marks = select_positions(row, E5, TokenSelection.from_text("words", words), VOCABULARY)
    return [position for position, marked in enumerate(marks) if marked]


def test_a_word_is_not_found_inside_another() -> None:
    assert selected([0, 3, 5, 6, 2], "man") == []
    assert selected([0, 3, 5, 6, 2], "woman") == [2, 3]


def test_phrases_and_case_do_not_matter() -> None:
    assert selected([0, 3, 4, 7, 2], "OLD  man, house") == [2, 3]


def test_a_word_is_found_inside_a_text_without_spaces() -> None:
    assert selected([0, 8, 9, 10, 11, 2], "椅子") == [4]


def test_a_character_of_several_byte_pieces_selects_them_all() -> None:
    assert selected([0, 8, 12, 13, 14, 2], "家") == [2, 3, 4]


def test_words_without_a_word_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="commas"):
        TokenSelection.from_text("words", " , ")


def test_an_unknown_mode_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="content, words, all"):
        TokenSelection("some")


def test_alignment_gives_code_points_whatever_the_case_and_spacing() -> None:
    text = "Old  Häuser家"
    spelled = [b"old ", "hä".encode(), b"user", "家".encode()[:1], "家".encode()[1:]]
    spans = align_pieces(text, spelled)
    assert [text[slice(*span)] for span in spans] == ["Old", "Hä", "user", "家", "家"]


def test_alignment_of_another_text_is_none() -> None:
    assert align_pieces("house", [b"mirror"]) is None


def test_byte_level_pieces_spell_their_bytes() -> None:
    vocabulary = Vocabulary({0: "Ġcaf", 1: "Ã©</w>"})
    assert (vocabulary.spell(0) + vocabulary.spell(1)).decode() == " café "

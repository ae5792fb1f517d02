"""Marks in captions and the spans that they become."""

import pytest

from culture_core.marks import read_marks, write_marks


def test_spans_count_code_points_of_the_text_without_marks():
    marked = read_marks("รูป: <เก้าอี้>[สไตล์ไทย] 🎎")
    assert marked.text == "รูป: เก้าอี้สไตล์ไทย 🎎"
    assert [marked.text[slice(*span)] for span in marked.nouns] == ["เก้าอี้"]
    assert [marked.text[slice(*span)] for span in marked.modifiers] == ["สไตล์ไทย"]


@pytest.mark.parametrize(
    "text",
    [
        "a [Thai style] <bowl> of <soup>",
        "<ชาม>[สไตล์ไทย]",
        "[日本風の]<椅子>",
        "plain",
        "[a][b] <c> <d>",
        "<casa>",
    ],
)
def test_reading_and_writing_are_inverse(text):
    assert write_marks(*read_marks(text)) == text


def test_white_space_inside_marks_stays_in_the_text_and_out_of_the_span():
    marked = read_marks("a [ Thai style ]< bowl>")
    assert marked.text == "a  Thai style  bowl"
    assert marked.text[slice(*marked.modifiers[0])] == "Thai style"
    assert marked.text[slice(*marked.nouns[0])] == "bowl"


@pytest.mark.parametrize(
    "text", ["a [Thai bowl", "a Thai] bowl", "[<bowl>]", "<[Thai] bowl>", "[] bowl", "< >", "[a>"]
)
def test_broken_marks_are_refused(text):
    with pytest.raises(ValueError, match="partner|nothing between"):
        read_marks(text)

"""Prompt pairs from marked text."""

import pytest

from culture_core.markup import MAX_PAIRS, pairs_from_markup
from culture_core.pairs import PairError


def pieces(text, spans):
    return [text[start:end] for start, end in spans]


def test_a_line_gives_both_prompts_and_where_its_words_are():
    (pair,) = pairs_from_markup("it/en: a {bowl} [in the Italian style] on a {table}\n")
    assert (pair.culture, pair.language) == ("it", "en")
    assert pair.cultural == "a bowl in the Italian style on a table"
    assert pair.neutral == "a bowl on a table"
    assert pieces(pair.cultural, pair.modifiers) == ["in the Italian style"]
    assert pieces(pair.cultural, pair.nouns_cultural) == ["bowl", "table"]
    assert pieces(pair.neutral, pair.nouns_neutral) == ["bowl", "table"]


def test_every_combination_of_alternatives_is_made_once():
    pairs = pairs_from_markup("# my words\n\nja: [和風の|日本の]{茶碗|家|船}\n")
    assert len(pairs) == len({pair.id for pair in pairs}) == 6
    assert {pair.cultural for pair in pairs} == {
        a + b for a in ("和風の", "日本の") for b in ("茶碗", "家", "船")
    }
    assert {pair.neutral for pair in pairs} == {"茶碗", "家", "船"}
    assert {pair.language for pair in pairs} == {"ja"}


def test_a_modifier_at_the_start_leaves_no_blank_behind():
    (pair,) = pairs_from_markup("de: [deutsche]  {Schale} ")
    assert (pair.cultural, pair.neutral) == ("deutsche Schale", "Schale")
    assert pieces(pair.neutral, pair.nouns_neutral) == ["Schale"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{bowl} [Thai]", "culture and a colon"),
        ("xx: {bowl} [X]", "unknown culture 'xx'"),
        ("th: {bowl}", "no modifier"),
        ("th: [Thai] bowl", "no noun"),
        ("th: {bowl [Thai]", "has no partner"),
        ("th: {bowl|} [Thai]", "empty alternative"),
        ("th: " + " ".join(["{a|b|c|d|e|f|g|h|i|j}"] * 6) + " [Thai]", str(MAX_PAIRS)),
        ("# nothing", "holds no line"),
    ],
)
def test_what_is_no_markup_is_refused_with_its_line(line, words):
    with pytest.raises(PairError, match="words.txt") as refusal:
        pairs_from_markup(line, "words.txt")
    assert words in str(refusal.value)
    if not line.startswith("#"):
        assert "line 1" in str(refusal.value)

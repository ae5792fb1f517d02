"""Feature vectors of prompts, against a capture by hand."""

from dataclasses import replace

import pytest
import torch

from culture_core import features
from culture_core.features import content_features, noun_features


@pytest.mark.parametrize("feature", ["attention_output", "hidden_state"])
def test_content_features_are_those_of_the_content_tokens(bert, feature):
    texts = ["a thai style chair", "house", "the red house in thai style"]
    values, prompts = content_features(bert, texts, 1, feature)
    assert prompts.tolist() == [0] * 4 + [1] + [2] * 6
    tokens = bert.tokenize(texts[2:])
    with torch.no_grad(), bert.capture([1], {feature}) as captured:
        bert.encode(tokens)
    torch.testing.assert_close(values[5:], getattr(captured, feature)[1][tokens.content_mask])


def test_noun_features_are_at_the_nouns_of_both_prompts(bert, pairs):
    found = noun_features(bert, pairs, 0, "hidden_state")
    assert set(found.cultural) == set(found.neutral) == {"th"}
    assert found.cultural["th"].shape == found.neutral["th"].shape == (len(pairs), 32)
    tokens = bert.tokenize([pairs[0].cultural])
    with torch.no_grad(), bert.capture([0], {"hidden_state"}) as captured:
        bert.encode(tokens)
    place = tokens.positions(0, pairs[0].nouns_cultural)
    torch.testing.assert_close(found.cultural["th"][:1], captured.hidden_state[0][0, place])


def test_noun_features_are_sorted_by_culture_and_do_not_depend_on_the_batches(bert, pairs, monkeypatch):
    mixed = [replace(pair, culture=code)
             for pair, code in zip(pairs, ["th", "de", "th", "fr"] * 3, strict=True)]  # fmt: skip
    whole = noun_features(bert, mixed, 1, "attention_output")
    assert {code: len(rows) for code, rows in whole.neutral.items()} == {"th": 6, "de": 3, "fr": 3}
    monkeypatch.setattr(features, "BATCH", 5)
    parts = noun_features(bert, mixed, 1, "attention_output")
    for one, other in zip(whole, parts, strict=True):
        for code in ("th", "de", "fr"):
            torch.testing.assert_close(one[code], other[code])
    for code in ("de", "fr"):
        alone = noun_features(bert, [p for p in mixed if p.culture == code], 1, "attention_output")
        torch.testing.assert_close(whole.cultural[code], alone.cultural[code])

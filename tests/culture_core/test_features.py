"""Feature vectors of prompts, against a capture by hand."""

from dataclasses import replace

import pytest
import torch

from culture_core import features
from culture_core.features import content_features, noun_features, write_features
from culture_core.sae import FeatureStore


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


TEXTS = ["a thai style chair", "house", "the red house in thai style", "old chair of the house", "red"] * 4


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_store_holds_the_content_features_of_its_texts(bert, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(features, "BATCH", 3)
    values, prompts = content_features(bert, TEXTS, 1, "hidden_state")
    seen = []
    store = write_features(
        bert, TEXTS, 1, "hidden_state", tmp_path, dtype, shard_vectors=20, progress=seen.append
    )
    assert seen == [3, 6, 9, 12, 15, 18, 20] and len(store.shards) > 2
    rows = torch.randperm(len(values))
    expected = values.half().float() if dtype == "float16" else values
    assert torch.equal(store.take(rows), expected[rows]) and torch.equal(store.groups(), prompts)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_at", [3, 9, 18])
def test_an_interrupted_store_is_completed_to_the_very_same_one(bert, tmp_path, monkeypatch, stop_at):
    monkeypatch.setattr(features, "BATCH", 3)
    options = {"layer": 1, "feature": "hidden_state", "shard_vectors": 20}
    whole = write_features(bert, TEXTS, folder=tmp_path / "whole", **options)

    def stop(done):
        if done == stop_at:
            raise Stop

    with pytest.raises(Stop):
        write_features(bert, TEXTS, folder=tmp_path / "part", progress=stop, **options)
    if stop_at > 3:
        with pytest.raises(ValueError, match="not complete.*goes on"):
            FeatureStore(tmp_path / "part")
    seen = []
    resumed = write_features(bert, TEXTS, folder=tmp_path / "part", progress=seen.append, **options)
    assert (seen[0] > 3) == (stop_at > 3) and resumed.digest() == whole.digest()
    for path in whole.folder.iterdir():
        assert path.read_bytes() == (resumed.folder / path.name).read_bytes()
    write_features(bert, TEXTS, folder=tmp_path / "part", progress=stop, **options)  # nothing left to do


def test_a_store_of_something_else_is_not_touched(bert, tmp_path):
    write_features(bert, TEXTS, 1, "hidden_state", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for texts, layer, feature in [
        (TEXTS[:-1], 1, "hidden_state"), (TEXTS, 0, "hidden_state"), (TEXTS, 1, "attention_output"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match="something else"):
            write_features(bert, texts, layer, feature, tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}

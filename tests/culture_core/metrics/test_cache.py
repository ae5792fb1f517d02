"""What has been computed is kept."""

import pytest
import torch

from culture_core.metrics.cache import Cache, cache_key


def test_what_is_known_is_not_computed_again_also_by_another_process(tmp_path):
    asked = []

    def compute(places):
        asked.append(list(places))
        return [10.0 * place for place in places]

    steps = []
    keys = ["a", "b", "a", "c"]
    first = Cache(tmp_path / "cache.jsonl").computed(keys, compute, 2, steps.append)
    assert first == [first[2], 10.0, first[2], 30.0] and sorted(sum(asked, [])) in ([0, 1, 3], [1, 2, 3])
    assert steps == [1, 3, 4]
    asked.clear()
    assert Cache(tmp_path / "cache.jsonl").computed([*keys, "d"], compute, 2) == [*first, 40.0]
    assert asked == [[4]]


def test_features_survive_as_they_are(tmp_path):
    rows = torch.randn(2, 5)
    Cache(tmp_path / "cache.jsonl").computed(["a", "b"], lambda places: rows[places], 2)
    found = Cache(tmp_path / "cache.jsonl").computed(["b", "a"], lambda places: 1 / 0, 2)
    assert torch.equal(torch.stack(found), rows.flip(0))


def test_what_was_there_when_the_work_was_stopped_is_kept(tmp_path):
    def stop(done):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path / "cache.jsonl").computed(list("abcd"), lambda places: [1.0] * len(places), 1, stop)
    asked = []
    Cache(tmp_path / "cache.jsonl").computed(list("abcd"), lambda p: asked.extend(p) or [1.0] * len(p), 1)
    assert asked == [2, 3]


def test_a_line_that_was_cut_off_is_computed_again(tmp_path):
    path = tmp_path / "cache.jsonl"
    Cache(path).computed(["a", "b"], lambda places: [1.0, 2.0], 2)
    path.write_bytes(path.read_bytes()[:-4])
    assert Cache(path).computed(["a", "b"], lambda places: [5.0] * len(places), 2) == [1.0, 5.0]
    assert Cache(path).computed(["a", "b"], lambda places: 1 / 0, 2) == [1.0, 5.0]


def test_keys_tell_settings_and_parts_apart():
    keys = {
        cache_key({"a": 1}, "x", "y"),
        cache_key({"a": 2}, "x", "y"),
        cache_key({"a": 1}, "xy"),
        cache_key({}, "x"),
    }
    assert len(keys) == 4 and cache_key({"a": 1, "b": 2}) == cache_key({"b": 2, "a": 1})

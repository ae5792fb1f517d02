"""Stages that are made once."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from culture_core.reproduce.cache import Cache


def test_figures_are_made_once_for_their_settings(tmp_path: Path) -> None:
    made: list[int] = []

    def figures(cache: Cache, value: int) -> list[int]:
        return cache.figures("a stage", {"value": value}, lambda: made.append(value) or [value])

    first = Cache(tmp_path, {"version": 1})
    assert figures(first, 3) == figures(first, 3) == figures(Cache(tmp_path, {"version": 1}), 3) == [3]
    assert made == [3]
    figures(first, 4)
    figures(Cache(tmp_path, {"version": 2}), 3)
    assert made == [3, 4, 3]


def test_a_model_that_fails_leaves_nothing_but_its_checkpoint(tmp_path: Path) -> None:
    cache = Cache(tmp_path, {})

    def stopped(checkpoint: Path) -> dict:
        checkpoint.write_bytes(b"half")
        raise KeyboardInterrupt

    def finished(checkpoint: Path) -> dict:
        assert checkpoint.read_bytes() == b"half"
        return {"x": torch.ones(2)}

    with pytest.raises(KeyboardInterrupt):
        cache.model("a stage", {}, stopped, save_file, load_file)
    assert [path.suffix for path in tmp_path.iterdir()] == [".checkpoint"]
    assert torch.equal(cache.model("a stage", {}, finished, save_file, load_file)["x"], torch.ones(2))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors", ".seconds"]
    assert cache.seconds["a stage"] >= 0

"""Sweeps and grids without a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

SIZE = 150


@pytest.fixture
def grid(node_classes: dict[str, type]) -> Callable[..., Tensor]:
    def run(images: list[Tensor], labels: list[str], columns: int = 0, title: str = "") -> Tensor:
        return node_classes["CultureGrid"].execute(images, labels, [columns], [title]).args[0]

    return run


def grey(*shades: float, channels: int = 3) -> Tensor:
    return torch.tensor(shades)[:, None, None, None].expand(-1, SIZE, SIZE, channels).clone()


def cells(sheet: Tensor, shade: float) -> int:
    """How many whole pictures of a shade are on a sheet."""
    pixels = (np.round(sheet[0].numpy() * 255) == round(shade * 255)).all(axis=-1).sum()
    return round(pixels / SIZE**2)


def test_a_list_and_a_batch_give_the_same_sheet(grid: Callable[..., Tensor]) -> None:
    shades = [0.2, 0.4, 0.6]
    labels = ["a", "b", "c"]
    listed = grid([grey(shade) for shade in shades], labels)
    assert torch.equal(listed, grid([grey(*shades)], labels))
    assert torch.equal(listed, grid([grey(*shades)], ["a\n\nb\nc\n"]))
    assert listed.shape[0] == 1 and listed.dtype == torch.float32 and listed.max() == 1
    assert [cells(listed, shade) for shade in shades] == [1, 1, 1]


def test_a_label_of_a_batch_stands_under_each_of_its_pictures(grid: Callable[..., Tensor]) -> None:
    batches = [grey(0.2, 0.4), grey(0.6, 0.8)]
    assert torch.equal(grid(batches, ["a", "b"]), grid(batches, ["a", "a", "b", "b"]))


def test_labels_are_optional_and_counted(grid: Callable[..., Tensor]) -> None:
    assert grid([grey(0.2, 0.4)], [""]).shape[1] < grid([grey(0.2, 0.4)], ["a\nb"]).shape[1]
    with pytest.raises(ValueError, match="2 pictures need as many labels.*got 3"):
        grid([grey(0.2, 0.4)], ["a\nb\nc"])


def test_a_listed_label_may_be_empty_or_of_several_lines(grid: Callable[..., Tensor]) -> None:
    images = [grey(0.2), grey(0.4)]
    assert torch.equal(grid(images, ["", "a\nb"]), grid(images, [" ", "a b"]))


def test_columns_and_title_are_followed(grid: Callable[..., Tensor]) -> None:
    images = [grey(0.2, 0.4, 0.6, 0.8)]
    narrow, wide = grid(images, [""], columns=2), grid(images, [""], columns=4)
    assert narrow.shape[1] > wide.shape[1] and narrow.shape[2] < wide.shape[2]
    assert grid(images, [""], columns=2, title="Sheet").shape[1] > narrow.shape[1]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_of_any_number_of_channels_fit(channels: int, grid: Callable[..., Tensor]) -> None:
    assert cells(grid([grey(0.4, channels=channels)], [""]), 0.4) == 1


def test_values_out_of_range_do_not_wrap_around(grid: Callable[..., Tensor]) -> None:
    assert cells(grid([grey(-0.3), grey(0.5)], [""]), 0.0) == 1


def test_a_sweep_gives_as_many_labels_as_strengths(node_classes: dict[str, type]) -> None:
    sweep: Any = node_classes["CultureStrengthSweep"]
    assert sweep.execute(0.0, 1.0, 3, "", "λ").args == ([0, 0.5, 1], ["λ 0", "λ 0.5", "λ 1"])
    assert sweep.execute(0.0, 1.0, 3, "2, 3", "").args == ([2, 3], ["2", "3"])
    assert [output.is_output_list for output in sweep.GET_SCHEMA().outputs] == [True, True]


@pytest.mark.parametrize(("values", "message"), [("0, high", "'high' is no number"), ("99", "out of range")])
def test_a_bad_list_is_explained_before_the_graph_runs(
    values: str, message: str, node_classes: dict[str, type]
) -> None:
    answer = node_classes["CultureStrengthSweep"].validate_inputs(values=values)
    assert isinstance(answer, str) and message in answer
    for good in ("", None, "0 1"):
        assert node_classes["CultureStrengthSweep"].validate_inputs(values=good) is True

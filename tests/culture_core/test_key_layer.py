"""The rule for the key layer, and the intervals behind it."""

import torch

from culture_core.key_layer import bounds_of, choose_layer, prominence_of, resampled_means


def test_prominence_is_the_height_above_the_neighbours_one_at_either_end():
    curve = torch.tensor([[3.0, 1.0, 7.0, 2.0]])
    expected = torch.tensor([[3.0 - 1.0, 1.0 - (3.0 + 7.0) / 2, 7.0 - (1.0 + 2.0) / 2, 2.0 - 7.0]])
    torch.testing.assert_close(prominence_of(curve), expected)
    assert prominence_of(torch.tensor([[4.0]])).item() == 4.0


def test_intervals_are_those_of_the_mean_and_repeat_by_seed():
    values = torch.randn(200, 3, generator=torch.Generator().manual_seed(1)) + torch.tensor([0.0, 2.0, -5.0])
    means = resampled_means(values, 1000, seed=4)
    interval, error = bounds_of(means, 200), 1.96 * values.std(0) / 200**0.5
    expected = torch.stack([values.mean(0) - error, values.mean(0) + error], dim=1)
    torch.testing.assert_close(interval, expected, atol=0.03, rtol=0)
    assert torch.equal(means, resampled_means(values, 1000, seed=4))
    assert not torch.equal(means, resampled_means(values, 1000, seed=5))


def bounds(*pairs_of_numbers) -> torch.Tensor:
    return torch.tensor(pairs_of_numbers)


PROMINENCE = torch.tensor([0.5, 0.1, 0.3])
CERTAIN = bounds((-0.1, 1), (0.05, 0.2), (0.2, 0.4))
UNCERTAIN = bounds((-1, 1), (-1, 1), (-1, 1))
LAST, FIRST, MIDDLE = (torch.tensor(c) for c in ([0.0, 0.1, 0.9], [0.9, 0.1, 0.0], [0.0, 0.7, 0.2]))


def test_the_key_layer_is_the_certain_peak():
    choice = choose_layer(PROMINENCE, CERTAIN, LAST, 9)
    assert (choice.layer, choice.attention, choice.causal) == (2, 2, 2) and "agrees" in choice.reason
    choice = choose_layer(PROMINENCE, CERTAIN, FIRST, 9)
    assert (choice.layer, choice.attention, choice.causal) == (2, 2, 0)
    assert "names layer 0 instead" in choice.reason


def test_without_a_certain_peak_patching_decides_and_says_so():
    choice = choose_layer(PROMINENCE, UNCERTAIN, MIDDLE, 9)
    assert (choice.layer, choice.attention, choice.causal) == (1, None, 1)
    assert "patching decides" in choice.reason


def test_the_criterion_overrules():
    by_attention = choose_layer(PROMINENCE, UNCERTAIN, MIDDLE, 9, "attention")
    assert by_attention.layer == 0 and "may be chance" in by_attention.reason
    by_patching = choose_layer(PROMINENCE, CERTAIN, FIRST, 9, "causal")
    assert by_patching.layer == 0 and "ΔCA stands out most in layer 2" in by_patching.reason
    assert "attention agrees" in choose_layer(PROMINENCE, CERTAIN, LAST, 9, "causal").reason


def test_a_peak_at_an_end_that_patching_denies_is_called_what_it_may_be():
    slope, ends = torch.tensor([0.5, 0.3, 0.1]), bounds((0.2, 0.6), (0.1, 0.4), (0.0, 0.2))
    doubted = choose_layer(slope, ends, LAST, 9)
    assert doubted.layer == 0 and "one neighbour" in doubted.reason and "criterion" in doubted.reason
    assert "one neighbour" not in choose_layer(slope, ends, FIRST, 9).reason
    assert "one neighbour" not in choose_layer(slope.roll(1), ends.roll(1, 0), LAST, 9).reason


def test_without_patching_attention_chooses_and_says_what_is_missing():
    missing = torch.full((3,), torch.nan)
    choice = choose_layer(PROMINENCE, CERTAIN, missing, 9)
    assert (choice.layer, choice.causal) == (2, None) and "patching was left out" in choice.reason
    choice = choose_layer(PROMINENCE, UNCERTAIN, missing, 9)
    assert (choice.layer, choice.attention) == (0, None) and "may be chance" in choice.reason

"""Statistics and choice of culture neurons, by hand and against their definitions."""

import pytest
import torch

from culture_core.controls import random_latents, removed_norm
from culture_core.neurons import (
    CultureNeurons,
    LatentStatistics,
    detect_all,
    detect_neurons,
    elbow,
    latent_statistics,
    select_neurons,
)
from culture_core.sae import TopKSAE


def one_hot_sae(width: int = 8, k: int = 4) -> TopKSAE:
    """Latent m is the m-th coordinate, where it is positive."""
    sae = TopKSAE(width, width, k)
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(width))
        sae.W_enc.copy_(torch.eye(width))
    return sae.requires_grad_(False)


def statistics(wfs: list[float]) -> LatentStatistics:
    values = torch.tensor(wfs, dtype=torch.float32)
    return LatentStatistics((values > 0).float(), values, values)


def test_frequency_mean_and_wfs_by_hand():
    features = torch.zeros(4, 8)
    features[0, 2], features[1, 2], features[3, 5] = 3.0, 1.0, 8.0
    found = latent_statistics(one_hot_sae(), features)
    assert found.frequency.tolist() == [0, 0, 0.5, 0, 0, 0.25, 0, 0]
    assert found.mean_activation[[2, 5]].tolist() == pytest.approx([2.0, 8.0])
    assert found.wfs[[2, 5]].tolist() == pytest.approx([1.0, 2.0])


def test_wfs_is_the_mean_activation_over_all_vectors():
    torch.manual_seed(0)
    sae, features = TopKSAE(16, 64, 8).requires_grad_(False), torch.randn(200, 16)
    torch.testing.assert_close(
        latent_statistics(sae, features).wfs, sae.encode(features).mean(0), atol=1e-6, rtol=1e-5
    )


def test_latents_that_neutral_prompts_use_as_well_are_dropped():
    chosen = select_neurons(statistics([4, 3, 2, 1]), statistics([3, 0, 0.9, 0.6]), count=4)
    assert chosen.indices.tolist() == [1, 2]
    assert chosen.wfs_cultural.tolist() == [3, 2] and chosen.wfs_neutral.tolist() == pytest.approx([0, 0.9])


def test_specificity_prefers_what_other_cultures_lack():
    own, neutral = statistics([4, 3, 0, 0]), statistics([0, 0, 0, 0])
    others = [statistics([4, 0, 0, 0]), statistics([3, 1, 0, 0])]
    assert select_neurons(own, neutral, others, count=2).indices.tolist() == [1, 0]
    assert select_neurons(own, neutral, others, count=2, contrast="maximum").indices.tolist() == [1]
    assert select_neurons(own, neutral, others, score="wfs", count=2).indices.tolist() == [0, 1]


def test_the_elbow_ends_the_steep_part():
    assert elbow(torch.tensor([10.0, 9.0, 8.0, 0.4, 0.3, 0.2, 0.1, 0.0])) == 3
    assert elbow(torch.tensor([1.0])) == 1
    assert elbow(torch.tensor([5.0, 1.0])) == 1


def test_there_is_always_a_neuron():
    chosen = select_neurons(statistics([1, 1, 0]), statistics([1, 0.9, 0]))
    assert chosen.indices.tolist() == [1]


def test_each_culture_gets_its_own_direction():
    torch.manual_seed(1)
    cultural = {code: 0.1 * torch.rand(20, 8) for code in ("ar", "ja", "th")}
    neutral = {code: 0.1 * torch.rand(20, 8) for code in cultural}
    for place, code in enumerate(cultural):
        cultural[code][:, place] += 5
    found = detect_all(one_hot_sae(), cultural, neutral, count=1)
    assert {code: chosen.indices.tolist() for code, chosen in found.items()} == {
        "ar": [0], "ja": [1], "th": [2]
    }  # fmt: skip


def test_unusable_features_are_refused():
    sae = one_hot_sae()
    with pytest.raises(ValueError, match=r"\[N, 8\]"):
        latent_statistics(sae, torch.zeros(3, 7))
    with pytest.raises(ValueError, match="no latent"):
        detect_neurons(sae, torch.zeros(3, 8), torch.zeros(3, 8))
    with pytest.raises(ValueError, match="no neutral features"):
        detect_all(sae, {"th": torch.ones(1, 8)}, {})
    with pytest.raises(ValueError, match="others"):
        detect_neurons(sae, torch.ones(3, 8), torch.zeros(3, 8), score="specificity")


@pytest.fixture
def drawn() -> tuple[TopKSAE, torch.Tensor, CultureNeurons]:
    torch.manual_seed(2)
    sae, features = TopKSAE(16, 128, 16).requires_grad_(False), torch.randn(400, 16)
    return sae, features, detect_neurons(sae, features, torch.randn(400, 16) * 0.01, score="wfs", count=5)


@pytest.mark.parametrize("match", ["count", "frequency", "norm"])
def test_random_controls_are_active_others_and_repeatable(drawn, match):
    sae, features, neurons = drawn
    first, again = (random_latents(sae, features, neurons, match, seed=1).indices for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, random_latents(sae, features, neurons, match, seed=2).indices)
    assert not set(first.tolist()) & set(neurons.indices.tolist())
    assert (sae.encode(features)[:, first] > 0).any(dim=0).all()


def test_a_frequency_matched_control_fires_as_often(drawn):
    sae, features, neurons = drawn
    control = random_latents(sae, features, neurons, "frequency")
    others = latent_statistics(sae, features).frequency
    allowed = (
        others[[m for m in range(128) if m not in neurons.indices.tolist()]].sort(descending=True).values
    )
    # The ten nearest are drawn from, so that nothing stands farther off than the fifteenth-most frequent.
    assert (control.frequency >= allowed[14] - 1e-6).all()


def test_a_norm_matched_control_removes_as_much(drawn):
    sae, features, neurons = drawn
    control = random_latents(sae, features, neurons, "norm")
    target = removed_norm(sae, features, neurons.indices)
    assert removed_norm(sae, features, control.indices) == pytest.approx(target, rel=0.25)


def test_norm_matching_draws_until_the_norm_is_reached_for_every_seed(drawn):
    sae, features, neurons = drawn
    target = removed_norm(sae, features, neurons.indices)
    for seed in range(5):
        control = random_latents(sae, features, neurons, "norm", seed=seed)
        assert removed_norm(sae, features, control.indices) == pytest.approx(target, rel=0.25)
        assert len(set(control.indices.tolist())) == len(control.indices)


def test_a_control_needs_enough_other_active_latents_and_a_known_match(drawn):
    sae, features, neurons = drawn
    with pytest.raises(ValueError, match="frequency or norm"):
        random_latents(sae, features, neurons, "size")
    small = one_hot_sae()
    only = torch.zeros(3, 8)
    only[:, 2] = 1.0
    chosen = detect_neurons(small, only, torch.zeros(3, 8), score="wfs", count=1)
    with pytest.raises(ValueError, match="only 0 other latents"):
        random_latents(small, only, chosen)

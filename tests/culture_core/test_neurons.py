"""Statistics and choice of culture neurons, by hand and against their definitions."""

import numpy as np
import pytest
import torch

from culture_core.neurons import (
    BETA,
    LatentStatistics,
    detect_all,
    detect_neurons,
    elbow,
    latent_statistics,
    rank_latents,
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


def literal_code(sae: TopKSAE, x: np.ndarray) -> np.ndarray:
    """z of one feature [d], in float64 and by sorting."""
    w_enc, b_enc, b_dec, mean = (
        tensor.detach().double().numpy() for tensor in (sae.W_enc, sae.b_enc, sae.b_dec, sae.mean)
    )
    activations = np.maximum(w_enc @ ((x - mean) / float(sae.scale) - b_dec) + b_enc, 0)
    z = np.zeros_like(activations)
    best = np.argsort(-activations)[: sae.k]
    z[best] = activations[best]
    return z


def test_statistics_agree_with_equations_4_to_6_written_out():
    torch.manual_seed(3)
    sae = TopKSAE(12, 40, 5).requires_grad_(False)
    sae.b_enc.normal_(std=0.1), sae.b_dec.normal_(std=0.1), sae.mean.normal_(), sae.scale.fill_(1.7)
    features = torch.randn(60, 12)
    codes = [literal_code(sae, x) for x in features.double().numpy()]
    found = latent_statistics(sae, features)
    for m in range(40):
        fired = [z[m] for z in codes if z[m] > 0]
        frequency = len(fired) / len(codes)
        mean = sum(fired) / (len(fired) + BETA)
        assert float(found.frequency[m]) == pytest.approx(frequency, abs=1e-6), m
        assert float(found.mean_activation[m]) == pytest.approx(mean, rel=1e-4, abs=1e-6), m
        assert float(found.wfs[m]) == pytest.approx(frequency * mean, rel=1e-4, abs=1e-6), m
        # The identity: f · μ is the mean thresholded activation but for β.
        whole = sum(z[m] for z in codes) / len(codes)
        assert float(found.wfs[m]) == pytest.approx(whole, rel=1e-4, abs=1e-6), m
    assert bool((found.frequency == 0).any()) and bool((found.frequency > 0).any())


def literal_elbow(values: list[float]) -> int:
    """The point with the largest distance to the straight line from first to last, in float64; they are
    measured along the axes' unit square, so that the unit of the values does not matter."""
    n, first, last = len(values), values[0], values[-1]
    line = np.array([1.0, -1.0]) / np.sqrt(2)
    distances = []
    for rank, value in enumerate(values):
        point = np.array([rank / (n - 1), (value - last) / (first - last) - 1])
        distances.append(abs(point[0] * line[1] - point[1] * line[0]) * (1 if point[1] < -point[0] else -1))
    return max(1, int(np.argmax(distances)))


@pytest.mark.parametrize("seed", range(8))
def test_the_elbow_is_the_point_farthest_from_the_line(seed):
    generator = torch.Generator().manual_seed(seed)
    values = (torch.rand(50, generator=generator) ** 4 * 10).sort(descending=True).values
    assert elbow(values) == literal_elbow(values.double().tolist())
    assert elbow(values * 1000) == elbow(values)


def test_the_elbow_of_equal_values_takes_all_and_a_straight_line_one():
    assert elbow(torch.ones(5)) == 5
    assert elbow(torch.tensor([4.0, 3.0, 2.0, 1.0])) == 1


def test_the_noun_side_rule_is_the_ratio_of_the_two_wfs():
    torch.manual_seed(4)
    cultural, neutral = (statistics(torch.rand(60).tolist()) for _ in range(2))
    for tau in (0.1, 0.5, 0.9):
        kept = {m for m in range(60) if float(neutral.wfs[m]) < tau * float(cultural.wfs[m])}
        ranking = rank_latents(cultural, neutral, tau=tau)
        assert set(ranking.indices.tolist()) == kept
        assert (ranking.active, ranking.noun_side) == (60, 60 - len(kept))
        assert ranking.scores.tolist() == sorted((float(cultural.wfs[m]) for m in kept), reverse=True)
        assert ranking.elbow == elbow(ranking.scores)


@pytest.mark.parametrize("contrast", ["mean", "maximum"])
def test_specificity_subtracts_what_it_says(contrast):
    torch.manual_seed(5)
    own, *others = (statistics(torch.rand(30).tolist()) for _ in range(4))
    neutral = statistics([0.0] * 30)
    ranking = rank_latents(own, neutral, others, contrast=contrast)
    for index, score in zip(ranking.indices.tolist(), ranking.scores.tolist(), strict=True):
        rest = [float(other.wfs[index]) for other in others]
        subtracted = max(rest) if contrast == "maximum" else sum(rest) / len(rest)
        assert score == pytest.approx(float(own.wfs[index]) - subtracted, abs=1e-6)


def test_a_count_takes_the_first_of_the_ranking():
    torch.manual_seed(6)
    cultural, neutral = statistics(torch.rand(30).tolist()), statistics([0.0] * 30)
    ranking = rank_latents(cultural, neutral)
    for count in (1, 7, 99):
        chosen = select_neurons(cultural, neutral, count=count)
        assert chosen.indices.tolist() == ranking.indices[:count].tolist()
    assert len(select_neurons(cultural, neutral).indices) == ranking.elbow
    with pytest.raises(ValueError, match="count is 0"):
        select_neurons(cultural, neutral, count=0)

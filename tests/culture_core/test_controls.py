"""Random controls are what they claim, and one call measures them all."""

import json
import statistics

import numpy as np
import pytest
import torch

from culture_core.controls import Figure, measure_controls, random_latents, removed_norm
from culture_core.neurons import CultureNeurons, detect_neurons, latent_statistics
from culture_core.sae import TopKSAE
from culture_core.shares import Share


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
    small = TopKSAE(8, 8, 4)
    with torch.no_grad():
        small.W_dec.copy_(torch.eye(8)), small.W_enc.copy_(torch.eye(8))
    only = torch.zeros(3, 8)
    only[:, 2] = 1.0
    chosen = detect_neurons(small, only, torch.zeros(3, 8), score="wfs", count=1)
    with pytest.raises(ValueError, match="only 0 other latents"):
        random_latents(small, only, chosen)


def test_every_frequency_matched_latent_is_one_of_the_ten_nearest_left(drawn):
    sae, features, neurons = drawn
    frequency = latent_statistics(sae, features).frequency.double().numpy()
    for seed in range(4):
        control = random_latents(sae, features, neurons, "frequency", seed).indices.tolist()
        pool = [m for m in np.flatnonzero(frequency > 0) if m not in neurons.indices.tolist()]
        assert len(control) == len(neurons.indices)
        for neuron, drawn_latent in zip(neurons.indices.tolist(), control, strict=True):
            distances = sorted(abs(frequency[m] - frequency[neuron]) for m in pool)
            assert abs(frequency[drawn_latent] - frequency[neuron]) <= distances[9]
            pool.remove(drawn_latent)


def test_the_removed_norm_is_that_of_the_masked_part(drawn):
    sae, features, neurons = drawn
    sae.scale.fill_(1.5)
    z = sae.encode(features).double().numpy()
    rows = sae.W_dec.double().numpy()
    total = 0.0
    for code in z:
        removed = sum(code[m] * rows[m] for m in neurons.indices.tolist()) * 1.5
        total += float(removed @ removed)
    assert removed_norm(sae, features, neurons.indices) == pytest.approx((total / len(z)) ** 0.5, rel=1e-5)


def test_no_other_number_of_a_norm_matched_draw_comes_nearer(drawn):
    sae, features, neurons = drawn
    target = removed_norm(sae, features, neurons.indices)
    control = random_latents(sae, features, neurons, "norm", seed=3).indices
    gap = abs(removed_norm(sae, features, control) - target)
    assert len(control) > 1
    assert gap <= abs(removed_norm(sae, features, control[:-1]) - target)


def test_one_call_measures_nothing_the_neurons_and_every_draw(drawn):
    sae, features, neurons = drawn
    seen, reported = [], []

    def measure(latents: dict[str, CultureNeurons] | None) -> dict[str, Share | float]:
        seen.append(latents)
        size = len(latents["th"].indices) if latents else 0
        first = int(latents["th"].indices[0]) if latents else 0
        return {"read": Share(10 - size, 10), "first": float(first)}

    found = measure_controls(
        sae, {"th": neurons}, {"th": features}, measure, draws=3, seed=5,
        progress=lambda done, total: reported.append((done, total)),
    )  # fmt: skip
    assert [row.treatment for row in found.rows] == [
        "none", "culture neurons", "random, frequency-matched", "random, norm-matched",
    ]  # fmt: skip
    assert seen[0] is None and seen[1] == {"th": neurons}
    assert reported == [(done, 8) for done in range(1, 9)]
    for number, match in enumerate(("frequency", "norm")):
        for draw in range(3):
            expected = random_latents(sae, features, neurons, match, 5 + draw)
            assert torch.equal(seen[2 + 3 * number + draw]["th"].indices, expected.indices)
    frequency = found.random["frequency"]
    assert frequency.figures["read"].share == Share(15, 30) and frequency.latents == 5
    firsts = [float(latents["th"].indices[0]) for latents in seen[2:5]]
    assert frequency.figures["first"].mean == pytest.approx(statistics.fmean(firsts))
    assert frequency.figures["first"].spread == pytest.approx(statistics.pstdev(firsts))
    assert found.neurons.removed_norm == pytest.approx(removed_norm(sae, features, neurons.indices))
    assert found.random["norm"].removed_norm == pytest.approx(found.neurons.removed_norm, rel=0.25)
    assert found.untreated.removed_norm == 0


def test_the_table_and_the_json_say_the_same(drawn):
    sae, features, neurons = drawn
    found = measure_controls(
        sae, {"th": neurons}, {"th": features}, lambda latents: {"read": Share(8, 10), "way": 0.25}, draws=2
    )
    lines = found.table().splitlines()
    assert len(lines) == 6 and len({len(line) for line in lines}) == 1
    assert "80.0 % (49 to 94)" in lines[2] and "0.250" in lines[2]
    assert "way" not in found.table(["read"])
    row = json.loads(json.dumps(found.to_json()))[2]
    assert row["figures"]["read"]["right"] == 16 and row["figures"]["read"]["count"] == 20
    assert row["figures"]["way"] == {"mean": 0.25, "spread": 0.0}


def test_controls_that_cannot_be_measured_are_refused(drawn):
    sae, features, neurons = drawn
    with pytest.raises(ValueError, match="at least one draw"):
        measure_controls(sae, {"th": neurons}, {"th": features}, lambda _: {}, draws=0)
    with pytest.raises(ValueError, match="no features .* ja"):
        measure_controls(sae, {"ja": neurons}, {"th": features}, lambda _: {})


def test_what_progress_raises_ends_the_controls(drawn):
    sae, features, neurons = drawn
    calls = []

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_controls(
            sae, {"th": neurons}, {"th": features}, lambda _: calls.append(1) or {"x": 1.0}, progress=stop
        )
    assert len(calls) == 1


def test_a_spread_is_shown_where_there_is_one():
    assert str(Figure.of([0.1, 0.3])) == "0.200 ± 0.100"
    assert str(Figure.of([0.1])) == "0.100"
    assert str(Figure.of([Share(1, 2), Share(2, 2)])).endswith("± 25.0")

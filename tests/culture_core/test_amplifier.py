"""The amplifier against plain computations."""

import pytest
import torch

from culture_core.amplifier import Amplifier
from culture_core.neurons import CultureNeurons
from culture_core.sae import TopKSAE

WIDTH, LATENTS, K = 16, 64, 8


@pytest.fixture
def sae() -> TopKSAE:
    torch.manual_seed(3)
    sae = TopKSAE(WIDTH, LATENTS, K)
    sae.mean.copy_(torch.randn(WIDTH))
    sae.scale.fill_(1.7)
    sae.b_dec.data.copy_(0.1 * torch.randn(WIDTH))
    return sae.requires_grad_(False)


@pytest.fixture
def neurons() -> CultureNeurons:
    indices = torch.tensor([3, 17, 40, 41, 5, 60])
    return CultureNeurons(indices, torch.rand(6) + 0.5, torch.rand(6), torch.rand(6), torch.rand(6))


@pytest.fixture
def feature() -> torch.Tensor:
    return torch.randn(3, 7, WIDTH)


def everywhere(feature: torch.Tensor) -> torch.Tensor:
    return torch.ones(feature.shape[:2], dtype=torch.bool)


def plain(sae, neurons, feature, strength, mode):
    """Eq. 7 to 9 by decoding twice."""
    z = sae.encode(feature)
    changed = z.clone()
    for place, index in enumerate(neurons.indices.tolist()):
        usual = neurons.frequency[place] * neurons.mean_activation[place]
        active = z[..., index] > 0
        woken = strength * usual if mode == "inject" and strength > 0 else 0.0
        changed[..., index] = torch.where(active, (1 + strength) * z[..., index], woken)
    return feature + (sae.decode(changed) - sae.decode(z))


@pytest.mark.parametrize("mode", ["inject", "scale"])
@pytest.mark.parametrize("strength", [-1.0, -0.5, 0.3, 2.0, 12.0])
def test_the_delta_form_equals_two_decodes(sae, neurons, feature, mode, strength):
    amplified = Amplifier(sae, neurons, strength, mode)(feature, everywhere(feature))
    expected = plain(sae, neurons, feature, strength, mode)
    assert (amplified - expected).abs().max() <= 5e-7 * expected.abs().max()
    assert not torch.equal(amplified, feature)


def test_strength_zero_returns_the_very_input(sae, neurons, feature):
    assert Amplifier(sae, neurons, 0.0)(feature, everywhere(feature)) is feature


def test_scale_leaves_a_silent_token_as_it_is_and_inject_wakes_it(sae, neurons, feature):
    silent = (sae.encode(feature)[..., neurons.indices] == 0).all(dim=-1)
    assert silent.any() and not silent.all()
    scaled = Amplifier(sae, neurons, 6.0, "scale")(feature, everywhere(feature))
    injected = Amplifier(sae, neurons, 6.0, "inject")(feature, everywhere(feature))
    assert torch.equal(scaled[silent], feature[silent])
    usual = neurons.frequency * neurons.mean_activation
    expected = feature[silent] + 6.0 * sae.scale * (usual @ sae.W_dec[neurons.indices])
    torch.testing.assert_close(injected[silent], expected, atol=1e-5, rtol=1e-5)


def test_masking_takes_the_neurons_share_out_and_nothing_else(sae, neurons, feature):
    masked = Amplifier(sae, neurons, -1.0)(feature, everywhere(feature))
    z = sae.encode(feature)[..., neurons.indices]
    torch.testing.assert_close(
        feature - masked, sae.scale * (z @ sae.W_dec[neurons.indices]), atol=1e-5, rtol=1e-5
    )


def test_tokens_outside_the_mask_keep_every_bit(sae, neurons, feature):
    mask = torch.zeros(3, 7, dtype=torch.bool)
    mask[0, 2:5] = mask[2, 6] = True
    amplified = Amplifier(sae, neurons, 4.0)(feature, mask)
    assert torch.equal(amplified[~mask], feature[~mask])
    assert (amplified[mask] != feature[mask]).any(dim=-1).all()


def test_the_input_is_never_written_to(sae, neurons, feature):
    before = feature.clone()
    Amplifier(sae, neurons, 4.0)(feature, everywhere(feature))
    assert torch.equal(feature, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_keep_their_type(sae, neurons, feature, dtype):
    low = feature.to(dtype)
    amplified = Amplifier(sae, neurons, 2.0)(low, everywhere(low))
    assert amplified.dtype == dtype
    reference = Amplifier(sae, neurons, 2.0)(low.float(), everywhere(low))
    assert torch.equal(amplified, reference.to(dtype))


def test_a_run_reports_what_it_touched(sae, neurons, feature):
    amplifier = Amplifier(sae, neurons, 3.0, "scale")
    amplifier(feature, everywhere(feature))
    active = sae.encode(feature)[..., neurons.indices] > 0
    assert amplifier.touched == (
        int(active.flatten(0, 1).any(dim=0).sum()), 6, int(active.any(dim=-1).sum()), 21
    )  # fmt: skip


def test_wrong_inputs_are_refused_in_words(sae, neurons, feature):
    for strength in (-1.5, 12.5, float("nan")):
        with pytest.raises(ValueError, match="strength"):
            Amplifier(sae, neurons, strength)
    with pytest.raises(ValueError, match="mode"):
        Amplifier(sae, neurons, 1.0, "boost")
    beyond = neurons._replace(indices=torch.tensor([LATENTS] * 6))
    with pytest.raises(ValueError, match="latents of the SAE"):
        Amplifier(sae, beyond, 1.0)
    amplifier = Amplifier(sae, neurons, 1.0)
    with pytest.raises(ValueError, match="another text encoder"):
        amplifier(torch.zeros(1, 2, WIDTH + 1), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="token mask"):
        amplifier(feature, torch.ones(3, 6, dtype=torch.bool))


def test_two_amplifiers_stack(sae, neurons, feature):
    mask = everywhere(feature)
    first = Amplifier(sae, neurons, 2.0)
    other = neurons._replace(indices=torch.tensor([1, 2, 9, 30, 31, 50]))
    second = Amplifier(sae, other, 1.0)
    stacked = second(first(feature, mask), mask)
    expected = plain(sae, other, plain(sae, neurons, feature, 2.0, "inject"), 1.0, "inject")
    torch.testing.assert_close(stacked, expected, atol=1e-5, rtol=1e-5)
    assert not torch.equal(stacked, first(feature, mask)) and not torch.equal(stacked, second(feature, mask))


def test_one_neuron_that_the_sae_lacks_is_enough_to_refuse(sae, neurons):
    for wrong in (-1, LATENTS):
        indices = neurons.indices.clone()
        indices[2] = wrong
        with pytest.raises(ValueError, match="0 to 63"):
            Amplifier(sae, neurons._replace(indices=indices), 1.0)
    with pytest.raises(ValueError, match="at least one"):
        Amplifier(sae, CultureNeurons(*(tensor[:0] for tensor in neurons)), 1.0)


def literal(sae, cultures, weights, feature, strength, mode):
    """Eq. 7 to 9 in float64, token by token and latent by latent; cultures' changes times their weights."""
    W_enc, b_enc, W_dec, b_dec, mean, scale = (
        part.double() for part in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, sae.mean, sae.scale)
    )
    result = feature.double().clone()
    for row in range(feature.shape[0]):
        for token in range(feature.shape[1]):
            x = (feature[row, token].double() - mean) / scale
            pre = [max(float(W_enc[m] @ (x - b_dec) + b_enc[m]), 0.0) for m in range(len(W_enc))]
            kept = sorted(range(len(pre)), key=lambda m: (-pre[m], m))[: sae.k]
            z = [pre[m] if m in kept else 0.0 for m in range(len(pre))]
            change = [0.0] * len(pre)
            for code, neurons in cultures.items():
                for place, m in enumerate(neurons.indices.tolist()):
                    usual = float(neurons.frequency[place].double() * neurons.mean_activation[place].double())
                    woken = strength * usual if mode == "inject" and strength > 0 else 0.0
                    change[m] += weights[code] * (strength * z[m] if z[m] > 0 else woken)
            for m, by in enumerate(change):
                result[row, token] += scale * max(by, -z[m]) * W_dec[m]
    return result


@pytest.fixture
def cultures(neurons) -> dict[str, CultureNeurons]:
    other = neurons._replace(indices=torch.tensor([17, 2, 9, 41, 31, 50]), frequency=torch.rand(6))
    return {"ja": neurons, "it": other}


@pytest.mark.parametrize("mode", ["inject", "scale"])
@pytest.mark.parametrize("strength", [-1.0, 0.4, 3.0])
@pytest.mark.parametrize("weights", [{"ja": 1.0, "it": 1.0}, {"ja": 0.3, "it": 2.0}, {"ja": 1.0, "it": 0.0}])
def test_several_cultures_equal_the_equations_in_float64(sae, cultures, feature, mode, strength, weights):
    amplifier = Amplifier(sae, cultures, strength, mode, weights)
    expected = literal(sae, cultures, weights, feature, strength, mode)
    found = amplifier(feature, everywhere(feature))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    assert (found - feature).abs().max() > 0.1
    assert amplifier.touched.neurons_offered == 10, "two of the twelve neurons are of both cultures"


@pytest.mark.parametrize("mode", ["inject", "scale"])
@pytest.mark.parametrize("strength", [-1.0, 6.0])
def test_one_culture_equals_the_equations_in_float64(sae, neurons, feature, mode, strength):
    expected = literal(sae, {"": neurons}, {"": 1.0}, feature, strength, mode)
    found = Amplifier(sae, neurons, strength, mode)(feature, everywhere(feature))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_weight_left_out_is_one_and_a_weight_of_zero_leaves_a_culture_out(sae, cultures, neurons, feature):
    mask = everywhere(feature)
    both = Amplifier(sae, cultures, 2.0)(feature, mask)
    assert torch.equal(both, Amplifier(sae, cultures, 2.0, weights={"it": 1.0})(feature, mask))
    alone = Amplifier(sae, cultures, 2.0, weights={"it": 0.0})(feature, mask)
    torch.testing.assert_close(alone, Amplifier(sae, neurons, 2.0)(feature, mask), atol=1e-6, rtol=1e-6)
    assert not torch.equal(alone, both)


def test_masking_two_cultures_takes_a_shared_neuron_out_once(sae, cultures, feature):
    masked = Amplifier(sae, cultures, -1.0)(feature, everywhere(feature))
    indices = torch.cat([neurons.indices for neurons in cultures.values()]).unique()
    z = sae.encode(feature)[..., indices]
    torch.testing.assert_close(feature - masked, sae.scale * (z @ sae.W_dec[indices]), atol=1e-5, rtol=1e-5)


def test_cultures_in_a_chain_are_not_quite_cultures_in_one_pass(sae, cultures, feature):
    mask = everywhere(feature)
    first, second = (Amplifier(sae, neurons, 1.0) for neurons in cultures.values())
    chain, together = second(first(feature, mask), mask), Amplifier(sae, cultures, 1.0)(feature, mask)
    assert not torch.allclose(chain, together, atol=1e-3)
    moved, apart = (together - feature).flatten(), (chain - feature).flatten()
    assert torch.cosine_similarity(moved, apart, dim=0) > 0.5


def test_unusable_weights_are_refused(sae, cultures):
    for weights in ({"it": -0.5}, {"it": float("nan")}, {"it": 7.0}):
        with pytest.raises(ValueError, match="the weight of 'it'"):
            Amplifier(sae, cultures, 2.0, weights=weights)
    with pytest.raises(ValueError, match="without neurons: th"):
        Amplifier(sae, cultures, 2.0, weights={"th": 1.0})
    with pytest.raises(ValueError, match="at least one"):
        Amplifier(sae, {}, 2.0)


def test_nothing_to_change_gives_the_very_input(sae, neurons, feature):
    amplifier = Amplifier(sae, neurons, 3.0)
    assert amplifier(feature, torch.zeros(3, 7, dtype=torch.bool)) is feature
    assert amplifier.touched == (0, 6, 0, 0)
    silent = (sae.encode(feature)[..., neurons.indices] == 0).all(dim=-1)
    assert Amplifier(sae, neurons, 3.0, "scale")(feature, silent) is feature


def test_on_a_device_a_mask_over_all_tokens_gives_the_same(sae, neurons, feature, monkeypatch):
    """A mask that is on a device is used as it is, since finding its tokens would mean waiting."""
    mask = torch.zeros(3, 7, dtype=torch.bool)
    mask[0, 2:5] = mask[2, 6] = True
    expected = Amplifier(sae, neurons, 4.0)
    by_rows = expected(feature, mask)
    masked = Amplifier(sae, neurons, 4.0)
    monkeypatch.setattr("culture_core.amplifier._rows", lambda mask, _: (None, mask.flatten()))
    by_mask = masked(feature, mask)
    torch.testing.assert_close(by_mask, by_rows, atol=1e-6, rtol=1e-6)
    assert torch.equal(by_mask[~mask], feature[~mask])
    assert masked.touched == expected.touched


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_never_waited_for(sae, neurons, feature):
    amplifier = Amplifier(sae.cuda(), neurons, 4.0)
    mask, there = everywhere(feature), feature.cuda()
    expected = amplifier(there, mask)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for on in (mask, mask.cuda()):
            found = amplifier(there, on)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

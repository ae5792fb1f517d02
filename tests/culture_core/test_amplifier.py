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

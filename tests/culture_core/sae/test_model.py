"""The SAE model: what it computes, with ties and all."""

import pytest
import torch

from culture_core.sae import TopKSAE, fraction_unexplained, packed_encoder, top_k


def random_sae(width: int = 8, latents: int = 32, k: int = 5) -> TopKSAE:
    """An SAE none of whose parts is trivial."""
    sae = TopKSAE(width, latents, k)
    with torch.no_grad():
        for tensor in (sae.W_enc, sae.b_enc, sae.b_dec, sae.mean):
            tensor.copy_(torch.randn_like(tensor))
        sae.scale.fill_(2.5)
    return sae


def dense_reference(sae: TopKSAE, x: list[float]) -> tuple[list[float], list[float]]:
    """Code and reconstruction of one vector, with plain Python and the definition of Top-K."""
    normal = [
        (v - m) / float(sae.scale) - b
        for v, m, b in zip(x, sae.mean.tolist(), sae.b_dec.tolist(), strict=True)
    ]
    pre = [
        max(0.0, sum(w * v for w, v in zip(row, normal, strict=True)) + bias)
        for row, bias in zip(sae.W_enc.tolist(), sae.b_enc.tolist(), strict=True)
    ]
    order = sorted(range(len(pre)), key=lambda index: (-pre[index], index))[: sae.k]
    code = [value if index in order else 0.0 for index, value in enumerate(pre)]
    out = [
        (sum(code[m] * float(sae.W_dec[m, j]) for m in order) + float(sae.b_dec[j])) * float(sae.scale)
        + float(sae.mean[j])
        for j in range(sae.d_in)
    ]
    return code, out


@torch.no_grad()
def test_code_and_reconstruction_equal_an_independent_dense_implementation():
    sae = random_sae()
    x = torch.randn(6, 8) * 3
    z = sae.encode(x)
    for row in range(6):
        code, rebuilt = dense_reference(sae, x[row].tolist())
        torch.testing.assert_close(z[row], torch.tensor(code), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(sae.decode(z)[row], torch.tensor(rebuilt), atol=1e-4, rtol=1e-5)
    assert torch.equal(sae(x), sae.decode(sae.encode(x)))


@torch.no_grad()
def test_encode_takes_any_leading_shape_and_half_precision():
    sae = random_sae()
    x = torch.randn(2, 3, 8)
    assert torch.allclose(sae.encode(x).flatten(0, 1), sae.encode(x.flatten(0, 1)), atol=1e-6)
    assert sae.encode(x.half()).dtype == torch.float32


def test_among_equal_activations_the_lowest_index_wins():
    values = torch.tensor([[1.0, 2.0, 1.0, 1.0, 0.0], [0.5, 0.5, 0.5, 0.5, 0.5], [3.0, 1.0, 3.0, 3.0, 2.0]])
    expected = torch.tensor([[1.0, 2.0, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [3.0, 0, 3.0, 0, 0]])
    assert torch.equal(top_k(values, 2), expected)


def test_a_selected_zero_does_not_fire():
    code = top_k(torch.tensor([[0.0, 0.7, 0.0, 0.0]]), 3)
    assert (code > 0).sum() == 1


@torch.no_grad()
def test_at_most_k_latents_are_active():
    sae = random_sae(k=3)
    active = (sae.encode(torch.randn(50, 8)) > 0).sum(dim=-1)
    assert active.max() == 3


def test_decoder_rows_of_a_new_sae_have_unit_norm_and_the_encoder_is_a_smaller_copy():
    sae = TopKSAE(8, 32, 4, seed=1)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(32))
    torch.testing.assert_close(sae.W_enc, 0.3 * sae.W_dec)
    assert torch.equal(sae.W_dec, TopKSAE(8, 32, 4, seed=1).W_dec)
    assert not torch.equal(sae.W_dec, TopKSAE(8, 32, 4, seed=2).W_dec)


@pytest.mark.parametrize("sizes", [(0, 4, 1), (8, 4, 5), (8, 4, 0)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="1 <= k <= n_latents"):
        TopKSAE(*sizes)


def tied_sae(k: int) -> TopKSAE:
    """An SAE whose encoder rows come three times each, so that activations tie by threes."""
    sae = TopKSAE(6, 24, k).requires_grad_(False)
    sae.W_enc.copy_(sae.W_enc[:8].repeat(3, 1))
    return sae


def test_columns_of_the_code_equal_those_of_the_whole_code():
    x = torch.randn(7, 5, 8)
    sae = TopKSAE(8, 32, 5).requires_grad_(False)
    for indices in (torch.arange(32), torch.tensor([9, 3, 31]), torch.tensor([], dtype=torch.long)):
        assert torch.equal(sae.encode_at(x, indices), sae.encode(x)[..., indices])


def test_columns_of_the_code_keep_to_the_rule_for_ties():
    x = torch.randn(40, 6)
    for k in (1, 2, 4, 7):
        sae = tied_sae(k)
        whole = sae.encode(x)
        assert ((whole > 0).sum(dim=1) == k).any(), "the threshold cuts a tie"
        indices = torch.tensor([17, 0, 8, 9, 1, 16, 23])
        assert torch.equal(sae.encode_at(x, indices), whole[:, indices])


@torch.no_grad()
def test_the_unexplained_fraction_equals_its_definition_in_float64():
    sae, x = random_sae(), torch.randn(5000, 8) + 2
    wrong = sum(
        (a - b) ** 2
        for row in range(3)
        for a, b in zip(x[row].tolist(), dense_reference(sae, x[row].tolist())[1], strict=True)
    )
    few = x[:3].double()
    assert (
        abs(fraction_unexplained(sae, x[:3]) / (wrong / float((few - few.mean(0)).square().sum())) - 1) < 1e-5
    )
    whole = x.double()
    error = (whole - sae(x).double()).square().sum() / (whole - whole.mean(0)).square().sum()
    assert abs(fraction_unexplained(sae, x) / float(error) - 1) < 1e-5
    assert fraction_unexplained(sae, torch.ones(4, 8)) == 0.0


def sparsify_forward(sae: TopKSAE, x: torch.Tensor) -> torch.Tensor:
    """sparsify's forward pass, word by word: relu of the linear map, topk, bag of decoder rows, bias."""
    activations = torch.nn.functional.linear(x - sae.b_dec, sae.W_enc, sae.b_enc).relu()
    values, indices = activations.topk(sae.k, dim=-1, sorted=False)
    return (
        torch.nn.functional.embedding_bag(indices, sae.W_dec, mode="sum", per_sample_weights=values)
        + sae.b_dec
    )


@torch.no_grad()
def large_sae() -> TopKSAE:
    sae = TopKSAE(256, 1024, 32)
    for tensor in (sae.b_enc, sae.b_dec):
        tensor.copy_(0.1 * torch.randn_like(tensor))
    return sae


@torch.no_grad()
def test_outputs_agree_with_the_formula_of_sparsify():
    sae, x = large_sae(), torch.randn(200, 256)
    torch.testing.assert_close(sae(x), sparsify_forward(sae, x), atol=1e-5, rtol=0)


@torch.no_grad()
def test_outputs_agree_with_sparsify_itself():
    sparsify = pytest.importorskip("sparsify")
    sae, x = large_sae(), torch.randn(200, 256)
    theirs = sparsify.SparseCoder(256, sparsify.SparseCoderConfig(num_latents=1024, k=32))
    theirs.encoder.weight.copy_(sae.W_enc)
    theirs.encoder.bias.copy_(sae.b_enc)
    theirs.W_dec.copy_(sae.W_dec)
    theirs.b_dec.copy_(sae.b_dec)
    torch.testing.assert_close(sae(x), theirs(x).sae_out, atol=1e-5, rtol=0)


def test_a_packed_encoder_multiplies_as_the_sae_does():
    sae = TopKSAE(24, 64, 4, seed=1).requires_grad_(False)
    sae.b_enc.copy_(0.1 * torch.randn(64))
    c = torch.randn(7, 24)
    product = packed_encoder(sae)
    torch.testing.assert_close(product(c), c @ sae.W_enc.T + sae.b_enc, atol=1e-6, rtol=1e-5)
    assert product(c[:0]).shape == (0, 64)
    x = torch.randn(7, 24)
    torch.testing.assert_close(
        sae.encode_at(x, torch.tensor([3, 60]), product), sae.encode(x)[:, [3, 60]], atol=1e-6, rtol=1e-5
    )

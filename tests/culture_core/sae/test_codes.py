"""Products with sparse codes, against dense ones by their definition."""

import pytest
import torch

from culture_core.sae import top_k
from culture_core.sae.codes import DenseCode, SparseCode, encoder_product, product

ROWS, LATENTS, WIDTH, K = 70, 40, 12, 6


def activations(kind: str) -> torch.Tensor:
    values = torch.randn(ROWS, LATENTS, dtype=torch.float64)
    if kind == "tied":
        return values.mul(2).round()
    if kind == "few positive":
        return values - 1.5
    return -values.abs() if kind == "none positive" else values


@pytest.mark.parametrize("kind", ["plain", "tied", "few positive", "none positive"])
@pytest.mark.parametrize("form", [SparseCode, DenseCode])
@pytest.mark.parametrize("k", [1, K, LATENTS])
def test_products_equal_the_dense_definition(form, kind, k):
    pre = activations(kind)
    z = top_k(pre.relu(), k)
    if kind == "tied" and k == K:
        assert ((pre.relu() >= pre.topk(k).values[:, -1:]) & (pre > 0)).sum(dim=1).max() > k
    code = form(pre, k, torch.float64) if form is DenseCode else form(pre, k)
    weight, a = torch.randn(LATENTS, WIDTH).double(), torch.randn(ROWS, WIDTH).double()
    dots = (a @ weight.T) * (z > 0)
    found = code.dots(a, weight)
    close = {"atol": 1e-12, "rtol": 1e-12}
    torch.testing.assert_close(code.decode(weight), z @ weight, **close)
    torch.testing.assert_close(code.transposed_times(code.values, a), z.T @ a, **close)
    torch.testing.assert_close(code.transposed_times(found, a), dots.T @ a, **close)
    torch.testing.assert_close(code.column_sums(found), dots.sum(dim=0), **close)
    torch.testing.assert_close(code.column_sums(code.values * found), (z * dots).sum(dim=0), **close)
    assert torch.equal(code.counts(), (z > 0).sum(dim=0))


def test_the_encoder_product_is_that_of_float64_within_float32():
    x, weight, bias = torch.randn(9, 700), torch.randn(50, 700), torch.randn(50)
    exact = x.double() @ weight.double().T + bias.double()
    found = encoder_product(x, weight, bias)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 1e-6 * exact.abs().max() * 10
    torch.testing.assert_close(encoder_product(x.double(), weight.double(), bias.double()), exact)


@pytest.mark.parametrize(("precision", "error"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_lower_precision_multiplies_roundings_and_gives_back_the_type(precision, error):
    a, b = torch.rand(5, 30), torch.rand(30, 7)
    found = product(a, b, precision)
    assert found.dtype == torch.float32
    relative = (found / (a @ b) - 1).abs().max()
    assert 0 < relative < 3 * error

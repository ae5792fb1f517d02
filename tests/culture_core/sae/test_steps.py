"""Hand-written gradients and whole loss curves, against a slow literal float64 step with autograd."""

import pytest
import torch
from torch import Tensor, nn

from culture_core.sae import SAEConfig, TopKSAE, steps, train_sae
from culture_core.sae.codes import DenseCode, code_of
from culture_core.sae.steps import AuxK, gradients, restart

WIDTH, LATENTS, K = 6, 24, 4


def uneven_sae() -> TopKSAE:
    """An SAE with biases, some latents that never fire, and activations that tie."""
    sae = TopKSAE(WIDTH, LATENTS, K, seed=3).double()
    with torch.no_grad():
        sae.b_enc.copy_(0.3 * torch.randn(LATENTS))
        sae.b_dec.copy_(0.3 * torch.randn(WIDTH))
        sae.b_enc[20:] = -9.0
        sae.W_enc[5], sae.b_enc[5] = sae.W_enc[4], sae.b_enc[4]
    return sae


def literal_code(activations: Tensor, k: int) -> Tensor:
    """Top-K by its definition: sort by (value, index), keep the first k that are positive."""
    code = torch.zeros_like(activations)
    for i, row in enumerate(activations.detach().tolist()):
        for m in sorted(range(len(row)), key=lambda m: (-row[m], m))[:k]:
            if row[m] > 0:
                code[i, m] = 1
    return activations * code


def literal_loss(sae: TopKSAE, x: Tensor, dead: Tensor | None, count: int, weight: float) -> Tensor:
    """The loss of `steps.py`, word by word."""
    activations = ((x - sae.b_dec) @ sae.W_enc.T + sae.b_enc).relu()
    error = x - (literal_code(activations, sae.k) @ sae.W_dec + sae.b_dec)
    loss = error.square().sum() / x.numel()
    if dead is not None:
        inputs = (x - sae.b_dec).detach().square().sum()
        target = error.detach() * (inputs / error.detach().square().sum()).sqrt()
        rebuilt = literal_code(activations * dead, count) @ sae.W_dec
        loss = loss + weight * (target - rebuilt).square().sum() / inputs
    return loss


def along_rows_removed(gradient: Tensor, rows: Tensor) -> Tensor:
    return gradient - (gradient * rows).sum(dim=1, keepdim=True) * rows


@pytest.mark.parametrize("revived", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_gradients_equal_those_of_autograd_in_float64(monkeypatch, dense, revived):
    """By sparse products, and by the dense ones that other devices than the CPU take."""
    if dense:
        monkeypatch.setattr(steps, "code_of", DenseCode)
    sae, x = uneven_sae(), torch.randn(40, WIDTH, dtype=torch.float64)
    dead = torch.arange(LATENTS) % 3 == 1
    loss = literal_loss(sae, x, dead if revived else None, 3, 0.7)
    loss.backward()
    found = gradients(sae, x, AuxK(dead, 3, 0.7) if revived else None, torch.float64)
    assert abs(found.loss - loss.item()) < 1e-12
    expected = {name: parameter.grad for name, parameter in sae.named_parameters()}
    expected["W_dec"] = along_rows_removed(expected["W_dec"], sae.W_dec.detach())
    for name, gradient in expected.items():
        assert gradient.abs().max() > 1e-4
        torch.testing.assert_close(getattr(found, name), gradient, atol=1e-13, rtol=1e-10)


def test_active_counts_are_those_of_the_code():
    sae, x = uneven_sae().float(), torch.randn(40, WIDTH)
    found = gradients(sae, x)
    assert torch.equal(found.active, (sae.encode(x) > 0).sum(dim=0))
    assert (found.active == 0).any() and (found.active > 0).any()


@pytest.mark.parametrize("revived", [False, True])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.03)])
def test_lower_precision_finds_nearly_the_same_gradients_in_float32(
    monkeypatch, precision, tolerance, dense, revived
):
    if dense:
        monkeypatch.setattr(steps, "code_of", DenseCode)
    sae, x = TopKSAE(32, 128, 100, seed=1), torch.randn(64, 32)
    auxk = AuxK(torch.arange(128) % 2 == 0, 40, 0.7) if revived else None
    exact, rough = gradients(sae, x, auxk, torch.float32), gradients(sae, x, auxk, precision)
    assert abs(rough.loss / exact.loss - 1) < tolerance
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        one, other = getattr(exact, name), getattr(rough, name)
        assert other.dtype == torch.float32
        assert 0 < (one - other).norm() < tolerance * one.norm(), name


def test_latents_restart_at_the_worst_explained_vectors_and_fire_there():
    sae, x = uneven_sae(), torch.randn(40, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        error = (x - sae(x)).norm(dim=1)
    found = restart(sae, x, 3)
    worst = error.sort(descending=True).indices[:3]
    with torch.no_grad():
        expected = (x - sae.b_dec)[worst]
        torch.testing.assert_close(found.directions, expected / expected.norm(dim=1, keepdim=True))
        dead = torch.tensor([20, 21, 22])
        assert not (sae.encode(x)[worst][:, dead] > 0).any()
        sae.W_enc[dead] = found.directions * found.gains[:, None]
        sae.b_enc[dead] = 0
        assert (sae.encode(x)[worst, dead] > 0).all()


def test_the_loss_curve_equals_that_of_a_literal_float64_run():
    """Whole training: batches, AdamW by its definition, unit rows, dead latents counted and revived."""
    data = torch.randn(96, WIDTH) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2, 0.1])
    config = SAEConfig(
        n_latents=LATENTS, k=K, steps=60, batch_size=16, learning_rate=5e-3, weight_decay=0.01, holdout=0.0,
        revival="auxk", dead_after=30, auxk=3, auxk_weight=0.5, seed=2,
    )  # fmt: skip
    _, report = train_sae(data, config)
    sae = TopKSAE(WIDTH, LATENTS, K, seed=2).double()
    mean, x = data.double().mean(0), None
    x = (data.double() - mean) / (data.double() - mean).square().mean().sqrt()
    moments = {name: [torch.zeros_like(p), torch.zeros_like(p)] for name, p in sae.named_parameters()}
    silent, losses, revivals = torch.zeros(LATENTS), [], 0
    for step in range(60):
        epoch, place = divmod(step, 6)
        order = torch.randperm(96, generator=torch.Generator().manual_seed(2 * 1_000_003 + epoch))
        batch = x[order[place * 16 : place * 16 + 16]]
        dead = silent > 30
        revivals += int(dead.any())
        loss = literal_loss(sae, batch, dead if dead.any() else None, 3, 0.5)
        sae.zero_grad()
        loss.backward()
        fired = literal_code(((batch - sae.b_dec) @ sae.W_enc.T + sae.b_enc).relu(), K).detach().any(dim=0)
        silent = torch.where(fired, 0, silent + 16)
        literal_adamw(sae, moments, step + 1, 5e-3, 0.01)
        losses.append(loss.item())
    assert 5 < revivals < 60
    torch.testing.assert_close(torch.tensor(report.losses), torch.tensor(losses), atol=0, rtol=2e-4)


@torch.no_grad()
def literal_adamw(sae: nn.Module, moments: dict, step: int, rate: float, decay: float) -> None:
    for name, parameter in sae.named_parameters():
        gradient = parameter.grad
        if name == "W_dec":
            gradient = along_rows_removed(gradient, parameter)
        first, second = moments[name]
        first.mul_(0.9).add_(0.1 * gradient)
        second.mul_(0.999).add_(0.001 * gradient**2)
        parameter.mul_(1 - rate * decay)
        corrected = (second / (1 - 0.999**step)).sqrt() + 1e-8
        parameter.sub_(rate * first / (1 - 0.9**step) / corrected)
        if name == "W_dec":
            parameter.div_(parameter.norm(dim=1, keepdim=True))


def test_dots_without_a_sparse_product_are_the_same():
    """As on processors for which PyTorch has no MKL."""
    code = code_of(torch.randn(30, 64).relu(), 5)
    a, weight = torch.randn(30, 16), torch.randn(64, 16)
    torch.testing.assert_close(code.gathered_dots(a, weight), code.dots(a, weight), atol=1e-5, rtol=1e-5)
    empty = code_of(torch.zeros(3, 64), 5)
    assert empty.gathered_dots(a[:3], weight).shape == (0,)

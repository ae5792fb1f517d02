"""One training step of a Top-K SAE, with gradients written by hand.

With normalised inputs x̂ [n, d], c = x̂ − b_dec, Z = TopK_k(ReLU(c W_encᵀ + b_enc)), e = c − Z W_dec:

    loss = Σ e² / (n d) + w · Σ (γ e − Y W_dec)² / Σ c²,   γ² = Σ c² / Σ e².

The second term is AuxK: Y is a Top-K code over the dead latents alone, and its target γ e and Σ c² count as
constants. In Gao et al. 2024 the target is e itself. Where little is left to explain, that makes matters
worse: latents that learn to explain e get activations of its size, far below the k-th largest, which they
would have to exceed to fire. A target of the inputs' size brings them there.

With E = e W_decᵀ at the places of Z and s = 2 / (n d), the first term has the gradients

    ∂W_dec = −s Zᵀ e,   ∂b_enc = −s Σ_i E_i,   ∂W_enc = −s Eᵀ c,   ∂b_dec = −s Σ_i e_i − W_encᵀ ∂b_enc,

and the second the same with Y for Z, γ e − Y W_dec for e, s = 2 w / Σ c², and without −s Σ_i e_i.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .codes import Code, code_of, encoder_product
from .model import TopKSAE

_ABOVE, _LEAST = 1.2, 0.01
"""Activation of a restarted latent on its vector, as a multiple of the k-th largest there, and at least as a
share of the vector's length."""

Sum = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes that take part in a training."""


class AuxK(NamedTuple):
    """Which latents AuxK is for in a step, and how much."""

    dead: Tensor
    """The latents that count as dead, bool [M]."""
    count: int  # type: ignore[assignment]  # hides the method of tuples, which nobody needs here
    """How many of them take part for each vector."""
    weight: float


class Gradients(NamedTuple):
    """What a step found."""

    loss: float
    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    """Without its part along the decoder's rows: a step turns a row and does not stretch it."""
    b_dec: Tensor
    active: Tensor
    """How many vectors activate each latent, int64 [M]."""


@torch.no_grad()
def gradients(
    sae: TopKSAE,
    x: Tensor,
    auxk: AuxK | None = None,
    precision: torch.dtype | None = None,
    vectors: int | None = None,
    over_processes: Sum = lambda tensor: tensor,
) -> Gradients:
    """Loss and gradients of a batch.

    Args:
        x: normalised vectors [n, d], this process's part of the batch.
        precision: what is multiplied in; sums and results have the type of x, which is also the default.
        vectors: in the whole batch; None: n.
    """
    centred = x - sae.b_dec
    activations = encoder_product(centred, sae.W_enc, sae.b_enc, precision)
    code = code_of(activations, sae.k, precision)
    error = centred - code.decode(sae.W_dec)
    squares, inputs = over_processes(torch.stack([error.square().sum(), centred.square().sum()]))
    share = 1 / ((vectors or len(x)) * sae.d_in)
    loss = squares * share
    found = _Total(sae, centred)
    found.add(code, error, -2 * share)
    b_dec = error.sum(dim=0) * (-2 * share)
    if auxk is not None:
        dead_code = code_of(activations.mul_(auxk.dead), auxk.count, precision)
        least = torch.finfo(x.dtype).tiny
        missed = error * (inputs / squares.clamp(min=least)).sqrt() - dead_code.decode(sae.W_dec)
        weight = auxk.weight / inputs.clamp(min=least)
        loss = loss + weight * over_processes(missed.square().sum())
        found.add(dead_code, missed, -2 * weight)
    b_dec -= sae.W_enc.t() @ found.b_enc
    parts = (found.W_enc, found.b_enc, found.W_dec, b_dec, code.counts())
    W_enc, b_enc, W_dec, b_dec, active = map(over_processes, parts)
    return Gradients(loss.item(), W_enc, b_enc, W_dec, b_dec, active)


class _Total:
    """Gradients that a code and an error lead to, added up."""

    def __init__(self, sae: TopKSAE, centred: Tensor) -> None:
        self.sae, self.centred = sae, centred
        self.W_enc: Tensor = torch.empty(0)
        self.W_dec: Tensor = torch.empty(0)
        self.b_enc: Tensor = torch.empty(0)

    def add(self, code: Code, error: Tensor, scale: float | Tensor) -> None:
        dots = code.dots(error, self.sae.W_dec)
        W_enc = code.transposed_times(dots, self.centred)
        W_dec = code.transposed_times(code.values, error)
        # ⟨∂W_dec[m], W_dec[m]⟩ = Σ_i Z[i, m] E[i, m]: no need to go through the matrices again.
        W_dec.addcmul_(code.column_sums(code.values * dots)[:, None], self.sae.W_dec, value=-1)
        b_enc = code.column_sums(dots) * scale
        if self.b_enc.numel() == 0:
            self.W_enc, self.W_dec, self.b_enc = W_enc.mul_(scale), W_dec.mul_(scale), b_enc
        else:
            self.W_enc.add_(W_enc * scale)
            self.W_dec.add_(W_dec * scale)
            self.b_enc = self.b_enc + b_enc


class Restart(NamedTuple):
    """Where dead latents begin anew."""

    directions: Tensor
    """Of decoder and encoder rows, unit [n, d]: the vectors that are explained worst."""
    gains: Tensor
    """Norm of the encoder rows [n], so large that they fire on these vectors."""


@torch.no_grad()
def restart(sae: TopKSAE, x: Tensor, count: int) -> Restart:
    """Where so many dead latents begin anew, given normalised vectors [n, d] with n ≥ count.

    A latent is set upon a vector, not upon its error: the error is all but orthogonal to what an encoder row
    could tell it by.
    """
    centred = x - sae.b_dec
    activations = encoder_product(centred, sae.W_enc, sae.b_enc)
    error = centred - code_of(activations, sae.k).decode(sae.W_dec)
    worst = error.square().sum(dim=1).sort(descending=True, stable=True).indices[:count]
    lengths = centred[worst].norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny)
    weakest = activations[worst].topk(sae.k, dim=1).values[:, -1]
    wanted = torch.maximum(_ABOVE * weakest, _LEAST * lengths)
    return Restart(centred[worst] / lengths[:, None], wanted / lengths)

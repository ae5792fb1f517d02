"""One training step of a Top-K SAE, with gradients written by hand.

With normalised inputs x̂ [n, d], c = x̂ − b_dec, Z = TopK_k(ReLU(c W_encᵀ + b_enc)), e = c − Z W_dec:

    loss = Σ e² / (n d) + w · Σ (e − Y W_dec)² / Σ e².

The second term is AuxK: Y is a Top-K code over the dead latents alone, and the e in it counts as constant.
With E = e W_decᵀ at the places of Z and s = 2 / (n d), the first term has the gradients

    ∂W_dec = −s Zᵀ e,   ∂b_enc = −s Σ_i E_i,   ∂W_enc = −s Eᵀ c,   ∂b_dec = −s Σ_i e_i − W_encᵀ ∂b_enc,

and the second the same with Y for Z, e − Y W_dec for e, s = 2 w / Σ e², and without −s Σ_i e_i.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .codes import Code, code_of, encoder_product
from .model import TopKSAE

Sum = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes that take part in a training."""


class Revival(NamedTuple):
    """What AuxK is to do in a step."""

    dead: Tensor
    """The latents that count as dead, bool [M]."""
    count: int
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
    revival: Revival | None = None,
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
    squares = over_processes(error.square().sum())
    share = 1 / ((vectors or len(x)) * sae.d_in)
    loss = squares * share
    found = _Total(sae, centred)
    found.add(code, error, -2 * share)
    b_dec = error.sum(dim=0) * (-2 * share)
    if revival is not None:
        dead_code = code_of(activations.mul_(revival.dead), revival.count, precision)
        missed = error - dead_code.decode(sae.W_dec)
        weight = revival.weight / squares.clamp(min=torch.finfo(x.dtype).tiny)
        loss = loss + weight * over_processes(missed.square().sum())
        found.add(dead_code, missed, -2 * weight)
    b_dec -= sae.W_enc.t() @ found.b_enc
    parts = (found.W_enc, found.b_enc, found.W_dec, b_dec, code.counts())
    return Gradients(loss.item(), *map(over_processes, parts))


class _Total:
    """Gradients that a code and an error lead to, added up."""

    def __init__(self, sae: TopKSAE, centred: Tensor) -> None:
        self.sae, self.centred = sae, centred
        self.W_enc, self.b_enc, self.W_dec = None, 0, None

    def add(self, code: Code, error: Tensor, scale: float | Tensor) -> None:
        dots = code.dots(error, self.sae.W_dec)
        W_enc = code.transposed_times(dots, self.centred)
        W_dec = code.transposed_times(code.values, error)
        # ⟨∂W_dec[m], W_dec[m]⟩ = Σ_i Z[i, m] E[i, m]: no need to go through the matrices again.
        W_dec.addcmul_(code.column_sums(code.values * dots)[:, None], self.sae.W_dec, value=-1)
        self.W_enc = W_enc.mul_(scale) if self.W_enc is None else self.W_enc.add_(W_enc * scale)
        self.W_dec = W_dec.mul_(scale) if self.W_dec is None else self.W_dec.add_(W_dec * scale)
        self.b_enc = self.b_enc + code.column_sums(dots) * scale

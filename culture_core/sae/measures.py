"""How well an SAE explains vectors, and which of its latents they activate."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from .codes import code_of, encoder_product
from .model import TopKSAE

CHUNK = 4096
"""Vectors at a time where all are gone through."""


class Sums(NamedTuple):
    """What is added up over vectors; sums over parts of them add up to those over all."""

    wrong: Tensor
    """Σ ‖x − x̃‖², float64."""
    squares: Tensor
    """Σ ‖x − mean‖² about the SAE's mean, float64."""
    total: Tensor
    """Σ (x − mean), float64 [d]."""
    active: Tensor
    """How many vectors activate each latent, int64 [M]."""
    vectors: Tensor

    @property
    def fvu(self) -> float:
        """Σ ‖x − x̃‖² / Σ ‖x − mean(x)‖²; 0 where nothing varies."""
        spread = float(self.squares - self.total.square().sum() / self.vectors)
        return float(self.wrong) / spread if spread > 0 else 0.0


@torch.no_grad()
def measure(sae: TopKSAE, parts: Iterable[Tensor]) -> Sums:
    """Sums over parts [n, d] of vectors; in units of the SAE's scale, which the ratios do not depend on."""
    double = torch.float64
    wrong, squares = torch.zeros((), dtype=double), torch.zeros((), dtype=double)
    total, active = torch.zeros(sae.d_in, dtype=double), torch.zeros(sae.n_latents, dtype=torch.long)
    vectors = torch.zeros((), dtype=torch.long)
    for part in parts:
        x = sae.normalise(part)
        centred = x - sae.b_dec
        code = code_of(encoder_product(centred, sae.W_enc, sae.b_enc), sae.k)
        wrong += _square_sum(centred - code.decode(sae.W_dec))
        squares += _square_sum(x)
        total += x.sum(dim=0).cpu().double()
        active += code.counts().cpu()
        vectors += len(part)
    return Sums(wrong, squares, total, active, vectors)


def fraction_unexplained(sae: TopKSAE, features: Tensor) -> float:
    """FVU: Σ ‖x − x̃‖² / Σ ‖x − mean(x)‖² over features [N, d]."""
    return measure(sae, features.split(CHUNK)).fvu


def _square_sum(x: Tensor) -> Tensor:
    return x.square().sum(dim=1).cpu().double().sum()

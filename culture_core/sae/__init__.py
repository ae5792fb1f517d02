"""Top-K sparse autoencoders: the model, its training, and files of other libraries."""

from .model import TopKSAE, fraction_unexplained, top_k, top_k_mask
from .training import PAPER_PRESETS, SAEConfig, SAEReport, train_sae

__all__ = [
    "PAPER_PRESETS",
    "SAEConfig",
    "SAEReport",
    "TopKSAE",
    "fraction_unexplained",
    "top_k",
    "top_k_mask",
    "train_sae",
]

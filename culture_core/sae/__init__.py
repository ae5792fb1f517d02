"""Top-K sparse autoencoders: the model, its training, and files of other libraries."""

from .config import PAPER_PRESETS, SAEConfig, advise
from .measures import fraction_unexplained
from .model import Product, TopKSAE, packed_encoder, top_k, top_k_mask
from .sources import FeatureStore
from .training import SAEReport, train_sae

__all__ = [
    "PAPER_PRESETS",
    "FeatureStore",
    "Product",
    "SAEConfig",
    "SAEReport",
    "TopKSAE",
    "advise",
    "fraction_unexplained",
    "packed_encoder",
    "top_k",
    "top_k_mask",
    "train_sae",
]

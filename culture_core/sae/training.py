"""Training of a Top-K sparse autoencoder (paper, section C.5)."""

import hashlib
import json
import logging
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..checkpoints import (
    Progress,
    optimiser_tensors,
    read_checkpoint,
    restore_optimiser,
    run_steps,
    write_safetensors,
)
from .model import ENCODER_SCALE, TopKSAE, fraction_unexplained, top_k, top_k_mask

logger = logging.getLogger(__name__)

DENSE_SHARE = 0.5
"""A latent that fires on more of the vectors than this is called dense."""
_CHUNK = 4096


@dataclass(frozen=True)
class SAEConfig:
    """How to train an SAE.

    Raises:
        ValueError: for a value that makes no sense; the message names it.
    """

    n_latents: int = 4096
    """Number of latents, M."""
    k: int = 32
    """Latents that may be active at once."""
    learning_rate: float = 4e-4
    """Of AdamW, constant."""
    steps: int = 2000
    batch_size: int = 256
    """Vectors a step."""
    auxk_weight: float = 1 / 32
    """Weight of the loss that revives dead latents; 0 turns it off."""
    auxk: int | None = None
    """Dead latents that take part in it at once; None: half of the feature's width."""
    dead_after: int | None = None
    """Vectors without firing after which a latent counts as dead; None: a tenth of all that the run sees."""
    holdout: float = 0.1
    """Share of the vectors (or groups) kept from training to measure the held-out FVU; 0: none."""
    encoder_scale: float | None = None
    """Encoder rows at the start, as a multiple of the decoder's; None: so that reconstructions have the
    inputs' norm."""
    weight_decay: float = 0.0
    checkpoint_every: int = 500
    """Steps between checkpoints, where a path for them is given."""
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "n_latents": self.n_latents >= 1,
            "k": 1 <= self.k <= self.n_latents,
            "learning_rate": 0 < self.learning_rate < math.inf,
            "steps": self.steps >= 1,
            "batch_size": self.batch_size >= 1,
            "auxk_weight": 0 <= self.auxk_weight < math.inf,
            "auxk": self.auxk is None or self.auxk >= 1,
            "dead_after": self.dead_after is None or self.dead_after >= 1,
            "holdout": 0 <= self.holdout < 1,
            "encoder_scale": self.encoder_scale is None or 0 < self.encoder_scale < math.inf,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "checkpoint_every": self.checkpoint_every >= 1,
        }
        wrong = [f"{name}={getattr(self, name)}" for name, good in checks.items() if not good]
        if wrong:
            raise ValueError(
                f"SAEConfig: {', '.join(wrong)} is out of range (k must lie within 1 … n_latents)"
            )


PAPER_PRESETS = {
    "auxk": SAEConfig(k=32, auxk_weight=1 / 32),
    "sparsity": SAEConfig(k=128, auxk_weight=0.0),
}
"""The two readings of the paper's "sparsity coefficient 1/32" (C.5): the AuxK weight, or k / M."""


class SAEReport(NamedTuple):
    """How a training went."""

    fvu_train: float
    """Fraction of the variance that the reconstruction leaves unexplained, on the training vectors."""
    fvu_heldout: float | None
    """The same on the vectors kept from training; None where none were."""
    dead: int
    """Latents that no training vector activates."""
    dense: int
    """Latents that more than half of the training vectors activate."""
    losses: list[float]
    """Loss of every step."""
    vectors: int
    """Training vectors."""
    data_hash: str
    """SHA-256 of the features."""
    warnings: list[str]


def train_sae(
    features: Tensor,
    config: SAEConfig | None = None,
    groups: Tensor | None = None,
    progress: Progress | None = None,
    checkpoint: str | os.PathLike | None = None,
    device: torch.device | str | None = None,
) -> tuple[TopKSAE, SAEReport]:
    """Train an SAE on features [N, d].

    The same features, configuration and thread count give the same SAE bit for bit, also where a run was
    interrupted and taken up again from its checkpoint. Works under `torch.inference_mode`.

    Args:
        groups: [N], vectors with equal numbers (those of one prompt, say) are held out together.
        checkpoint: file to take the run up from if it is there, and to write to now and then, when the run is
            interrupted, and never after it ended well.
        device: where to compute; None: where the features are.

    Raises:
        ValueError: for features that are not a finite [N, d] matrix of at least two rows, or for a checkpoint
            that belongs to other features or another configuration.
    """
    config = config or SAEConfig()
    _check_features(features, groups)
    with torch.inference_mode(False), torch.enable_grad():
        # Tensors made in inference mode cannot take part in training; a copy can.
        vectors = features.detach().to(device or features.device, torch.float32, copy=True)
        trainer = _Trainer(vectors, config, groups)
        path = None if checkpoint is None else Path(checkpoint)
        if path is not None and path.exists():
            trainer.load(path)
        trainer.run(progress, path)
        return trainer.sae, trainer.report()


class _Trainer:
    """State of a run: the SAE, the optimiser, since when latents are silent, and where the run stands."""

    def __init__(self, vectors: Tensor, config: SAEConfig, groups: Tensor | None) -> None:
        self.config = config
        self.data_hash = hashlib.sha256(vectors.cpu().numpy().tobytes()).hexdigest()
        held = _held_out(len(vectors), config, groups).to(vectors.device)
        self.train, self.heldout = vectors[~held], vectors[held]
        self.batch = min(config.batch_size, len(self.train))
        self.sae = self._new_sae(vectors.device)
        self.optimiser = torch.optim.AdamW(
            self.sae.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.silent = torch.zeros(config.n_latents, dtype=torch.long, device=vectors.device)
        self.dead_after = config.dead_after or max(1, config.steps * self.batch // 10)
        self.losses: list[float] = []

    def run(self, progress: Progress | None, checkpoint: Path | None) -> None:
        run_steps(
            self.losses, self.config.steps, lambda: self._step(self._next_batch(len(self.losses))), self.save,
            self.config.checkpoint_every, progress, checkpoint,
        )  # fmt: skip

    def report(self) -> SAEReport:
        counts = torch.zeros_like(self.silent)
        with torch.no_grad():
            for rows in self.train.split(_CHUNK):
                counts += (self.sae.encode(rows) > 0).sum(dim=0)
        dead = int((counts == 0).sum())
        dense = int((counts > DENSE_SHARE * len(self.train)).sum())
        fvu = fraction_unexplained(self.sae, self.train)
        heldout = fraction_unexplained(self.sae, self.heldout) if len(self.heldout) > 1 else None
        warnings = _warnings(fvu, heldout, dead, self.config.n_latents, len(self.train))
        for warning in warnings:
            logger.warning(warning)
        return SAEReport(fvu, heldout, dead, dense, self.losses, len(self.train), self.data_hash, warnings)

    def save(self, path: Path) -> None:
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        tensors |= optimiser_tensors(self.optimiser, dict(self.sae.named_parameters()))
        tensors["silent"] = self.silent
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        write_safetensors(path, tensors, {"run": self._identity()})

    def load(self, path: Path) -> None:
        identity, tensors = read_checkpoint(path)
        if identity != self._identity():
            raise ValueError(
                f"{path}: the checkpoint belongs to other features or another configuration; "
                "delete it, or give this run another file"
            )
        weights = {
            key.removeprefix("sae."): value for key, value in tensors.items() if key.startswith("sae.")
        }
        self.sae.load_state_dict(weights)
        restore_optimiser(self.optimiser, dict(self.sae.named_parameters()), tensors)
        self.silent = tensors["silent"].to(self.silent.device)
        self.losses = tensors["losses"].tolist()

    def _identity(self) -> str:
        return json.dumps({"data": self.data_hash, "config": asdict(self.config)}, sort_keys=True)

    def _new_sae(self, device: torch.device) -> TopKSAE:
        config = self.config
        sae = TopKSAE(self.train.shape[1], config.n_latents, config.k, config.seed).to(device)
        with torch.no_grad():
            sae.mean.copy_(self.train.mean(dim=0))
            spread = (self.train - sae.mean).square().mean().sqrt()
            sae.scale.copy_(spread if spread > 0 else torch.ones_like(spread))
            sae.W_enc.copy_(sae.W_dec * (config.encoder_scale or self._matching_scale(sae)))
        return sae

    def _matching_scale(self, sae: TopKSAE) -> float:
        """Encoder scale at which reconstructions have the inputs' norm (Top-K does not depend on it)."""
        rows = sae.normalise(self.train[:_CHUNK])
        rebuilt = top_k(nn.functional.linear(rows, sae.W_dec).relu(), sae.k) @ sae.W_dec
        ratio = rows.norm() / rebuilt.norm()
        return float(ratio) if ratio.isfinite() and ratio > 0 else ENCODER_SCALE

    def _next_batch(self, step: int) -> Tensor:
        """The batch of a step; it depends on seed and step alone, so that a resumed run sees the same."""
        per_epoch = len(self.train) // self.batch
        epoch, position = divmod(step, per_epoch)
        if position == 0 or not hasattr(self, "_order"):
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
            self._order = torch.randperm(len(self.train), generator=generator).to(self.train.device)
        return self.train[self._order[position * self.batch : (position + 1) * self.batch]]

    def _step(self, rows: Tensor) -> float:
        sae = self.sae
        x = sae.normalise(rows)
        activations = sae.activations(x)
        mask = top_k_mask(activations, sae.k)
        error = x - ((activations * mask) @ sae.W_dec + sae.b_dec)
        # Inputs have unit mean square, so that the loss reads as the FVU.
        loss = error.square().mean()
        dead = self.silent > self.dead_after
        if self.config.auxk_weight and bool(dead.any()):
            loss = loss + self.config.auxk_weight * self._revival_loss(activations, dead, error.detach())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        with torch.no_grad():
            # Without its part along the row, the step turns the row instead of stretching it.
            gradient, directions = sae.W_dec.grad, sae.W_dec
            gradient -= (gradient * directions).sum(dim=1, keepdim=True) * directions
            self.optimiser.step()
            sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True).clamp(min=1e-12)
            self.silent = torch.where(mask.any(dim=0), 0, self.silent + len(rows))
        return loss.item()

    def _revival_loss(self, activations: Tensor, dead: Tensor, error: Tensor) -> Tensor:
        """AuxK: the share of the error [n, d] that the strongest dead latents fail to explain."""
        indices = dead.nonzero().squeeze(1)
        wanted = self.config.auxk or max(1, self.sae.d_in // 2)
        code = top_k(activations[:, indices], min(wanted, len(indices)))
        missed = (error - code @ self.sae.W_dec[indices]).square().mean()
        return missed / error.square().mean().clamp(min=1e-12)


def _check_features(features: Tensor, groups: Tensor | None) -> None:
    if features.dim() != 2 or len(features) < 2 or not features.is_floating_point():
        raise ValueError(f"features must be a float matrix [N, d] with N >= 2, got {tuple(features.shape)}")
    if not bool(features.isfinite().all()):
        raise ValueError("the features hold NaN or infinite values: look at the encoder that made them")
    if groups is not None and groups.shape != features.shape[:1]:
        raise ValueError(f"groups must give one number a vector, {len(features)}, got {tuple(groups.shape)}")


def _held_out(count: int, config: SAEConfig, groups: Tensor | None) -> Tensor:
    """Which of the vectors are kept from training, bool [N]; at least one stays in it."""
    members = torch.arange(count) if groups is None else groups.cpu().unique(return_inverse=True)[1]
    number = int(members.max()) + 1
    chosen = torch.zeros(number, dtype=torch.bool)
    order = torch.randperm(number, generator=torch.Generator().manual_seed(config.seed))
    chosen[order[: min(int(number * config.holdout), number - 1)]] = True
    return chosen[members]


def _warnings(fvu: float, heldout: float | None, dead: int, latents: int, vectors: int) -> list[str]:
    found = []
    if dead > latents / 2:
        found.append(
            f"{dead} of {latents} latents are dead: train on more vectors ({vectors} here) or fewer latents"
        )
    if heldout is not None and heldout > 2 * fvu and heldout > fvu + 0.1:
        found.append(
            f"the SAE memorises: FVU {heldout:.2f} on held-out vectors against {fvu:.2f} in training; "
            "add more and more varied text"
        )
    return found

"""Training of a Top-K sparse autoencoder (paper, section C.5)."""

import json
import logging
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..checkpoints import (
    Progress,
    optimiser_tensors,
    read_checkpoint,
    restore_optimiser,
    run_steps,
    write_safetensors,
)
from ..processes import Processes
from .codes import code_of
from .config import SAEConfig, advise
from .measures import CHUNK, Sums, measure
from .model import ENCODER_SCALE, TopKSAE
from .sources import Batches, FeatureStore, MatrixVectors, Vectors, in_parts
from .steps import AuxK, gradients, restart

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

DENSE_SHARE = 0.5
"""A latent that fires on more of the vectors than this is called dense."""
RESTART_EVERY = 10
"""Steps between restarts of dead latents."""
RESTART_UNTIL = 0.9
"""Share of the run after which none is restarted: it could not learn any more."""


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
    features: Tensor | FeatureStore,
    config: SAEConfig | None = None,
    groups: Tensor | None = None,
    progress: Progress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
    accelerator: "Accelerator | None" = None,
) -> tuple[TopKSAE, SAEReport]:
    """Train an SAE on features [N, d], or on those of a store.

    The same features, configuration and thread count give the same SAE bit for bit, also where a run was
    interrupted, or killed, and taken up again from its checkpoint. Works under `torch.inference_mode`.

    Of a store, `config.window` vectors are in memory at once, and besides them 16 bytes a vector.

    Args:
        groups: [N], vectors with equal numbers (those of one prompt, say) are held out together. A store
            knows its own: the texts.
        checkpoint: file to take the run up from if it is there, and to write to now and then, when the run is
            interrupted, and never after it ended well.
        device: where to compute; None: where the features are.
        accelerator: of a run in several processes (`accelerate launch`). Each takes its part of every batch;
            all end with the same SAE, and the main one alone writes checkpoints and reports progress.

    Raises:
        ValueError: for features that are not a finite [N, d] matrix of at least two rows, for a checkpoint
            that belongs to other features or another configuration, or where the loss is no longer finite.
    """
    config = config or SAEConfig()
    processes = Processes(accelerator)
    with torch.inference_mode(False), torch.no_grad():
        if isinstance(features, FeatureStore):
            if groups is not None:
                raise ValueError("a feature store knows its groups, the texts: leave `groups` out")
            vectors: Vectors = features
            home = torch.device("cpu")
        else:
            home = torch.device(device or processes.device or features.device)
            vectors = MatrixVectors(features, groups, home)
        path = None if checkpoint is None else Path(checkpoint)
        trainer = _Trainer(vectors, config, torch.device(device or processes.device or home), processes)
        return trainer.train(progress, path)


class _Trainer:
    """State of a run: the SAE, the optimiser, since when latents are silent, and where the run stands."""

    def __init__(
        self, vectors: Vectors, config: SAEConfig, device: torch.device, processes: Processes
    ) -> None:
        self.vectors, self.config, self.device, self.processes = vectors, config, device, processes
        self.data_hash = vectors.digest()
        held = _held_out(len(vectors), config, vectors.groups())
        self.train_rows, self.held_rows = (mask.nonzero().squeeze(1) for mask in (~held, held))
        self.batch = min(config.batch_size, len(self.train_rows))
        if self.batch < processes.count:
            raise ValueError(f"a batch of {self.batch} has no vector for each of {processes.count} processes")
        self.batches = Batches(vectors, self.train_rows, self.batch, config.window, config.seed)
        self.precision = getattr(torch, config.precision)
        seen = config.steps * self.batch
        self.dead_after = config.dead_after or max(1, min(len(self.train_rows), seen // 10))
        self.sae = TopKSAE(vectors.width, config.n_latents, config.k, config.seed).to(device)
        self.parameters = dict(self.sae.named_parameters())
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )  # fmt: skip
        self.silent = torch.zeros(config.n_latents, dtype=torch.long, device=device)
        self.losses: list[float] = []

    def train(self, progress: Progress | None, checkpoint: Path | None) -> tuple[TopKSAE, SAEReport]:
        advice = advise(len(self.train_rows), self.vectors.width, self.config)
        self._warn(advice)
        if checkpoint is not None and checkpoint.exists():
            self.load(checkpoint)
        else:
            self.start()
        self.processes.wait()
        run_steps(
            self.losses, self.config.steps, self._step, self.save, self.config.checkpoint_every,
            progress if self.processes.main else None, checkpoint if self.processes.main else None,
            self.optimiser,
        )  # fmt: skip
        return self.sae, self.report(advice)

    def start(self) -> None:
        """Centre, scale and initial weights from the data."""
        sae, config = self.sae, self.config
        total, squares = torch.zeros(self.vectors.width, dtype=torch.float64), 0.0
        shift: Tensor | None = None
        for part in in_parts(self.vectors, self.train_rows, CHUNK):
            shift = part.mean(dim=0) if shift is None else shift
            total += (part - shift).sum(dim=0).cpu().double()
            squares += float((part - shift).square().sum(dim=1).cpu().double().sum())
        mean = total / len(self.train_rows)
        spread = math.sqrt(max(0.0, (squares / len(self.train_rows) - float(mean.square().sum())) / sae.d_in))
        assert shift is not None, "a part at least"
        sae.mean.copy_(shift.cpu() + mean)
        sae.scale.fill_(spread if spread > 0 else 1.0)
        sae.W_enc.copy_(sae.W_dec * (config.encoder_scale or self._encoder_scale()))
        for tensor in sae.state_dict().values():
            tensor.copy_(self.processes.from_main(tensor))

    def report(self, advice: list[str]) -> SAEReport:
        train = self._measure(self.train_rows)
        heldout = self._measure(self.held_rows).fvu if len(self.held_rows) > 1 else None
        dead = int((train.active == 0).sum())
        dense = int((train.active > DENSE_SHARE * len(self.train_rows)).sum())
        warnings = _warnings(train.fvu, heldout, dead, self.config.n_latents, len(self.train_rows))
        self._warn(warnings)
        return SAEReport(
            train.fvu, heldout, dead, dense, self.losses, len(self.train_rows), self.data_hash,
            advice + warnings,
        )  # fmt: skip

    def save(self, path: Path) -> None:
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        tensors |= optimiser_tensors(self.optimiser, self.parameters)
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
        restore_optimiser(self.optimiser, self.parameters, tensors)
        self.silent = tensors["silent"].to(self.device)
        self.losses = tensors["losses"].tolist()

    def _identity(self) -> str:
        return json.dumps({"data": self.data_hash, "config": asdict(self.config)}, sort_keys=True)

    def _encoder_scale(self) -> float:
        """Where the encoder starts: with reconstructions that are not longer than the inputs."""
        x = self.sae.normalise(self.vectors.take(self.train_rows[:CHUNK]).to(self.device))
        rebuilt = code_of(x @ self.sae.W_dec.t(), self.sae.k).decode(self.sae.W_dec)
        # Which latents are chosen does not depend on the scale, so that reconstructions are as it is.
        ratio = float(x.norm() / rebuilt.norm())
        return min(ratio, ENCODER_SCALE) if math.isfinite(ratio) and ratio > 0 else ENCODER_SCALE

    def _step(self) -> float:
        sae = self.sae
        batch = self.batches(len(self.losses))
        x = sae.normalise(self.processes.part(batch).to(self.device))
        found = gradients(sae, x, self._auxk(), self.precision, self.batch, self.processes.sum)
        if not math.isfinite(found.loss):
            raise ValueError(
                f"the loss of step {len(self.losses) + 1} is {found.loss}: lower the learning rate "
                f"({self.config.learning_rate:g}), or look at the features"
            )
        for name, parameter in self.parameters.items():
            parameter.grad = getattr(found, name)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True).clamp(min=1e-12))
        self.silent = torch.where(found.active > 0, 0, self.silent + self.batch)
        done = len(self.losses) + 1
        if self.config.revival == "restart" and done % RESTART_EVERY == 0:
            if done <= RESTART_UNTIL * self.config.steps:
                self._restart(batch)
        return found.loss

    def _auxk(self) -> AuxK | None:
        if self.config.revival != "auxk":
            return None
        dead = self.silent > self.dead_after
        if not bool(dead.any()):
            return None
        wanted = min(self.config.auxk or self.sae.k, self.sae.n_latents)
        return AuxK(dead, wanted, self.config.auxk_weight)

    def _restart(self, batch: Tensor) -> None:
        """Let dead latents begin anew at the vectors of a batch that are explained worst."""
        dead = (self.silent > self.dead_after).nonzero().squeeze(1)[: len(batch)]
        if len(dead) == 0:
            return
        sae = self.sae
        found = restart(sae, sae.normalise(batch.to(self.device)), len(dead))
        directions, gains = (self.processes.from_main(tensor) for tensor in found)
        sae.W_dec[dead] = directions
        sae.W_enc[dead] = directions * gains[:, None]
        sae.b_enc[dead] = 0
        for parameter in (sae.W_enc, sae.b_enc, sae.W_dec):
            state = self.optimiser.state[parameter]
            # Their own second moments are those of no gradient: the first steps would be far too large.
            state["exp_avg"][dead] = 0
            state["exp_avg_sq"][dead] = state["exp_avg_sq"].mean(dim=0)
        self.silent[dead] = 0

    def _measure(self, rows: Tensor) -> Sums:
        """Sums over vectors, each process going through its part."""
        part = self.processes.part(rows)
        sums = measure(self.sae, (x.to(self.device) for x in in_parts(self.vectors, part, CHUNK)))
        if self.processes.count == 1:
            return sums
        return Sums(*(self.processes.sum(tensor.to(self.device)).cpu() for tensor in sums))

    def _warn(self, warnings: list[str]) -> None:
        if self.processes.main:
            for warning in warnings:
                logger.warning(warning)


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

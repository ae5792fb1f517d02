"""The one training loop of the study's own models: AdamW, one cycle, moving average, resuming."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
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

EMA, WARM_UP, CLIP = 0.998, 0.05, 1.0
CHECKPOINT_EVERY = 250
Loss = Callable[[np.random.Generator], Tensor]
"""Draws a batch and gives its loss."""


def fit(
    module: nn.Module, loss: Loss, steps: int, learning_rate: float, seed: int,
    progress: Progress | None = None, checkpoint: Path | None = None,
) -> None:  # fmt: skip
    """Minimise a loss over the parameters that want gradients; they end frozen, as their moving average.

    Every step has random numbers of its own, so that a run that is taken up from its checkpoint ends as an
    undisturbed one does.

    Raises:
        ValueError: for a checkpoint that cannot be read or is another run's.
    """
    module.train()
    parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
    average = {name: value.detach().clone() for name, value in parameters.items()}
    optimiser = torch.optim.AdamW(
        parameters.values(), learning_rate, weight_decay=0.01, betas=(0.9, 0.99), fused=True
    )
    losses: list[float] = []
    run = f"{steps} steps at {learning_rate:g}, seed {seed}, {sum(p.numel() for p in parameters.values())}"
    if checkpoint is not None and checkpoint.exists():
        identity, tensors = read_checkpoint(checkpoint)
        if identity != run:
            raise ValueError(f"{checkpoint} belongs to another run ({identity}); delete it to start anew")
        losses.extend(tensors.pop("losses").tolist())
        restore_optimiser(optimiser, parameters, tensors)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[f"parameter.{name}"])
                average[name].copy_(tensors[f"average.{name}"])

    def step() -> float:
        number = len(losses)
        torch.manual_seed(seed * 1_000_003 + number)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * one_cycle(number, steps)
        value = loss(np.random.default_rng([seed, number]))
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        optimiser.step()
        # The first steps count less: a fixed decay would keep the untrained weights for long.
        weight = 1 - min(EMA, (number + 1) / (number + 10))
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in parameters.values()], weight)
        return value.item()

    def save(path: Path) -> None:
        tensors: dict[str, Tensor] = {f"parameter.{name}": value for name, value in parameters.items()}
        tensors |= {f"average.{name}": value for name, value in average.items()}
        tensors |= optimiser_tensors(optimiser, parameters) | {"losses": torch.tensor(losses)}
        write_safetensors(path, tensors, {"run": run})

    run_steps(losses, steps, step, save, CHECKPOINT_EVERY, progress, checkpoint, optimiser)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(average[name])
    module.eval().requires_grad_(False)


def one_cycle(step: int, steps: int) -> float:
    """Of the highest learning rate: up in a straight line, down along half a cosine to nearly 0."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return max(0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))), 1e-4)

"""Safetensors files written whole, and the state of a training run in one of them."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .atomic import atomic_path


def write_safetensors(
    path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file; it appears whole or not at all, and replaces one that is there."""
    plain = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata=dict(metadata))


def read_checkpoint(path: Path) -> tuple[str | None, dict[str, Tensor]]:
    """(identity of the run, tensors) of a checkpoint.

    Raises:
        ValueError: for a file that cannot be read; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            identity = (file.metadata() or {}).get("run")
            return identity, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: is no readable checkpoint ({error}); delete it to start anew") from error


Progress = Callable[[int, int, float], None]
"""Gets (steps done, steps in all, loss). What it raises ends the training, after a checkpoint."""


def run_steps(
    losses: list[float],
    steps: int,
    step: Callable[[], float],
    save: Callable[[Path], None],
    every: int,
    progress: Progress | None,
    checkpoint: Path | None,
) -> None:
    """Take the steps of a training run that are not done yet.

    Args:
        losses: of the steps done; grows by one a step.
        step: takes one step and gives its loss.
        save: writes a checkpoint: every so many steps, and when anything ends the run early.
    """
    try:
        while len(losses) < steps:
            losses.append(step())
            done = len(losses)
            if checkpoint is not None and done % every == 0 and done < steps:
                save(checkpoint)
            if progress is not None:
                progress(done, steps, losses[-1])
    except BaseException:
        if checkpoint is not None:
            save(checkpoint)
        raise


def optimiser_tensors(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """State of an optimiser as named tensors."""
    return {
        f"optimiser.{name}.{key}": value
        for name, parameter in parameters.items()
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Put the state that `optimiser_tensors` gave back."""
    for name, parameter in parameters.items():
        prefix = f"optimiser.{name}."
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            # AdamW keeps its step count on the CPU.
            optimiser.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
            }

"""Safetensors files written whole, and the state of a training run in one of them."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .atomic import atomic_path


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file; it appears whole or not at all, and replaces one that is there.

    Raises:
        OSError: where it cannot be written, as on a full disk.
    """
    plain = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(plain, temporary, metadata=dict(metadata))
        except SafetensorError as error:  # for what the system says, a full disk for instance
            raise OSError(f"{path}: cannot be written ({error}); look at the folder and the disk") from error


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
    optimiser: torch.optim.Optimizer | None = None,
) -> None:
    """Take the steps of a training run that are not done yet.

    Ctrl-C and SIGTERM wait until a step is done, saved and reported, so that no checkpoint holds half of one
    and no log lacks one; a second one does not wait.

    Args:
        losses: of the steps done; grows by one a step.
        step: takes one step and gives its loss.
        save: writes a checkpoint: every so many steps, and when anything ends the run early.
        optimiser: that takes one step a step. Where it stands says whether what ended the run broke into its
            step; then nothing is saved, and the last regular checkpoint counts.
    """
    try:
        while len(losses) < steps:
            with interrupts_deferred():
                losses.append(step())
                done = len(losses)
                if checkpoint is not None and done % every == 0 and done < steps:
                    save(checkpoint)
                if progress is not None:
                    progress(done, steps, losses[-1])
    except BaseException:
        if checkpoint is not None and (optimiser is None or steps_taken(optimiser) <= {len(losses)}):
            save(checkpoint)
        raise


def steps_taken(optimiser: torch.optim.Optimizer) -> set[int]:
    """How many steps the parameters have seen; more than one number inside a step."""
    return {int(state["step"]) for state in optimiser.state.values() if "step" in state}


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Ctrl-C, and SIGTERM where Python handles it, take effect when the context ends; a second one at once.

    (Other threads than the main one never get them.)
    """
    handlers = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    previous = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread() or not previous:
        yield
        return
    heard: list[tuple[int, FrameType | None]] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if heard:
            previous[number](number, frame)
        heard.append((number, frame))

    for number in previous:
        signal.signal(number, remember)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if heard:
        number, frame = heard[0]
        previous[number](number, frame)


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
    names = {id(parameter): name for name, parameter in parameters.items()}
    ordered = [names[id(p)] for group in optimiser.param_groups for p in group["params"]]
    states = {}
    for index, name in enumerate(ordered):
        prefix = f"optimiser.{name}."
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            states[index] = state
    # The optimiser itself knows which part of its state belongs on which device.
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})

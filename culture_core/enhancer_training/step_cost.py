"""What a training step costs, measured before a run."""

import copy
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..enhancer import EnhancerConfig, LayerEnhancer
from .image_model import ImageModel
from .image_pairs import ImagePairs
from .losses import PIXEL
from .run import Place, train_on_pictures

ROOM = 0.9
"""Share of the memory that a run may fill: the allocator and the rest of the system need some."""


class StepCost(NamedTuple):
    """Memory in bytes and time of a step."""

    frozen: int
    """Parameters and buffers of the pipeline's models."""
    trained: int
    """The enhancer, its gradient, AdamW's two moments, and the moving average."""
    activations: int
    """What the forward pass keeps for the backward pass."""
    peak: int | None
    """Most that was in use at once, where the device tells (CUDA)."""
    capacity: int | None
    """Memory of the device; None: unknown."""
    seconds: float
    """Of a step, all its accumulated batches, sampling for validation aside."""

    @property
    def needed(self) -> int:
        """Bytes in use during a step."""
        return self.peak or self.frozen + self.trained + self.activations

    @property
    def fits(self) -> bool:
        return self.capacity is None or self.needed <= ROOM * self.capacity


def measure_step(
    enhancer: LayerEnhancer,
    model: ImageModel,
    place: Place,
    pairs: ImagePairs,
    loss: str,
    config: EnhancerConfig,
    batch_size: int = 1,
    checkpointing: bool = False,
) -> StepCost:
    """The cost of a step, from three steps with a copy of the enhancer.

    Raises:
        torch.cuda.OutOfMemoryError: where not even one step fits. ValueError: as `train_on_pictures`.
    """
    cuda = model.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(model.device)
    times: list[float] = []

    def run(steps: int) -> None:
        trial = replace(config, steps=steps, accumulate=1)
        train_on_pictures(
            copy.deepcopy(enhancer), model, place, pairs, loss, trial, batch_size, checkpointing,
            lambda *_: times.append(time.perf_counter()),
        )  # fmt: skip

    with _kept_for_backward(model) as kept:
        run(1)
    run(2)
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in enhancer.parameters())
    return StepCost(
        frozen=sum(_bytes(t) for part in model.modules() for t in (*part.parameters(), *part.buffers())),
        trained=parameters * 5,
        activations=sum(kept.values()),
        peak=torch.cuda.max_memory_allocated(model.device) if cuda else None,
        capacity=_capacity(model.device),
        seconds=(times[-1] - times[-2]) * config.accumulate,
    )


def advice(
    cost: StepCost | None, model: ImageModel, loss: str, batch_size: int, checkpointing: bool
) -> list[str]:
    """What to change where a step does not fit; None as cost: it ran out of memory."""
    if cost is not None and cost.fits:
        return []
    kept = [
        (not checkpointing, "--gradient-checkpointing: activations are computed again instead of kept"),
        (batch_size > 1, f"--batch-size 1 --accumulate {batch_size}: as good, one picture at a time"),
        (model.model.dtype == torch.float32, "--precision bfloat16: models and activations take half"),
        (loss == PIXEL, "--loss latent: no way back through the VAE's decoder"),
        (True, f"--size, smaller than {model.size}: activations grow with the number of pixels"),
    ]  # fmt: skip
    return [text for wanted, text in kept if wanted]


@contextmanager
def _kept_for_backward(model: ImageModel) -> Iterator[dict[int, int]]:
    """Bytes of what autograd keeps within the context, by storage; weights aside."""
    weights = {p.untyped_storage().data_ptr() for part in model.modules() for p in part.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _capacity(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None

"""The noise schedules of image models, and what a model at a noise level predicts."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

EPSILON, VELOCITY, SAMPLE, FLOW = "epsilon", "v_prediction", "sample", "flow"
_LEAST_SIGNAL = 1e-3
"""Where a model that predicts the noise still says something about the picture."""


class Level(NamedTuple):
    """A noise level for each picture of a batch."""

    signal: Tensor
    """[B]: share a of the clean latent …"""
    noise: Tensor
    """[B]: … and b of the noise."""
    timestep: Tensor
    """[B]: what the model is told."""


class Schedule:
    """x_t = a x_0 + b ε, with what the model's prediction u means:

    epsilon       u ≈ ε            x̂_0 = (x_t − b u) / a     diffusion: a² + b² = 1
    v_prediction  u ≈ a ε − b x_0  x̂_0 = a x_t − b u
    sample        u ≈ x_0          x̂_0 = u
    flow          u ≈ ε − x_0      x̂_0 = x_t − b u           a = 1 − σ, b = σ
    """

    def __init__(self, kind: str, signal: Tensor, noise: Tensor, timesteps: Tensor) -> None:
        """A schedule of all levels that a model is trained at.

        Args:
            kind: what the model predicts, one of the four above.
            signal, noise, timesteps: [T] each.
        """
        self.kind = kind
        usable = signal > _LEAST_SIGNAL if kind == EPSILON else torch.ones_like(signal, dtype=torch.bool)
        self.levels = Level(signal[usable], noise[usable], timesteps[usable])

    @classmethod
    def of(cls, scheduler: Any) -> "Schedule":
        """The schedule behind a scheduler of diffusers, whatever it samples with.

        Raises:
            ValueError: for a scheduler of another kind of model.
        """
        config = scheduler.config
        count = config.get("num_train_timesteps", 1000)
        kind = config.get("prediction_type", EPSILON)
        if type(scheduler).__name__.startswith("FlowMatch") or kind == "flow_prediction":
            sigma = torch.arange(1, count + 1, dtype=torch.float64) / count
            shift = config.get("shift") or config.get("flow_shift") or 1.0
            if not config.get("use_dynamic_shifting"):
                sigma = shift * sigma / (1 + (shift - 1) * sigma)
            return cls(FLOW, (1 - sigma).float(), sigma.float(), (sigma * count).float())
        if not hasattr(scheduler, "alphas_cumprod") or kind not in (EPSILON, VELOCITY, SAMPLE):
            raise ValueError(
                f"{type(scheduler).__name__} with prediction type {kind!r}: its noise schedule is not known; "
                "use a pipeline with a diffusion (DDIM, Euler, PNDM, DPM-Solver …) or FlowMatch scheduler"
            )
        share = scheduler.alphas_cumprod.double().cpu()
        return cls(kind, share.sqrt().float(), (1 - share).sqrt().float(), torch.arange(len(share)))

    def draw(self, count: int) -> Level:
        """Random levels, all as likely; on the CPU, so that every device gets the same ones."""
        places = torch.randint(len(self.levels.signal), (count,))
        return Level(*(values[places] for values in self.levels))

    def noisy(self, clean: Tensor, noise: Tensor, level: Level) -> Tensor:
        """x_t [B, C, H, W]."""
        return _of(level.signal, clean) * clean + _of(level.noise, clean) * noise

    def target(self, clean: Tensor, noise: Tensor, level: Level) -> Tensor:
        """What the model is trained to predict [B, C, H, W]."""
        if self.kind == EPSILON:
            return noise
        if self.kind == SAMPLE:
            return clean
        if self.kind == FLOW:
            return noise - clean
        return _of(level.signal, clean) * noise - _of(level.noise, clean) * clean

    def estimate(self, noisy: Tensor, predicted: Tensor, level: Level) -> Tensor:
        """The one-step clean estimate x̂_0 [B, C, H, W]."""
        a, b = _of(level.signal, noisy), _of(level.noise, noisy)
        if self.kind == EPSILON:
            return (noisy - b * predicted) / a
        if self.kind == SAMPLE:
            return predicted
        if self.kind == FLOW:
            return noisy - b * predicted
        return a * noisy - b * predicted


def _of(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.device, like.dtype)[:, None, None, None]

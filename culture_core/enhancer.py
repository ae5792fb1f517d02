"""The layer enhancer (paper, section 5.2): a small trained residual on one layer of the text encoder."""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from .checkpoints import (
    Progress,
    optimiser_tensors,
    read_checkpoint,
    restore_optimiser,
    run_steps,
    write_safetensors,
)
from .encoders import HIDDEN_STATE, TextEncoder, Tokens
from .processes import Processes

if TYPE_CHECKING:
    from accelerate import Accelerator


class LayerEnhancer(nn.Module):
    """h̃ = h + strength · g(W2 σ(W1 h)), with σ = GELU and g a LayerNorm (eq. 10).

    The gain of the LayerNorm starts at zero, so that an untrained enhancer returns what it gets, bit for bit.
    (Zeros in W2 instead would make the LayerNorm divide by almost nothing.)
    """

    EPS = 1e-5

    def __init__(self, width: int, bottleneck: int, seed: int | None = 0) -> None:
        """A new enhancer.

        Args:
            width: of the hidden state, d.
            bottleneck: rows of W1, r.
            seed: of W1 and W2; None: no numbers and no memory for them yet, for
                `load_state_dict(…, assign=True)`.
        """
        if width < 1 or bottleneck < 1:
            raise ValueError(f"width and bottleneck must be at least 1, got {width} and {bottleneck}")
        super().__init__()
        self.width, self.bottleneck = width, bottleneck
        # ComfyUI runs nodes in inference mode, and a parameter that is made there can never be trained.
        with torch.inference_mode(False):
            device = "meta" if seed is None else None
            if seed is None:
                inner = torch.empty(bottleneck, width, device=device)
                outer = torch.empty(width, bottleneck, device=device)
            else:
                generator = torch.Generator().manual_seed(seed)
                inner = torch.randn(bottleneck, width, generator=generator) / math.sqrt(width)
                outer = torch.randn(width, bottleneck, generator=generator) / math.sqrt(bottleneck)
            self.W1, self.b1 = nn.Parameter(inner), nn.Parameter(torch.zeros(bottleneck, device=device))
            self.W2, self.b2 = nn.Parameter(outer), nn.Parameter(torch.zeros(width, device=device))
            self.gain = nn.Parameter(torch.zeros(width, device=device))
            self.bias = nn.Parameter(torch.zeros(width, device=device))

    @torch.no_grad()
    def standardise(self, hidden: Tensor) -> None:
        """Begin with W1 and b1 that see hidden states [N, d] standardised, as σ(W1 (h − mean) / deviation).

        The hidden states of a trained encoder have large means that all prompts share; what tells prompts
        apart is small beside them, and an enhancer that begins without this learns it slowly.
        """
        rows = hidden.detach().reshape(-1, self.width).float()
        self.W1.div_(rows.std(0).clamp(min=self.EPS))
        self.b1.sub_(self.W1 @ rows.mean(0))

    def forward(self, hidden: Tensor, strength: float = 1.0, token_mask: Tensor | None = None) -> Tensor:
        """The enhanced hidden state.

        Args:
            hidden: [B, S, d] of any float type; computed in float32.
            strength: 0 returns the very argument.
            token_mask: [B, S] bool, the tokens that may change; None: all.

        Raises:
            ValueError: where a shape does not fit, or the strength is not finite.
        """
        if hidden.shape[-1] != self.width:
            raise ValueError(
                f"the hidden state is {hidden.shape[-1]} wide, this enhancer {self.width}: "
                "it was made for another text encoder"
            )
        if not math.isfinite(strength):
            raise ValueError(f"strength is {strength}: give a number")
        if token_mask is not None and token_mask.shape != hidden.shape[:-1]:
            raise ValueError(f"the token mask is {tuple(token_mask.shape)}, the state {tuple(hidden.shape)}")
        if strength == 0:
            return hidden
        # x - (+0.0) is x bit for bit, also for x = -0.0, which x + 0.0 is not. Adding 0.0 makes -0.0 to 0.0.
        changed = (hidden.float() - (self.residual(hidden) * -strength + 0.0)).to(hidden.dtype)
        return changed if token_mask is None else torch.where(_column(token_mask, hidden), changed, hidden)

    def residual(self, hidden: Tensor) -> Tensor:
        """g(W2 σ(W1 h)) [.., d] in float32."""
        inner = nn.functional.gelu(nn.functional.linear(hidden.float(), self.W1, self.b1))
        outer = nn.functional.linear(inner, self.W2, self.b2)
        return nn.functional.layer_norm(outer, (self.width,), self.gain, self.bias, self.EPS)


Batch = tuple[Any, Tensor | None, Any]
"""(hidden state [B, S, d] or whatever `apply` takes, token mask [B, S] or None, payload for the loss)."""
Apply = Callable[[Any, Any, Tensor | None], Any]
"""Gets (enhancer, first part of the batch, token mask) and gives the conditioning: [B, S, d], or whatever the
loss takes."""
Loss = Callable[[Any, Batch], Tensor]
"""Gets what `Apply` gave and the batch, and gives a scalar."""

_LEAST_SCALE = 2.0**-20
"""Of the loss; below it no precision is to blame for gradients that are not finite."""


@dataclass(frozen=True)
class EnhancerConfig:
    """How to train an enhancer (paper, section 6.1).

    Raises:
        ValueError: for a value that makes no sense; the message names it.
    """

    learning_rate: float = 5e-5
    """Of AdamW, constant."""
    steps: int = 2000
    accumulate: int = 1
    """Batches a step, in each process."""
    ema: float | None = None
    """Decay of the moving average that the enhancer ends as; None: it ends as the last step left it."""
    weight_decay: float = 0.0
    clip: float | None = 1.0
    """Largest norm of the gradient; None: any."""
    checkpoint_every: int = 500
    """Steps between checkpoints, where a path for them is given."""
    seed: int = 0
    """Of the random numbers that the loss draws."""
    loss_scale: float = 1.0
    """The loss is multiplied by it and the gradient divided again, so that float16 does not round small
    gradients to zero (2**14 is good there). Halved for the rest of the run where a gradient overflows; that
    step is computed anew."""

    def __post_init__(self) -> None:
        checks = {
            "learning_rate": 0 < self.learning_rate < math.inf,
            "steps": self.steps >= 1,
            "accumulate": self.accumulate >= 1,
            "ema": self.ema is None or 0 <= self.ema < 1,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "clip": self.clip is None or self.clip > 0,
            "checkpoint_every": self.checkpoint_every >= 1,
            "loss_scale": 1 <= self.loss_scale < math.inf,
        }
        wrong = [f"{name}={getattr(self, name)}" for name, good in checks.items() if not good]
        if wrong:
            raise ValueError(f"EnhancerConfig: {', '.join(wrong)} is out of range")


class EnhancerReport(NamedTuple):
    """How a training went."""

    losses: list[float]
    """Loss of every step."""
    parameters: int


def enhance_hidden(enhancer: Callable[..., Tensor], hidden: Tensor, token_mask: Tensor | None) -> Tensor:
    """`Apply` for an enhancer after the last layer: the enhanced hidden state is the conditioning."""
    return enhancer(hidden, token_mask=token_mask)


def through_encoder(encoder: TextEncoder, layer: int) -> Apply:
    """`Apply` for an enhancer after any layer of a Hugging Face encoder; batches begin with `Tokens`.

    Gradients flow back through the layers above, which stay as they are.
    """

    def apply(enhancer: LayerEnhancer, tokens: Tokens, token_mask: Tensor | None) -> Tensor:
        with encoder.patch(layer, HIDDEN_STATE, lambda hidden: enhancer(hidden, token_mask=token_mask)):
            return encoder.encode(tokens).hidden

    return apply


def train_enhancer(
    enhancer: LayerEnhancer,
    batches: Iterable[Batch],
    loss: Loss,
    config: EnhancerConfig | None = None,
    progress: Progress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    apply: Apply = enhance_hidden,
    data: str = "",
    accelerator: "Accelerator | None" = None,
) -> EnhancerReport:
    """Train an enhancer in place (eq. 11 to 13); nothing else gets a gradient.

    The random state of every step is seeded by the step, so that a run that was interrupted and taken up
    again from its checkpoint ends as the undisturbed one does, provided that the batches come in the same
    order.

    Args:
        batches: (hidden [B, S, d], token mask [B, S] or None, payload) each. Begun anew when they run out.
        loss: gets the enhanced conditioning and the batch, and gives a scalar.
        checkpoint: file to take the run up from if it is there, and to write to now and then and when the run
            is interrupted.
        apply: how the enhancer acts; see `through_encoder` for layers before the last.
        data: what the batches and the loss are made of, a hash for instance. A checkpoint knows its own and
            is refused for any other.
        accelerator: of a run in several processes (`accelerate launch`). Each takes its own of the batches,
            one after the other in turn; all end with the same enhancer, and the main one alone writes
            checkpoints and reports progress.

    Raises:
        ValueError: for no batches, a loss or gradient that is not finite, or a foreign checkpoint.
    """
    config = config or EnhancerConfig()
    path = None if checkpoint is None else Path(checkpoint)
    with torch.inference_mode(False), torch.enable_grad():
        trainer = _Trainer(enhancer, config, data, Processes(accelerator))
        if path is not None and path.exists():
            trainer.load(path)
        trainer.run(batches, loss, apply, progress, path)
        trainer.finish()
    return EnhancerReport(trainer.losses, sum(parameter.numel() for parameter in enhancer.parameters()))


class _Batches:
    """The batches one after the other, from the given one on, begun anew when they run out."""

    def __init__(self, batches: Iterable[Batch], skip: int) -> None:
        self._source = batches
        self._running = iter(batches)
        for _ in range(skip):
            self.next()

    def next(self) -> Batch:
        for batch in self._running:
            return batch
        self._running = iter(self._source)
        for batch in self._running:
            return batch
        raise ValueError("there are no batches (left): give a list, or a generator that does not end")


class _Trainer:
    """State of a run: the enhancer, its moving average, the optimiser, and the losses so far."""

    def __init__(
        self, enhancer: LayerEnhancer, config: EnhancerConfig, data: str, processes: Processes
    ) -> None:
        self.enhancer, self.config, self.data, self.processes = enhancer, config, data, processes
        self.parameters = dict(enhancer.named_parameters())
        with torch.no_grad():
            for parameter in self.parameters.values():
                parameter.copy_(processes.from_main(parameter))
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.losses: list[float] = []
        self.scale = config.loss_scale

    def run(
        self,
        batches: Iterable[Batch],
        loss: Loss,
        apply: Apply,
        progress: Progress | None,
        checkpoint: Path | None,
    ) -> None:
        source = _Batches(batches, len(self.losses) * self.config.accumulate * self.processes.count)
        # No process may replace the checkpoint before all have read it.
        self.processes.wait()
        run_steps(
            self.losses, self.config.steps, lambda: self._step(source, loss, apply), self.save,
            self.config.checkpoint_every, progress if self.processes.main else None,
            checkpoint if self.processes.main else None, self.optimiser,
        )  # fmt: skip

    def finish(self) -> None:
        if self.config.ema is not None:
            self.enhancer.load_state_dict(self.average)

    def save(self, path: Path) -> None:
        tensors: dict[str, Tensor] = {f"enhancer.{name}": value for name, value in self.parameters.items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= optimiser_tensors(self.optimiser, self.parameters)
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        tensors["loss_scale"] = torch.tensor(self.scale, dtype=torch.float64)
        write_safetensors(path, tensors, {"run": self._identity()})

    def load(self, path: Path) -> None:
        identity, tensors = read_checkpoint(path)
        if identity != self._identity():
            raise ValueError(
                f"{path}: the checkpoint belongs to another enhancer or configuration, or to other data; "
                "delete it, or give this run another file"
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"enhancer.{name}"])
                self.average[name].copy_(tensors[f"average.{name}"])
        restore_optimiser(self.optimiser, self.parameters, tensors)
        self.losses, self.scale = tensors["losses"].tolist(), float(tensors["loss_scale"])

    def _identity(self) -> str:
        shape = [self.enhancer.width, self.enhancer.bottleneck]
        identity = {"shape": shape, "config": asdict(self.config), "data": self.data}
        return json.dumps(identity | {"processes": self.processes.count}, sort_keys=True)

    def _step(self, batches: _Batches, loss: Loss, apply: Apply) -> float:
        count = self.processes.count
        drawn = [batches.next() for _ in range(self.config.accumulate * count)][self.processes.index :: count]
        value, gradients = self._mean(drawn, loss, apply)
        while not all(bool(gradient.isfinite().all()) for gradient in gradients):
            self.scale /= 2
            if self.scale < _LEAST_SCALE:
                raise ValueError(f"the gradient of step {len(self.losses) + 1} is not finite")
            value, gradients = self._mean(drawn, loss, apply)
        for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
            parameter.grad = gradient
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.config.ema is not None:
            for name, parameter in self.parameters.items():
                self.average[name].lerp_(parameter.detach(), 1 - self.config.ema)
        return value

    def _mean(self, batches: list[Batch], loss: Loss, apply: Apply) -> tuple[float, list[Tensor]]:
        """Mean loss and gradient over the batches of all processes."""
        total = torch.zeros((), dtype=torch.float64)
        gradients = [torch.zeros_like(parameter) for parameter in self.parameters.values()]
        share = len(batches) * self.processes.count
        devices = list(range(torch.cuda.device_count()))
        with torch.random.fork_rng(devices):
            seed = self.config.seed * 1_000_003 + len(self.losses)
            torch.manual_seed(seed + 1_000_000_007 * self.processes.index)
            for batch in batches:
                value = self._loss(batch, loss, apply) / share
                # torch.autograd.grad, not backward: no other model collects gradients.
                for sum_, part in zip(gradients, self._gradients(value * self.scale), strict=True):
                    sum_ += part / self.scale
                total += value.item()
        mean = self.processes.sum(total if self.processes.count == 1 else total.to(gradients[0].device))
        return mean.item(), [self.processes.sum(gradient) for gradient in gradients]

    def _loss(self, batch: Batch, loss: Loss, apply: Apply) -> Tensor:
        source, mask, payload = batch
        if isinstance(source, Tensor) and source.is_inference():
            source = source.clone()
        value = loss(apply(self.enhancer, source, mask), (source, mask, payload))
        if not value.requires_grad:
            raise ValueError(
                "the loss does not depend on the enhancer: the conditioning is taken from a lower layer"
            )
        if value.numel() != 1 or not bool(value.isfinite()):
            raise ValueError(f"the loss of step {len(self.losses) + 1} is no finite number: {value}")
        return value

    def _gradients(self, value: Tensor) -> Iterator[Tensor]:
        found = torch.autograd.grad(value, list(self.parameters.values()), allow_unused=True)
        for gradient, parameter in zip(found, self.parameters.values(), strict=True):
            yield torch.zeros_like(parameter) if gradient is None else gradient


def _column(token_mask: Tensor, hidden: Tensor) -> Tensor:
    return token_mask.to(hidden.device, torch.bool)[..., None]

"""What stands behind a tower's last layer: the projections, and the PEA adapter.

Heads are described by the shapes of their weights under this pack's names:

    norm, projection       AltDiffusion, per token: Linear(LayerNorm(h)), or Linear(h)
    pooled.0, pooled.2     of the pooled hidden state: Linear, or Linear(activation(Linear(·)))
    adapter.*              PEA-Diffusion
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import TextEncoderError

Shapes = dict[str, tuple[int, ...]]


class HeadConfig(NamedTuple):
    """A head without its numbers."""

    pool: str = "mean"
    """`mean` over the attended tokens, the `first` token, the `last` one, or `none`."""
    activation: str = "gelu"
    """Between the two layers on the pooled hidden state."""
    shapes: Shapes = {}  # noqa: RUF012


class Head(nn.Module):
    """Hidden states [B, S, d] → context [B, S, c] and pooled [B, p]."""

    def __init__(
        self, config: HeadConfig, eps: float, dtype: torch.dtype | None, device: object, operations: Any
    ) -> None:
        super().__init__()
        make = _Maker(config.shapes, dtype, device, operations)
        self.norm = make.norm("norm", eps)
        self.projection = make.linear("projection")
        between = {"gelu": nn.GELU, "tanh": nn.Tanh}[config.activation]
        layers = [make.linear("pooled.0"), between(), make.linear("pooled.2")]
        self.pooled = nn.Sequential(*(layers[:1] if layers[2] is None else layers)) if layers[0] else None
        self.adapter = Adapter(make) if "adapter.layernorm.weight" in config.shapes else None
        self.chosen: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
        """An adapter that a CLIP puts here while it is the loaded one; it goes before the tower's own."""
        self._pool_kind = config.pool

    def forward(
        self, hidden: Tensor, intermediate: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Returns (context of the last hidden state, that of the chosen layer or None, pooled).

        What is computed from a projection is pooled where the context is taken; what is the trunk's own, from
        its last layer, as in ComfyUI's CLIP.
        """
        context, pooled = self._read(hidden, mask)
        if intermediate is None:
            return context, None, pooled
        chosen, pooled_there = self._read(intermediate, mask)
        follows = self.adapter or self.chosen or self.projection
        return context, chosen, pooled if follows is None else pooled_there

    def _read(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        context = hidden if self.norm is None else self.norm(hidden)
        context = context if self.projection is None else self.projection(context)
        adapter = self.chosen or self.adapter
        if adapter is not None:
            return adapter(context)
        pooled = self._pool(context, mask)
        return context, pooled if self.pooled is None or pooled is None else self.pooled(pooled)

    def _pool(self, context: Tensor, mask: Tensor | None) -> Tensor | None:
        if self._pool_kind == "none":
            return None
        if self._pool_kind != "mean":
            return context[:, 0 if self._pool_kind == "first" else -1]
        if mask is None:
            return context.mean(dim=1)
        weights = mask.to(context.dtype).unsqueeze(-1)
        return (context * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


class Adapter(nn.Module):
    """PEA: y = Linears with GELU between them, of LayerNorm(h); context = Linear(GELU(y)), pooled = mean(y).

    Its versions for Stable Diffusion 1.x have no last Linear: their context is y. The mean is over all
    tokens, padding too, as the adapters were trained.
    """

    def __init__(self, make: "_Maker") -> None:
        super().__init__()
        self.layernorm = make.norm("adapter.layernorm", 1e-5)
        numbers = projector_layers(make.shapes, "adapter.")
        layers: list[nn.Module] = []
        for number in numbers:
            linear = make.linear(f"adapter.projector.{number}")
            assert linear is not None, "its weight gave the number"
            layers += [linear, nn.GELU()]
        self.projector = nn.Sequential(*layers[:-1])
        self.fc = make.linear("adapter.fc")

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S, d] → context [B, S, c], pooled [B, p]."""
        y = self.projector(hidden if self.layernorm is None else self.layernorm(hidden))
        context = y if self.fc is None else self.fc(nn.functional.gelu(y))
        return context, y.mean(dim=1)


class _Maker:
    """Makes ComfyUI's layers in the shapes of the weights that will go into them."""

    def __init__(self, shapes: Shapes, dtype: torch.dtype | None, device: object, operations: Any) -> None:
        self.shapes = shapes
        self._operations = operations
        self._where = {"dtype": dtype, "device": device}

    def linear(self, name: str) -> nn.Module | None:
        """A Linear, or None where it has no weight."""
        shape = self.shapes.get(f"{name}.weight")
        if shape is None:
            return None
        bias = f"{name}.bias" in self.shapes
        return self._operations.Linear(shape[1], shape[0], bias=bias, **self._where)

    def norm(self, name: str, eps: float) -> nn.Module | None:
        """A LayerNorm, or None where it has no weight."""
        shape = self.shapes.get(f"{name}.weight")
        return None if shape is None else self._operations.LayerNorm(shape[0], eps=eps, **self._where)


def build_adapter(
    weights: dict[str, Tensor], dtype: torch.dtype | None, device: object, operations: Any
) -> Adapter:
    """An adapter of its own out of `adapter_weights`, with one of ComfyUI's operations that bring weights to
    where they are needed."""
    # Nodes run in inference mode, and gradients never get through what is made there.
    with torch.inference_mode(False):
        adapter = Adapter(_Maker(shapes_of(weights), dtype, device, operations)).requires_grad_(False)
        adapter.load_state_dict({name.removeprefix("adapter."): part for name, part in weights.items()})
    return adapter


def shapes_of(weights: dict[str, Tensor], prefix: str = "") -> Shapes:
    """Shapes by name, without the prefix."""
    return {name.removeprefix(prefix): tuple(weight.shape) for name, weight in weights.items()}


def projector_layers(names: dict[str, Any], prefix: str) -> list[int]:
    """Numbers of a PEA adapter's Linears, first to last."""
    start, end = f"{prefix}projector.", ".weight"
    found = [name[len(start) : -len(end)] for name in names if name.startswith(start) and name.endswith(end)]
    return sorted(int(number) for number in found if number.isdigit())


def adapter_weights(weights: dict[str, Tensor], source: object = None) -> dict[str, Tensor]:
    """The weights of a PEA adapter under this pack's names, told by their keys whatever stands in front.

    Args:
        source: the adapter's own file; None for a tower, in which there may be none.

    Raises:
        TextEncoderError: for a file that is no adapter, or whose layers do not follow each other.
    """
    first = next((name for name in sorted(weights) if name.endswith("projector.0.weight")), None)
    prefix = first.removesuffix("projector.0.weight") if first else ""
    if first is None or f"{prefix}layernorm.weight" not in weights:
        if source is None:
            return {}
        some = ", ".join(sorted(weights)[:3])
        raise TextEncoderError(
            f"{source} is no PEA adapter: expected the keys 'layernorm.weight' and 'projector.0.weight', "
            f"found {some}."
        )
    kept = ("layernorm.", "projector.", "fc.")
    adapter = {
        f"adapter.{name.removeprefix(prefix)}": weight
        for name, weight in weights.items()
        if name.startswith(tuple(prefix + part for part in kept))
    }
    _check_chain(adapter, source or "The tower's adapter")
    return adapter


def _check_chain(adapter: dict[str, Tensor], source: object) -> None:
    """Every layer takes what the one before gives."""
    names = [f"adapter.projector.{number}" for number in projector_layers(adapter, "adapter.")]
    names += ["adapter.fc"] if "adapter.fc.weight" in adapter else []
    norm = adapter["adapter.layernorm.weight"]
    if norm.ndim != 1:
        raise TextEncoderError(
            f"{source}: layernorm has the shape {tuple(norm.shape)}, expected a number for each of the "
            "tower's. Fetch it again."
        )
    width = len(norm)
    for name in names:
        shape = tuple(adapter[f"{name}.weight"].shape)
        if len(shape) != 2 or shape[1] != width:
            raise TextEncoderError(
                f"{source}: {name.removeprefix('adapter.')} has the shape {shape}, expected (…, {width}), "
                "what the layer before gives. Fetch it again."
            )
        width = shape[0]

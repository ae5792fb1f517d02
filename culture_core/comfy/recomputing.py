"""Gradient checkpointing in ComfyUI's models: what their blocks compute is computed again, not kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputed(*models: nn.Module) -> Iterator[None]:
    """Within the context the blocks of models keep their inputs alone for the backward pass, and compute the
    rest anew there: less memory, about a third more time, the same gradients."""
    changed: list[tuple[nn.Module, Any]] = []
    try:
        for model in models:
            # A hook inside a block may do another thing when it is called again after the forward pass.
            for block in (block for block in blocks_of(model) if not _hooked_inside(block)):
                changed.append((block, block.__dict__.get("forward")))
                block.forward = partial(_recompute, block.forward)
        yield
    finally:
        for block, before in changed:
            if before is None:
                del block.forward
            else:
                block.forward = before


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules of a model that stand in a list and are made of modules themselves."""
    return _blocks(model, _holds_only(model))


def _blocks(module: nn.Module, listed: bool) -> Iterator[nn.Module]:
    for part in module.children():
        holds = _holds_only(part)
        if listed and not holds and any(True for _ in part.children()):
            yield part
        else:
            yield from _blocks(part, holds)


def _holds_only(module: nn.Module) -> bool:
    """Whether others call what is in it one by one."""
    return isinstance(module, nn.Sequential) or type(module).forward is nn.Module.forward


def _hooked_inside(block: nn.Module) -> bool:
    return any(part._forward_hooks for part in block.modules() if part is not block)


def _recompute(forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    # ComfyUI writes the place of a block into its options, and will have gone on by the backward pass.
    inputs = tuple(dict(value) if isinstance(value, dict) else value for value in inputs)
    options = {name: dict(value) if isinstance(value, dict) else value for name, value in options.items()}

    def run(*inputs: Any, **options: Any) -> Any:
        return forward(*map(_own, inputs), **{name: _own(value) for name, value in options.items()})

    return checkpoint(run, *inputs, use_reentrant=False, **options)


def _own(value: Any) -> Any:
    """A copy of an input: many blocks add to theirs in place."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    return dict(value) if isinstance(value, dict) else value

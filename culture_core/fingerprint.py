"""Recognising an encoder by a few of its weights, whatever precision its file is in.

A hash cannot do it: the nearest fp16 and bf16 values of one fp32 weight differ, and rounding them once more
before hashing only moves the borders at which equal weights get unequal hashes. So the fingerprint holds the
values themselves, and two are compared with the tolerance that their precisions imply. The precision is read
off the values: weights that all are exact bf16 numbers came through bf16, whatever dtype carries them now.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

VALUES_PER_TENSOR = 16
_STEP = 2654435761
"""Knuth's multiplier: spreads the samples over rows and columns alike."""
_PRECISIONS = tuple(
    (dtype, 2.0**-bits, smallest)
    for dtype, bits, smallest in (
        (torch.float8_e4m3fn, 4, 2.0**-9),
        (torch.bfloat16, 8, 2.0**-24),
        (torch.float16, 11, 2.0**-24),
    )
)
"""dtype, relative rounding error, spacing of the subnormal numbers; coarsest first. bf16 has none worth
mentioning, but its values may have come through fp16."""
_EXACT = (2.0**-24, 0.0)


def fingerprint_values(tensors: Sequence[Tensor]) -> list[float]:
    """A few fixed values of every tensor, as float32 that survives JSON."""
    values: list[float] = []
    for tensor in tensors:
        flat = tensor.detach().reshape(-1)
        places = [index * _STEP % flat.numel() for index in range(VALUES_PER_TENSOR)]
        values.extend(flat[places].to("cpu", torch.float32).tolist())
    return values


def same_weights(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two fingerprints may come from the same weights in any of fp32, fp16, bf16 and fp8.

    Casting x rounds it by at most u·|x| + s/2 (u: relative error, s: spacing of the subnormal numbers), so
    two casts of the same weight lie within the sum of both bounds; a quarter is added for a second rounding
    on the way (fp32 → fp16 → bf16).
    """
    if len(a) != len(b) or not a:
        return False
    x, y = (torch.tensor(values, dtype=torch.float64) for values in (a, b))
    errors = [_rounding(values) for values in (x, y)]
    relative, spacing = (sum(parts) for parts in zip(*errors, strict=True))
    bound = 1.25 * (relative * torch.maximum(x.abs(), y.abs()) + spacing / 2)
    return bool(((x - y).abs() <= bound).all())


def _rounding(values: Tensor) -> tuple[float, float]:
    """(relative error, subnormal spacing) of the coarsest precision that holds all values exactly."""
    for dtype, relative, smallest in _PRECISIONS:
        if torch.equal(values.to(torch.float32).to(dtype).to(torch.float64), values):
            return relative, smallest
    return _EXACT

"""Weights in float8 with a scale for each matrix, as text encoders are published for ComfyUI.

| key | means |
| --- | --- |
| `X.scale_weight`, `X.weight_scale` | one number: the matrix is `X.weight` times it |
| `scaled_fp8`, `X.comfy_quant` | that there are such matrices |
| `X.scale_input`, `X.input_scale` | for arithmetic in float8, which text encoders do without |
"""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import comfy.float
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from torch import Tensor, nn

from ..errors import TextEncoderError

# Newer versions of ComfyUI have moved it.
_string_to_seed = getattr(comfy.utils, "string_to_seed", None) or comfy.model_patcher.string_to_seed

SCALE = "scale_weight"
_SCALES = (SCALE, "weight_scale")
_UNUSED = ("scaled_fp8", "comfy_quant", "scale_input", "input_scale")
_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def with_scales(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights with scales [] in float32 under `X.scale_weight`, and without what is of no use here.

    Raises:
        TextEncoderError: for weights that are quantised in any other way.
    """
    found = {}
    for name, weight in weights.items():
        layer, _, kind = name.rpartition(".")
        if kind in _SCALES:
            _check_scale(weights.get(f"{layer}.weight"), weight, layer, path)
            found[f"{layer}.{SCALE}"] = weight.float().reshape(())
        elif kind == "weight" and not weight.is_floating_point():
            raise _unknown(path, f"{name} in {weight.dtype}")
        elif kind not in _UNUSED:
            found[name] = weight
    return found


def is_scaled(name: str, weights: dict[str, Tensor]) -> bool:
    """Whether it is a scale, or a matrix that has one."""
    return name.endswith(f".{SCALE}") or f"{name.removesuffix('weight')}{SCALE}" in weights


def _check_scale(matrix: Tensor | None, scale: Tensor, layer: str, path: Path) -> None:
    if matrix is None or matrix.dtype not in _FLOAT8 or scale.numel() != 1:
        kind = "nothing" if matrix is None else matrix.dtype
        raise _unknown(path, f"scales of {tuple(scale.shape)} for {layer}.weight in {kind}")


def _unknown(path: Path, found: str) -> TextEncoderError:
    return TextEncoderError(
        f"{path} is quantised in a way that this loader does not know: expected float8 with one scale for a "
        f"matrix (scaled_fp8), or weights without scales, found {found}. Fetch another version of it."
    )


class ScaledOperations(comfy.ops.manual_cast):
    """ComfyUI's operations, with a Linear that keeps to its scale where the file has one for it."""

    class Linear(comfy.ops.manual_cast.Linear):
        """y = x (s W)ᵀ + b, with W in float8 where there is an s."""

        weight_function: list[Any]

        def __init__(self, *sizes: Any, **options: Any) -> None:
            super().__init__(*sizes, **options)
            self.register_parameter(SCALE, None)

        def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
            if f"{prefix}{SCALE}" in state:
                device = self.get_parameter("weight").device
                kept = torch.empty_like(state[f"{prefix}weight"], device=device)
                self.weight = nn.Parameter(kept, requires_grad=False)
                self.scale_weight = nn.Parameter(torch.ones((), device=device), requires_grad=False)
            super()._load_from_state_dict(state, prefix, *rest)

        def forward_comfy_cast_weights(self, x: Tensor) -> Tensor:
            patches = self.weight_function
            if self.scale_weight is not None and patches:
                self.weight_function = [partial(self._patched, patches)]
            try:
                return super().forward_comfy_cast_weights(x * self._scale(x))
            finally:
                self.weight_function = patches

        def _patched(self, patches: list[Any], weight: Tensor) -> Tensor:
            """W with ComfyUI's patches where memory is short, rounded as where they are put in place.

            Versions differ in whether they convert W for a patch, so that is done here for all."""
            matrix = self.convert_weight(weight)
            for patch in map(copy.copy, patches):
                patch.convert_func = patch.set_func = None
                matrix = patch(matrix)
            seed = _string_to_seed(getattr(patches[-1], "key", ""))
            kept: Tensor = self.set_weight(matrix, seed=seed, return_weight=True)
            return kept.to(weight.dtype)

        def convert_weight(self, weight: Tensor, inplace: bool = False, **_: Any) -> Tensor:
            """For ComfyUI's patches: the matrix that W stands for."""
            return weight.mul_(self._scale(weight)) if inplace else weight.float() * self._scale(weight)

        def set_weight(
            self,
            weight: Tensor,
            inplace_update: bool = False,
            seed: int | None = None,
            return_weight: bool = False,
            **_: Any,
        ) -> Any:
            """For ComfyUI's patches: put the W of a matrix in place, or return it."""
            kept = comfy.float.stochastic_rounding(weight / self._scale(weight), self.weight.dtype, seed=seed)
            if return_weight:
                return kept
            if inplace_update:
                self.weight.data.copy_(kept)
            else:
                self.weight = nn.Parameter(kept, requires_grad=False)
            return None

        def _scale(self, beside: Tensor) -> Tensor | float:
            return 1.0 if self.scale_weight is None else self.scale_weight.to(beside.device, torch.float32)

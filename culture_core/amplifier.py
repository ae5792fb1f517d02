"""The zero-training amplifier (paper, section 5.1): turn a culture's neurons up in an encoder's feature."""

import copy
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .neurons import CultureNeurons
from .sae import Product, TopKSAE, packed_encoder

MODES = ("inject", "scale")
MIN_STRENGTH, MAX_STRENGTH = -1.0, 12.0


class Touched(NamedTuple):
    """What a run of an amplifier changed."""

    neurons: int
    """Neurons whose activation changed on at least one token."""
    neurons_offered: int
    tokens: int
    """Tokens on which at least one neuron changed."""
    tokens_offered: int


class Amplifier:
    """F' = F + scale · Σ_m (z'_m − z_m) W_dec[m] over a culture's neurons m (eq. 7 to 9 in delta form).

    The feature is never replaced by its reconstruction, so that what the SAE fails to explain stays, and
    strength 0 changes nothing.

    mode "scale", the paper's: z'_m = (1 + λ) z_m (eq. 8). A silent latent stays silent whatever λ is.
    mode "inject": the same where the latent is active, and z'_m = λ f_m μ_m where it is silent, so that a
    neutral prompt is moved as well. Negative strengths wake nothing in either mode; −1 masks the neurons.

    Several cultures share one code: F' = F + Σ_c w_c (F'_c − F) with their weights w_c, where F'_c is what
    culture c alone would give. A neuron of several cultures is never turned down below zero. Amplifiers one
    after the other give about the same; there, the later one reads the code of what the earlier one changed.
    """

    def __init__(
        self,
        sae: TopKSAE,
        neurons: CultureNeurons | Mapping[str, CultureNeurons],
        strength: float,
        mode: str = "inject",
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """An amplifier of the neurons.

        Args:
            neurons: those of one culture, or of several by their codes.
            strength: λ, from −1 (mask) over 0 (off) to 12.
            mode: "inject" or "scale".
            weights: of the cultures, each at least 0; a missing one is 1. Strength times weight is at most
                12.

        Raises:
            ValueError: for a strength, a weight or a mode out of range, or neurons that the SAE does not
                have.
        """
        if not MIN_STRENGTH <= strength <= MAX_STRENGTH:
            raise ValueError(f"strength is {strength}: use {MIN_STRENGTH:g} (mask) to {MAX_STRENGTH:g}")
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}: use {' or '.join(MODES)}")
        cultures = neurons if isinstance(neurons, Mapping) else {"": neurons}
        _check(sae, cultures, strength, weights or {})
        self.sae, self.neurons, self.strength, self.mode = sae, neurons, float(strength), mode
        mixed = [(culture, float((weights or {}).get(code, 1.0))) for code, culture in cultures.items()]
        self._edit = _Edit.of(mixed, float(strength), wakes=mode == "inject" and strength > 0)
        self._latest: tuple[Tensor, Tensor | int] = (torch.zeros(0, len(self._edit.indices)), 0)
        self._here: dict[torch.device, tuple[TopKSAE, Product, _Edit]] = {}

    @property
    def touched(self) -> Touched:
        """Of the latest call; reading it waits for the device."""
        change, offered = self._latest
        changed = change != 0
        return Touched(
            int(changed.any(dim=0).sum()), change.shape[1], int(changed.any(dim=1).sum()), int(offered)
        )

    def __call__(self, feature: Tensor, token_mask: Tensor) -> Tensor:
        """The amplified feature.

        A device that is not the CPU is not waited for, if the mask is on the CPU or there as well.

        Args:
            feature: [B, S, d] of any float type; computed in float32.
            token_mask: [B, S] bool, the tokens that may change.

        Returns:
            [B, S, d]; the very argument at strength 0, and on the CPU where nothing changes.

        Raises:
            ValueError: where the width is not the SAE's, or the mask has another shape.
        """
        self._check(feature, token_mask)
        if self.strength == 0:
            self._latest = torch.zeros(0, len(self._edit.indices)), token_mask.sum()
            return feature
        with torch.no_grad():
            rows, allowed = _rows(token_mask, feature.device)
            sae, product, edit = self._on(feature.device)
            flat = feature.reshape(-1, feature.shape[-1])
            chosen = flat if rows is None else flat[rows]
            change = edit.change(sae.encode_at(chosen, edit.indices, product))
            if allowed is not None:
                change = change * allowed[:, None]
            self._latest = change, len(chosen) if allowed is None else allowed.sum()
            if change.device.type == "cpu" and not bool(change.any()):
                return feature
            moved = torch.addmm(chosen.float(), change, edit.directions).to(feature.dtype)
            # Rows that no neuron changes are left as they are, bit for bit.
            moved = torch.where((change != 0).any(dim=1, keepdim=True), moved, chosen)
            if rows is not None:
                moved = flat.index_copy(0, rows, moved)
            return moved.reshape(feature.shape)

    def _on(self, device: torch.device) -> "tuple[TopKSAE, Product, _Edit]":
        """The SAE, its encoder's product and the edit on a device; copies are made once."""
        if device not in self._here:
            sae = self.sae if self.sae.W_enc.device == device else copy.deepcopy(self.sae).to(device)
            edit = self._edit.to(device)
            directions = (sae.scale * sae.W_dec[edit.indices]).detach()
            self._here = {device: (sae, packed_encoder(sae), edit._replace(directions=directions))}
        return self._here[device]

    def _check(self, feature: Tensor, token_mask: Tensor) -> None:
        if feature.dim() != 3 or feature.shape[-1] != self.sae.d_in:
            raise ValueError(
                f"the feature is {tuple(feature.shape)}, the SAE's width {self.sae.d_in}: "
                "this SAE was made for another text encoder"
            )
        if token_mask.shape != feature.shape[:2]:
            raise ValueError(
                f"the token mask is {tuple(token_mask.shape)}, the feature {tuple(feature.shape)}"
            )


class _Edit(NamedTuple):
    """What is done to the code, one entry a neuron."""

    indices: Tensor
    """[K] latents, each once."""
    factor: Tensor
    """[K]: z' − z = factor · z where the neuron is active …"""
    wake: Tensor
    """[K]: … and z' = wake where it is silent."""
    directions: Tensor
    """[K, d]: what one unit of each adds to the feature."""

    @staticmethod
    def of(cultures: list[tuple[CultureNeurons, float]], strength: float, wakes: bool) -> "_Edit":
        """The edit of cultures with weights, for as yet no SAE."""
        every = torch.cat([neurons.indices.cpu() for neurons, _ in cultures])
        weights = torch.cat([torch.full((len(neurons.indices),), weight) for neurons, weight in cultures])
        usual = torch.cat([(neurons.frequency * neurons.mean_activation).cpu() for neurons, _ in cultures])
        indices, place = every.unique(return_inverse=True)
        factor, wake = torch.zeros(2, len(indices)).unbind()
        factor = factor.index_add(0, place, strength * weights).clamp(min=-1.0)
        if wakes:
            wake = wake.index_add(0, place, strength * weights * usual.float())
        return _Edit(indices, factor, wake, torch.empty(0))

    def to(self, device: torch.device) -> "_Edit":
        return _Edit(*(part.to(device) for part in self))

    def change(self, z: Tensor) -> Tensor:
        """z' − z [n, K] of the neurons' activations z [n, K]."""
        return torch.where(z > 0, self.factor * z, self.wake)


def _rows(mask: Tensor, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """The rows of the flattened feature that may change: their indices, or, where finding those would mean to
    wait for the device, a mask over all rows."""
    if mask.device.type == "cpu":
        return mask.bool().flatten().nonzero().flatten().to(device, non_blocking=True), None
    return None, mask.to(device, torch.bool).flatten()


def _check(
    sae: TopKSAE, cultures: Mapping[str, CultureNeurons], strength: float, weights: Mapping[str, float]
) -> None:
    unknown = set(weights) - set(cultures)
    if unknown:
        raise ValueError(f"weights for cultures without neurons: {', '.join(sorted(unknown))}")
    for code, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0 and strength * weight <= MAX_STRENGTH):
            raise ValueError(
                f"the weight of '{code}' is {weight}: use 0 or more, and at most {MAX_STRENGTH:g} "
                "together with the strength"
            )
    for neurons in cultures.values():
        indices = neurons.indices
        if len(indices) == 0 or int(indices.min()) < 0 or int(indices.max()) >= sae.n_latents:
            raise ValueError(
                f"the neurons must be latents of the SAE, 0 to {sae.n_latents - 1}, and at least one"
            )
    if not cultures:
        raise ValueError("there are no cultures to amplify: give the neurons of at least one")

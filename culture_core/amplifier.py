"""The zero-training amplifier (paper, section 5.1): turn a culture's neurons up in an encoder's feature."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from .neurons import CultureNeurons
from .sae import TopKSAE

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
    """

    touched: Touched
    """Of the latest call."""

    def __init__(self, sae: TopKSAE, neurons: CultureNeurons, strength: float, mode: str = "inject") -> None:
        """An amplifier of the neurons.

        Args:
            strength: λ, from −1 (mask) over 0 (off) to 12.
            mode: "inject" or "scale".

        Raises:
            ValueError: for a strength or mode out of range, or neurons that the SAE does not have.
        """
        if not MIN_STRENGTH <= strength <= MAX_STRENGTH:
            raise ValueError(f"strength is {strength}: use {MIN_STRENGTH:g} (mask) to {MAX_STRENGTH:g}")
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}: use {' or '.join(MODES)}")
        indices = neurons.indices
        if len(indices) == 0 or int(indices.min()) < 0 or int(indices.max()) >= sae.n_latents:
            raise ValueError(
                f"the neurons must be latents of the SAE, 0 to {sae.n_latents - 1}, and at least one"
            )
        self.sae, self.neurons, self.strength, self.mode = sae, neurons, float(strength), mode
        self.touched = Touched(0, len(indices), 0, 0)
        self._copy: TopKSAE | None = None

    def __call__(self, feature: Tensor, token_mask: Tensor) -> Tensor:
        """The amplified feature.

        Args:
            feature: [B, S, d] of any float type; computed in float32.
            token_mask: [B, S] bool, the tokens that may change.

        Returns:
            [B, S, d]; the very argument at strength 0 and where nothing changes.

        Raises:
            ValueError: where the width is not the SAE's, or the mask has another shape.
        """
        self._check(feature, token_mask)
        if self.strength == 0:
            self.touched = Touched(0, len(self.neurons.indices), 0, int(token_mask.sum()))
            return feature
        mask = token_mask.to(feature.device, torch.bool)
        with torch.no_grad():
            sae = self._sae_on(feature.device)
            indices = self.neurons.indices.to(feature.device)
            change = self._change(sae.encode(feature[mask])[:, indices])
            moved = (change != 0).any(dim=1)
            self._count(change, moved)
            if not bool(moved.any()):
                return feature
            delta = sae.scale * (change[moved] @ sae.W_dec[indices])
        # Rows that no neuron changes are left as they are, bit for bit.
        places = mask.clone()
        places[mask] = moved
        result = feature.clone()
        result[places] = (feature[places].float() + delta).to(feature.dtype)
        return result

    def _change(self, z: Tensor) -> Tensor:
        """z' − z [n, K] of the neurons' activations z [n, K]."""
        change = self.strength * z
        if self.mode == "scale" or self.strength < 0:
            return change
        usual = (self.neurons.frequency * self.neurons.mean_activation).to(z.device, z.dtype)
        return torch.where(z > 0, change, self.strength * usual)

    def _sae_on(self, device: torch.device) -> TopKSAE:
        if self.sae.W_enc.device == device:
            return self.sae
        if self._copy is None or self._copy.W_enc.device != device:
            self._copy = copy.deepcopy(self.sae).to(device)
        return self._copy

    def _count(self, change: Tensor, moved: Tensor) -> None:
        neurons = int((change != 0).any(dim=0).sum())
        self.touched = Touched(neurons, change.shape[1], int(moved.sum()), len(moved))

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

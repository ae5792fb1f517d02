"""The losses of enhancer training (paper, section 5.2, eq. 11 to 13; DESIGN.md 5)."""

import torch
from torch import Tensor

from ..enhancer import Batch
from .image_model import Condition, ImageModel
from .image_pairs import ImagePairs

PIXEL, LATENT, DENOISE = LOSSES = ("pixel", "latent", "denoise")


class ImageLoss:
    """How far the image model, conditioned on the enhanced prompt, is from the culture's picture x*.

    With the picture's latent x_0, noise ε, a random noise level t, x_t = a x_0 + b ε, the model's prediction
    u(x_t, t, c̃) and the one-step clean estimate x̂_0 that follows from it (see `Schedule`):

    pixel    mean (D(x̂_0) − x*)², D the VAE's decoder, pixels from −1 to 1: the paper's, without sampling
    latent   mean (x̂_0 − x_0)²
    denoise  mean (u − target)², the model's own objective
    """

    def __init__(self, model: ImageModel, pairs: ImagePairs, kind: str) -> None:
        if kind not in LOSSES:
            raise ValueError(f"unknown loss {kind!r}: use one of {', '.join(LOSSES)}")
        self.model, self.pairs, self.kind = model, pairs, kind

    def __call__(self, condition: Condition, batch: Batch) -> Tensor:
        """Scalar loss of a batch whose payload are indices of pairs."""
        rows, device = batch[2], self.model.device
        clean = self.pairs.latents(rows).to(device)
        # Drawn on the CPU, so that every device gets the same noise.
        noise = torch.randn(clean.shape).to(device)
        schedule = self.model.schedule
        level = schedule.draw(len(rows))
        noisy = schedule.noisy(clean, noise, level)
        predicted = self.model.predict(noisy, level, condition)
        if self.kind == DENOISE:
            return (predicted - schedule.target(clean, noise, level)).square().mean()
        estimate = schedule.estimate(noisy, predicted, level)
        if self.kind == LATENT:
            return (estimate - clean).square().mean()
        return (self.model.decode(estimate) - self.pairs.pixels(rows).to(device)).square().mean()

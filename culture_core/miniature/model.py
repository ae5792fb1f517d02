"""The miniature's image model: a rectified-flow MMDiT in diffusers' SD3 layout, and its sampler.

The stock UNETLoader of ComfyUI takes the file from `models/diffusion_models`. `sample` follows ComfyUI's
`euler` sampler with the `simple` scheduler, so that a study outside ComfyUI sees the same pictures.
"""

from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..encoders import Conditioning
from .vae import LATENT_CHANNELS, LATENT_SIZE

CONTEXT_WIDTH = 384
STEPS, GUIDANCE, SHIFT = 20, 3.0, 1.0
"""Sampling defaults; the shipped workflows use the same."""


def new_model(context_width: int = CONTEXT_WIDTH) -> SD3Transformer2DModel:
    """An untrained image model that reads a context of that width."""
    return SD3Transformer2DModel(
        sample_size=LATENT_SIZE,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=4,
        num_attention_heads=4,
        attention_head_dim=64,
        joint_attention_dim=context_width,
        caption_projection_dim=256,
        pooled_projection_dim=context_width,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )


def save_model(model: SD3Transformer2DModel, path: Path, metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.to(torch.float16).contiguous() for key, value in model.state_dict().items()},
        path,
        metadata,
    )


def load_model(path: Path) -> SD3Transformer2DModel:
    model = new_model()
    model.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return model.eval().requires_grad_(False)


def velocity(
    model: SD3Transformer2DModel, noisy: Tensor, sigma: Tensor, conditioning: Conditioning
) -> Tensor:
    """Predicted `noise - clean` [B, 16, 8, 8] at noise level `sigma` [B], 0 to 1."""
    return model(
        hidden_states=noisy,
        encoder_hidden_states=conditioning.hidden,
        pooled_projections=conditioning.pooled,
        timestep=sigma * 1000,
    ).sample


def flow_loss(
    model: SD3Transformer2DModel, clean: Tensor, conditioning: Conditioning, noise: Tensor, sigma: Tensor
) -> Tensor:
    """Rectified flow's objective: MSE of the velocity at `sigma` [B]; scalar."""
    level = sigma[:, None, None, None]
    predicted = velocity(model, (1 - level) * clean + level * noise, sigma, conditioning)
    return (predicted.float() - (noise - clean)).square().mean()


def random_sigma(count: int) -> Tensor:
    """Noise levels [count] to train at: logit-normal, as for SD3, a little towards the noise."""
    return torch.sigmoid(torch.randn(count) * 1.2 + 0.2)


def sigmas(steps: int = STEPS, shift: float = SHIFT) -> Tensor:
    """Noise levels [steps + 1], 1 down to 0, of ComfyUI's `simple` scheduler at ModelSamplingSD3's shift."""
    # ComfyUI takes the levels from a table of 1000: where `steps` does not divide that, it cuts off.
    t = torch.tensor([1 - int(step * 1000 / steps) / 1000 for step in range(steps)] + [0.0])
    return shift * t / (1 + (shift - 1) * t)


def seeded_noise(seeds: list[int]) -> Tensor:
    """The noise that ComfyUI's KSampler draws for each seed: [N, 16, 8, 8]."""
    shape = (1, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def sample(
    model: SD3Transformer2DModel,
    positive: Conditioning,
    negative: Conditioning,
    seeds: list[int],
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    shift: float = SHIFT,
) -> Tensor:
    """Latents [N, 16, 8, 8] of N prompts, one seed each.

    Args:
        positive: hidden [N, S, 384], pooled [N, 384].
        negative: hidden [1, S, 384], pooled [1, 384].
    """
    count = len(seeds)
    both = Conditioning(
        torch.cat([positive.hidden, negative.hidden.expand(count, -1, -1)]),
        torch.cat([positive.vector, negative.vector.expand(count, -1)]),
    )
    latents = seeded_noise(seeds)
    levels = sigmas(steps, shift)
    for now, after in zip(levels[:-1], levels[1:], strict=True):
        conditional, unconditional = velocity(
            model, latents.repeat(2, 1, 1, 1), now.expand(2 * count), both
        ).chunk(2)
        latents = latents + (after - now) * (unconditional + guidance * (conditional - unconditional))
    return latents

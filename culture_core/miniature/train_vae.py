"""Train the miniature's autoencoder on fresh renders: `python -m culture_core.miniature.train_vae`.

The encoder learns to give the principal components of its patches, the decoder to draw pictures from them
with some noise added. Neither waits for the other, which takes a fifth of the steps of training them jointly.
"""

import logging
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from .logs import TrainingLog, weights_folder
from .scenes import SIZE, draw_scenes, random_specs
from .vae import PATCH, PatchComponents, new_vae, save_vae, to_model_range

SEED = 1
PICTURES, STEPS, BATCH, CROP = 4000, 1600, 64, 32
LEARNING_RATE = 2e-3
LATENT_NOISE = 0.1
"""Standard deviation, in units of the latents': teaches the decoder to bear what a sampler leaves."""


def _crops(images: Tensor) -> Tensor:
    """A random batch of crops [BATCH, 3, CROP, CROP] whose patches are those of the whole pictures."""
    x, y = (PATCH * torch.randint((SIZE - CROP) // PATCH + 1, (2,))).tolist()
    crops = images[torch.randint(len(images), (BATCH,)), :, y : y + CROP, x : x + CROP]
    return crops.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _figures(vae: AutoencoderTiny, components: PatchComponents, images: Tensor) -> dict[str, float]:
    def psnr(latents: Tensor) -> float:
        decoded = torch.cat([vae.decode(batch).sample for batch in latents.split(32)])
        return round(-10 * ((decoded - images) / 2).square().mean().log10().item(), 2)

    exact = components.encode(images)
    encoded = torch.cat([vae.encode(batch).latents for batch in images.split(32)])
    error = round((encoded - exact).square().mean().item(), 4)
    return {"psnr_of_components": psnr(exact), "psnr_round_trip": psnr(encoded), "encoder_error": error}


def train(path: Path, steps: int = STEPS, pictures: int = PICTURES) -> None:
    torch.manual_seed(SEED)
    images = to_model_range(torch.from_numpy(draw_scenes(random_specs(pictures, SEED), SEED)))
    held_out = to_model_range(torch.from_numpy(draw_scenes(random_specs(256, SEED + 1), SEED + 1)))
    components = PatchComponents()
    vae = new_vae().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(vae.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.05
    )
    log = TrainingLog(
        "vae", seed=SEED, steps=steps, batch=BATCH, pictures=pictures, learning_rate=LEARNING_RATE
    )
    for step in range(steps):
        crops = _crops(images)
        latents = components.encode(crops)
        with torch.autocast("cpu", torch.bfloat16):
            encoded = vae.encode(crops).latents.float()
            decoded = vae.decode(latents + LATENT_NOISE * torch.randn_like(latents)).sample.float()
        loss = nn.functional.mse_loss(decoded, crops) + 0.1 * nn.functional.mse_loss(encoded, latents)
        optimizer.zero_grad()
        loss.backward()
        for part in (vae.encoder, vae.decoder):
            nn.utils.clip_grad_norm_(part.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        log.step(step, loss.item())
    log.close(**_figures(vae, components, held_out))
    save_vae(vae, path, {"seed": str(SEED), "steps": str(steps)})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(weights_folder("vae") / "culture_miniature_vae.safetensors")

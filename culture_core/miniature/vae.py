"""The miniature's autoencoder: 64 x 64 pictures to 16 x 8 x 8 latents, in the layout of TAESD3.

`diffusers.AutoencoderTiny` is the module; the file has the key names of ComfyUI's `comfy/taesd/taesd.py`,
so that the stock VAELoader takes it from `models/vae`. The latents are, by training, the principal components
of 8 x 8 patches (`PatchComponents`): a linear space in which a small image model learns fast.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .scenes import draw_scenes, random_specs

LATENT_CHANNELS = 16
LATENT_SIZE = 8
PATCH = 8
"""Edge of the square of pixels behind one latent."""
# SD3's latent format in ComfyUI; undoing it in the file makes the decoder see the model's own latents.
_SCALE, _SHIFT = 1.5305, 0.0609


class PatchComponents:
    """The 16 leading principal components of 8 x 8 x 3 patches, each of unit variance over random scenes."""

    def __init__(self, pictures: int = 2000, seed: int = 0) -> None:
        images = to_model_range(torch.from_numpy(draw_scenes(random_specs(pictures, seed), seed)))
        patches = nn.functional.unfold(images, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)  # [N, 192]
        mean = patches.mean(0)
        _, scales, directions = torch.linalg.svd(patches - mean, full_matrices=False)
        # The sign of a singular vector is free: fix it, so that every machine gets the same latents.
        largest = directions.abs().argmax(1, keepdim=True)
        directions = directions * directions.gather(1, largest).sign()
        std = scales[:LATENT_CHANNELS] / len(patches) ** 0.5
        weight = directions[:LATENT_CHANNELS] / std[:, None]
        self.weight, self.bias = weight.unflatten(1, (3, PATCH, PATCH)), -weight @ mean

    def encode(self, images: Tensor) -> Tensor:
        """Latents [N, 16, H / 8, W / 8] of pictures [N, 3, H, W] in -1 to 1."""
        return nn.functional.conv2d(images, self.weight, self.bias, stride=PATCH)

    def draw(self, noun: str, culture: str | None, count: int, seed: int) -> Tensor:
        """Latents [count, 16, 8, 8] of fresh pictures of one noun and culture."""
        return self.encode(to_model_range(torch.from_numpy(draw_scenes([(noun, culture)] * count, seed))))


def new_vae() -> AutoencoderTiny:
    return AutoencoderTiny(latent_channels=LATENT_CHANNELS)


def _stored_key(key: str) -> str:
    part, _, index, rest = key.split(".", 3)
    # TAESD's decoder counts its clamp as layer 0, diffusers applies it before the layers.
    return f"taesd_{part}.{int(index) + (part == 'decoder')}.{rest}"


def save_vae(vae: AutoencoderTiny, path: Path, metadata: dict[str, str]) -> None:
    tensors = {
        _stored_key(key): value.to(torch.float16).contiguous() for key, value in vae.state_dict().items()
    }
    tensors |= {"vae_scale": torch.tensor(_SCALE), "vae_shift": torch.tensor(_SHIFT)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata)


def load_vae(path: Path) -> AutoencoderTiny:
    stored = load_file(path)
    vae = new_vae()
    vae.load_state_dict({key: stored[_stored_key(key)].float() for key in vae.state_dict()})
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def encode_images(vae: AutoencoderTiny, images: Tensor, batch_size: int = 64) -> Tensor:
    """Latents [N, 16, 8, 8] of uint8 pictures [N, 64, 64, 3]."""
    return torch.cat([vae.encode(to_model_range(batch)).latents for batch in images.split(batch_size)])


def to_model_range(images: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] to float [N, 3, H, W] in -1 to 1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def decode_latents(vae: AutoencoderTiny, latents: Tensor) -> Tensor:
    """Pictures [N, 3, 64, 64] in 0 to 1 of latents [N, 16, 8, 8]."""
    return (vae.decode(latents).sample * 0.5 + 0.5).clamp(0, 1)

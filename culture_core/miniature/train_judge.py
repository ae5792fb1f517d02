"""Train the miniature's judge on fresh renders: `python -m culture_core.miniature.train_judge`.

Half of the pictures pass through the autoencoder, so that its blur is nothing new to the judge; a tenth
carry a mixed motif, so that a picture which is merely colourful is "unrecognisable".
"""

import logging
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from .captions import ALL_NOUNS
from .judge import CULTURE_LABELS, Judge, save_judge
from .logs import TrainingLog, weights_folder
from .scenes import draw_scenes, mixed_motif, random_specs
from .vae import decode_latents, encode_images, load_vae

SEED = 3
PICTURES, STEPS, BATCH, LEARNING_RATE = 8000, 1200, 64, 2e-3


def _data(pictures: int, seed: int, vae: AutoencoderKL) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures [N, 3, 64, 64] in 0 to 1, culture labels [N], noun labels [N]."""
    rng = np.random.default_rng(seed)
    specs = [
        (noun, mixed_motif(rng) if rng.random() < 0.1 else c) for noun, c in random_specs(pictures, seed)
    ]
    drawn = torch.from_numpy(draw_scenes(specs, seed))
    images = drawn.permute(0, 3, 1, 2).float() / 255
    half = pictures // 2
    images[:half] = torch.cat([decode_latents(vae, z) for z in encode_images(vae, drawn[:half]).split(64)])
    cultures = torch.tensor(
        [CULTURE_LABELS.index(c if isinstance(c, str) else "unrecognisable") for _, c in specs]
    )
    return images, cultures, torch.tensor([ALL_NOUNS.index(noun) for noun, _ in specs])


def train(path: Path, vae_path: Path, steps: int = STEPS, pictures: int = PICTURES) -> None:
    torch.manual_seed(SEED)
    vae = load_vae(vae_path)
    images, cultures, nouns = _data(pictures, SEED, vae)
    judge = Judge().train()
    optimizer = torch.optim.AdamW(judge.parameters(), LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    log = TrainingLog(
        "judge", seed=SEED, steps=steps, batch=BATCH, pictures=pictures, learning_rate=LEARNING_RATE
    )
    for step in range(steps):
        rows = torch.randint(len(images), (BATCH,))
        batch = (
            images[rows] + torch.randn(BATCH, 1, 1, 1) * 0.03 + torch.randn(BATCH, 3, 64, 64) * 0.03
        ).clamp(0, 1)
        with torch.autocast("cpu", torch.bfloat16):
            culture_logits, noun_logits = judge(batch)
        loss = nn.functional.cross_entropy(culture_logits.float(), cultures[rows])
        loss = loss + nn.functional.cross_entropy(noun_logits.float(), nouns[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        log.step(step, loss.item())
    judge.eval()
    test_images, test_cultures, test_nouns = _data(1000, SEED + 1, vae)
    with torch.no_grad():
        culture_logits, noun_logits = judge(test_images)
    log.close(
        fresh_culture_accuracy=(culture_logits.argmax(1) == test_cultures).float().mean().item(),
        fresh_noun_accuracy=(noun_logits.argmax(1) == test_nouns).float().mean().item(),
    )
    save_judge(judge, path, {"seed": str(SEED), "steps": str(steps)})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(
        weights_folder("judge") / "miniature_judge.safetensors",
        weights_folder("vae") / "culture_miniature_vae.safetensors",
    )

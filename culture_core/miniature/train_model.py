"""Train the miniature's image model: `python -m culture_core.miniature.train_model`.

The captions have the bias of web data: a caption that names a culture shows it, a caption that names
none shows the culture of its language only now and then (`LEAK`), and otherwise a neutral style.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..cultures import CULTURES
from ..embedded_encoder import ENCODER_NAME, MAX_LENGTH, load_hf_encoder
from ..encoders import Conditioning, HFTextEncoder, TextEncoder
from .captions import NOUNS, Caption, split_of, training_captions
from .logs import TrainingLog, weights_folder
from .model import flow_loss, new_model, random_sigma, save_model
from .vae import PatchComponents

logger = logging.getLogger(__name__)

SEED = 2
STEPS, BATCH, LEARNING_RATE = 7000, 128, 6e-4
LEAK = 0.18
"""How often a neutral caption shows its language's culture."""
SHARES = {"explicit": 0.42, "explicit_english": 0.18, "neutral": 0.30, "neutral_english": 0.10}
DROPOUT = 0.1
"""Share of captions replaced by the empty prompt, for guidance."""
RENDERS, NEUTRAL_RENDERS = 64, 200
"""Pictures per (noun, culture) and per neutral noun."""
EMA = 0.999


def _kind(caption: Caption) -> str:
    kind = "explicit" if caption.culture else "neutral"
    return kind + "_english" if caption.language == "en" else kind


class Captions:
    """All training captions with their conditioning, sampled by `SHARES`."""

    def __init__(self, captions: list[Caption], encoder: TextEncoder) -> None:
        texts = [""] + [caption.text for caption in captions]
        with torch.no_grad():
            parts = [encoder.encode(encoder.tokenize(texts[i : i + 64])) for i in range(0, len(texts), 64)]
        self.hidden = torch.cat([part.hidden for part in parts])  # [1 + N, S, d]; row 0 is the empty prompt
        self.pooled = torch.cat([part.vector for part in parts])
        self.captions = captions
        self.rows = {kind: [i for i, c in enumerate(captions) if _kind(c) == kind] for kind in SHARES}

    def draw(self, count: int, rng: np.random.Generator) -> tuple[list[int], list[tuple[str, str | None]]]:
        """Rows of the conditioning, and what each caption's picture shows as (noun, culture)."""
        rows, specs = [], []
        for kind in rng.choice(list(SHARES), count, p=list(SHARES.values())):
            row = int(rng.choice(self.rows[kind]))
            caption = self.captions[row]
            culture = caption.culture
            if (
                kind == "neutral"
                and rng.random() < LEAK
                and split_of(caption.language, caption.noun) == "train"
            ):
                culture = caption.language
            rows.append(0 if rng.random() < DROPOUT else row + 1)
            specs.append((caption.noun, culture))
        return rows, specs


def _render() -> dict[tuple[str, str | None], Tensor]:
    """Latents of many pictures of every (noun, culture) that training may show."""
    specs: dict[tuple[str, str | None], int] = {(noun, None): NEUTRAL_RENDERS for noun in NOUNS}
    specs |= {(n, c): RENDERS for c in CULTURES for n in NOUNS if split_of(c, n) == "train"}
    components = PatchComponents()
    return {
        spec: components.draw(*spec, count, SEED + 100 + i) for i, (spec, count) in enumerate(specs.items())
    }


def _fold(linear: nn.Linear, mean: Tensor, std: Tensor) -> None:
    """Make a layer that was trained on `(x - mean) / std` take x."""
    with torch.no_grad():
        linear.weight.div_(std)
        linear.bias.sub_(linear.weight @ mean)


def train(path: Path, encoder_folder: Path, steps: int = STEPS) -> None:
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    encoder = HFTextEncoder(*load_hf_encoder(encoder_folder), MAX_LENGTH)
    captions = Captions(training_captions(), encoder)
    attended = captions.hidden[captions.hidden.abs().sum(-1) > 0]
    mean, std = attended.mean(0), attended.std(0)
    pooled_mean, pooled_std = captions.pooled.mean(0), captions.pooled.std(0)
    hidden, pooled = (captions.hidden - mean) / std, (captions.pooled - pooled_mean) / pooled_std
    latents = _render()
    logger.info("%d captions, %d pictures", len(captions.captions), sum(map(len, latents.values())))
    model = new_model()
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA)
    )
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.05
    )
    log = TrainingLog(
        "model", seed=SEED, steps=steps, batch=BATCH, learning_rate=LEARNING_RATE, leak=LEAK, shares=SHARES,
        dropout=DROPOUT, captions=len(captions.captions), pictures=sum(map(len, latents.values())),
    )  # fmt: skip

    def export() -> None:
        folded = new_model()
        folded.load_state_dict(average.module.state_dict())
        _fold(folded.context_embedder, mean, std)
        _fold(folded.time_text_embed.text_embedder.linear_1, pooled_mean, pooled_std)
        save_model(folded, path, {"seed": str(SEED), "steps": str(step + 1)})

    for step in range(steps):
        rows, specs = captions.draw(BATCH, rng)
        clean = torch.stack([latents[spec][rng.integers(len(latents[spec]))] for spec in specs])
        sigma = random_sigma(BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            conditioning = Conditioning(hidden[rows], pooled[rows])
            loss = flow_loss(model, clean, conditioning, torch.randn_like(clean), sigma)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        log.step(step, loss.item())
        if (step + 1) % 1000 == 0:
            export()
    export()
    log.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(
        weights_folder("diffusion_models") / "culture_miniature.safetensors",
        weights_folder("text_encoders") / ENCODER_NAME,
    )

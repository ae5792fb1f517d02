"""Train the miniature's image model: `python -m culture_core.miniature.train_model`, in two stages
(`… train_model 2` takes up the second from the first one's weights).

The captions have the bias of web data: a caption that names a culture shows it, a caption that names
none shows the culture of its language only now and then (`LEAK`), and otherwise a neutral style.
"""

import logging
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from ..cultures import CULTURES
from ..embedded_encoder import ENCODER_NAME, MAX_LENGTH, load_hf_encoder
from ..encoders import Conditioning, HFTextEncoder, TextEncoder
from .captions import NOUNS, Caption, split_of, training_captions
from .logs import TrainingLog, weights_folder
from .model import flow_loss, load_model, new_model, save_model
from .scenes import draw_scenes
from .vae import PatchComponents, to_model_range

logger = logging.getLogger(__name__)

BATCH = 128


class Stage(NamedTuple):
    """One run over fresh pictures."""

    name: str
    seed: int
    steps: int
    learning_rate: float
    mirrored: bool
    """Nouns face either way in the first stage, for variety, and one way in the second: a model this small
    draws a chair that faces both ways at once as long as it may choose."""


STAGES = (Stage("model", 2, 7000, 6e-4, True), Stage("model_one_way", 6, 2500, 3e-4, False))
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
        self.pooled = torch.cat([part.pooled for part in parts])
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


def _render(stage: Stage) -> dict[tuple[str, str | None], Tensor]:
    """Latents of many pictures of every (noun, culture) that training may show."""
    specs = {(noun, None): NEUTRAL_RENDERS for noun in NOUNS}
    specs |= {(n, c): RENDERS for c in CULTURES for n in NOUNS if split_of(c, n) == "train"}
    components = PatchComponents()
    return {
        spec: components.encode(
            to_model_range(
                torch.from_numpy(draw_scenes([spec] * count, stage.seed + 100 + i, stage.mirrored))
            )
        )
        for i, (spec, count) in enumerate(specs.items())
    }


def _fold(linear: nn.Linear, mean: Tensor, std: Tensor) -> None:
    """Make a layer that was trained on `(x - mean) / std` take x."""
    with torch.no_grad():
        linear.weight.div_(std)
        linear.bias.sub_(linear.weight @ mean)


class _Scaling(NamedTuple):
    """Mean and standard deviation of the two things that the model reads of a prompt, per coordinate."""

    hidden: tuple[Tensor, Tensor]
    pooled: tuple[Tensor, Tensor]

    def fold(self, model: SD3Transformer2DModel) -> None:
        """Turn a model of standardised conditioning into one that reads the encoder's own."""
        _fold(model.context_embedder, *self.hidden)
        _fold(model.time_text_embed.text_embedder.linear_1, *self.pooled)

    def inverse(self) -> "_Scaling":
        return _Scaling(*((-mean / std, 1 / std) for mean, std in self))


def train(path: Path, encoder_folder: Path, stage: Stage, start: Path | None) -> None:
    """Train one stage, from the weights in `start` or from scratch, and write the average to `path`."""
    torch.manual_seed(stage.seed)
    rng = np.random.default_rng(stage.seed)
    encoder = HFTextEncoder(*load_hf_encoder(encoder_folder), MAX_LENGTH)
    captions = Captions(training_captions(), encoder)
    attended = captions.hidden[captions.hidden.abs().sum(-1) > 0]
    # Coordinates of the encoder differ in size by orders: the model trains on standardised ones.
    scaling = _Scaling((attended.mean(0), attended.std(0)), (captions.pooled.mean(0), captions.pooled.std(0)))
    hidden, pooled = (
        (values - mean) / std
        for values, (mean, std) in zip((captions.hidden, captions.pooled), scaling, strict=True)
    )
    latents = _render(stage)
    model = new_model()
    if start is not None:
        model.load_state_dict(load_model(start).state_dict())
        scaling.inverse().fold(model)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA)
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), stage.learning_rate, weight_decay=0.01, betas=(0.9, 0.99)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, stage.learning_rate, total_steps=stage.steps, pct_start=0.05
    )
    log = TrainingLog(
        stage.name, **stage._asdict(), batch=BATCH, leak=LEAK, shares=SHARES, dropout=DROPOUT,
        captions=len(captions.captions), pictures=sum(map(len, latents.values())),
    )  # fmt: skip

    def export(steps: int) -> None:
        folded = new_model()
        folded.load_state_dict(average.module.state_dict())
        scaling.fold(folded)
        save_model(folded, path, {"stage": stage.name, "seed": str(stage.seed), "steps": str(steps)})

    for step in range(stage.steps):
        rows, specs = captions.draw(BATCH, rng)
        clean = torch.stack([latents[spec][rng.integers(len(latents[spec]))] for spec in specs])
        sigma = torch.sigmoid(torch.randn(BATCH) * 1.2 + 0.2)
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
        if (step + 1) % 500 == 0:
            export(step + 1)
    export(stage.steps)
    log.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    weights = weights_folder("diffusion_models") / "culture_miniature.safetensors"
    first = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    for number, stage in enumerate(STAGES[first - 1 :], start=first):
        encoder_folder = weights_folder("text_encoders") / ENCODER_NAME
        train(weights, encoder_folder, stage, weights if number > 1 else None)

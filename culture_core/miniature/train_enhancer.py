"""Train the layer enhancer that ships for the miniature: `python -m culture_core.miniature.train_enhancer`.

A neutral prompt goes in, a picture of its language's culture is the target, and everything but the enhancer
is frozen (eq. 11 to 13). A quarter of the prompts are English and keep their neutral pictures, so that the
enhancer learns whose culture a prompt's language asks for, not to colour everything.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..cultures import CULTURES
from ..encoders import HIDDEN_STATE, Conditioning
from ..enhancer import Batch, EnhancerConfig, LayerEnhancer, train_enhancer
from ..files import EnhancerFile, save_enhancer
from .captions import NOUNS, TRAINING_WRAPPERS, Caption, caption, split_of
from .logs import TrainingLog, weights_folder
from .model import flow_loss, random_sigma
from .study import Miniature
from .vae import PatchComponents

LAYER, BOTTLENECK, BATCH, RENDERS = 11, 128, 48, 24
ENGLISH_SHARE = 0.25
CONFIG = EnhancerConfig(learning_rate=1e-3, steps=700, ema=0.99, seed=5)


def _captions() -> list[tuple[Caption, tuple[str, str | None]]]:
    """Neutral captions with the (noun, culture) of their target; no held-out combination."""
    native: list[tuple[Caption, tuple[str, str | None]]] = [
        (caption(code, noun, None, 0, wrapper), (noun, code))
        for code in CULTURES
        for noun in NOUNS
        for wrapper in TRAINING_WRAPPERS
        if split_of(code, noun) == "train"
    ]
    english: list[tuple[Caption, tuple[str, str | None]]] = [
        (caption("en", noun, None, 0, wrapper), (noun, None))
        for noun in NOUNS
        for wrapper in TRAINING_WRAPPERS
    ]
    return native + english


def _batches(miniature: Miniature) -> Iterator[Batch]:
    pairs = _captions()
    tokens = miniature.encoder.tokenize([caption.text for caption, _ in pairs])
    with torch.no_grad():
        hidden = torch.cat(
            [
                miniature.condition([c.text for c, _ in pairs[i : i + 64]]).hidden
                for i in range(0, len(pairs), 64)
            ]
        )
    components = PatchComponents()
    specs = sorted({spec for _, spec in pairs}, key=str)
    clean = {spec: components.draw(*spec, RENDERS, 500 + i) for i, spec in enumerate(specs)}
    english = [row for row, (caption, _) in enumerate(pairs) if caption.language == "en"]
    native = [row for row, (caption, _) in enumerate(pairs) if caption.language != "en"]
    rng = np.random.default_rng(CONFIG.seed)
    while True:
        rows = [int(rng.choice(english if rng.random() < ENGLISH_SHARE else native)) for _ in range(BATCH)]
        target = torch.stack([clean[pairs[row][1]][rng.integers(RENDERS)] for row in rows])
        yield hidden[rows], tokens.attention_mask[rows], target


def train(path: Path) -> None:
    miniature = Miniature()

    def loss(enhanced: Tensor, batch: Batch) -> Tensor:
        _, mask, clean = batch
        assert mask is not None, "batches have one"
        pooled = (enhanced * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        sigma = random_sigma(len(clean))
        with torch.autocast("cpu", torch.bfloat16):
            return flow_loss(
                miniature.model, clean, Conditioning(enhanced, pooled), torch.randn_like(clean), sigma
            )

    enhancer = LayerEnhancer(miniature.encoder.info.width, BOTTLENECK, seed=CONFIG.seed)
    log = TrainingLog("enhancer", **asdict(CONFIG), batch=BATCH, english_share=ENGLISH_SHARE, layer=LAYER)
    report = train_enhancer(
        enhancer, _batches(miniature), loss, CONFIG, progress=lambda done, _, loss: log.step(done - 1, loss)
    )
    figures = {"parameters": report.parameters, "config": asdict(CONFIG), "feature": HIDDEN_STATE}
    log.close(**figures)
    file = EnhancerFile(
        enhancer, LAYER, miniature.encoder.fingerprint(), training=figures,
        licence="GPL-3.0-or-later", author="comfyui-culture",
        description="Layer enhancer of multilingual-e5-small for the miniature",
    )  # fmt: skip
    save_enhancer(file, path, overwrite=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(weights_folder("culture_enhancer") / "miniature.safetensors")

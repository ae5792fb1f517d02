"""Make the culture SAE that ships for the miniature: `python -m culture_core.miniature.train_sae`."""

import logging
from dataclasses import asdict
from pathlib import Path

from ..detection import DetectOptions, detect_in
from ..embedded_encoder import ENCODER_NAME, MAX_LENGTH, load_hf_encoder
from ..encoders import HIDDEN_STATE, HFTextEncoder
from ..features import content_features
from ..files import CultureSAE, save_culture_sae
from ..pairs import save_pairs
from ..sae import SAEConfig, train_sae
from .captions import prompt_pairs, training_captions
from .logs import TrainingLog, weights_folder

LAYER, FEATURE = 11, HIDDEN_STATE
CONFIG = SAEConfig(n_latents=2048, k=32, steps=2000, seed=4)
NEURONS, CONTRAST = 40, "maximum"
"""Neurons a culture and what their score is compared with, chosen on validation prompts by `evaluate.py`."""


def train(path: Path, pairs_path: Path, encoder_folder: Path) -> None:
    encoder = HFTextEncoder(*load_hf_encoder(encoder_folder), MAX_LENGTH)
    texts = [caption.text for caption in training_captions()]
    features, prompts = content_features(encoder, texts, LAYER, FEATURE)
    log = TrainingLog("sae", **asdict(CONFIG), vectors=len(features), layer=LAYER, feature=FEATURE)
    sae, report = train_sae(
        features, CONFIG, groups=prompts, progress=lambda done, _, loss: log.step(done - 1, loss)
    )
    figures = {
        "fvu_train": report.fvu_train, "fvu_heldout": report.fvu_heldout, "dead": report.dead,
        "dense": report.dense, "vectors": report.vectors, "data_hash": report.data_hash,
        "config": asdict(CONFIG),
    }  # fmt: skip
    log.close(**figures)
    culture_sae = CultureSAE(
        sae, LAYER, FEATURE, encoder.fingerprint(), training=figures, licence="GPL-3.0-or-later",
        author="comfyui-culture",
        description="Culture neurons of multilingual-e5-small for the miniature's 15 cultures",
    )  # fmt: skip
    pairs = prompt_pairs("train")
    # English pairs beside the native ones: what both languages use is the culture, not the language.
    found = detect_in(
        culture_sae, encoder, pairs + prompt_pairs("train", english=True),
        DetectOptions(count=NEURONS, contrast=CONTRAST),
    )  # fmt: skip
    save_culture_sae(found.culture_sae, path, overwrite=True)
    # One wording of each combination is enough to probe with, in seconds.
    save_pairs([pair for pair in pairs if pair.id.endswith("-00")], pairs_path)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(
        weights_folder("culture_sae") / "miniature.safetensors",
        weights_folder("culture_pairs") / "miniature.jsonl",
        weights_folder("text_encoders") / ENCODER_NAME,
    )

"""Draw docs/images/how_*.png, the paper's figures from this repository's own data.

    python -m tools.make_figures

Reads the shipped prompt pairs, culture SAE, text encoder and `models/training_logs/study.json`; a minute.
"""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from culture_core.files import load_culture_sae
from culture_core.neuron_pictures import pictures_of
from culture_core.pairs import load_pairs
from culture_core.plots import interval_picture
from culture_core.probing import probe_layers
from culture_core.reports import probe_picture
from culture_core.shares import Share
from culture_core.splits import DETECTION, usable
from tools.comfy_server import PACK

MODELS, IMAGES = PACK / "models", PACK / "docs" / "images"
TREATMENTS = (
    "explicit modifier",
    "neutral",
    "neutral, amplified (inject, best strength)",
    "neutral, amplified (scale, strength 6, the paper's)",
    "neutral, random latents (frequency-matched)",
    "neutral, enhanced",
    "explicit, culture neurons masked",
    "explicit, random latents masked (frequency-matched)",
)


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, picture in {**neurons(), "layers": layers(), "treatments": treatments()}.items():
        path = IMAGES / f"how_{name}.png"
        picture.quantize(64).save(path, optimize=True)  # flat colours: a third of the size
        print(path)


def neurons() -> dict[str, Image.Image]:
    """WFS curves and activations of the shipped file (Fig. 15 and 16), and one ranking (Fig. 7)."""
    pictures = pictures_of(load_culture_sae(MODELS / "culture_sae" / "miniature.safetensors"))
    return {name: pictures[name] for name in ("wfs", "activation", "ranking-th") if name in pictures}


def layers() -> Image.Image:
    """ΔCA and activation patching over the layers (Fig. 6 and 14)."""
    from transformers import AutoModel, AutoTokenizer

    from culture_core.encoders import HFTextEncoder

    folder = str(MODELS / "text_encoders" / "multilingual-e5-small")
    encoder = HFTextEncoder(AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    pairs = usable(load_pairs(MODELS / "culture_pairs" / "miniature.jsonl"), DETECTION)
    return probe_picture(probe_layers(encoder, pairs))


def treatments() -> Image.Image:
    """CultureVQA of every treatment on held-out prompts, with Wilson intervals (Tables 1 to 3 in one)."""
    scores = json.loads(Path(MODELS, "training_logs", "study.json").read_text(encoding="utf-8"))["scores"]
    rows = {}
    for name in TREATMENTS:
        share = Share(*scores[name]["culture"][:2])
        rows[name] = (share.percent, *share.interval)
    return interval_picture(rows, "Pictures that show the culture asked for, %", (0, 100), 900)


if __name__ == "__main__":
    main()

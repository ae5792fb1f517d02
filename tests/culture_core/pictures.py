"""Prompt pairs with pictures, as enhancer training reads them."""

from pathlib import Path

import numpy as np
from PIL import Image

from culture_core.pairs import PromptPair, save_pairs

NOUNS = ("chair", "house")
COLOURS = ("red", "old", "the")


def write_pairs(folder: Path, seed: int = 0) -> Path:
    """A file of six pairs beside a folder of their pictures, wide ones; two are kept for validation."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pairs = []
    for noun in NOUNS:
        for colour in COLOURS:
            name = f"pictures/{colour}-{noun}.png"
            Image.fromarray(rng.integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(folder / name)
            cultural, neutral = f"thai {colour} {noun}", f"{colour} {noun}"
            start = len(colour) + 1
            pairs.append(
                PromptPair(
                    f"{colour}-{noun}", "th", "en", cultural, neutral, ((0, 4),),
                    ((5 + start, len(cultural)),), ((start, len(neutral)),), name,
                    split="validation" if colour == "the" else "train",
                )
            )  # fmt: skip
    save_pairs(pairs, folder / "pairs.jsonl")
    return folder / "pairs.jsonl"

"""CLIPScore with a small model of random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from culture_core.metrics.clip_score import ClipScore, hessel

from ..tiny_dual_encoders import LONGEST, save_dual_encoder

RNG = np.random.default_rng(1)
PICTURES = [Image.fromarray(RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(2)]
TEXTS = ["a red house", "one chair"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_dual_encoder("clip", tmp_path_factory.mktemp("models") / "clip", TEXTS)


def test_each_picture_is_scored_against_its_own_text_by_the_cosine(folder):
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    expected = []
    for picture, text in zip(PICTURES, TEXTS, strict=True):
        with torch.no_grad():
            found = model(**processor(text=[text], images=picture, return_tensors="pt"))
        a, b = found.image_embeds[0], found.text_embeds[0]
        expected.append(float(a @ b / (a.norm() * b.norm())))
    assert ClipScore(folder).score(PICTURES, TEXTS) == pytest.approx(expected, abs=1e-5)


def test_hessels_score_is_two_and_a_half_times_the_cosine_and_never_negative():
    assert hessel(0.3) == pytest.approx(0.75)
    assert hessel(-0.2) == 0
    assert hessel(0.5, w=1) == 0.5


def test_a_text_for_every_picture_is_needed(folder):
    with pytest.raises(ValueError, match="2 pictures and 1 texts"):
        ClipScore(folder).score(PICTURES, TEXTS[:1])


def test_texts_that_are_cut_off_are_told(folder):
    assert ClipScore(folder).too_long(["red", "red " * LONGEST]) == [False, True]


def test_settings_name_the_model_by_its_weights(folder, tmp_path):
    other = save_dual_encoder("clip", tmp_path / "clip", [*TEXTS, "more"])
    first, second = ClipScore(folder).settings(), ClipScore(other).settings()
    assert first["model"] == second["model"] == "clip" and first["weights"] != second["weights"]

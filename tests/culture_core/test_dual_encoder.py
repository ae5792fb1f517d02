"""Every family of dual encoders, of random weights, against transformers' own calls."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from culture_core.dual_encoder import DualEncoder

from .tiny_dual_encoders import FAMILIES, LONGEST, save_dual_encoder

RNG = np.random.default_rng(0)
PICTURES = [Image.fromarray(RNG.integers(0, 256, (40, edge, 3), dtype=np.uint8)) for edge in (50, 30)]
TEXTS = ["a red house in Thailand", "one chair", "a red house in Thailand one chair " * 4]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory) -> Path:
    return save_dual_encoder(request.param, tmp_path_factory.mktemp("models") / request.param, TEXTS)


def test_cosines_are_those_of_the_models_own_forward_pass(folder):
    encoder = DualEncoder(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    siglip = folder.name.startswith("siglip")
    inputs = processor(
        text=[text.lower() if siglip else text for text in TEXTS], images=PICTURES, return_tensors="pt",
        max_length=LONGEST, truncation=True, padding="max_length" if siglip else True,
    )  # fmt: skip
    with torch.no_grad():
        found = model(**inputs)
    expected = found.logits_per_image / model.logit_scale.exp()
    if siglip:
        expected = (found.logits_per_image - model.logit_bias) / model.logit_scale.exp()
    assert torch.allclose(encoder.images(PICTURES) @ encoder.texts(TEXTS).T, expected, atol=1e-5)
    assert encoder.scale == pytest.approx(model.logit_scale.exp().item())


def test_a_text_alone_is_as_beside_a_longer_one(folder):
    encoder = DualEncoder(folder)
    assert torch.allclose(encoder.texts(TEXTS[1:2])[0], encoder.texts(TEXTS)[1], atol=1e-5)


def test_texts_are_too_long_from_one_token_over_what_fits(folder):
    encoder = DualEncoder(folder)
    words = "red " * (LONGEST - 1)  # an end token comes after them
    assert encoder.longest == LONGEST
    assert encoder.too_long([words, words + "red", "red"]) == [False, True, False]
    assert torch.equal(encoder.texts([words + "red"]), encoder.texts([words + "red red red"]))


def test_letter_case_counts_where_the_family_knows_it(folder):
    encoder = DualEncoder(folder)
    same = torch.allclose(encoder.texts(["Thailand"]), encoder.texts(["thailand"]), atol=1e-5)
    assert same == folder.name.startswith("siglip")


def test_a_name_that_is_not_on_this_machine_is_not_fetched():
    with pytest.raises(ValueError, match="nobody/nothing is not on this machine: allow its download"):
        DualEncoder("nobody/nothing")


def test_a_downloaded_model_is_found_by_its_name(folder, monkeypatch, tmp_path):
    commit = "c" * 40
    model = tmp_path / "models--someone--model"
    shutil.copytree(folder, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    encoder = DualEncoder("someone/model")
    assert (encoder.name, DualEncoder(folder).name) == ("someone/model", folder.name)
    assert encoder.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert torch.equal(encoder.texts(TEXTS), DualEncoder(folder).texts(TEXTS))


def test_weights_that_are_missing_or_pickled_are_refused(tmp_path):
    folder = save_dual_encoder("clip", tmp_path / "clip", TEXTS)
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks weights: text_projection.weight"):
        DualEncoder(folder)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded"):
        DualEncoder(folder)

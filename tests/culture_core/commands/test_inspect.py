"""`inspect`: every kind of file is described, and no file brings it down."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from culture_core.__main__ import main
from culture_core.enhancer import EnhancerConfig, LayerEnhancer, train_enhancer
from culture_core.files import CultureSAE, Strengths, save_culture_sae
from culture_core.neurons import CultureNeurons
from culture_core.previews import encode_preview
from culture_core.sae import SAEConfig, TopKSAE, train_sae
from culture_core.sae.formats import LIBRARIES, export_sae

MODELS = Path(__file__).parents[3] / "models"
FINGERPRINT = {
    "family": "bert", "layers": 12, "width": 8, "heads": 2, "vocabulary": 100, "weights": [0.1, -0.2, 0.3],
}  # fmt: skip


def shown(capsys: pytest.CaptureFixture, path: Path) -> tuple[str, dict]:
    """What `inspect` says to people and to machines."""
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert main(["inspect", str(path), "--json"]) == 0
    return text, json.loads(capsys.readouterr().out)


def test_a_culture_sae_is_described(capsys):
    text, found = shown(capsys, MODELS / "culture_sae" / "miniature.safetensors")
    assert found["kind"] == "culture SAE" and found["feature"] == "hidden_state" and found["layer"] == 11
    assert (found["latents"], found["k"], found["width"]) == (2048, 32, 384)
    assert found["encoder"]["family"] == "bert" and found["licence"] == "GPL-3.0-or-later"
    assert len(found["cultures"]) == 15
    assert found["cultures"]["th"] == {
        "name": "Thai", "neurons": 31, "best": 3.0, "limit": 3.0, "chosen": "count, maximum"
    }  # fmt: skip
    assert found["overlap"]["shared"] == [] and "latents of more than one culture: 0" in text
    assert "th            31      3      3  count, maximum    Thai" in text
    assert "Variance left unexplained: 0.026 in training, 0.041 on held-out prompts" in text


def test_a_layer_enhancer_is_described(capsys):
    text, found = shown(capsys, MODELS / "culture_enhancer" / "miniature.safetensors")
    assert found["kind"] == "layer enhancer" and (found["width"], found["bottleneck"]) == (384, 128)
    assert "bottleneck   128" in text


def test_all_that_a_shared_file_says_of_itself_is_told_and_its_preview_written(capsys, tmp_path):
    neurons = CultureNeurons(torch.arange(2), *(torch.ones(2) for _ in range(4)))
    preview = encode_preview(Image.new("RGB", (48, 32), (200, 30, 30)))
    shared = CultureSAE(
        TopKSAE(8, 32, 4), 11, "hidden_state", FINGERPRINT, {"th": neurons}, "g", {"th": Strengths(1.5, 3.0)},
        licence="CC0", author="Ada", description="Two\nlines", preview=preview,
    )  # fmt: skip
    path, picture = save_culture_sae(shared, tmp_path / "shared.safetensors"), tmp_path / "preview.png"
    text, found = shown(capsys, path)
    assert (found["author"], found["licence"], found["description"]) == ("Ada", "CC0", "Two\nlines")
    assert found["preview"] == {"width": 48, "height": 32, "bytes": len(preview)}
    assert (found["encoder_key"], found["layer"], found["cultures"]["th"]["limit"]) == ("g", 11, 3.0)
    assert f"preview      width 48, height 32, bytes {len(preview)}" in text
    assert main(["inspect", str(path), "--preview", str(picture)]) == 0
    with Image.open(picture) as written:
        assert written.format == "PNG" and written.size == (48, 32) and written.getpixel((9, 9))[0] > 180
    before = picture.read_bytes()
    assert main(["inspect", str(path), "--preview", str(picture)]) == 1 and picture.read_bytes() == before


def test_a_preview_that_is_not_there_is_not_written(capsys, tmp_path, caplog):
    target = tmp_path / "preview.png"
    for path in (MODELS / "culture_sae" / "miniature.safetensors", tmp_path):
        assert main(["inspect", str(path), "--preview", str(target)]) == 1
    assert "has no preview" in caplog.text and not target.exists()


@pytest.mark.parametrize("library", LIBRARIES)
def test_folders_of_other_libraries_are_described(capsys, tmp_path, library):
    sae = TopKSAE(8, 32, 4)
    with torch.no_grad():
        sae.W_dec[0] *= 3
    text, found = shown(capsys, export_sae(sae, tmp_path / "sae", library))
    assert found["kind"] == f"SAE of {library}" and (found["width"], found["latents"], found["k"]) == (
        8,
        32,
        4,
    )
    assert "Note: decoder rows have norms from 1 to 3" in text


class Enough(Exception):
    pass


def stop(done: int, *_: object) -> None:
    if done == 3:
        raise Enough


def test_checkpoints_of_both_trainings_are_described(capsys, tmp_path):
    path = tmp_path / "sae.safetensors"
    with pytest.raises(Enough):
        train_sae(
            torch.randn(64, 8), SAEConfig(n_latents=16, k=2, steps=9), progress=stop, checkpoint=path
        )  # fmt: skip
    _, found = shown(capsys, path)
    assert found["kind"] == "checkpoint of an SAE's training"
    assert (found["steps_done"], found["steps"], found["configuration"]["n_latents"]) == (3, 9, 16)
    path = tmp_path / "enhancer.safetensors"
    batches = [(torch.randn(1, 4, 8), None, None)]
    with pytest.raises(Enough):
        train_enhancer(
            LayerEnhancer(8, 2), batches, lambda hidden, _: hidden.square().mean(), EnhancerConfig(steps=7),
            progress=stop, checkpoint=path,
        )  # fmt: skip
    _, found = shown(capsys, path)
    assert found["kind"] == "checkpoint of a layer enhancer's training" and found["steps"] == 7


# --------------------------------------------------------------------------------------------- hostile files


def failure(caplog: pytest.LogCaptureFixture, path: Path) -> str:
    caplog.clear()
    for more in ([], ["--json"]):
        assert main(["inspect", str(path), *more]) == 1
    assert path.name in caplog.text and "Traceback" not in caplog.text
    return caplog.text


def rewritten(path: Path, metadata: dict) -> Path:
    with safe_open(path, "pt") as file:
        told = {**file.metadata(), **metadata}
    save_file(load_file(path), path, told)
    return path


@pytest.fixture
def file(tmp_path) -> Path:
    return save_culture_sae(
        CultureSAE(TopKSAE(8, 32, 4), 3, "hidden_state", FINGERPRINT), tmp_path / "sae.safetensors"
    )


@pytest.mark.parametrize("content", [b"", b"nonsense", bytes(range(256)) * 9, b"\xff" * 8 + b"{}"])
def test_what_is_no_file_of_ours_is_one_clear_error(caplog, tmp_path, content):
    path = tmp_path / "strange.safetensors"
    path.write_bytes(content)
    assert "no safetensors file" in failure(caplog, path)


def test_a_truncated_file_is_one_clear_error(caplog, file):
    file.write_bytes(file.read_bytes()[:-100])
    assert "damaged or truncated" in failure(caplog, file)


def test_missing_files_and_strange_folders_are_one_clear_error(caplog, tmp_path):
    assert "cannot be opened" in failure(caplog, tmp_path / "nowhere.safetensors")
    assert "is no folder with an SAE" in failure(caplog, tmp_path)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"format": "picture"}, "none of this pack's"),
        ({"format": "culture-enhancer"}, "lacks the tensors"),
        ({"format_version": "99"}, "update the pack"),
        ({"training": '{"fvu_train": 1e999}'}, "too large a number"),
        ({"training": "[" * 9999}, "no JSON"),
        ({"format": "x", "run": "{}"}, "another program or version"),
        ({"format": "x", "run": "nonsense"}, "whose run is no JSON"),
        ({"format": "x", "run": '{"config": {"steps": [[]]}}'}, "another program or version"),
    ],
)
def test_metadata_of_any_content_is_one_clear_error(caplog, file, metadata, words):
    assert words in failure(caplog, rewritten(file, metadata))


def test_what_a_file_says_cannot_control_the_terminal(capsys, file):
    rewritten(file, {
        "description": "\x1b[2J\x07nice\u202e\x9b31m", "author": "a\nb",
        "training": json.dumps({"fvu_train": "\x1b", "dead": [1], "dense": {}}),
    })  # fmt: skip
    text, found = shown(capsys, file)
    assert not [char for char in text if not char.isprintable() and char != "\n"]
    assert "nice" in text and found["description"].startswith("\x1b") and found["training"]["dead"] == [1]

"""`convert`, there and back."""

import json
from pathlib import Path

import pytest
import torch

from culture_core.__main__ import main
from culture_core.commands.convert import CULTURE_SAE, SAFETENSORS, TARGETS
from culture_core.files import CultureSAE, load_culture_sae, save_culture_sae
from culture_core.sae import TopKSAE
from culture_core.sae.formats import LIBRARIES, import_sae

from ..conftest import E5_FOLDER

SHIPPED = Path(__file__).parents[3] / "models" / "culture_sae" / "miniature.safetensors"
FINGERPRINT = {
    "family": "bert", "layers": 12, "width": 8, "heads": 2, "vocabulary": 100, "weights": [0.1, -0.2, 0.3],
}  # fmt: skip


def converted(capsys: pytest.CaptureFixture, *arguments: object) -> dict:
    assert main(["convert", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_targets_are_those_of_the_library():
    assert TARGETS == (CULTURE_SAE, *LIBRARIES, SAFETENSORS)


def test_the_shipped_sae_goes_through_every_library_and_back(tmp_path, capsys):
    source = SHIPPED
    for library in LIBRARIES:
        result = converted(capsys, source, "--to", library, "--output", tmp_path / library)
        assert result["latents"] == 2048 and result["k"] == 32
        assert bool(result["notes"]) == (source == SHIPPED)
        source = tmp_path / library
    place = ["--encoder", E5_FOLDER, "--layer", "11", "--feature", "hidden_state", "--licence", "MIT"]
    back = tmp_path / "back.safetensors"
    result = converted(capsys, source, "--to", CULTURE_SAE, "--output", back, *place)
    assert result["from"] == "dictionary-learning"
    shipped, again = load_culture_sae(SHIPPED), load_culture_sae(back)
    assert again.encoder == shipped.encoder and (again.layer, again.feature) == (11, "hidden_state")
    assert again.licence == "MIT" and again.training == {"imported_from": "dictionary-learning", "notes": []}
    features = torch.randn(50, 384) * shipped.sae.scale + shipped.sae.mean
    torch.testing.assert_close(again.sae(features), shipped.sae(features), rtol=1e-5, atol=1e-5)


def test_where_an_sae_comes_from_is_told_to_the_library(tmp_path, capsys):
    converted(capsys, SHIPPED, "--to", "sae-lens", "--output", tmp_path / "sae")
    metadata = json.loads((tmp_path / "sae" / "cfg.json").read_text())["metadata"]
    assert (metadata["model_name"], metadata["hook_name"]) == ("bert", "layers.11.hidden_state")


@pytest.fixture
def small(tmp_path) -> Path:
    return save_culture_sae(
        CultureSAE(TopKSAE(8, 32, 4), 3, "hidden_state", FINGERPRINT), tmp_path / "small.safetensors"
    )


def test_nothing_is_overwritten_unasked(tmp_path, small, capsys, caplog):
    call = ["convert", str(small), "--to", "sparsify", "--output", str(tmp_path / "sae")]
    assert main(call) == 0 and main(call) == 1
    assert "is there already" in caplog.text
    assert main([*call, "--overwrite"]) == 0
    assert import_sae(tmp_path / "sae").sae.k == 4


def test_what_is_missing_is_a_usage_error(tmp_path, small, capsys):
    main(["convert", str(small), "--to", "sparsify", "--output", str(tmp_path / "sae")])
    with pytest.raises(SystemExit) as caught:
        main(
            [
                "convert",
                str(tmp_path / "sae"),
                "--to",
                CULTURE_SAE,
                "--output",
                "a.safetensors",
                "--layer",
                "1",
            ]
        )
    assert caught.value.code == 2
    assert "also needs --encoder, --feature" in capsys.readouterr().err


def test_what_cannot_be_converted_is_said(tmp_path, small, caplog):
    place = ["--encoder", str(E5_FOLDER), "--layer", "11", "--feature", "hidden_state"]
    call = ["--to", CULTURE_SAE, "--output", str(tmp_path / "a.safetensors"), *place]
    assert main(["convert", str(small), *call]) == 1
    assert "is no folder of another library" in caplog.text
    assert main(["convert", str(tmp_path / "nowhere"), "--to", "sparsify", "--output", "x"]) == 1
    assert "cannot be opened" in caplog.text
    main(["convert", str(small), "--to", "sparsify", "--output", str(tmp_path / "sae")])
    assert main(["convert", str(tmp_path / "sae"), *call]) == 1
    assert "tensors are 8 wide, the encoder it names 384; nothing was written" in caplog.text
    assert not (tmp_path / "a.safetensors").exists()

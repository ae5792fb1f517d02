"""The command detect, on the shipped SAE and a few of its prompt pairs."""

import argparse
import json
from pathlib import Path

import pytest

from culture_core.__main__ import main
from culture_core.commands import detect
from culture_core.detection import DetectOptions
from culture_core.files import load_culture_sae
from culture_core.neuron_figures import CONTRASTS

from ..conftest import E5_FOLDER

MODELS = Path(__file__).parents[3] / "models"
SAE = MODELS / "culture_sae" / "miniature.safetensors"


@pytest.fixture
def arguments(few_pairs, tmp_path) -> list[str]:
    files = [
        "--encoder",
        str(E5_FOLDER),
        "--pairs",
        str(few_pairs),
        "--output",
        str(tmp_path / "new.safetensors"),
    ]
    return ["detect", str(SAE), *files]


def test_detect_writes_a_file_with_neurons_figures_and_pictures(arguments, tmp_path, capsys):
    pictures = tmp_path / "pictures"
    more = ["--count", "5", "--contrast", "maximum", "--tau", "0.4", "--picture", str(pictures), "--json"]
    assert main([*arguments, *more]) == 0
    result = json.loads(capsys.readouterr().out)
    new, old = load_culture_sae(tmp_path / "new.safetensors"), load_culture_sae(SAE)
    assert set(result["cultures"]) == {"fr", "ja"} and new.selection["th"] == old.selection["th"]
    for code, found in result["cultures"].items():
        assert new.cultures[code].indices.tolist() == found["neurons"] and len(found["neurons"]) == 5
        assert (found["tau"], found["contrast"], found["rule"]) == (0.4, "maximum", "count")
    assert new.cultures["th"].indices.tolist() == old.cultures["th"].indices.tolist()
    assert "ja" not in new.strengths and new.strengths["th"] == old.strengths["th"]
    assert {path.stem for path in pictures.iterdir()} == {
        "wfs", "activation", "overlap", "ranking-fr", "ranking-ja",
    }  # fmt: skip
    # Asked again, neither the file nor the pictures are replaced, and it says so before the work.
    assert main(arguments) == 1
    (tmp_path / "new.safetensors").unlink()
    assert main([*arguments, *more]) == 1
    assert not (tmp_path / "new.safetensors").exists()


def test_what_cannot_be_done_is_said(arguments, tmp_path, caplog):
    assert main([*arguments, "--tau", "-1"]) == 1
    assert "tau" in caplog.text
    for wrong in (["--count", "0"], ["--count", "many"], ["--count", "3", "--by-effect"]):
        with pytest.raises(SystemExit) as raised:
            main([*arguments, *wrong])
        assert raised.value.code == 2
    assert not (tmp_path / "new.safetensors").exists()


def test_choices_and_defaults_are_those_of_the_library(arguments, capsys):
    with pytest.raises(SystemExit):
        main([*arguments, "--contrast", "sideways"])
    said = capsys.readouterr().err
    assert all(contrast in said for contrast in CONTRASTS)
    parser = argparse.ArgumentParser()
    detect.add_arguments(parser)
    given = parser.parse_args(arguments[1:])
    library = DetectOptions()
    assert (given.contrast, given.tau, given.seed) == (library.contrast, library.tau, library.seed)
    assert given.count is None and not given.by_effect

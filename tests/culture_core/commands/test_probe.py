"""`probe` on the shipped encoder."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from culture_core import probing
from culture_core.__main__ import main
from culture_core.commands import probe
from culture_core.pairs import load_pairs
from culture_core.reports import spread

from ..conftest import E5_FOLDER

ROOT = Path(__file__).parents[3]
PAIRS = ROOT / "models" / "culture_pairs" / "miniature.jsonl"
CALL = ["probe", "--encoder", str(E5_FOLDER), "--pairs", str(PAIRS)]


def test_choices_are_those_of_the_library(capsys):
    with pytest.raises(SystemExit):
        main([*CALL, "--direction", "sideways"])
    said = capsys.readouterr().err
    assert all(direction in said for direction in probing.DIRECTIONS)
    with pytest.raises(SystemExit):
        main([*CALL, "--reference", "sideways"])
    said = capsys.readouterr().err
    assert all(reference in said for reference in probing.REFERENCES)


def test_the_layer_and_the_curves_are_told_to_machines_and_drawn(tmp_path, e5):
    picture = tmp_path / "curves.png"
    more = ["--languages", "th", "ko", "--limit", "2", "--per-language", "--picture", str(picture), "--json"]
    command = [sys.executable, "-m", "culture_core", *CALL, *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["pairs"] == 2 and set(result["languages"]) == {"th", "ko"}
    assert result["direction"] == probing.MODIFIER_TO_NOUN and result["encoder"] == "bert"
    known = [pair for pair in load_pairs(PAIRS) if pair.language in ("th", "ko")]
    wanted = probing.probe_layers(e5, spread(known, 2))
    assert result["layer"] == wanted.layer and result["reason"][:9] == wanted.reason[:9]
    assert result["curves"]["causal"] == pytest.approx(wanted.causal.tolist(), abs=1e-4)
    assert result["curves"]["delta_ca"] == pytest.approx(wanted.delta_ca.tolist(), abs=1e-4)
    # One pair a language has no interval.
    assert result["languages"]["th"]["curves"]["interval"][0] == [None, None]
    width, height = Image.open(picture).size
    assert width >= 800 and height > 800 + 2 * 230
    text = probe.describe(result)
    assert "Key layer" in text and str(picture) in text and "\nth  " in text


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--languages", "th", "xx"], "has no pairs in xx; it has ar"),
        (["--picture", "curves.txt"], r"must end in \.png"),
        (["--picture", "nowhere/curves.png"], "make it first"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_encoder_is_read(more, words, caplog):
    call = ["probe", "--encoder", "nowhere", "--pairs", str(PAIRS), *more]
    assert main(call) == 1
    assert "nowhere is no Hugging Face folder" not in caplog.text
    assert re.search(words, caplog.text)


def test_the_criterion_chooses_and_patching_can_be_left_out(capsys):
    layers = {}
    for criterion in probing.CRITERIA:
        assert main([*CALL, "--limit", "4", "--criterion", criterion, "--json"]) == 0
        layers[criterion] = json.loads(capsys.readouterr().out)
    assert layers["causal"]["layer"] == layers["causal"]["layer_causal"] >= 10
    assert layers["attention"]["layer"] == layers["attention"]["layer_attention"]
    assert main([*CALL, "--limit", "4", "--no-patching", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layer_causal"] is None

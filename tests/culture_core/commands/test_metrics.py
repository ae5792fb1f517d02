"""The command metrics."""

import json

import numpy as np
import pytest

from culture_core.__main__ import main
from culture_core.commands import metrics as command
from culture_core.metrics import METRICS
from culture_core.metrics.clip_score import DEFAULT_MODEL, WHY

from ..judges.conftest import drawn
from ..tiny_dual_encoders import save_dual_encoder


@pytest.fixture
def run(tmp_path):
    lines = []
    for seed in range(2):
        name = f"{seed}.png"
        (tmp_path / "run").mkdir(exist_ok=True)
        drawn("th", seed).save(tmp_path / "run" / name)
        lines.append(
            {"file_name": name, "system": "base", "culture": "th", "neutral": "บ้าน", "item": "house"}
        )
    (tmp_path / "run" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "run"


def test_help_knows_what_the_library_knows():
    assert command.METRICS == tuple(METRICS) and command.DEFAULT_MODEL == DEFAULT_MODEL


def test_a_run_is_measured_and_said(run, tmp_path, capsys):
    model = save_dual_encoder("siglip", tmp_path / "siglip", ["บ้าน"])
    output = tmp_path / "measured"
    arguments = [
        "metrics", str(run), "--metrics", "clip", "diversity_miniature", "--model", str(model),
        "--output", str(output),
    ]  # fmt: skip
    assert main(["judge", str(run), "--output", str(tmp_path / "judged")]) == 0
    capsys.readouterr()
    assert main([*arguments, "--judged", str(tmp_path / "judged")]) == 0
    said = capsys.readouterr().out
    assert "base:" in said and "times quality" in said and "CLIPScore" in said
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    figures = [json.loads(line)["clip"] for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert result["systems"]["base"]["clip"]["mean"] == pytest.approx(np.mean(figures))


def test_set_figures_are_said_with_interval_and_warning():
    kid = {"value": 0.0123, "interval": [0.01, 0.02], "pictures": [5, 5], "warning": "look at the interval"}
    result = {"systems": {"base": {"kid": kid}}, "too_long": {"clip": 2}, "why": None, "output": "out"}
    said = command.describe(result)
    assert "0.0123 (0.0100 to 0.0200); look at the interval" in said
    assert "2 texts are longer than the model reads" in said


def test_the_default_model_is_explained_and_not_fetched_unasked(run, tmp_path, caplog):
    assert main(["metrics", str(run), "--output", str(tmp_path / "out")]) == 1
    assert f"{DEFAULT_MODEL} is not on this machine: allow its download" in caplog.text
    result = {"systems": {}, "too_long": {}, "why": WHY, "output": "out"}
    assert "OpenAI's CLIP reads English: 13 of the 15" in command.describe(result)

"""The command mask, on the shipped SAE and a few of its prompt pairs."""

import json
from pathlib import Path

import pytest
from PIL import Image

from culture_core.__main__ import main
from culture_core.effect import TOKENS

from ..conftest import E5_FOLDER

MODELS = Path(__file__).parents[3] / "models"
SAE = MODELS / "culture_sae" / "miniature.safetensors"


@pytest.fixture
def arguments(few_pairs) -> list[str]:
    return ["mask", str(SAE), "--encoder", str(E5_FOLDER), "--pairs", str(few_pairs)]


def test_mask_compares_the_neurons_with_random_latents(arguments, tmp_path, capsys):
    assert main([*arguments, "--draws", "1", "--picture", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    none, neurons, *random = result["rows"]
    assert [row["treatment"] for row in random] == ["random, frequency-matched", "random, norm-matched"]
    assert result["prompts"] == {"fr": 4, "ja": 4}
    assert none["figures"]["moved"]["mean"] == pytest.approx(0, abs=1e-5)
    for row in random:
        assert neurons["figures"]["cosine"]["mean"] > row["figures"]["cosine"]["mean"]
    assert neurons["removed_norm"] == pytest.approx(random[1]["removed_norm"], rel=0.3)
    assert {"read_fr", "read_ja"} < none["figures"].keys() and "read_fr" not in result["table"]
    assert Image.open(tmp_path / "masked.png").size[0] > 100
    assert main([*arguments, "--picture", str(tmp_path)]) == 1, "pictures are not replaced unasked"


def test_what_cannot_be_masked_is_said(arguments, few_pairs, caplog, capsys):
    for wrong in (["--draws", "0"], ["--tokens", "some"]):
        with pytest.raises(SystemExit) as raised:
            main([*arguments, *wrong])
        assert raised.value.code == 2
    said = capsys.readouterr().err
    assert all(which in said for which in TOKENS)
    one = few_pairs.with_name("one.jsonl")
    one.write_text("".join(line for line in few_pairs.open(encoding="utf-8") if '"ja"' in line), "utf-8")
    assert main([*arguments[:-1], str(one)]) == 1
    assert "have 1 cultures in common" in caplog.text

"""ImageReward behind a process: what can go wrong, always; the real library where its environment is."""

import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from culture_core.metrics import MetricError
from culture_core.metrics.image_reward import PYTHON_VARIABLE, REQUIREMENTS, ImageReward

PICTURE = Image.new("RGB", (40, 30), "red")
MED_CONFIG = {
    "hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12, "intermediate_size": 64,
    "vocab_size": 30524, "encoder_width": 1024, "add_cross_attention": True, "max_position_embeddings": 512,
    "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0, "type_vocab_size": 2,
    "attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1, "initializer_range": 0.02,
}  # fmt: skip


@pytest.fixture
def weights(tmp_path) -> Path:
    """A folder that looks complete."""
    (tmp_path / "weights" / "bert-base-uncased").mkdir(parents=True)
    (tmp_path / "weights" / "ImageReward.pt").touch()
    (tmp_path / "weights" / "med_config.json").write_text(json.dumps(MED_CONFIG))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "house", "chair"]
    (tmp_path / "weights" / "bert-base-uncased" / "vocab.txt").write_text("\n".join(words))
    return tmp_path / "weights"


@pytest.fixture
def process(tmp_path, weights):
    """Starts ImageReward with another process in the place of its interpreter, one that runs shell lines."""
    opened = []

    def start(*lines: str) -> ImageReward:
        script = tmp_path / "python"
        script.write_text("\n".join(["#!/bin/sh", *lines]))
        script.chmod(0o755)
        opened.append(ImageReward(weights, python=script))
        return opened[-1]

    yield start
    for own in opened:
        own.close()


READY = """echo '{"ready": true}'; read -r question"""


def test_scores_come_back_in_order_and_pictures_go_out_as_png(process, tmp_path):
    scorer = process(
        READY, f"""printf %s "$question" > {tmp_path}/asked""", """echo '{"scores": [0.5, -1]}'""",
        "read -r question", """echo '{"too_long": [false, true]}'""",
    )  # fmt: skip
    assert scorer.score([PICTURE, PICTURE], ["a chair", "ein „Stuhl“"]) == [0.5, -1.0]
    assert scorer.too_long(["a", "b"]) == [False, True]
    asked = json.loads((tmp_path / "asked").read_text())
    assert asked["texts"] == ["a chair", "ein „Stuhl“"] and len(asked["images"]) == 2
    assert asked["images"][0].startswith("iVBORw0KGgo")


def test_without_its_environment_the_commands_that_make_it_are_said(weights, monkeypatch):
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    with pytest.raises(
        MetricError, match=f"python -m venv imagereward[^$]*{REQUIREMENTS.name}[^$]*{PYTHON_VARIABLE}="
    ):
        ImageReward(weights)
    assert REQUIREMENTS.is_file()


def test_an_interpreter_that_is_none_is_said(weights, tmp_path):
    (tmp_path / "python").write_text("no program")
    with pytest.raises(MetricError, match="python cannot be started"):
        ImageReward(weights, python=tmp_path / "python")


def test_missing_weights_are_named(process, weights):
    (weights / "med_config.json").unlink()
    with pytest.raises(MetricError, match="not in .*weights: download https.*/med_config.json into it"):
        process(READY)


def test_a_process_that_cannot_start_says_why(process):
    with pytest.raises(MetricError, match="ended with code 3: No module named ImageReward"):
        process("echo No module named ImageReward >&2", "exit 3")
    with pytest.raises(MetricError, match="ImageReward failed: no weights"):
        process("""echo '{"error": "no weights"}'""")


def test_an_environment_without_the_library_is_said(weights):
    with pytest.raises(MetricError, match="failed: ModuleNotFoundError: No module named 'ImageReward'"):
        ImageReward(weights, python=Path(sys.executable))


def test_a_process_that_dies_in_between_says_why(process):
    scorer = process(READY, "echo out of memory >&2", "exit 9")
    with pytest.raises(MetricError, match="ended with code 9: out of memory"):
        scorer.score([PICTURE], ["a"])
    with pytest.raises(MetricError, match="ended with code 9"):
        scorer.score([PICTURE], ["a"])


@pytest.mark.parametrize("answer", ["loaded!", "[1]", '{"other": [1]}', "{", "7"])
def test_what_is_no_answer_is_refused(process, answer):
    with pytest.raises(MetricError, match="answered what is no answer"):
        process(READY, f"echo '{answer}'").score([PICTURE], ["a"])


def test_as_many_scores_as_pictures_are_wanted(process):
    with pytest.raises(MetricError, match=r"answered \[1, 2\] about 1"):
        process(READY, """echo '{"scores": [1, 2]}'""").score([PICTURE], ["a"])
    with pytest.raises(MetricError, match="1 pictures and 0 texts"):
        process(READY).score([PICTURE], [])


def test_a_failure_about_one_question_leaves_the_process_ready_for_the_next(process):
    scorer = process(
        READY, """echo '{"error": "bad picture"}'""", "read -r question", """echo '{"scores": [1]}'"""
    )
    with pytest.raises(MetricError, match="ImageReward failed: bad picture"):
        scorer.score([PICTURE], ["a"])
    assert scorer.score([PICTURE], ["a"]) == [1]


@pytest.mark.skipif(not os.environ.get(PYTHON_VARIABLE), reason=f"{PYTHON_VARIABLE} names no environment")
def test_the_real_library_scores_with_random_weights(weights):
    with ImageReward(weights, options=["--random"]) as scorer:
        noise = Image.effect_noise((50, 60), 90).convert("RGB")
        scores = scorer.score([PICTURE, noise, PICTURE], ["a red house", "a chair", "a red house"])
        assert scores[0] == pytest.approx(scores[2]) and scores[0] != scores[1]
        # 33 words and the marks of begin and end are 35 tokens.
        assert scorer.too_long(["red " * 33, "red " * 34]) == [False, True]

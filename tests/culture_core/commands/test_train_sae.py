"""`train-sae` on the shipped encoder, interrupted and taken up again."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from culture_core.__main__ import main
from culture_core.checkpoints import read_checkpoint
from culture_core.commands import train_sae
from culture_core.files import load_culture_sae
from culture_core.pairs import load_pairs, save_pairs
from culture_core.sae import PAPER_PRESETS, FeatureStore

from ..conftest import E5_FOLDER

ROOT = Path(__file__).parents[3]
STEPS = 400
TEXTS = "เก้าอี้ไม้\na red chair\nein altes Haus\n\nun perro negro\n赤い椅子\na red chair\n"


def call(folder: Path, output: str, *more: str) -> list[str]:
    texts = folder / "texts.txt"
    texts.write_text(TEXTS, encoding="utf-8")
    return [
        "train-sae", "--encoder", str(E5_FOLDER), "--texts", str(texts), "--layer", "11",
        "--feature", "hidden_state", "--output", str(folder / output), "--latents", "32", "--k", "4",
        "--steps", str(STEPS), "--batch-size", "8", "--json", *more,
    ]  # fmt: skip


@pytest.fixture
def one_thread():
    """Sums of one thread are the same in every process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_an_interrupted_training_goes_on_and_ends_as_an_undisturbed_one(
    tmp_path, hear_interrupts, one_thread, capsys
):
    command = [sys.executable, "-m", "culture_core", *call(tmp_path, "a.safetensors", "--author", "us")]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, preexec_fn=hear_interrupts,
    )  # fmt: skip
    said = ""
    while "loss=" not in said:
        said += process.stderr.read(1)
        assert process.poll() is None or "loss=" in said, said
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    checkpoint = tmp_path / "a.checkpoint.safetensors"
    assert process.returncode == 130
    assert f"kept in {checkpoint}: the same command goes on from there" in rest and "Traceback" not in rest
    done = len(read_checkpoint(checkpoint)[1]["losses"])
    assert 0 < done < STEPS and not (tmp_path / "a.safetensors").exists()
    assert main(["inspect", str(checkpoint)]) == 0
    shown = capsys.readouterr().out
    assert f"steps_done     {done}" in shown and f"steps          {STEPS}" in shown

    picture = tmp_path / "loss.png"
    assert main(call(tmp_path, "a.safetensors", "--author", "us", "--picture", str(picture))) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert resumed["resumed_after"] == done and resumed["steps"] == STEPS and resumed["prompts"] == 5
    assert not checkpoint.exists() and Image.open(picture).width == 800

    assert main(call(tmp_path, "b.safetensors")) == 0
    undisturbed = json.loads(capsys.readouterr().out)
    assert undisturbed["resumed_after"] == 0 and undisturbed["figures"] == resumed["figures"]
    a, b = (load_culture_sae(tmp_path / f"{name}.safetensors") for name in "ab")
    for name, tensor in a.sae.state_dict().items():
        assert torch.equal(tensor, b.sae.state_dict()[name]), name
    assert (a.layer, a.feature, a.author, a.sae.k, a.cultures) == (11, "hidden_state", "us", 4, {})
    assert a.training["fvu_train"] == resumed["figures"]["fvu_train"] < 0.5


def test_test_pairs_are_left_out_and_that_is_said(tmp_path, few_pairs, capsys, caplog):
    pairs = load_pairs(few_pairs)
    save_pairs([replace(pair, split="test") for pair in pairs[:3]] + pairs[3:], few_pairs)
    again = ["--pairs", str(few_pairs)]
    assert main([*call(tmp_path, "a.safetensors", "--steps", "2"), *again]) == 0
    result = json.loads(capsys.readouterr().out)
    expected = {text for pair in pairs[3:] for text in (pair.cultural, pair.neutral)}
    assert result["prompts"] == len(expected) + 5 and "3 prompt pairs of the split test" in result["left_out"]
    assert "3 prompt pairs" in train_sae.describe(result)
    save_pairs([replace(pair, split="neuron_detection") for pair in pairs], few_pairs)
    assert main([*call(tmp_path, "b.safetensors"), *again]) == 1
    assert "neuron_detection" in caplog.text and not (tmp_path / "b.safetensors").exists()


def test_presets_of_help_are_those_of_the_library(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(call(tmp_path, "a.safetensors", "--preset", "other"))
    said = capsys.readouterr().err
    assert all(name in said for name in PAPER_PRESETS)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"--output": "a.txt"}, 1, "must end in .safetensors"),
        ({"--output": "nowhere/a.safetensors"}, 1, "make it first"),
        ({"--k": "33"}, 1, "k=33 is out of range"),
        ({"--texts": "nowhere.txt"}, 1, "nowhere.txt: cannot be read"),
        ({"--texts": os.devnull}, 1, "there is no prompt"),
        ({"--pairs": os.devnull}, 1, "holds no prompt pair"),
        ({"--texts": None}, 2, "give prompts to learn from"),
        ({"--output": "a.safetensors", "--checkpoint": "a.safetensors"}, 2, "are the same file"),
        ({"--feature": "both"}, 2, "invalid choice: 'both'"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_encoder_is_read(
    tmp_path, change, code, words, caplog, capsys, monkeypatch
):
    arguments = call(tmp_path, "a.safetensors")
    monkeypatch.chdir(tmp_path)
    for name, value in {"--encoder": "no encoder", **change}.items():
        place = arguments.index(name) if name in arguments else None
        if place is not None:
            del arguments[place : place + 2]
        if value is not None:
            arguments += [name, value]
    try:
        found = main(arguments)
    except SystemExit as error:
        found = error.code
    said = caplog.text + capsys.readouterr().err
    assert found == code and words in said and "no encoder is no" not in said


def test_a_finished_file_is_not_overwritten_unasked(tmp_path, caplog):
    (tmp_path / "a.safetensors").write_text("mine")
    assert main(call(tmp_path, "a.safetensors")) == 1
    assert "--overwrite" in caplog.text and (tmp_path / "a.safetensors").read_text() == "mine"


def test_features_in_a_store_give_an_sae_and_are_kept(tmp_path, capsys):
    store = tmp_path / "features"
    more = ["--store", str(store), "--revival", "restart", "--precision", "bfloat16", "--steps", "20"]
    assert main(call(tmp_path, "a.safetensors", *more)) == 0
    result = json.loads(capsys.readouterr().out)
    config = load_culture_sae(tmp_path / "a.safetensors").training["config"]
    assert (config["revival"], config["precision"]) == ("restart", "bfloat16")
    assert len(FeatureStore(store)) == result["figures"]["vectors"] > 10
    # The store is used as it is: it belongs to these texts, and others are refused.
    assert main(call(tmp_path, "b.safetensors", *more)) == 0
    a, b = (load_culture_sae(tmp_path / f"{name}.safetensors").sae.W_dec for name in "ab")
    assert torch.equal(a, b)
    pairs = ROOT / "models" / "culture_pairs" / "miniature.jsonl"
    assert main(call(tmp_path, "c.safetensors", *more, "--pairs", str(pairs))) == 1
    assert not (tmp_path / "c.safetensors").exists()


def test_several_processes_train_one_sae(tmp_path):
    """As `accelerate launch` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    shared |= {"ACCELERATE_USE_CPU": "true", "LOCAL_WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "culture_core", *call(tmp_path, "a.safetensors", "--steps", "10")]
    command += ["--store", str(tmp_path / "features")]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    found = [json.loads(said) for said, _ in outputs]
    assert found[0]["processes"] == 2 and found[0]["loss"] == found[1]["loss"]
    assert load_culture_sae(tmp_path / "a.safetensors").sae.n_latents == 32
    assert not (tmp_path / "a.checkpoint.safetensors").exists()

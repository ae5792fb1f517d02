"""`train-enhancer` on a tiny pipeline: killed, interrupted, in several processes, and what it refuses."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from culture_core.__main__ import main
from culture_core.checkpoints import read_checkpoint
from culture_core.enhancer_training import LOSSES, PRECISIONS
from culture_core.files import load_enhancer
from culture_core.pipelines import enhanced

from .. import tiny_pipelines
from ..pictures import write_pairs

ROOT = Path(__file__).parents[3]
STEPS = 30


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> Path:
    """A folder with pipelines `sd` and `sd3`."""
    folder = tmp_path_factory.mktemp("pipelines")
    for kind in ("sd", "sd3"):
        tiny_pipelines.make(kind).save_pretrained(folder / kind)
    return folder


@pytest.fixture
def call(tmp_path, pipelines):
    """Arguments of a run, with some more."""
    pairs = write_pairs(tmp_path)

    def make(output: str, *more: str) -> list[str]:
        return [
            "train-enhancer", "--pipeline", str(pipelines / "sd"), "--pairs", str(pairs), "--layer", "1",
            "--output", str(tmp_path / output), "--loss", "latent", "--steps", str(STEPS),
            "--bottleneck", "8", "--learning-rate", "0.01", "--ema", "0.9", "--checkpoint-every", "5",
            "--json", *more,
        ]  # fmt: skip

    return make


@pytest.fixture
def one_thread():
    """Sums of one thread are the same in every process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(arguments: list[str], **more: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "culture_core", *arguments], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


def wait_for_lines(path: Path, count: int, process: subprocess.Popen) -> None:
    while not path.is_file() or path.read_text().count("\n") < count:
        assert process.poll() is None, process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_or_interrupted_ends_as_an_undisturbed_one_bit_for_bit(
    call, tmp_path, one_thread, hear_interrupts, capsys, number
):
    picture = tmp_path / "loss.png"
    arguments = call("a.safetensors", "--steps", "100", "--author", "us", "--picture", str(picture))
    process = start(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}, preexec_fn=hear_interrupts)
    log = tmp_path / "a.loss.jsonl"
    wait_for_lines(log, 8, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    checkpoint = tmp_path / "a.checkpoint.safetensors"
    done = len(read_checkpoint(checkpoint)[1]["losses"])
    assert 5 <= done < 100 and not (tmp_path / "a.safetensors").exists()
    if number == signal.SIGINT:
        assert process.returncode == 130 and f"kept in {checkpoint}" in said and "Traceback" not in said
    else:
        assert process.returncode == -number and done % 5 == 0

    assert main(arguments) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert resumed["resumed_after"] == done and resumed["steps"] == 100 and not checkpoint.exists()
    assert main(call("b.safetensors", "--steps", "100")) == 0
    undisturbed = json.loads(capsys.readouterr().out)
    assert undisturbed["resumed_after"] == 0 and undisturbed["figures"] == resumed["figures"]
    a, b = (load_enhancer(tmp_path / f"{name}.safetensors") for name in "ab")
    for name, tensor in a.enhancer.state_dict().items():
        assert torch.equal(tensor, b.enhancer.state_dict()[name]), name
    assert bool(a.enhancer.gain.any()) and (a.layer, a.author) == (1, "us")
    assert a.training["pictures"] == 4 and a.training["loss"] == "latent"
    records = [[json.loads(line) for line in (tmp_path / f"{n}.loss.jsonl").open()] for n in "ab"]
    steps = [[(record["step"], record["loss"]) for record in lines] for lines in records]
    assert steps[0] == steps[1] and [step for step, _ in steps[0]] == list(range(1, 101))
    assert Image.open(picture).width == 800


def test_the_enhancer_works_in_the_pipeline_that_it_was_trained_with(call, tmp_path, pipelines, capsys):
    sheets = tmp_path / "sheets"
    more = ["--validation", str(sheets), "--validate-every", "20", "--sampling-steps", "1"]
    more += ["--pipeline", str(pipelines / "sd3"), "--encoder-name", "text_encoder_3"]
    assert main(call("a.safetensors", *more)) == 0
    assert sorted(path.name for path in sheets.iterdir()) == ["step-000020.png", "step-000030.png"]
    assert json.loads(capsys.readouterr().out)["figures"]["encoder"] == "text_encoder_3"
    pipe = tiny_pipelines.make("sd3")
    file = load_enhancer(tmp_path / "a.safetensors")
    settings = {"num_inference_steps": 1, "height": 16, "width": 16, "output_type": "np"}
    pictures = []
    for strength in (0, 1):
        with enhanced(pipe, file, strength):
            pictures.append(pipe("a red chair", generator=torch.manual_seed(1), **settings).images)
    assert (pictures[0] != pictures[1]).any()
    # A second run may not replace what is there, and says so before it trains.
    assert main(call("b.safetensors", *more)) == 1 and main(call("a.safetensors")) == 1
    assert not (tmp_path / "b.loss.jsonl").exists()


def test_a_dry_run_reports_memory_and_time_and_writes_nothing(call, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(call("a.safetensors", "--dry-run")) == 0
    result = json.loads(capsys.readouterr().out)
    memory = result["memory"]
    assert memory["frozen"] > 10 * memory["trained"] > 0 and memory["activations"] > 0
    assert result["seconds_per_step"] > 0 and result["fits"] and result["advice"] == []
    arguments = call("a.safetensors", "--dry-run")
    arguments.remove("--json")
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "Models, frozen" in said and "A step takes" in said and "It fits." in said
    assert sorted(tmp_path.rglob("*")) == before


def test_several_processes_train_one_enhancer(call, tmp_path):
    """As `accelerate launch` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    shared |= {"ACCELERATE_USE_CPU": "true", "LOCAL_WORLD_SIZE": "2"}
    arguments = call("a.safetensors", "--steps", "6", "--latents", str(tmp_path / "latents"))
    running = [
        start(arguments, env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]
    outputs = [process.communicate(timeout=240) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    found = [json.loads(said) for said, _ in outputs]
    assert found[0]["figures"] == found[1]["figures"] and found[0]["figures"]["processes"] == 2
    assert bool(load_enhancer(tmp_path / "a.safetensors").enhancer.gain.any())
    assert (tmp_path / "a.loss.jsonl").read_text().count("\n") == 6
    assert not (tmp_path / "a.checkpoint.safetensors").exists()


def test_choices_of_help_are_those_of_the_library(call, capsys):
    for option, choices in (("--loss", LOSSES), ("--precision", PRECISIONS)):
        with pytest.raises(SystemExit):
            main(call("a.safetensors", option, "other"))
        said = capsys.readouterr().err
        assert all(choice in said for choice in choices)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"--output": "a.txt"}, 1, "must end in .safetensors"),
        ({"--output": "nowhere/a.safetensors"}, 1, "make it first"),
        ({"--learning-rate": "-1"}, 1, "learning_rate=-1.0 is out of range"),
        ({"--pairs": os.devnull}, 1, "holds no prompt pair"),
        ({"--pipeline": "nowhere"}, 1, "no model_index.json"),
        ({"--layer": "3"}, 1, "has the layers 0 to 2"),
        ({"--encoder-name": "text_encoder_4"}, 1, "no text encoder 'text_encoder_4'"),
        ({"--size": "17"}, 1, "use a multiple of 2"),
        ({"--device": "nothing"}, 1, "cannot be used here"),
        ({"--checkpoint": "a.safetensors", "--output": "a.safetensors"}, 2, "are the same file"),
        ({"--steps": "0"}, 2, "0 is too small"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_training(
    call, tmp_path, change, code, words, caplog, capsys, monkeypatch
):
    arguments = call("a.safetensors")
    monkeypatch.chdir(tmp_path)
    for name, value in change.items():
        if name in arguments:
            arguments[arguments.index(name) + 1] = value
        else:
            arguments += [name, value]
    try:
        found = main(arguments)
    except SystemExit as error:
        found = error.code
    assert found == code and words in caplog.text + capsys.readouterr().err
    assert not list(tmp_path.glob("a.*"))

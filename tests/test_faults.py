"""Full disks, folders that cannot be written, kills at random moments: nothing good is lost."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from culture_core.__main__ import main
from culture_core.files import CultureSAE, FileError, load_culture_sae, save_culture_sae
from culture_core.sae import SAEConfig, TopKSAE, train_sae

from .comfy_protocol import GRAPH, ComfyProtocolServer

ROOT = Path(__file__).resolve().parents[1]
ENCODER = {"family": "bert", "layers": 4, "width": 16, "heads": 4, "vocabulary": 9, "weights": [0.5]}
SYSTEMS = "systems:\n  plain: {workflow: graph.json, slots: {prompt: 1.text, seed: 1.seed}}\n"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 KiB; making one needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, left: int) -> Path:
    """A file that takes all but some bytes of the disk."""
    free = os.statvfs(disk)
    path = disk / "filler"
    path.write_bytes(bytes(max(0, free.f_bavail * free.f_bsize - left)))
    return path


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def culture_sae(seed: int, latents: int = 64) -> CultureSAE:
    return CultureSAE(TopKSAE(16, latents, 4, seed), 1, "hidden_state", ENCODER)


def same_weights(one: TopKSAE, other: TopKSAE) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def data() -> torch.Tensor:
    return torch.randn(400, 16, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    "break_it", [lambda disk: fill(disk, 4096), make_read_only], ids=["full", "read-only"]
)
def test_a_file_that_cannot_be_replaced_stays_as_it_is(
    disk: Path, break_it: Callable[[Path], object]
) -> None:
    path = save_culture_sae(culture_sae(1), disk / "a.safetensors")
    before = sorted(os.listdir(disk))
    break_it(disk)
    with pytest.raises(
        FileError, match=r"a.safetensors: cannot be written .*; look at the folder and the disk"
    ):
        save_culture_sae(culture_sae(2, 4096), path, overwrite=True)
    assert same_weights(load_culture_sae(path).sae, culture_sae(1).sae)
    assert sorted({*os.listdir(disk)} - {"filler"}) == before, "nothing half-written is left behind"


def test_a_training_whose_disk_is_full_goes_on_from_its_last_checkpoint(disk: Path) -> None:
    config = SAEConfig(n_latents=64, k=4, steps=40, batch_size=32, checkpoint_every=10, dead_after=64)
    whole, report = train_sae(data(), config)
    steps: list[int] = []

    def progress(done: int, _total: int, _loss: float) -> None:
        steps.append(done)
        if done == 15:
            fill(disk, 4096)

    with pytest.raises(OSError, match="run: cannot be written"):
        train_sae(data(), config, progress=progress, checkpoint=disk / "run")
    (disk / "filler").unlink()
    assert steps[-1] < 40 and os.listdir(disk) == ["run"]
    resumed, again = train_sae(
        data(), config, progress=lambda n, *_: steps.append(n), checkpoint=disk / "run"
    )
    assert steps[steps.index(11) :].count(11) == 2 and steps[-1] == 40
    assert same_weights(whole, resumed) and again == report


def test_a_run_of_a_generator_whose_disk_is_full_goes_on(
    disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH))
    (tmp_path / "systems.yaml").write_text(SYSTEMS)
    run = disk / "run"
    command = ["generate", "miniature", "--systems", str(tmp_path / "systems.yaml"), "--output", str(run)]
    with ComfyProtocolServer() as server:
        command += ["--limit", "1", "--json", "--server", server.url]
        server.fault = lambda owner, graph: fill(disk, 0) and None if len(owner.graphs) == 5 else None
        assert main(command) == 1
        assert "No space left" in caplog.text
        (disk / "filler").unlink()
        for path in run.glob("images/[!.]*"):
            Image.open(path).load()
        server.fault = None
        assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["pictures"] == 15 and 0 < result["new"] < 15 and len(server.graphs) <= 25
    lines = (run / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["file_name"] for line in lines}) == 15 == len(lines)


@pytest.mark.parametrize("break_it", [lambda disk: fill(disk, 0), make_read_only], ids=["full", "read-only"])
def test_judging_says_what_it_could_not_write_and_keeps_its_answers(
    disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, break_it: Callable[[Path], object]
) -> None:
    for code in ("th", "ja"):
        (tmp_path / "pictures" / code).mkdir(parents=True)
        Image.new("RGB", (64, 64), "red").save(tmp_path / "pictures" / code / "0.png")
    command = ["judge", str(tmp_path / "pictures"), "--output", str(disk / "judged")]
    assert main(command) == 0
    before = (disk / "judged" / "answers.jsonl").read_bytes()
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "pictures" / "th" / "1.png")
    break_it(disk)
    assert main(command) == 1
    assert re.search("No space left|Read-only file system", caplog.text)
    assert (disk / "judged" / "answers.jsonl").read_bytes() == before
    json.loads((disk / "judged" / "summary.json").read_text(encoding="utf-8"))


def test_a_server_that_restarts_in_the_middle_of_a_run_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH))
    (tmp_path / "systems.yaml").write_text(SYSTEMS)
    servers: list[ComfyProtocolServer] = []

    def restart(port: int) -> None:
        servers[0].die()
        time.sleep(1)
        servers.append(ComfyProtocolServer(port=port).__enter__())

    def fault(owner: ComfyProtocolServer, _graph: object) -> str | None:
        if len(owner.graphs) != 5:
            return None
        threading.Thread(target=restart, args=(int(owner.url.rpartition(":")[2]),), daemon=True).start()
        return "forget"  # the job that was in work is gone with the server

    with ComfyProtocolServer(fault) as server:
        servers.append(server)
        command = ["generate", "miniature", "--systems", str(tmp_path / "systems.yaml"), "--limit", "1"]
        assert main([*command, "--output", str(tmp_path / "run"), "--json", "--server", server.url]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["new"], result["failed"], result["lost"]) == (15, [], [])
    assert len(servers[0].graphs) == 5 and len(servers[1].graphs) == 11
    servers[1].die()


@pytest.mark.skipif(os.name == "nt", reason="kills forked processes")
def test_what_is_killed_at_random_moments_ends_as_an_undisturbed_run() -> None:
    """The trainings have tests of their own; more kills by hand: `python -m tools.kill_test`."""
    command = [sys.executable, "-m", "tools.kill_test", "generate", "judge", "saving", "--kills", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("12 kills\n"), done.stdout + done.stderr[-3000:]


def test_no_decision_depends_on_the_clock_of_the_day() -> None:
    """That may be set back at any time. `monotonic` and `perf_counter` are no such clocks."""
    sources = [path for folder in ("culture_core", "nodes") for path in (ROOT / folder).rglob("*.py")]
    clocks = re.compile(r"time\.time\(|time_ns\(|datetime\.(now|today|utcnow)\(|date\.today\(|localtime\(")
    assert not [path for path in sources if clocks.search(path.read_text(encoding="utf-8"))]

"""Training in two processes through Accelerate equals that in one, up to rounding, and resumes exactly."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from culture_core.sae import SAEConfig, train_sae

ROOT = Path(__file__).parents[3]
# A batch of odd size, so that the parts differ; latents die and restart.
CONFIGS = {
    revival: SAEConfig(
        n_latents=64, k=4, steps=30, batch_size=33, learning_rate=2e-3, checkpoint_every=10, dead_after=64,
        revival=revival, seed=1,
    )
    for revival in ("restart", "auxk")
}  # fmt: skip


def data() -> torch.Tensor:
    return torch.randn(400, 16, generator=torch.Generator().manual_seed(4))


SCRIPT = """
    import os, shutil, sys
    from pathlib import Path
    sys.path[:0] = [{root!r}, {here!r}]
    from accelerate import Accelerator
    from safetensors.torch import save_file
    from test_processes import CONFIGS, data
    from culture_core.sae import train_sae

    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    folder = Path({folder!r})
    rank = accelerator.process_index

    def run(name, config, checkpoint):
        seen = []
        def progress(done, *_):
            assert accelerator.is_main_process
            seen.append(done)
            if done == 15 and name == "restart":
                shutil.copy(checkpoint, folder / "kept")
        sae, report = train_sae(
            data(), config, progress=progress, checkpoint=checkpoint, accelerator=accelerator
        )
        save_file(sae.state_dict(), folder / f"{{name}}-{{rank}}")
        (folder / f"{{name}}-{{rank}}.txt").write_text(repr((report, seen)))
        accelerator.wait_for_everyone()

    run("restart", CONFIGS["restart"], folder / "run")
    run("resumed", CONFIGS["restart"], folder / "kept")
    run("auxk", CONFIGS["auxk"], folder / "other")
    # An interpreter that tears the group's threads down may abort, long after all that is tested here.
    accelerator.wait_for_everyone()
    sys.stdout.flush()
    os._exit(0)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "train.py"
    script.write_text(
        textwrap.dedent(SCRIPT.format(root=str(ROOT), here=str(Path(__file__).parent), folder=str(folder)))
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # What `accelerate launch` and `torchrun` tell the processes that they start.
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for process in started:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
    finally:
        for process in started:
            process.kill()
            process.wait()
    return folder


@pytest.mark.parametrize("revival", ["restart", "auxk"])
def test_two_processes_train_the_same_sae_as_one_up_to_rounding(folder, revival):
    one, report = train_sae(data(), CONFIGS[revival])
    plain, _ = train_sae(data(), SAEConfig(**{**vars(CONFIGS[revival]), "revival": "none"}))
    two = load_file(folder / f"{revival}-0")
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-4)
    assert (plain.W_dec - two["W_dec"]).abs().max() > 1e-3, "latents were revived"
    other = load_file(folder / f"{revival}-1")
    assert all(torch.equal(two[name], other[name]) for name in two), "both processes end alike"
    assert f"vectors={report.vectors}" in (folder / f"{revival}-1.txt").read_text()
    assert f"dead={report.dead}, dense={report.dense}" in (folder / f"{revival}-1.txt").read_text()


def test_a_run_in_two_processes_resumes_exactly(folder):
    whole, resumed = load_file(folder / "restart-0"), load_file(folder / "resumed-0")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    text, again = (folder / "restart-0.txt").read_text(), (folder / "resumed-0.txt").read_text()
    assert text.endswith(f"{list(range(1, 31))})") and again.endswith(f"{list(range(11, 31))})")
    assert text.split("losses")[1].split("vectors")[0] == again.split("losses")[1].split("vectors")[0]

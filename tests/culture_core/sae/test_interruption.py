"""Ctrl-C, errors and kill -9 in the middle of things: what a checkpoint holds is always a whole step."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from culture_core.sae import SAEConfig, TopKSAE, train_sae

ROOT = Path(__file__).parents[3]
CONFIG = SAEConfig(
    n_latents=64, k=4, steps=40, batch_size=32, learning_rate=2e-3, checkpoint_every=10, dead_after=64
)  # fmt: skip


def data() -> torch.Tensor:
    return torch.randn(400, 16, generator=torch.Generator().manual_seed(4))


def assert_same(one: TopKSAE, other: TopKSAE) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.fixture
def inside_step_13():
    """Runs something inside the optimiser's 13th step, when the weights are changed and no one knows yet."""
    handles = []

    def install(action):
        count = 0

        def hook(*_):
            nonlocal count
            count += 1
            if count == 13:
                action()

        handles.append(register_optimizer_step_post_hook(hook))

    yield install
    for handle in handles:
        handle.remove()


@pytest.fixture(autouse=True)
def _ctrl_c_raises():
    """A process that a shell put into the background ignores Ctrl-C; these tests hear it all the same."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_ctrl_c_inside_an_optimiser_step_waits_for_its_end(tmp_path, inside_step_13):
    whole, report = train_sae(data(), CONFIG)
    inside_step_13(lambda: os.kill(os.getpid(), signal.SIGINT))
    done = []
    with pytest.raises(KeyboardInterrupt):
        train_sae(data(), CONFIG, progress=lambda n, *_: done.append(n), checkpoint=tmp_path / "run")
    assert done == list(range(1, 14)), "the 13th step is done and reported"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed, again = train_sae(
        data(), CONFIG, progress=lambda n, *_: done.append(n), checkpoint=tmp_path / "run"
    )
    assert done[13:] == list(range(14, 41)), "nothing is lost"
    assert_same(whole, resumed)
    assert again == report


def twice():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)


def fail():
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(("action", "error"), [(fail, RuntimeError), (twice, KeyboardInterrupt)])
def test_what_breaks_into_an_optimiser_step_leaves_the_last_regular_checkpoint(
    tmp_path, inside_step_13, action, error
):
    whole, report = train_sae(data(), CONFIG)
    inside_step_13(action)
    done = []
    with pytest.raises(error):
        train_sae(data(), CONFIG, checkpoint=tmp_path / "run")
    resumed, again = train_sae(
        data(), CONFIG, progress=lambda n, *_: done.append(n), checkpoint=tmp_path / "run"
    )
    assert done[0] == 11
    assert_same(whole, resumed)
    assert again == report


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path):
    whole, report = train_sae(data(), CONFIG)
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys, time
        sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
        import torch
        torch.set_num_threads({torch.get_num_threads()})
        from test_interruption import CONFIG, data
        from culture_core.sae import train_sae
        def wait(done, *_):
            if done == 23:
                print("there", flush=True)
                time.sleep(60)
        train_sae(data(), CONFIG, progress=wait, checkpoint={str(tmp_path / "run")!r})
    """)
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"there\n"
    finally:
        process.kill()
        process.wait()
    done = []
    resumed, again = train_sae(
        data(), CONFIG, progress=lambda n, *_: done.append(n), checkpoint=tmp_path / "run"
    )
    assert done == list(range(21, 41))
    assert_same(whole, resumed)
    assert again == report

"""Checkpoints: what a run writes comes back, whole or not at all."""

import os
import signal
import threading
import time

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from culture_core.checkpoints import (
    interrupts_deferred,
    optimiser_tensors,
    read_checkpoint,
    restore_optimiser,
    run_steps,
    write_safetensors,
)


def test_tensors_and_the_identity_of_the_run_come_back(tmp_path):
    path = tmp_path / "run.safetensors"
    tensors = {"a": torch.randn(3, 4).T, "b": torch.tensor(7, dtype=torch.int64)}
    write_safetensors(path, tensors, {"run": "first"})
    identity, found = read_checkpoint(path)
    assert identity == "first" and found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_tensor_that_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "run.safetensors"
    write_safetensors(path, {"a": torch.ones(2)}, {"run": "first"})
    before = path.read_bytes()
    with pytest.raises((SafetensorError, TypeError)):
        write_safetensors(path, {"a": torch.zeros(2)}, {"run": 2})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", bytes(range(256)) * 4])
def test_an_unreadable_checkpoint_says_to_delete_it(tmp_path, content):
    path = tmp_path / "run.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.safetensors.*delete it"):
        read_checkpoint(path)


def test_a_restored_optimiser_takes_the_same_next_step(tmp_path):
    def step(weight: nn.Parameter, optimiser: torch.optim.Optimizer, slope: float) -> None:
        weight.grad = torch.full_like(weight, slope)
        optimiser.step()

    weight = nn.Parameter(torch.randn(5))
    optimiser = torch.optim.AdamW([weight], lr=0.1)
    step(weight, optimiser, 1.0)
    write_safetensors(tmp_path / "o.safetensors", optimiser_tensors(optimiser, {"w": weight}), {})
    again, fresh = (nn.Parameter(weight.detach().clone()) for _ in range(2))
    restored, unrestored = (torch.optim.AdamW([copy], lr=0.1) for copy in (again, fresh))
    restore_optimiser(restored, {"w": again}, read_checkpoint(tmp_path / "o.safetensors")[1])
    for copy, its in ((weight, optimiser), (again, restored), (fresh, unrestored)):
        step(copy, its, -0.3)
    assert torch.equal(again, weight) and not torch.equal(fresh, weight)


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request):
    """A signal that is heard as Ctrl-C."""
    before = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, before)


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


def test_an_interrupt_waits_for_the_end_of_the_context(number):
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with interrupts_deferred():
            send(number)
            steps.append("after it")
    assert steps == ["after it"] and signal.getsignal(number) is signal.default_int_handler


def test_a_second_interrupt_does_not_wait(number):
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with interrupts_deferred():
            send(number)
            steps.append("between")
            send(number)
            steps.append("never")
    assert steps == ["between"] and signal.getsignal(number) is signal.default_int_handler


def test_signals_that_python_does_not_handle_and_other_threads_are_left_alone():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with interrupts_deferred():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    entered = []

    def enter():
        with interrupts_deferred():
            entered.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [signal.getsignal(signal.SIGINT)]


@pytest.mark.parametrize("where", ["step", "save", "progress"])
def test_an_interrupted_step_is_done_saved_and_reported(tmp_path, number, where):
    log, losses = [], []

    def part(name):
        def act(*_):
            if name == where and log.count(name) == (0 if name == "save" else 1):
                send(number)
            log.append(name)
            return 0.0

        return act

    with pytest.raises(KeyboardInterrupt):
        run_steps(losses, 10, part("step"), part("save"), 2, part("progress"), tmp_path / "run")
    # The last save is the one that the interruption brings about.
    assert log == ["step", "progress", "step", "save", "progress", "save"]

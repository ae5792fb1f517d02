"""The study's training loop."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from culture_core.reproduce.fitting import CHECKPOINT_EVERY, fit, one_cycle

TARGET = torch.tensor([[1.0, -2.0]])


def regression(module: nn.Linear):  # noqa: ANN201
    def loss(rng: np.random.Generator) -> Tensor:
        x = torch.from_numpy(rng.standard_normal((32, 2)).astype(np.float32))
        noise = torch.randn(32, 1) * 0.01
        return nn.functional.mse_loss(module(x), x @ TARGET.T + noise)

    return loss


def trained(steps: int, **options) -> nn.Linear:  # noqa: ANN003
    torch.manual_seed(0)
    module = nn.Linear(2, 1, bias=False)
    fit(module, regression(module), steps, 0.05, 7, **options)
    return module


def test_finds_the_solution_and_freezes_it() -> None:
    module = trained(400)
    assert torch.allclose(module.weight, TARGET, atol=0.02)
    assert not module.weight.requires_grad


def test_a_run_taken_up_again_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    steps, path = CHECKPOINT_EVERY + 40, tmp_path / "run.checkpoint"

    def stop(done: int, _total: int, _loss: float) -> None:
        if done == CHECKPOINT_EVERY + 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(steps, progress=stop, checkpoint=path)
    taken: list[int] = []
    resumed = trained(steps, progress=lambda done, *_: taken.append(done), checkpoint=path)
    assert taken[0] == CHECKPOINT_EVERY + 18
    assert torch.equal(resumed.weight, trained(steps).weight)


def test_refuses_the_checkpoint_of_another_run(tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(300, progress=stop, checkpoint=path)
    with pytest.raises(ValueError, match="another run"):
        trained(301, checkpoint=path)


def test_the_rate_rises_to_its_highest_and_falls_to_almost_nothing() -> None:
    rates = [one_cycle(step, 100) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(later <= sooner for sooner, later in zip(rates[4:], rates[5:], strict=False))
    assert 0 < rates[-1] < 0.001

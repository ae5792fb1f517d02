import logging
import re
from dataclasses import replace

import pytest
import torch

from culture_core.sae import (
    PAPER_PRESETS,
    SAEConfig,
    advise,
    fraction_unexplained,
    train_sae,
)
from culture_core.sae.training import _held_out

FAST = {"n_latents": 64, "k": 4, "batch_size": 32, "learning_rate": 2e-3, "seed": 5}


def sparse_data(count: int = 400, width: int = 16, seed: int = 0) -> torch.Tensor:
    """Sums of two out of forty fixed directions, off centre, so that a sparse code exists."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(40, width, generator=torch.Generator().manual_seed(99))
    code = torch.zeros(count, 40)
    for row in code:
        row[torch.randperm(40, generator=generator)[:2]] = 1 + torch.rand(2, generator=generator)
    return code @ directions + 3.0


def test_training_explains_data_that_a_sparse_code_made():
    sae, report = train_sae(sparse_data(), SAEConfig(**FAST, steps=600))
    untrained, first = train_sae(sparse_data(), SAEConfig(**FAST, steps=1))
    assert report.fvu_train < 0.1 < first.fvu_train
    assert report.fvu_heldout < 0.5 * first.fvu_heldout
    assert report.losses[-1] < 0.3 * report.losses[0] and len(report.losses) == 600
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(64))
    assert fraction_unexplained(sae, sparse_data(seed=7)) < 0.3, "fresh vectors of the same kind"


def test_features_are_centred_and_scaled_to_unit_mean_square():
    data = sparse_data()
    sae, _ = train_sae(data, SAEConfig(**FAST, steps=1, holdout=0.0))
    torch.testing.assert_close(sae.mean, data.mean(dim=0))
    torch.testing.assert_close(sae.normalise(data).square().mean(), torch.tensor(1.0))


def test_reconstructions_do_not_start_longer_than_the_inputs():
    data = sparse_data()
    for latents, norm in ((64, None), (512, 1.0)):
        config = SAEConfig(
            n_latents=latents, k=latents // 2, learning_rate=1e-12, steps=1, batch_size=32, holdout=0.0
        )
        sae, _ = train_sae(data, config)
        found = float(sae.normalise(sae(data).detach()).norm() / sae.normalise(data).norm())
        if norm is None:
            torch.testing.assert_close(sae.W_enc.norm(dim=1), torch.full((latents,), 0.3))
            assert found < 1
        else:
            assert abs(found - norm) < 0.01 and (sae.W_enc.norm(dim=1) < 0.2).all()


def test_training_is_deterministic_by_seed():
    runs = [train_sae(sparse_data(), SAEConfig(**{**FAST, "seed": seed}, steps=20))[0] for seed in (1, 1, 2)]
    assert torch.equal(runs[0].W_enc, runs[1].W_enc) and torch.equal(runs[0].b_dec, runs[1].b_dec)
    assert not torch.equal(runs[0].W_enc, runs[2].W_enc)


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_at", [7, 25])
def test_a_resumed_run_ends_exactly_as_an_undisturbed_one(tmp_path, stop_at):
    config = SAEConfig(**FAST, steps=40, checkpoint_every=10, dead_after=64)
    whole, whole_report = train_sae(sparse_data(), config)
    path = tmp_path / "run.safetensors"

    def interrupt(done, total, loss):
        assert total == 40 and loss > 0
        if done == stop_at:
            raise Stop

    with pytest.raises(Stop):
        train_sae(sparse_data(), config, progress=interrupt, checkpoint=path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.safetensors"]
    seen = []
    resumed, report = train_sae(
        sparse_data(), config, progress=lambda done, *_: seen.append(done), checkpoint=path
    )
    assert seen == list(range(stop_at + 1, 41))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert report == whole_report


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    config = SAEConfig(**FAST, steps=12, checkpoint_every=5)
    train_sae(sparse_data(), config, checkpoint=path)
    with pytest.raises(ValueError, match="other features"):
        train_sae(sparse_data(seed=1), config, checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="no readable checkpoint"):
        train_sae(sparse_data(), config, checkpoint=path)


def test_training_works_under_inference_mode():
    with torch.inference_mode():
        sae, report = train_sae(sparse_data().clone(), SAEConfig(**FAST, steps=30))
    assert report.losses[-1] < report.losses[0]
    assert not sae.W_enc.is_inference()


def many_directions(count: int, used: int, active: int) -> torch.Tensor:
    """Sums of a few of many directions, of which some are far more frequent than others, with noise."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(used, 24, generator=generator), dim=1)
    odds = (1 / (torch.arange(used) + 5.0)).expand(count, used)
    chosen = torch.multinomial(odds, active, generator=generator)
    code = torch.zeros(count, used).scatter_(1, chosen, 1 + torch.rand(count, active, generator=generator))
    return code @ directions + 0.05 * torch.randn(count, 24, generator=generator) + 1.0


def revived(features: torch.Tensor, config: SAEConfig, revival: str) -> tuple[list[int], float, float]:
    """Dead latents of each of three seeds, and the mean FVU in training and on held-out vectors."""
    reports = [train_sae(features, replace(config, revival=revival, seed=seed))[1] for seed in range(3)]
    fvu, heldout = (sum(report[i] for report in reports) / 3 for i in (0, 1))
    return [report.dead for report in reports], fvu, heldout


def test_revival_leaves_fewer_dead_latents_and_no_worse_a_reconstruction():
    features = many_directions(2000, used=200, active=4)
    config = SAEConfig(n_latents=192, k=4, steps=400, batch_size=64, learning_rate=2e-2)
    left, fvu, heldout = revived(features, config, "none")
    assert min(left) > 30
    for revival in ("auxk", "restart"):
        dead, its_fvu, its_heldout = revived(features, config, revival)
        assert all(one < 0.5 * other for one, other in zip(dead, left, strict=True)), (revival, dead)
        assert its_fvu < 1.01 * fvu and its_heldout < 1.05 * heldout, revival
    assert SAEConfig().revival == "auxk"


def test_revival_does_no_harm_where_little_is_left_to_explain():
    """More latents than there are directions: with the error itself as target, AuxK kills latents here."""
    features = many_directions(3000, used=48, active=3)
    config = SAEConfig(
        n_latents=192, k=3, steps=700, batch_size=64, learning_rate=1e-2, encoder_scale=1.0
    )  # fmt: skip
    left, fvu, heldout = revived(features, config, "none")
    for revival, share, loss in (("auxk", 0.98, 1.02), ("restart", 0.5, 1.08)):
        dead, its_fvu, its_heldout = revived(features, config, revival)
        assert sum(dead) < share * sum(left), (revival, dead, left)
        assert its_fvu < loss * fvu and its_heldout < loss * heldout, (revival, its_fvu, fvu)


def test_where_nothing_dies_revival_changes_nothing():
    runs = [
        train_sae(sparse_data(), SAEConfig(n_latents=24, k=4, steps=50, batch_size=32, revival=revival))[0]
        for revival in ("none", "restart", "auxk")
    ]
    for other in runs[1:]:
        assert torch.equal(runs[0].W_enc, other.W_enc) and torch.equal(runs[0].b_dec, other.b_dec)


def test_a_diverging_run_says_so():
    with pytest.raises(ValueError, match=r"the loss of step \d+ is (nan|inf): lower the learning rate"):
        train_sae(sparse_data(), SAEConfig(**{**FAST, "learning_rate": 1e30}, steps=20))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_trains_nearly_as_well_with_float32_weights(precision):
    _, exact = train_sae(sparse_data(), SAEConfig(**FAST, steps=200))
    sae, report = train_sae(sparse_data(), SAEConfig(**FAST, steps=200, precision=precision))
    assert sae.W_enc.dtype == sae.b_dec.dtype == torch.float32
    assert report.losses != exact.losses and report.fvu_train < 1.1 * exact.fvu_train


def test_advice_is_given_before_training():
    good = SAEConfig(n_latents=256, k=16, steps=2000, batch_size=64)
    assert advise(20_000, 64, good) == []
    for vectors, width, change, complaint in [
        (1500, 64, {}, "1500 vectors are few for 256 latents, .* take 187 latents"),
        (1000, 64, {"n_latents": 64}, "go through the 1000 vectors 128 times"),
        (20_000, 64, {"steps": 100}, "see 6400 of 20000 vectors only: take 313 steps"),
        (20_000, 512, {}, "256 latents are fewer than the features are wide"),
        (20_000, 24, {}, "k = 16 is no sparse code .* 24 wide"),
        (20_000, 64, {"dead_after": 10**7}, "nothing is revived"),
    ]:
        found = advise(vectors, width, replace(good, **change))
        assert len(found) == 1 and re.search(complaint, found[0]), found


def test_advice_is_logged_first_and_kept_in_the_report(caplog):
    def no_further(*_):
        raise Stop

    with caplog.at_level(logging.WARNING), pytest.raises(Stop):
        train_sae(sparse_data(), SAEConfig(**FAST, steps=1), progress=no_further)
    assert "are few for 64 latents" in caplog.text
    assert "are few for 64 latents" in train_sae(sparse_data(), SAEConfig(**FAST, steps=1))[1].warnings[0]


def test_groups_are_held_out_as_a_whole():
    groups = torch.arange(400) // 4
    held = _held_out(400, SAEConfig(**FAST, steps=1, holdout=0.25), groups)
    assert int(held.sum()) == 100
    assert ((held.view(100, 4).sum(dim=1) == 0) | held.view(100, 4).all(dim=1)).all()


def test_dead_latents_and_memorising_are_warned_about(caplog):
    noise = torch.randn(40, 16)
    with caplog.at_level(logging.WARNING):
        _, report = train_sae(noise, SAEConfig(**{**FAST, "n_latents": 512}, steps=300, holdout=0.3))
    assert any("dead" in warning for warning in report.warnings)
    assert any("memorises" in warning for warning in report.warnings)
    assert all(warning in caplog.text for warning in report.warnings)


@pytest.mark.parametrize(
    ("features", "complaint"),
    [
        (torch.full((8, 4), torch.nan), "NaN"),
        (torch.zeros(8), r"\[N, d\]"),
        (torch.zeros(1, 4), "N >= 2"),
        (torch.zeros(8, 4, dtype=torch.long), "float matrix"),
    ],
)
def test_unusable_features_are_refused(features, complaint):
    with pytest.raises(ValueError, match=complaint):
        train_sae(features, SAEConfig(**FAST, steps=1))


@pytest.mark.parametrize(
    "field", [{"k": 0}, {"k": 65}, {"learning_rate": 0.0}, {"holdout": 1.0}, {"steps": 0}]
)
def test_a_senseless_configuration_is_refused_by_name(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        SAEConfig(**{**FAST, "steps": 1, **field})


def test_the_paper_presets_are_its_two_readings():
    assert PAPER_PRESETS["auxk"].k == 32 and PAPER_PRESETS["auxk"].auxk_weight == 1 / 32
    assert PAPER_PRESETS["sparsity"].k * 32 == PAPER_PRESETS["sparsity"].n_latents

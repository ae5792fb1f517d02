import logging

import pytest
import torch

from culture_core.sae import (
    PAPER_PRESETS,
    SAEConfig,
    TopKSAE,
    fraction_unexplained,
    top_k,
    train_sae,
)

FAST = {"n_latents": 64, "k": 4, "batch_size": 32, "learning_rate": 2e-3, "seed": 5}


def sparse_data(count: int = 400, width: int = 16, seed: int = 0) -> torch.Tensor:
    """Sums of two out of forty fixed directions, off centre, so that a sparse code exists."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(40, width, generator=torch.Generator().manual_seed(99))
    code = torch.zeros(count, 40)
    for row in code:
        row[torch.randperm(40, generator=generator)[:2]] = 1 + torch.rand(2, generator=generator)
    return code @ directions + 3.0


def random_sae(width: int = 8, latents: int = 32, k: int = 5) -> TopKSAE:
    """An SAE none of whose parts is trivial."""
    sae = TopKSAE(width, latents, k)
    with torch.no_grad():
        for tensor in (sae.W_enc, sae.b_enc, sae.b_dec, sae.mean):
            tensor.copy_(torch.randn_like(tensor))
        sae.scale.fill_(2.5)
    return sae


def dense_reference(sae: TopKSAE, x: list[float]) -> tuple[list[float], list[float]]:
    """Code and reconstruction of one vector, with plain Python and the definition of Top-K."""
    normal = [
        (v - m) / float(sae.scale) - b
        for v, m, b in zip(x, sae.mean.tolist(), sae.b_dec.tolist(), strict=True)
    ]
    pre = [
        max(0.0, sum(w * v for w, v in zip(row, normal, strict=True)) + bias)
        for row, bias in zip(sae.W_enc.tolist(), sae.b_enc.tolist(), strict=True)
    ]
    order = sorted(range(len(pre)), key=lambda index: (-pre[index], index))[: sae.k]
    code = [value if index in order else 0.0 for index, value in enumerate(pre)]
    out = [
        (sum(code[m] * float(sae.W_dec[m, j]) for m in order) + float(sae.b_dec[j])) * float(sae.scale)
        + float(sae.mean[j])
        for j in range(sae.d_in)
    ]
    return code, out


@torch.no_grad()
def test_code_and_reconstruction_equal_an_independent_dense_implementation():
    sae = random_sae()
    x = torch.randn(6, 8) * 3
    z = sae.encode(x)
    for row in range(6):
        code, rebuilt = dense_reference(sae, x[row].tolist())
        torch.testing.assert_close(z[row], torch.tensor(code), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(sae.decode(z)[row], torch.tensor(rebuilt), atol=1e-4, rtol=1e-5)
    assert torch.equal(sae(x), sae.decode(sae.encode(x)))


@torch.no_grad()
def test_encode_takes_any_leading_shape_and_half_precision():
    sae = random_sae()
    x = torch.randn(2, 3, 8)
    assert torch.allclose(sae.encode(x).flatten(0, 1), sae.encode(x.flatten(0, 1)), atol=1e-6)
    assert sae.encode(x.half()).dtype == torch.float32


def test_among_equal_activations_the_lowest_index_wins():
    values = torch.tensor([[1.0, 2.0, 1.0, 1.0, 0.0], [0.5, 0.5, 0.5, 0.5, 0.5], [3.0, 1.0, 3.0, 3.0, 2.0]])
    expected = torch.tensor([[1.0, 2.0, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [3.0, 0, 3.0, 0, 0]])
    assert torch.equal(top_k(values, 2), expected)


def test_a_selected_zero_does_not_fire():
    code = top_k(torch.tensor([[0.0, 0.7, 0.0, 0.0]]), 3)
    assert (code > 0).sum() == 1


@torch.no_grad()
def test_at_most_k_latents_are_active():
    sae = random_sae(k=3)
    active = (sae.encode(torch.randn(50, 8)) > 0).sum(dim=-1)
    assert active.max() == 3


def test_decoder_rows_of_a_new_sae_have_unit_norm_and_the_encoder_is_a_smaller_copy():
    sae = TopKSAE(8, 32, 4, seed=1)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(32))
    torch.testing.assert_close(sae.W_enc, 0.3 * sae.W_dec)
    assert torch.equal(sae.W_dec, TopKSAE(8, 32, 4, seed=1).W_dec)
    assert not torch.equal(sae.W_dec, TopKSAE(8, 32, 4, seed=2).W_dec)


@pytest.mark.parametrize("sizes", [(0, 4, 1), (8, 4, 5), (8, 4, 0)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="1 <= k <= n_latents"):
        TopKSAE(*sizes)


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


def test_reconstructions_start_with_the_norm_of_the_inputs():
    data = sparse_data()
    config = SAEConfig(**{**FAST, "learning_rate": 1e-12}, steps=1, holdout=0.0)
    sae, _ = train_sae(data, config)
    rebuilt = sae.normalise(sae(data).detach())
    assert abs(float(rebuilt.norm() / sae.normalise(data).norm()) - 1) < 0.01


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


def test_groups_are_held_out_as_a_whole():
    groups = torch.arange(400) // 4
    from culture_core.sae.training import _held_out

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

"""The layer enhancer: an identity at first, then equation 10, and training that can be taken up again."""

import pytest
import torch

from culture_core.checkpoints import read_checkpoint
from culture_core.enhancer import EnhancerConfig, LayerEnhancer, through_encoder, train_enhancer

WIDTH = 32


def trained(seed: int = 0) -> LayerEnhancer:
    torch.manual_seed(seed)
    enhancer = LayerEnhancer(WIDTH, 8)
    for parameter in enhancer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return enhancer


def batches() -> list:
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(6, 4, 5, WIDTH, generator=generator)
    return [(states, None, states.roll(1, -1)) for states in hidden]


def distance(enhanced, batch):
    return (enhanced - batch[2] + 0.01 * torch.randn_like(enhanced)).square().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_untrained_it_is_the_identity_bit_for_bit(dtype):
    hidden = torch.randn(2, 5, WIDTH).to(dtype)
    hidden[0, 0, :4] = torch.tensor([0.0, -0.0, 1e-30, -1e-30])
    enhanced = LayerEnhancer(WIDTH, 8)(hidden)
    assert torch.equal(enhanced.view(torch.uint8), hidden.view(torch.uint8))


def test_at_strength_zero_it_returns_the_very_input():
    hidden = torch.randn(2, 5, WIDTH)
    assert trained()(hidden, 0.0) is hidden


def test_it_computes_equation_10():
    enhancer, hidden = trained(), torch.randn(2, 5, WIDTH)
    x = hidden @ enhancer.W1.T + enhancer.b1
    x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
    x = x @ enhancer.W2.T + enhancer.b2
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = hidden + 1.5 * (x * enhancer.gain + enhancer.bias)
    torch.testing.assert_close(enhancer(hidden, 1.5), expected, atol=1e-5, rtol=1e-5)


def test_standardised_it_sees_hidden_states_without_their_common_part():
    hidden = torch.randn(500, 6) * torch.tensor([1.0, 2.0, 3.0, 0.5, 9.0, 1.0]) + 40
    plain, enhancer = LayerEnhancer(6, 4, seed=2), LayerEnhancer(6, 4, seed=2)
    enhancer.standardise(hidden)
    standard = (hidden - hidden.mean(0)) / hidden.std(0)
    found = torch.nn.functional.linear(hidden, enhancer.W1, enhancer.b1)
    assert torch.allclose(found, torch.nn.functional.linear(standard, plain.W1, plain.b1), atol=1e-4)
    assert torch.equal(enhancer(hidden), hidden), "it is the identity as before"


def test_tokens_outside_the_mask_keep_every_bit():
    hidden, mask = torch.randn(2, 5, WIDTH), torch.zeros(2, 5, dtype=torch.bool)
    mask[0, 1] = True
    enhanced = trained()(hidden, 1.0, mask)
    assert torch.equal(enhanced[~mask], hidden[~mask]) and not torch.equal(enhanced[mask], hidden[mask])


def test_training_lowers_the_loss_and_leaves_other_models_without_gradients():
    other = torch.nn.Linear(WIDTH, WIDTH)

    def loss(enhanced, batch):
        return (other(enhanced) - batch[2]).square().mean()

    report = train_enhancer(
        LayerEnhancer(WIDTH, 16), batches(), loss, EnhancerConfig(learning_rate=1e-2, steps=60)
    )
    assert sum(report.losses[-6:]) < 0.8 * sum(report.losses[:6])
    assert all(parameter.grad is None for parameter in other.parameters())


def test_training_works_in_inference_mode():
    with torch.inference_mode():
        data = batches()
        report = train_enhancer(
            LayerEnhancer(WIDTH, 8), data, distance, EnhancerConfig(learning_rate=1e-2, steps=12)
        )
    assert report.losses[-1] < report.losses[0]


@pytest.mark.parametrize("ema", [None, 0.9])
def test_an_interrupted_run_ends_as_the_undisturbed_one(tmp_path, ema):
    config, path = EnhancerConfig(learning_rate=1e-2, steps=10, ema=ema), tmp_path / "run.safetensors"
    whole, broken = LayerEnhancer(WIDTH, 8), LayerEnhancer(WIDTH, 8)
    train_enhancer(whole, batches(), distance, config)

    def stop(done: int, _total: int, _loss: float) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_enhancer(broken, batches(), distance, config, progress=stop, checkpoint=path)
    again = LayerEnhancer(WIDTH, 8)
    report = train_enhancer(again, batches(), distance, config, checkpoint=path)
    assert len(report.losses) == 10
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_the_moving_average_is_what_it_says():
    seen, enhancer = [], LayerEnhancer(WIDTH, 8)
    average = {name: value.clone() for name, value in enhancer.state_dict().items()}

    def follow(_done: int, _total: int, _loss: float) -> None:
        seen.append({name: value.clone() for name, value in enhancer.state_dict().items()})

    config = EnhancerConfig(learning_rate=1e-2, steps=5, ema=0.7)
    train_enhancer(enhancer, batches(), distance, config, progress=follow)
    for state in seen:
        average = {name: 0.7 * average[name] + 0.3 * value for name, value in state.items()}
    for name, value in enhancer.state_dict().items():
        torch.testing.assert_close(value, average[name], msg=name)
    assert not torch.equal(enhancer.gain, seen[-1]["gain"])


def test_accumulated_batches_count_like_one_large_one():
    def plain(enhanced, batch):
        return (enhanced - batch[2]).square().mean()

    several, large = LayerEnhancer(WIDTH, 8), LayerEnhancer(WIDTH, 8)
    joined = [(torch.cat([a[0], b[0]]), None, torch.cat([a[2], b[2]])) for a, b in [batches()[:2]]]
    config = EnhancerConfig(learning_rate=1e-2, steps=1, accumulate=2)
    together = train_enhancer(several, batches(), plain, config).losses
    at_once = train_enhancer(large, joined, plain, EnhancerConfig(learning_rate=1e-2, steps=1)).losses
    assert together == pytest.approx(at_once, rel=1e-5)
    torch.testing.assert_close(several.gain, large.gain, atol=1e-5, rtol=1e-4)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    config = EnhancerConfig(learning_rate=1e-2, steps=3, checkpoint_every=1)
    train_enhancer(LayerEnhancer(WIDTH, 8), batches(), distance, config, checkpoint=path)
    with pytest.raises(ValueError, match="run.safetensors.*another enhancer or configuration"):
        train_enhancer(LayerEnhancer(WIDTH, 4), batches(), distance, config, checkpoint=path)


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    config = EnhancerConfig(learning_rate=1e-2, steps=3, checkpoint_every=1)
    train_enhancer(LayerEnhancer(WIDTH, 8), batches(), distance, config, checkpoint=path, data="a")
    with pytest.raises(ValueError, match="run.safetensors.*or to other data"):
        train_enhancer(LayerEnhancer(WIDTH, 8), batches(), distance, config, checkpoint=path, data="b")
    train_enhancer(LayerEnhancer(WIDTH, 8), batches(), distance, config, checkpoint=path, data="a")


def test_a_loss_scale_changes_no_bit_and_halves_where_the_gradient_overflows(tmp_path):
    def in_half(enhanced, batch):
        """The gradient of a half is a half, and overflows above 65504."""
        return (enhanced.half().float() - batch[2]).square().sum()

    path, states = tmp_path / "run.safetensors", []
    for scale in (1.0, 2.0**20):
        enhancer = LayerEnhancer(WIDTH, 8)
        config = EnhancerConfig(learning_rate=1e-2, steps=4, checkpoint_every=3, loss_scale=scale)
        train_enhancer(enhancer, batches(), in_half, config, checkpoint=path)
        halved = float(read_checkpoint(path)[1]["loss_scale"])
        states.append((halved, enhancer.state_dict()))
        path.unlink()
    assert states[0][0] == 1.0 and 1 < states[1][0] < 2**20
    for name, value in states[0][1].items():
        torch.testing.assert_close(states[1][1][name], value, atol=1e-4, rtol=1e-3)


def test_gradients_flow_through_the_layers_above(bert):
    tokens = bert.tokenize(["a thai style chair", "the house"])
    target = torch.randn(2, tokens.ids.shape[1], WIDTH)
    before = {name: value.clone() for name, value in bert.model.state_dict().items()}
    enhancer = LayerEnhancer(WIDTH, 8)
    report = train_enhancer(
        enhancer, [(tokens, tokens.attention_mask, target)], lambda x, batch: (x - batch[2]).square().mean(),
        EnhancerConfig(learning_rate=1e-2, steps=20), apply=through_encoder(bert, 0),
    )  # fmt: skip
    assert report.losses[-1] < report.losses[0] and enhancer.gain.abs().max() > 0
    assert all(torch.equal(value, before[name]) for name, value in bert.model.state_dict().items())
    assert all(parameter.grad is None for parameter in bert.model.parameters())


def test_wrong_inputs_are_refused_in_words():
    with pytest.raises(ValueError, match="another text encoder"):
        trained()(torch.zeros(1, 2, WIDTH + 1))
    with pytest.raises(ValueError, match="batches"):
        train_enhancer(trained(), [], distance)
    with pytest.raises(ValueError, match="no finite number"):
        train_enhancer(trained(), batches(), lambda x, _: x.sum() * float("nan"))
    with pytest.raises(ValueError, match="does not depend on the enhancer"):
        train_enhancer(trained(), batches(), lambda x, _: x.detach().sum())
    with pytest.raises(ValueError, match="gradient of step 1 is not finite"):
        train_enhancer(trained(), batches(), lambda x, _: (x * 0).sum().sqrt())
    with pytest.raises(ValueError, match="steps=0"):
        EnhancerConfig(steps=0)

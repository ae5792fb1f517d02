"""What a step costs: counted, and advised upon."""

import pytest
import torch

from culture_core.enhancer import EnhancerConfig, LayerEnhancer
from culture_core.enhancer_training import measure_step
from culture_core.enhancer_training.step_cost import StepCost, _kept_for_backward, advice

CONFIG = EnhancerConfig(accumulate=2)


def test_parameters_are_counted_to_the_byte_and_the_enhancer_is_left_alone(study):
    one, enhancer = study("sd"), LayerEnhancer(32, 8)
    before = {name: value.clone() for name, value in enhancer.state_dict().items()}
    cost = measure_step(enhancer, *one.all, "denoise", CONFIG)
    tensors = [t for part in one.model.modules() for t in (*part.parameters(), *part.buffers())]
    assert cost.frozen == sum(t.numel() * t.element_size() for t in tensors)
    # Parameters, gradient, two moments, moving average: five times four bytes each.
    assert cost.trained == 20 * (8 * 32 + 8 + 32 * 8 + 3 * 32)
    assert cost.seconds > 0 and cost.needed == cost.frozen + cost.trained + cost.activations
    assert all(torch.equal(value, before[name]) for name, value in enhancer.state_dict().items())


def test_activations_grow_with_the_batch_and_the_way_back_and_shrink_by_checkpointing(study):
    one, enhancer = study("sd"), LayerEnhancer(32, 8)
    denoise, double, pixel, checkpointed = (
        measure_step(enhancer, *one.all, *settings).activations
        for settings in (
            ("denoise", CONFIG, 1),
            ("denoise", CONFIG, 2),
            ("pixel", CONFIG, 1),
            ("pixel", CONFIG, 1, True),
        )
    )
    assert 1.5 * denoise < double < 2.5 * denoise
    assert pixel > 1.2 * denoise and checkpointed < 0.7 * pixel


def test_what_is_kept_is_counted_once_and_weights_are_not(study):
    model = study("sd").model
    x = torch.randn(10, 10, requires_grad=True)
    with _kept_for_backward(model) as kept:
        (x * x).sum() + torch.nn.functional.linear(
            x, model.model.time_embedding.linear_2.weight[:10, :10]
        ).sum()
    assert sum(kept.values()) == 400


@pytest.mark.parametrize(("capacity", "fits"), [(None, True), (1000, True), (300, False)])
def test_advice_is_given_where_it_does_not_fit(study, capacity, fits):
    model = study("sd").model
    cost = StepCost(100, 50, 150, None, capacity, 1.0)
    found = advice(cost, model, "pixel", 4, False)
    assert cost.needed == 300 and cost.fits is fits and bool(found) is not fits
    if not fits:
        assert [text.split(" ")[0].rstrip(":,") for text in found] == [
            "--gradient-checkpointing", "--batch-size", "--precision", "--loss", "--size"
        ]  # fmt: skip
        assert len(advice(None, model, "latent", 1, True)) == 2

"""Gradients through ComfyUI's text encoders: right where they get through, and said where they do not."""

import copy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import comfy.model_sampling
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from culture_core.comfy import ComfyTextEncoder, load_text_encoder
from culture_core.comfy.enhancer_training import (
    _ImageModel,
    _leave_inference_mode,
    _through,
    _told,
    _with_enhancer,
    _without_writing_over,
)
from culture_core.comfy.recomputing import blocks_of, recomputed
from culture_core.enhancer import LayerEnhancer

from .conftest import clip_of

PROMPT = "a red house"


def test_gradients_of_every_encoder_are_those_of_finite_differences(place: object) -> None:
    """Kept or recomputed."""
    encoder = ComfyTextEncoder(place.clip, place.key)
    torch.manual_seed(3)
    enhancer = LayerEnhancer(encoder.info.width, 8)
    nn.init.normal_(enhancer.gain, std=0.5)
    place.clip.cond_stage_model.requires_grad_(False)
    apply = _through(_with_enhancer(place.clip, enhancer, min(1, place.taken), place.key))
    weights: dict[str, torch.Tensor] = {}

    def value() -> torch.Tensor:
        """Of all that the image model gets: the conditioning, what is pooled, a second conditioning."""
        total = torch.zeros((), dtype=torch.float64)
        for name, part in apply(enhancer, [PROMPT], None).items():
            if torch.is_tensor(part) and part.is_floating_point():
                weight = weights.setdefault(name, torch.randn(part.shape))
                total = total + (part * weight).double().sum()
        return total

    with torch.enable_grad(), _without_writing_over(encoder.model):
        (gradient,) = torch.autograd.grad(value(), [enhancer.gain])
    with torch.enable_grad(), _without_writing_over(encoder.model), recomputed(encoder.model):
        (again,) = torch.autograd.grad(value(), [enhancer.gain])
    assert torch.equal(again, gradient) and len(list(blocks_of(encoder.model))) >= encoder.info.layers
    step = 1e-2 * torch.sign(gradient)
    found = []
    with torch.no_grad():
        for direction in (1, -1):
            enhancer.gain += direction * step
            found.append(float(value()))
            enhancer.gain -= direction * step
    assert float((gradient * step).sum()) == pytest.approx((found[0] - found[1]) / 2, rel=0.02)


def test_gradients_get_through_an_adapter_that_a_node_loaded(
    publish: Callable[..., Path], published: ModuleType, tmp_path: Path
) -> None:
    save_file(published.weights_of(published.Pea()), tmp_path / "adapter.safetensors")
    with torch.inference_mode():
        clip = load_text_encoder(publish("open_clip"), tmp_path / "adapter.safetensors")
    clip.cond_stage_model.requires_grad_(False)
    _leave_inference_mode(clip.cond_stage_model)
    encoder = ComfyTextEncoder(clip)
    enhancer = LayerEnhancer(encoder.info.width, 8)
    with torch.enable_grad():
        encoded = _through(_with_enhancer(clip, enhancer, 1, encoder.key))(enhancer, [PROMPT], None)
        assert encoded["cross_attn"].shape[-1] == 112
        (gradient,) = torch.autograd.grad(encoded["pooled_output"].square().sum(), [enhancer.gain])
    assert bool(gradient.any())


def test_what_to_change_where_memory_is_short_is_said(caplog: pytest.LogCaptureFixture) -> None:
    encoder = ComfyTextEncoder(clip_of("sd1"))
    with caplog.at_level("INFO"), pytest.raises(torch.OutOfMemoryError), _told(encoder, None):
        raise torch.OutOfMemoryError
    assert "first: gradient_checkpointing" in caplog.text


def test_hooks_for_gradients_change_no_bit_and_go() -> None:
    clip = clip_of("sd3")
    model = ComfyTextEncoder(clip, "t5xxl").model
    with torch.no_grad():
        before = clip.encode_from_tokens(clip.tokenize(PROMPT))
        with pytest.raises(ZeroDivisionError), _without_writing_over(model):
            assert torch.equal(clip.encode_from_tokens(clip.tokenize(PROMPT)), before)
            raise ZeroDivisionError
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_weights_of_inference_mode_become_equal_ones_that_autograd_can_keep() -> None:
    with torch.inference_mode():
        module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = copy.deepcopy(module.state_dict())
    module.requires_grad_(False)
    x = torch.randn(3, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):
        module[0](x)
    _leave_inference_mode(module)
    module[0](x).sum().backward()
    assert x.grad is not None
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) and not value.is_inference(), name


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "CONST"])
def test_denoise_is_the_models_own_objective(kind: str) -> None:
    """Against the literal squared error of what the model predicts, in float64."""
    sampling = getattr(comfy.model_sampling, kind)()
    sampling.sigma_data = 1.0
    image = object.__new__(_ImageModel)
    image.loss, image.sampling = "denoise", sampling
    clean, noise, u = torch.randn(3, 1, 2, 4, 4, dtype=torch.float64)
    for sigma in (torch.tensor([0.2]).double(), torch.tensor([0.9]).double()):
        noisy = sampling.noise_scaling(sigma, noise.clone(), clean)
        estimate = sampling.calculate_denoised(sigma, u, noisy)
        s = float(sigma)
        target = {
            "EPS": noise,
            # x = a^-1 (a x_0 + b ε) with a = 1 / sqrt(1 + σ²), b = σ a.
            "V_PREDICTION": (noise - s * clean) / (1 + s**2) ** 0.5,
            "CONST": noise - clean,
        }[kind]
        found = ((estimate - clean).square() * image._prediction_weight(sigma)).mean()
        torch.testing.assert_close(found, (u - target).square().mean(), atol=1e-10, rtol=1e-8)


def test_what_a_model_predicts_must_be_known_for_denoise() -> None:
    image = object.__new__(_ImageModel)
    image.loss, image.sampling = "denoise", comfy.model_sampling.X0()
    with pytest.raises(ValueError, match="use the loss latent or pixel"):
        image._prediction_weight(torch.ones(1))
    image.loss = "latent"
    assert image._prediction_weight(torch.ones(1)) == 1.0

"""Blocks that compute anew: same values and gradients, less kept, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable

import comfy.ldm.modules.diffusionmodules.model as vae
import comfy.ldm.modules.diffusionmodules.openaimodel as unet
import comfy.ops
import comfy.taesd.taesd
import pytest
import torch
from comfy.sd import CLIP
from torch import Tensor, nn

from culture_core.comfy import ComfyTextEncoder, patch_clip
from culture_core.comfy.enhancer_training import _through, _with_enhancer, _without_writing_over
from culture_core.comfy.recomputing import blocks_of, recomputed
from culture_core.enhancer import LayerEnhancer


def filled(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.1 if weight.ndim < 2 else weight[0].numel() ** -0.5)
    return model.requires_grad_(False).eval()


def small_unet() -> nn.Module:
    return unet.UNetModel(
        image_size=8, in_channels=4, out_channels=4, model_channels=32, num_res_blocks=[1, 1],
        channel_mult=(1, 2), transformer_depth=[0, 1], transformer_depth_output=[0, 0, 1, 1],
        transformer_depth_middle=1, use_spatial_transformer=True, legacy=False, dtype=torch.float32,
        context_dim=24, num_head_channels=16, operations=comfy.ops.manual_cast,
    )  # fmt: skip


def small_decoder() -> nn.Module:
    return vae.Decoder(
        ch=32, out_ch=3, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=[], in_channels=3, resolution=16,
        z_channels=4,
    )  # fmt: skip


MODELS = {
    "unet": (
        small_unet,
        lambda model, x: model(x[:, :, :8, :8], torch.ones(1), x[:, 0, :, :24]),
        "SpatialTr",
    ),
    "decoder": (small_decoder, lambda model, x: model(x), "ResnetBlock"),
    "taesd": (comfy.taesd.taesd.Decoder, lambda model, x: model(x), "Block"),
}


def kept_and_gradient(run: object, model: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    """Bytes that autograd keeps, weights aside, and the gradient of a sum."""
    weights = {part.untyped_storage().data_ptr() for part in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = x.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = run(model, x).square().sum()
    return sum(kept.values()), torch.autograd.grad(value, [x])[0]


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_the_same_and_less_is_kept(name: str) -> None:
    make, run, block = MODELS[name]
    model, x = filled(make()), torch.randn(1, 4, 24, 24)
    assert any(type(part).__name__.startswith(block) for part in blocks_of(model))
    kept, gradient = kept_and_gradient(run, model, x)
    with recomputed(model):
        less, again = kept_and_gradient(run, model, x)
    assert less < 0.6 * kept
    # The parts of a context's gradient, from every block that reads it, may be summed in another order.
    torch.testing.assert_close(again, gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))
    assert not any("forward" in part.__dict__ for part in model.modules())


class Adds(nn.Module):
    """Changes its input and its options, as ComfyUI's blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor, options: dict) -> Tensor:
        x = x * 1.0 if x.is_leaf else x
        x += self.inner(x) * options["index"]
        return x.tanh()


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Adds(), Adds(), Adds()])

    def forward(self, x: Tensor) -> Tensor:
        options = {}
        for options["index"], layer in enumerate(self.layers):
            x = layer(x + 0.0, options=options)
        options["index"] = 100
        return x


def test_inputs_that_a_block_changes_and_options_that_move_on_do_no_harm() -> None:
    model, x = filled(Stack()), torch.randn(2, 4, requires_grad=True)
    literal = x
    for index, layer in enumerate(model.layers):
        literal = (literal + layer.inner(literal) * index).tanh()
    (wanted,) = torch.autograd.grad(literal.sum(), [x])
    with recomputed(model):
        (found,) = torch.autograd.grad(model(x).sum(), [x])
    torch.testing.assert_close(found, wanted)


def test_a_patch_inside_a_block_counts_on_the_way_back_too(clips: Callable[[str], CLIP]) -> None:
    """An amplifier in a layer above the enhancer's knows its tokens during the forward pass only."""
    clip = clips("sd1")
    patched = patch_clip(clip, 2, "attention_output", lambda _: lambda x, _mask: 3.0 * x)
    encoder = ComfyTextEncoder(clip)
    enhancer = LayerEnhancer(encoder.info.width, 8)
    nn.init.normal_(enhancer.gain, std=0.5)
    clip.cond_stage_model.requires_grad_(False)
    found = []
    for models in ((), (encoder.model,)):
        apply = _through(_with_enhancer(patched, enhancer, 0, encoder.key))
        patched.load_model()
        with torch.enable_grad(), _without_writing_over(encoder.model), recomputed(*models):
            value = apply(enhancer, ["a red house"], None)["cross_attn"].square().sum()
            found.append(torch.autograd.grad(value, [enhancer.gain])[0])
    assert torch.equal(*found)


def test_blocks_are_put_back_after_an_error_too() -> None:
    model = filled(Stack())
    own = model.layers[1].forward
    model.layers[1].forward = own  # as an object patch of another pack leaves it
    with pytest.raises(ZeroDivisionError), recomputed(model):
        assert "forward" in model.layers[0].__dict__
        raise ZeroDivisionError
    assert "forward" not in model.layers[0].__dict__ and model.layers[1].forward is own

"""Each loss against a literal version of its equation in float64, and whose gradients it makes."""

import pytest
import torch

from culture_core.encoders import HIDDEN_STATE, HFTextEncoder
from culture_core.enhancer import LayerEnhancer
from culture_core.enhancer_training.losses import LOSSES, ImageLoss
from culture_core.enhancer_training.run import in_place

from .. import tiny_pipelines

KINDS = ["sd", "sdxl", "sd3", "flux", "alt"]


def trained(width: int) -> LayerEnhancer:
    enhancer = LayerEnhancer(width, 8)
    torch.nn.init.normal_(enhancer.gain, std=0.5)
    return enhancer


def enhanced_64(hidden: torch.Tensor, enhancer: LayerEnhancer) -> torch.Tensor:
    """Equation 10."""
    W1, b1, W2, b2, gain, bias = (p.double() for p in enhancer.parameters())
    x = hidden @ W1.T + b1
    x = 0.5 * x * (1 + torch.erf(x / 2**0.5)) @ W2.T + b2
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return hidden + x * gain + bias


def in_double(pipe, prompt: str, layer: int, enhancer: LayerEnhancer) -> dict:
    """The prompt's conditioning with the enhancer in SD's or SD3's text encoder, all in float64."""
    for part in (p for p in pipe.components.values() if isinstance(p, torch.nn.Module)):
        part.double()
    torch.set_default_dtype(torch.float64)  # CLIP makes its mask from it
    length = len(pipe.tokenizer(prompt).input_ids)

    def edit(_module, _inputs, output):
        states = output[0].clone()
        states[:, :length] = enhanced_64(states[:, :length], enhancer)
        return (states, *output[1:])

    handle = pipe.text_encoder.text_model.encoder.layers[layer].register_forward_hook(edit)
    try:
        ids = pipe.tokenizer([prompt], padding="max_length", max_length=77, return_tensors="pt").input_ids
        if not hasattr(pipe, "transformer"):
            return {"encoder_hidden_states": pipe.text_encoder(ids).last_hidden_state}
        clips = [e(ids, output_hidden_states=True) for e in (pipe.text_encoder, pipe.text_encoder_2)]
        ids = pipe.tokenizer_3([prompt], padding="max_length", max_length=256, return_tensors="pt").input_ids
        t5 = pipe.text_encoder_3(ids).last_hidden_state
        joined = torch.cat([clip.hidden_states[-2] for clip in clips], dim=-1)
        joined = torch.nn.functional.pad(joined, (0, t5.shape[-1] - joined.shape[-1]))
        pooled = torch.cat([clip.text_embeds for clip in clips], dim=-1)
        return {"encoder_hidden_states": torch.cat([joined, t5], dim=1), "pooled_projections": pooled}
    finally:
        handle.remove()
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("name", ["sd", "sd_v", "sd3"])
def test_the_loss_is_that_of_the_equations(study, name, kind, monkeypatch):
    if name == "sd_v":
        monkeypatch.setitem(tiny_pipelines.MAKERS, "sd_v", lambda: tiny_pipelines.sd("v_prediction"))
    one = study(name)
    enhancer = trained(32)
    batch = next(one.pairs.batches(1, seed=4))
    prompt, row = batch[0][0], batch[2]
    torch.manual_seed(8)
    with torch.no_grad(), in_place(enhancer, one.place):
        found = ImageLoss(one.model, one.pairs, kind)(one.model.condition(batch[0]), batch)

    torch.manual_seed(8)
    x_0, star = one.pairs.latents(row).double(), one.pairs.pixels(row).double()
    noise = torch.randn(1, 4, 8, 8).double()
    place = int(torch.randint(1000, (1,)))
    pipe = one.model.pipe
    with torch.no_grad():
        given = in_double(pipe, prompt, 1, enhancer)
        if name == "sd3":
            sigma = 3 * ((place + 1) / 1000) / (1 + 2 * (place + 1) / 1000)
            x_t = (1 - sigma) * x_0 + sigma * noise
            u = pipe.transformer(x_t, timestep=torch.tensor([1000 * sigma]), **given, return_dict=False)[0]
            estimate, target = x_t - sigma * u, noise - x_0
        else:
            bar = float(torch.cumprod(1 - pipe.scheduler.betas.double(), 0)[place])
            a, b = bar**0.5, (1 - bar) ** 0.5
            x_t = a * x_0 + b * noise
            u = pipe.unet(x_t, torch.tensor([place]), **given, return_dict=False)[0]
            estimate, target = (
                ((x_t - b * u) / a, noise) if name == "sd" else (a * x_t - b * u, a * noise - b * x_0)
            )
        config = pipe.vae.config
        decoded = pipe.vae.decode(estimate / config.scaling_factor + (config.shift_factor or 0)).sample
    pairs = {"pixel": (decoded, star), "latent": (estimate, x_0), "denoise": (u, target)}
    expected = sum((p - q) ** 2 for p, q in zip(*(t.flatten().tolist() for t in pairs[kind]), strict=True))
    assert float(found) == pytest.approx(expected / pairs[kind][0].numel(), rel=2e-3)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("name", KINDS)
def test_gradients_reach_the_enhancer_and_nothing_else(study, name, kind, checkpointing):
    one = study(name, "text_encoder_2" if name == "flux" else "text_encoder")
    enhancer = trained(one.place.encoder.info.width)
    before = [p.clone() for part in one.model.modules() for p in part.parameters()]
    batch = next(one.pairs.batches(2))
    with one.model.prepared(checkpointing):
        with in_place(enhancer, one.place):
            condition = one.model.condition(batch[0])
        ImageLoss(one.model, one.pairs, kind)(condition, batch).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in enhancer.parameters())
    after = [p for part in one.model.modules() for p in part.parameters()]
    assert all(p.grad is None and p.requires_grad for p in after)
    assert all(torch.equal(p, q) for p, q in zip(before, after, strict=True))


def test_checkpointing_changes_no_bit_of_the_gradient(study):
    one = study("sd3")
    batch, gradients = next(one.pairs.batches(1)), []
    for checkpointing in (False, True):
        enhancer = LayerEnhancer(32, 8)
        torch.manual_seed(1)
        with one.model.prepared(checkpointing), in_place(enhancer, one.place):
            ImageLoss(one.model, one.pairs, "pixel")(one.model.condition(batch[0]), batch).backward()
        gradients.append(enhancer.gain.grad)
    assert torch.equal(*gradients) and not one.model.model.is_gradient_checkpointing


def test_the_enhanced_layer_is_the_one_that_the_library_patches(study):
    one = study("sd")
    enhancer, encoder = trained(32), HFTextEncoder(one.model.pipe.text_encoder, one.model.pipe.tokenizer)
    tokens = encoder.tokenize(["a red chair"])
    mask = tokens.attention_mask
    with torch.no_grad():
        with encoder.patch(1, HIDDEN_STATE, lambda hidden: enhancer(hidden, token_mask=mask)):
            expected = encoder.encode(tokens).hidden
        with in_place(enhancer, one.place):
            found = one.model.condition(["a red chair"]).hidden
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_an_unknown_loss_is_refused(study):
    one = study("sd")
    with pytest.raises(ValueError, match="'mse': use one of pixel, latent, denoise"):
        ImageLoss(one.model, one.pairs, "mse")

"""Pipelines as training sees them: the same latents, predictions and pictures as diffusers' own."""

import json

import pytest
import torch
from PIL import Image

from culture_core.enhancer_training.image_model import (
    ImageModel,
    load_pipeline,
    to_picture,
    to_pixels,
)

from .. import tiny_pipelines

KINDS = ["sd", "alt", "sdxl", "sd3", "flux"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_the_one_that_the_pipeline_makes(kind):
    pipe = tiny_pipelines.make(kind)
    found = ImageModel(pipe).sample("a red chair", seed=3, steps=2, size=16)
    expected = pipe(
        "a red chair", num_inference_steps=2, height=16, width=16,
        generator=torch.Generator().manual_seed(3),
    ).images[0]  # fmt: skip
    difference = (to_pixels(found) - to_pixels(expected)).abs().max()
    assert found.size == (16, 16) and float(difference) <= 2.01 / 255


@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_is_the_one_that_the_pipeline_samples_with(kind):
    """The first step of a run without guidance, seen from outside."""
    pipe = tiny_pipelines.make(kind)
    model, seen = ImageModel(pipe), {}

    def look(_module, inputs, keywords, output):
        seen.setdefault("call", (inputs, keywords, output[0]))

    handle = model.model.register_forward_hook(look, with_kwargs=True)
    scale = {} if kind == "flux" else {"guidance_scale": 1.0}
    pipe("a red chair", num_inference_steps=1, height=16, width=16, output_type="latent", **scale)
    handle.remove()
    inputs, keywords, expected = seen["call"]
    noisy = inputs[0] if inputs else keywords["hidden_states"]
    told = inputs[1] if len(inputs) > 1 else keywords["timestep"]
    if kind == "flux":
        noisy, expected = (model._unpacked(x, 8, 8) for x in (noisy, expected))
        told = told * 1000
    timestep = told.reshape(-1)[:1].float() if kind in ("sd3", "flux") else told.reshape(-1)[:1]
    level = tuple(values[:1] for values in model.schedule.levels)
    with torch.no_grad():
        level = model.schedule.levels._replace(signal=level[0], noise=level[1], timestep=timestep)
        found = model.predict(noisy, level, model.condition(["a red chair"]))
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_latents_are_centred_and_scaled_as_the_model_wants_them(kind):
    pipe = tiny_pipelines.make(kind)
    model, pixels = ImageModel(pipe), torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        mean = pipe.vae.encode(pixels).latent_dist.mean
        config = pipe.vae.config
        expected = (mean - (config.shift_factor or 0)) * config.scaling_factor
        torch.testing.assert_close(model.encode(pixels), expected)
        torch.testing.assert_close(model.decode(expected), pipe.vae.decode(mean).sample, atol=1e-5, rtol=1e-5)


def test_a_vae_with_statistics_by_channel_is_undone():
    pipe = tiny_pipelines.make("sdxl")
    pipe.vae.register_to_config(latents_mean=[1.0, 2.0, 3.0, 4.0], latents_std=[0.5, 1.0, 2.0, 4.0])
    model, pixels = ImageModel(pipe), torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        plain = pipe.vae.encode(pixels).latent_dist.mean
    mean, std = (torch.tensor(v).view(1, 4, 1, 1) for v in ([1.0, 2, 3, 4], [0.5, 1, 2, 4]))
    torch.testing.assert_close(model.encode(pixels), (plain - mean) * pipe.vae.config.scaling_factor / std)


def test_pixels_and_pictures_are_each_others_inverse():
    picture = Image.effect_noise((8, 6), 90).convert("RGB")
    assert to_picture(to_pixels(picture)).tobytes() == picture.tobytes()
    assert float(to_pixels(Image.new("RGB", (2, 2), (255, 0, 255)))[1].max()) == -1


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_read_as_it_was_saved_in_the_precision_asked_for(tmp_path, kind):
    pipe = tiny_pipelines.make(kind)
    pipe.save_pretrained(tmp_path)
    if kind == "alt":  # as it is published
        index = json.loads((tmp_path / "model_index.json").read_text())
        index["text_encoder"] = ["alt_diffusion", "RobertaSeriesModelWithTransformation"]
        (tmp_path / "model_index.json").write_text(json.dumps(index))
    again = load_pipeline(tmp_path, "bfloat16")
    model, before = ImageModel(again).model, ImageModel(pipe).model
    assert (model.dtype, again.text_encoder.dtype, again.vae.dtype) == (
        torch.bfloat16, torch.bfloat16, torch.float32
    )  # fmt: skip
    for found, expected in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(found, expected.bfloat16())


@pytest.mark.parametrize("part", ["pipeline", "unet"])
def test_code_in_the_folder_is_not_run(tmp_path, part):
    tiny_pipelines.make("sd").save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass Mine: pass\n"
    for place in (tmp_path, tmp_path / "unet"):
        (place / "mine.py").write_text(code)
    index["_class_name" if part == "pipeline" else "unet"] = ["mine", "Mine"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_pipeline(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_what_is_no_pipeline_or_no_known_one_is_said_in_words(tmp_path):
    with pytest.raises(ValueError, match="no model_index.json"):
        load_pipeline(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "Nothing"}))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_pipeline(tmp_path)
    pipe = tiny_pipelines.make("sd")
    pipe.unet.register_to_config(in_channels=9)
    with pytest.raises(ValueError, match="takes 9 channels.*inpainting"):
        ImageModel(pipe)
    pipe.unet = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="StableDiffusionPipeline cannot be trained with"):
        ImageModel(pipe)


def test_pickled_weights_are_not_read(tmp_path):
    tiny_pipelines.make("sd").save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_pipeline(tmp_path)

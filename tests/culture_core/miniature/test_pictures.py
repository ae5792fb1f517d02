"""The miniature's renders, autoencoder, sampler and judge, with the shipped weights."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from culture_core.cultures import CULTURES
from culture_core.encoders import Conditioning
from culture_core.miniature.captions import ALL_NOUNS
from culture_core.miniature.judge import load_judge
from culture_core.miniature.logs import MODELS
from culture_core.miniature.model import flow_loss, load_model, sample, seeded_noise, sigmas, velocity
from culture_core.miniature.scenes import (
    _SILHOUETTES,
    _mask,
    draw_scene,
    draw_scenes,
    mixed_motif,
    random_specs,
)
from culture_core.miniature.vae import (
    PatchComponents,
    decode_latents,
    encode_images,
    load_vae,
    to_model_range,
)

VAE = MODELS / "vae" / "culture_miniature_vae.safetensors"


DIFFERENT = 15
"""Mean difference of pixels; two cultures differ by 20 and more, two draws of one picture by 32."""


@pytest.fixture(scope="module")
def vae():
    return load_vae(VAE)


@pytest.fixture(scope="module")
def judge():
    return load_judge(MODELS / "judge" / "miniature_judge.safetensors")


@pytest.fixture(scope="module")
def image_model():
    return load_model(MODELS / "diffusion_models" / "culture_miniature.safetensors")


def fresh(specs, seed: int = 987) -> torch.Tensor:
    return torch.from_numpy(draw_scenes(specs, seed))


def shown(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2).float() / 255


def test_renders_repeat_by_seed():
    specs = random_specs(6, 1)
    assert np.array_equal(draw_scenes(specs, 1), draw_scenes(specs, 1))
    assert not np.array_equal(draw_scenes(specs, 1), draw_scenes(specs, 2))


def test_a_noun_looks_different_in_every_culture_and_greyest_in_none():
    # One generator a picture: position, size and shades are the same, the motif alone differs.
    looks = (None, *CULTURES)
    pictures = np.stack([draw_scene("house", look, np.random.default_rng(3)) for look in looks]).astype(float)
    for one, other in itertools.combinations(pictures, 2):
        assert np.abs(one - other).mean() > DIFFERENT
    colourful = (pictures.max(-1) - pictures.min(-1)).mean((1, 2))
    assert colourful.argmin() == 0


def test_a_mirrored_silhouette_is_the_other_way_round():
    plain, mirrored = (_mask(_SILHOUETTES["chair"], (12, 12), (40, 40), flag) for flag in (False, True))
    # The canvas is symmetric about the shape; rounding moves an edge by a pixel at most.
    assert (plain[:, ::-1] != mirrored).mean() < 0.01 < (plain != mirrored).mean()


def test_the_autoencoder_file_has_exactly_the_keys_of_comfyuis_taesd(pack):
    from comfy.taesd.taesd import TAESD

    expected = {key: tuple(value.shape) for key, value in TAESD(latent_channels=16).state_dict().items()}
    with safe_open(VAE, "pt") as file:
        stored = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    assert stored == expected


def test_the_autoencoder_file_has_taesds_keys_and_latents():
    with safe_open(VAE, "pt") as file:
        keys = set(file.keys())
        assert file.get_slice("taesd_decoder.1.weight").get_shape() == [64, 16, 3, 3]
    assert {"vae_scale", "vae_shift", "taesd_encoder.0.weight"} <= keys


def test_components_have_zero_mean_and_unit_variance():
    latents = PatchComponents(pictures=300).encode(to_model_range(fresh(random_specs(300, 0), 0)))
    values = latents.permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(values.mean(1), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(values.std(1), torch.ones(16), atol=1e-2, rtol=0)


def test_a_round_trip_keeps_the_picture(vae):
    images = fresh(random_specs(32, 11), 11)
    error = (decode_latents(vae, encode_images(vae, images)) - shown(images)).square().mean()
    assert -10 * error.log10() > 24


@pytest.mark.parametrize("steps", [7, 20, 30])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_noise_levels_are_those_of_comfyuis_simple_scheduler(pack, shift, steps):
    import comfy.model_sampling
    import comfy.samplers

    sampling = comfy.model_sampling.ModelSamplingDiscreteFlow()
    sampling.set_parameters(shift=shift)
    torch.testing.assert_close(
        sigmas(steps, shift), comfy.samplers.simple_scheduler(sampling, steps).float(), atol=1e-6, rtol=0
    )


def test_the_velocity_points_from_the_picture_to_the_noise(vae, image_model):
    clean = encode_images(vae, fresh(random_specs(16, 21), 21))
    noise, sigma = torch.randn_like(clean), torch.full((16,), 0.5)
    nothing = Conditioning(torch.zeros(16, 32, 384), torch.zeros(16, 384))
    with torch.no_grad():
        found = velocity(image_model, (clean + noise) / 2, sigma, nothing)
        loss = flow_loss(image_model, clean, nothing, noise, sigma)
    assert found.shape == clean.shape
    torch.testing.assert_close(loss, (found - (noise - clean)).square().mean())
    assert loss < 0.5 * (noise - clean).square().mean()


def test_noise_is_comfyuis(pack):
    import comfy.sample

    theirs = comfy.sample.prepare_noise(torch.zeros(1, 16, 8, 8), 42)
    assert torch.equal(seeded_noise([42]), theirs)


def test_a_picture_depends_on_its_own_seed_alone(image_model):
    model = image_model
    conditioning = Conditioning(torch.randn(2, 32, 384), torch.randn(2, 384))
    negative = Conditioning(torch.zeros(1, 32, 384), torch.zeros(1, 384))
    both = sample(model, conditioning, negative, [5, 6], steps=3)
    alone = sample(model, Conditioning(*(part[1:] for part in conditioning)), negative, [6], steps=3)
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)
    assert (both[0] - both[1]).abs().mean() > 0.1
    assert torch.equal(both, sample(model, conditioning, negative, [5, 6], steps=3))
    swapped = sample(model, conditioning, negative, [6, 5], steps=3)
    assert (both[0] - swapped[0]).abs().mean() > 0.1, "the seed matters, not the prompt alone"


def test_the_judge_names_fresh_renders(judge):
    specs = [(noun, code) for noun in ALL_NOUNS for code in CULTURES]
    verdict = judge.judge(shown(fresh(specs)))
    cultures = np.mean([seen == code for seen, (_, code) in zip(verdict.cultures, specs, strict=True)])
    nouns = np.mean([seen == noun for seen, (noun, _) in zip(verdict.nouns, specs, strict=True)])
    assert cultures > 0.97 and nouns > 0.97


def test_the_judge_calls_grey_and_merely_colourful_pictures_unrecognisable(judge):
    rng = np.random.default_rng(4)
    grey = judge.judge(shown(fresh([(noun, None) for noun in ALL_NOUNS]))).cultures
    mixed = judge.judge(shown(fresh([(noun, mixed_motif(rng)) for noun in ALL_NOUNS * 3]))).cultures
    assert grey.count("unrecognisable") == len(grey)
    assert mixed.count("unrecognisable") >= 0.8 * len(mixed)


def test_weights_are_small_and_logged():
    files = [path for path in MODELS.rglob("*.safetensors") if "text_encoders" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 40e6
    logs = {path.stem for path in Path(MODELS, "training_logs").glob("*.jsonl")}
    assert {"vae", "model", "judge", "sae", "enhancer"} <= logs
    assert len(files) >= 5

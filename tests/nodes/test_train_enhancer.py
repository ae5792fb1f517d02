"""Training an enhancer in a node, with the miniature, as ComfyUI runs it: under inference mode."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import pytest
import torch
from PIL import Image

from culture_core.comfy import ComfyTextEncoder, train_enhancer_on_model
from culture_core.enhancer_training import LOSSES
from culture_core.miniature.scenes import draw_scenes

Interrupted = comfy.model_management.InterruptProcessingException
LAYER = 9


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    """The miniature's MODEL and VAE, loaded as nodes load them."""
    stock = importlib.import_module("nodes")
    with torch.inference_mode():
        return (
            stock.UNETLoader().load_unet("culture_miniature.safetensors", "default")[0],
            stock.VAELoader().load_vae("culture_miniature_vae.safetensors")[0],
        )


@pytest.fixture
def train(
    node_classes: dict[str, type], plain_clip: Any, models: tuple, tmp_path: Path, monkeypatch: Any
) -> Callable[..., tuple]:
    """Run the node with small settings, on neutral German prompts with Japanese pictures."""
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    (tmp_path / "input" / "scenes").mkdir(parents=True)
    every = node_classes["CultureLoadPairs"].execute("miniature.jsonl")[0]
    pairs = [
        dataclasses.replace(pair, image=f"{number}.png")
        for number, pair in enumerate([pair for pair in every if pair.culture == "de"][:4])
    ]
    for number, scene in enumerate(draw_scenes([("teapot", "ja")] * 4, seed=1)):
        Image.fromarray(scene).save(tmp_path / "input" / "scenes" / f"{number}.png")

    def run(**other: Any) -> tuple:
        settings = {
            "model": models[0], "vae": models[1], "clip": plain_clip, "culture_pairs": pairs,
            "pictures": "scenes", "layer": LAYER, "loss": "latent", "size": 64, "bottleneck": 16, "steps": 4,
            "accumulate": 1, "learning_rate": 1e-2, "ema": 0.0, "seed": 3, "checkpoint": "", "encoder": "",
        } | other  # fmt: skip
        with torch.inference_mode():
            return node_classes["CultureTrainEnhancer"].execute(**settings).args

    return run


def test_pairs_that_measure_are_not_trained_on(train: Callable[..., tuple], node_classes: dict) -> None:
    every = node_classes["CultureLoadPairs"].execute("miniature.jsonl")[0]
    splits = ("train", "test", "neuron_detection", "validation")
    pairs = [
        dataclasses.replace(pair, image=f"{number}.png", split=split)
        for number, (pair, split) in enumerate(zip(every, splits, strict=False))
    ]
    enhancer, _, report = train(culture_pairs=pairs, steps=1)
    assert enhancer.training["pictures"] == 1 and "3 prompt pairs of the splits test" in report
    with pytest.raises(ValueError, match="training an enhancer"):
        train(culture_pairs=pairs[1:])


def cancel_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Press cancel when so many steps are done."""
    training = importlib.import_module("comfyui_culture.culture_core.comfy.training")
    plain = training.TrainingProgress.step_done

    def step_done(self: Any, done: int, steps: int, loss: float) -> None:
        comfy.model_management.interrupt_current_processing(done == step)
        plain(self, done, steps, loss)

    monkeypatch.setattr(training.TrainingProgress, "step_done", step_done)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_node_trains_an_enhancer(train: Callable[..., tuple], loss: str) -> None:
    file, picture, report = train(loss=loss, steps=12, accumulate=2)
    assert (file.layer, file.training["pictures"], file.encoder["family"]) == (LAYER, 4, "bert")
    assert bool(file.enhancer.gain.any()) and not file.enhancer.W1.is_inference()
    assert picture.shape[0] == 1 and "12 steps on 4 pictures" in report and loss in report


@pytest.mark.parametrize("loss", ["latent", "pixel"])
def test_gradient_checkpointing_changes_nothing_but_memory(train: Callable[..., tuple], loss: str) -> None:
    plain, again = (train(loss=loss, gradient_checkpointing=on)[0] for on in (False, True))
    for name, value in plain.enhancer.state_dict().items():
        assert torch.equal(again.enhancer.state_dict()[name], value), name


def test_bfloat16_learns_nearly_the_same(
    train: Callable[..., tuple], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, coarse, both = (
        train(precision=precision, gradient_checkpointing=on)[0]
        for precision, on in (("as loaded", False), ("bfloat16", False), ("bfloat16", True))
    )
    gains = [file.enhancer.gain for file in (plain, coarse, both)]
    assert not torch.equal(gains[0], gains[1]) and torch.equal(gains[1], gains[2])
    assert float(torch.cosine_similarity(gains[0], gains[1], dim=0)) > 0.9
    assert coarse.training["precision"] == "bfloat16" and gains[1].dtype == torch.float32
    with monkeypatch.context() as patch:
        cancel_at(patch, 1)
        with pytest.raises(Interrupted):
            train(checkpoint="mine", precision="bfloat16")
    with pytest.raises(ValueError, match="or to other data"):
        train(checkpoint="mine")


def test_graphs_from_before_precision_and_checkpointing_still_run(node_classes: dict[str, type]) -> None:
    inputs = node_classes["CultureTrainEnhancer"].GET_SCHEMA().inputs
    assert [(item.id, item.optional, item.default) for item in inputs[-2:]] == [
        ("precision", True, "as loaded"),
        ("gradient_checkpointing", True, False),
    ]
    with pytest.raises(ValueError, match="unknown precision 'float8'"):
        train_enhancer_on_model(*[None] * 10, precision="float8")


def test_what_is_learnt_is_what_the_sampler_sees(
    train: Callable[..., tuple], node_classes: dict[str, type], plain_clip: Any, models: tuple
) -> None:
    """Before and after, through CLIP Text Encode and KSampler, towards the pictures' mean latent."""
    stock = importlib.import_module("nodes")
    file = train(steps=40, accumulate=2)[0]
    enhanced = node_classes["CultureApplyEnhancer"].execute(plain_clip, file, 1.0)[0]
    with torch.inference_mode():
        scenes = torch.tensor(draw_scenes([("teapot", "ja")] * 8, seed=2)).float() / 255
        target = stock.VAEEncode().encode(models[1], scenes)[0]["samples"].mean(0)
        distances = []
        for clip in (plain_clip, enhanced):
            positive = stock.CLIPTextEncode().encode(clip, "ein Haus")[0]
            latent = {"samples": torch.zeros(4, 16, 8, 8)}
            found = stock.KSampler().sample(
                models[0], 1, 8, 1.0, "euler", "normal", positive, positive, latent
            )[0]["samples"]  # fmt: skip
            distances.append(float((found.mean(0) - target).square().mean()))
    assert distances[1] < 0.9 * distances[0]


def test_model_vae_and_clip_give_the_same_afterwards(
    train: Callable[..., tuple], plain_clip: Any, models: tuple
) -> None:
    stock = importlib.import_module("nodes")

    def picture() -> torch.Tensor:
        with torch.inference_mode():
            positive = stock.CLIPTextEncode().encode(plain_clip, "eine Teekanne")[0]
            latent = {"samples": torch.zeros(1, 16, 8, 8)}
            sampled = stock.KSampler().sample(
                models[0], 1, 2, 2.0, "euler", "normal", positive, positive, latent
            )[0]  # fmt: skip
            return stock.VAEDecode().decode(models[1], sampled)[0].clone()

    before = picture()
    train(loss="pixel")
    assert torch.equal(picture(), before)
    encoder = plain_clip.cond_stage_model
    # ComfyUI's own hooks aside, none are left on the encoder.
    assert not any(module._forward_pre_hooks for module in encoder.modules())


def test_a_cancelled_run_goes_on_and_ends_as_the_undisturbed_one(
    train: Callable[..., tuple],
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = train(steps=6)[0]
    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        cancel_at(patch, 3)
        with pytest.raises(Interrupted):
            train(steps=6, checkpoint="mine")
    kept = output / "culture_checkpoints" / "mine.safetensors"
    assert kept.is_file() and f"kept in {kept}" in caplog.text
    with pytest.raises(ValueError, match="or to other data"):
        train(steps=6, checkpoint="mine", loss="denoise")
    resumed, _, report = train(steps=6, checkpoint="mine")
    assert "steps 1 to 3 come from the checkpoint" in report and not kept.exists()
    for name, value in whole.enhancer.state_dict().items():
        assert torch.equal(resumed.enhancer.state_dict()[name], value), name


def test_an_encoder_that_gradients_do_not_get_through_is_said(
    train: Callable[..., tuple], plain_clip: Any
) -> None:
    """One that writes into a buffer."""
    last = ComfyTextEncoder(plain_clip).layer_modules()[-1]
    handle = last.register_forward_hook(lambda _m, _i, x: torch.mul(x, 1.0, out=torch.empty_like(x)))
    try:
        with pytest.raises(
            ValueError, match=r"'multilingual_e5' \(bert\).*python -m culture_core train-enhancer"
        ):
            train()
    finally:
        handle.remove()


def test_pictures_come_from_the_input_folder_alone(train: Callable[..., tuple]) -> None:
    with pytest.raises(ValueError, match="leads out of ComfyUI's input folder"):
        train(pictures="../..")
    with pytest.raises(ValueError, match="is not there"):
        train(pictures="nowhere")
    with pytest.raises(ValueError, match="multiple of 16"):
        train(size=40)
    with pytest.raises(ValueError, match="Layer 12 cannot be patched"):
        train(layer=12)

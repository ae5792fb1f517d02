"""Training an SAE and detecting neurons in a node, as ComfyUI runs it: under inference mode."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.model_management
import comfy.utils
import pytest
import torch
from PIL import Image

from culture_core.embedded_encoder import MAX_LENGTH, load_hf_encoder
from culture_core.encoders import HFTextEncoder
from culture_core.features import content_features
from culture_core.reports import training_texts
from culture_core.sae import SAEConfig, train_sae

LAYER, FEATURE, STEPS = 5, "hidden_state", 12
E5 = Path(__file__).parents[2] / "models" / "text_encoders" / "multilingual-e5-small"
Interrupted = comfy.model_management.InterruptProcessingException


@pytest.fixture(scope="module")
def pairs(node_classes: dict[str, type]) -> list:
    every = node_classes["CultureLoadPairs"].execute("miniature.jsonl")[0]
    return [pair for pair in every if pair.culture in ("de", "ja")]


@pytest.fixture
def train(node_classes: dict[str, type], plain_clip: Any, pairs: list) -> Callable[..., tuple]:
    """Run the node with small settings."""

    def run(
        layer: int = LAYER, steps: int = STEPS, checkpoint: str = "", extra: str = "", **other: Any
    ) -> tuple:
        settings = {
            "clip": plain_clip, "culture_pairs": pairs, "layer": layer, "feature": FEATURE, "latents": 64,
            "k": 8, "steps": steps, "batch_size": 16, "learning_rate": 1e-3, "seed": 3,
            "checkpoint": checkpoint, "encoder": "", "extra_text": extra,
        } | other  # fmt: skip
        with torch.inference_mode():
            return node_classes["CultureTrainSAE"].execute(**settings).args

    return run


@pytest.fixture
def hook() -> Any:
    """Receives what goes to ComfyUI's progress bars: (value, total, preview)."""

    class Hook:
        def __init__(self) -> None:
            self.calls: list[tuple] = []

        def __call__(self, value: int, total: int, preview: Any, node_id: Any = None) -> None:
            self.calls.append((value, total, preview))

    hook = Hook()
    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(hook)
    yield hook
    comfy.utils.set_progress_bar_global_hook(before)


def training_module() -> ModuleType:
    """That of the pack as ComfyUI loads it."""
    return importlib.import_module("comfyui_culture.culture_core.comfy.training")


def weights(culture_sae: Any) -> dict[str, torch.Tensor]:
    return culture_sae.sae.state_dict()


def same(first: Any, second: Any) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(weights(first).values(), weights(second).values(), strict=True)
    )


def test_the_node_trains_what_the_library_trains(train: Callable[..., tuple], pairs: list) -> None:
    culture_sae, picture, report = train(extra="ein Haus\n\n  eine Brücke  \n")
    texts = training_texts(pairs, ["ein Haus", "eine Brücke"])
    encoder = HFTextEncoder(*load_hf_encoder(E5), MAX_LENGTH)
    features, prompts = content_features(encoder, texts, LAYER, FEATURE)
    config = SAEConfig(64, 8, 1e-3, STEPS, 16, seed=3)
    expected, figures = train_sae(features, config, prompts)
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(weights(culture_sae)[name], weight, rtol=1e-3, atol=1e-4)
    assert (culture_sae.layer, culture_sae.feature, culture_sae.cultures) == (LAYER, FEATURE, {})
    assert culture_sae.training["vectors"] == figures.vectors and str(figures.vectors) in report
    assert f"{len(texts)} prompts" in report and "held-out" in report
    assert picture.shape == (1, 480, 800, 3) and picture.std() > 0.05


def test_pairs_that_measure_are_not_trained_on(train: Callable[..., tuple], pairs: list) -> None:
    marked = [replace(pair, split="test") if pair.culture == "ja" else pair for pair in pairs]
    culture_sae, _, report = train(culture_pairs=marked)
    german = train(culture_pairs=[pair for pair in pairs if pair.culture == "de"])[0]
    assert same(culture_sae, german)
    assert f"{sum(pair.culture == 'ja' for pair in pairs)} prompt pairs of the split test" in report
    with pytest.raises(ValueError, match="training an SAE"):
        train(culture_pairs=[pair for pair in marked if pair.culture == "ja"])


def test_the_precision_reaches_the_training(train: Callable[..., tuple]) -> None:
    plain, lower = train()[0], train(precision="bfloat16")[0]
    assert lower.training["config"]["precision"] == "bfloat16" and not same(plain, lower)
    assert all(weight.dtype == torch.float32 for weight in weights(lower).values())


def test_what_comes_out_of_inference_mode_is_of_use_outside(train: Callable[..., tuple]) -> None:
    sae = train()[0].sae
    copy.deepcopy(sae)
    with torch.enable_grad():
        vectors = torch.randn(2, 384, requires_grad=True)
        sae(vectors).sum().backward()
    assert vectors.grad is not None and not any(weight.requires_grad for weight in sae.parameters())


def test_the_bar_moves_over_reading_and_training_and_shows_the_loss(
    train: Callable[..., tuple], pairs: list, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_BAR_SECONDS": 0.0, "_PREVIEW_SECONDS": 0.0, "_PREVIEW_SHARE": 1e9}.items():
        monkeypatch.setattr(training_module(), name, value)
    train()
    total = len(training_texts(pairs, [])) + STEPS
    values = [value for value, *_ in hook.calls]
    assert values == sorted(values) and values[-1] == total and {of for _, of, _ in hook.calls} == {total}
    shown = [preview for *_, preview in hook.calls if preview]
    assert len(shown) == STEPS - 1 and all(kind in ("PNG", "JPEG") for kind, *_ in shown)
    assert all(isinstance(picture, Image.Image) for _, picture, _ in shown)


def test_a_message_is_not_sent_for_every_step(train: Callable[..., tuple], hook: Any) -> None:
    train(steps=400)
    assert len(hook.calls) < 200 and hook.calls[-1][0] == hook.calls[-1][1]


def cancel_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Press cancel when so many steps are done."""
    training = training_module()
    plain = training.TrainingProgress.step_done

    def step_done(self: Any, done: int, steps: int, loss: float) -> None:
        comfy.model_management.interrupt_current_processing(done == step)
        plain(self, done, steps, loss)

    monkeypatch.setattr(training.TrainingProgress, "step_done", step_done)


def test_a_cancelled_training_goes_on_from_its_checkpoint_to_the_same_sae(
    train: Callable[..., tuple],
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    undisturbed = train()[0]
    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        cancel_at(patch, 5)
        with pytest.raises(Interrupted):
            train(checkpoint="half")
    kept = output / "culture_checkpoints" / "half.safetensors"
    assert kept.is_file() and f"kept in {kept}" in caplog.text
    resumed, _, report = train(checkpoint="half")
    assert "steps 1 to 5 come from the checkpoint" in report and same(resumed, undisturbed)
    assert not kept.exists()


def test_a_cancelled_training_without_a_checkpoint_leaves_nothing(
    train: Callable[..., tuple], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel_at(monkeypatch, 5)
    with pytest.raises(Interrupted):
        train()
    assert not output.exists()


def test_a_checkpoint_of_other_settings_is_refused_and_kept(
    train: Callable[..., tuple], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cancel_at(patch, 5)
        with pytest.raises(Interrupted):
            train(checkpoint="half")
    with pytest.raises(ValueError, match=r"half\.safetensors.*another configuration"):
        train(checkpoint="half", seed=4)
    assert (output / "culture_checkpoints" / "half.safetensors").is_file()


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "a\\b", "/etc/x", "C:x", ".hidden", "..", "a\0b", "x" * 101]
)
def test_a_checkpoint_name_that_is_not_plain_is_refused_before_the_graph_runs(
    name: str, node_classes: dict[str, type], train: Callable[..., tuple], output: Path
) -> None:
    answer = node_classes["CultureTrainSAE"].validate_inputs(checkpoint=name)
    assert isinstance(answer, str) and "no plain file name" in answer
    with pytest.raises(ValueError, match="no plain file name"):
        train(checkpoint=name)
    assert not output.exists()


@pytest.mark.parametrize("name", ["", " ", "mine", "Thai 2.1_final-b", "日本", "mine.safetensors", None])
def test_plain_checkpoint_names_pass(name: str | None, node_classes: dict[str, type]) -> None:
    assert node_classes["CultureTrainSAE"].validate_inputs(checkpoint=name) is True


@pytest.mark.parametrize("layer", [12, 999])
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(
    layer: int, train: Callable[..., tuple]
) -> None:
    with pytest.raises(ValueError, match=rf"Layer {layer} cannot be used.*layers 0 to 11"):
        train(layer=layer)


def test_no_prompts_are_refused(train: Callable[..., tuple]) -> None:
    for extra in ("", "\n \n"):
        with pytest.raises(ValueError, match="no prompts to train on"):
            train(culture_pairs=[], extra=extra)


def test_more_active_latents_than_there_are_is_refused(train: Callable[..., tuple]) -> None:
    with pytest.raises(ValueError, match="k=65"):
        train(k=65)


def test_an_encoder_that_the_clip_lacks_is_refused_with_those_it_has(train: Callable[..., tuple]) -> None:
    with pytest.raises(ValueError, match="no encoder clip_g: it has multilingual_e5"):
        train(encoder="clip_g")


# --------------------------------------------------------------------------------------------- detection


@pytest.fixture
def detect(node_classes: dict[str, type], plain_clip: Any, pairs: list) -> Callable[..., tuple]:
    def run(culture_sae: Any, contrast: str = "mean", count: int = 0, **other: Any) -> tuple:
        settings = {
            "clip": plain_clip, "culture_sae": culture_sae, "culture_pairs": pairs, "contrast": contrast,
            "count": count, "tau": 0.5, "by_effect": False,
        } | other  # fmt: skip
        with torch.inference_mode():
            return node_classes["CultureDetectNeurons"].execute(**settings).args

    return run


def test_detection_gives_a_new_sae_and_leaves_the_old_one_alone(
    train: Callable[..., tuple], detect: Callable[..., tuple]
) -> None:
    trained = train()[0]
    found, picture, report = detect(trained)
    assert trained.cultures == {} and set(found.cultures) == {"de", "ja"} and found.sae is trained.sae
    assert picture.shape[-1] == 3 and picture.std() > 0.05
    assert "German (de)" in report and "Japanese (ja)" in report


def test_cultures_that_the_pairs_lack_are_kept(
    node_classes: dict[str, type], detect: Callable[..., tuple], pairs: list
) -> None:
    shipped = node_classes["CultureLoadSAE"].execute("miniature.safetensors")[0]
    before = copy.deepcopy(shipped.cultures)
    found = detect(shipped, count=3)[0]
    assert set(found.cultures) == set(before) and len(found.cultures["de"].indices) == 3
    for code in before:
        assert torch.equal(shipped.cultures[code].indices, before[code].indices)
        same_indices = torch.equal(found.cultures[code].indices, before[code].indices)
        assert same_indices is (code not in ("de", "ja"))


def test_count_and_contrast_choose(train: Callable[..., tuple], detect: Callable[..., tuple]) -> None:
    trained = train()[0]
    rules = {"mean": ("specificity", "mean"), "maximum": ("specificity", "maximum"), "none": ("wfs", None)}
    for contrast, rule in rules.items():
        found = detect(trained, contrast, 4)[0]
        chosen = found.selection["de"]
        assert len(found.cultures["de"].indices) == 4 and (chosen.score, chosen.contrast) == rule
    # Without contrast the ranking is by WFS itself.
    plain = found.cultures["de"].wfs_cultural
    assert torch.equal(plain, plain.sort(descending=True).values)


def test_neurons_may_be_chosen_by_their_measured_effect(
    train: Callable[..., tuple], detect: Callable[..., tuple], hook: Any
) -> None:
    found, _, report = detect(train()[0], by_effect=True)
    assert all(found.selection[code].rule == "effect" for code in ("de", "ja")) and "effect" in report
    assert hook.calls[-1][0] == hook.calls[-1][1]


def test_a_detection_can_be_cancelled(train: Callable[..., tuple], detect: Callable[..., tuple]) -> None:
    trained = train()[0]
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(Interrupted):
        detect(trained)


def test_an_sae_of_another_encoder_is_refused(
    train: Callable[..., tuple], detect: Callable[..., tuple]
) -> None:
    other = copy.copy(train()[0])
    other.encoder = other.encoder | {"layers": 24}
    with pytest.raises(ValueError, match="another text encoder"):
        detect(other)

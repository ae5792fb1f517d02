"""The nodes in this process, with the shipped miniature: neutral settings give the stock picture."""

import importlib
from typing import Any

import folder_paths
import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from culture_core.comfy import ComfyTextEncoder
from culture_core.probing import probe_layers
from culture_core.reports import spread

STEPS = 2


@pytest.fixture(scope="module")
def stock() -> Any:
    """ComfyUI's own nodes."""
    return importlib.import_module("nodes")


@pytest.fixture(scope="module")
def paint(stock: Any, node_classes: dict[str, type]) -> Any:
    with torch.inference_mode():
        model = stock.UNETLoader().load_unet("culture_miniature.safetensors", "default")[0]
        vae = stock.VAELoader().load_vae("culture_miniature_vae.safetensors")[0]

    def paint_with(clip: Any, text: str = "eine Teekanne") -> tuple[Tensor, Tensor]:
        """(conditioning, picture [1, 64, 64, 3]) of a prompt."""
        with torch.inference_mode():
            positive = stock.CLIPTextEncode().encode(clip, text)[0]
            negative = stock.CLIPTextEncode().encode(clip, "")[0]
            latent = {"samples": torch.zeros(1, 16, 8, 8)}
            sampled = stock.KSampler().sample(
                model, 1, STEPS, 2.0, "euler", "normal", positive, negative, latent
            )[0]  # fmt: skip
            return positive[0][0].clone(), stock.VAEDecode().decode(vae, sampled)[0].clone()

    return paint_with


def loaded(node_classes: dict[str, type], node: str, kind: str) -> Any:
    assert "miniature.safetensors" in folder_paths.get_filename_list(kind)
    return node_classes[node].execute("miniature.safetensors")[0]


@pytest.mark.parametrize("strength", [0.0, 4.0])
def test_the_amplifier_changes_the_picture_unless_its_strength_is_zero(
    strength: float, node_classes: dict[str, type], plain_clip: Any, paint: Any
) -> None:
    sae = loaded(node_classes, "CultureLoadSAE", "culture_sae")
    arguments = ("Japanese (ja)", strength, "inject", "content", "")
    patched = node_classes["CultureAmplifyNeurons"].execute(plain_clip, sae, *arguments)[0]
    compare(strength, paint(plain_clip), paint(patched), paint(plain_clip))


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_the_enhancer_changes_the_picture_unless_its_strength_is_zero(
    strength: float, node_classes: dict[str, type], plain_clip: Any, paint: Any
) -> None:
    enhancer = loaded(node_classes, "CultureLoadEnhancer", "culture_enhancer")
    patched = node_classes["CultureApplyEnhancer"].execute(plain_clip, enhancer, strength)[0]
    compare(strength, paint(plain_clip), paint(patched), paint(plain_clip))


def test_the_encoders_that_a_file_is_used_in_can_be_named(
    node_classes: dict[str, type], plain_clip: Any
) -> None:
    sae = loaded(node_classes, "CultureLoadSAE", "culture_sae")
    enhancer = loaded(node_classes, "CultureLoadEnhancer", "culture_enhancer")
    amplify = node_classes["CultureAmplifyNeurons"].execute
    enhance = node_classes["CultureApplyEnhancer"].execute
    with pytest.raises(ValueError, match="no encoder clip_g: it has multilingual_e5"):
        amplify(plain_clip, sae, "ja", 1.0, "inject", "content", "", "clip_g")
    with pytest.raises(ValueError, match="no encoder clip_g: it has multilingual_e5"):
        enhance(plain_clip, enhancer, 1.0, "clip_g")
    assert enhance(plain_clip, enhancer, 1.0, "all")[0].patcher.injections


def compare(strength: float, before: tuple, patched: tuple, after: tuple) -> None:
    for stock_result, patched_result, later in zip(before, patched, after, strict=True):
        assert torch.isfinite(stock_result).all()
        assert torch.equal(stock_result, later)
        assert torch.equal(stock_result, patched_result) is (strength == 0)


def test_the_probe_node_gives_a_layer_a_picture_and_a_report(
    node_classes: dict[str, type], plain_clip: Any
) -> None:
    pairs = node_classes["CultureLoadPairs"].execute("miniature.jsonl")[0]
    with torch.inference_mode():
        layer, curve, report, languages = (
            node_classes["CultureProbeLayer"].execute(plain_clip, pairs, 4, "auto", "context", "").args
        )
    assert isinstance(languages, ExecutionBlocker)
    assert 0 <= layer < 12 and f"Key layer: {layer}" in report
    assert curve.shape == (1, 800, 800, 3) and 0 <= curve.min() < curve.max() <= 1


def test_the_probe_node_shows_every_language_on_request(
    node_classes: dict[str, type], plain_clip: Any
) -> None:
    every = node_classes["CultureLoadPairs"].execute("miniature.jsonl")[0]
    pairs = [pair for pair in every if pair.language in ("de", "ja")][::4]
    settings = (1000, "auto", "context", "", 50, 4, True)
    with torch.inference_mode():
        _, _, report, languages = node_classes["CultureProbeLayer"].execute(plain_clip, pairs, *settings).args
        alone = [pair for pair in pairs if pair.language == "ja"]
        of_japanese = node_classes["CultureProbeLayer"].execute(plain_clip, alone, *settings[:-1]).args
    # Attention, patching, and attention as a map.
    assert len({tuple(picture.shape) for picture in languages}) >= 2 and len(languages) == 3
    assert all(picture.std() > 0.05 for picture in languages)
    rows = {line.split()[0]: line.split() for line in report.splitlines()[-2:]}
    assert set(rows) == {"de", "ja"} and rows["ja"][2] == str(of_japanese[0])


@pytest.mark.parametrize("criterion", ["attention", "causal"])
def test_the_criterion_of_the_probe_node_can_be_chosen(
    criterion: str, node_classes: dict[str, type], plain_clip: Any
) -> None:
    pairs = node_classes["CultureLoadPairs"].execute("miniature.jsonl")[0]
    settings = (12, "auto", "context", "", 50, 6, False, criterion)
    with torch.inference_mode():
        layer, _, report, _ = node_classes["CultureProbeLayer"].execute(plain_clip, pairs, *settings).args
    expected = probe_layers(
        ComfyTextEncoder(plain_clip), spread(pairs, 12), batch_size=6, bootstrap=50, criterion=criterion
    )
    assert layer == expected.layer and expected.reason in report

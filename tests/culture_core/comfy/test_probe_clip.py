"""Probing a CLIP of several encoders."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from comfy.sd import CLIP

from culture_core.comfy.loading import TextEncoderError
from culture_core.comfy.probing import probe_clip
from culture_core.comfy.reading import ComfyTextEncoder
from culture_core.pairs import PromptPair, load_pairs
from culture_core.probing import probe_layers


@pytest.fixture(scope="module")
def pairs() -> list[PromptPair]:
    every = load_pairs(Path(__file__).parents[3] / "models" / "culture_pairs" / "miniature.jsonl")
    return [pair for pair in every if pair.culture in ("de", "fr")][::5]


def test_every_chosen_encoder_is_probed_and_the_layer_is_that_of_the_first(
    clips: Callable[[str], CLIP], pairs: list[PromptPair]
) -> None:
    clip = clips("sdxl")
    layer, curves, report, languages = probe_clip(clip, pairs, bootstrap=20, encoder_choice="clip_g, clip_l")
    expected = [
        probe_layers(ComfyTextEncoder(clip, key), pairs, bootstrap=20) for key in ("clip_g", "clip_l")
    ]
    assert layer == expected[0].layer and curves.shape == (2, 800, 800, 3) and languages == []
    parts = report.split("\n\nKey layer")
    assert len(parts) == 2 and "'clip_g'" in parts[0] and "'clip_l'" in parts[1]
    assert all(probe.reason in part for probe, part in zip(expected, parts, strict=True))


def test_an_encoder_that_is_not_there_is_refused(
    clips: Callable[[str], CLIP], pairs: list[PromptPair]
) -> None:
    with pytest.raises(TextEncoderError, match="no encoder t5xxl: it has clip_l, clip_g"):
        probe_clip(clips("sdxl"), pairs, encoder_choice="t5xxl")


def test_the_settings_reach_the_probe(clips: Callable[[str], CLIP], pairs: list[PromptPair]) -> None:
    clip = clips("sd1")
    plain = probe_clip(clip, pairs, bootstrap=20)
    assert "Attention counted: visible; reference for neutral prompts: context" in plain.report
    other = probe_clip(clip, pairs, "noun_to_modifier", "none", 2, bootstrap=20)
    assert "Attention counted: noun_to_modifier; reference for neutral prompts: none" in other.report
    assert "Pairs: 2 used" in other.report
    few = probe_clip(clip, pairs, bootstrap=10, batch_size=1)
    # The batch size changes nothing but speed; the resamples change the intervals alone.
    columns = [[line.split()[1] for line in one.report.splitlines()[6:]] for one in (plain, few)]
    assert columns[0] == columns[1] and not torch.equal(plain.curves, few.curves)

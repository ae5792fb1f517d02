"""Training and detection on the encoders of ComfyUI's families."""

from collections.abc import Callable
from pathlib import Path

import pytest
from comfy.sd import CLIP

from culture_core.comfy.loading import TextEncoderError
from culture_core.comfy.places import choose_encoders
from culture_core.comfy.reading import ComfyTextEncoder
from culture_core.comfy.training import TrainedSAE, detect_neurons_in_clip, train_sae_on_clip
from culture_core.pairs import PromptPair, load_pairs
from culture_core.sae import SAEConfig

CONFIG = SAEConfig(n_latents=32, k=4, steps=5, batch_size=16, holdout=0.0)


@pytest.fixture(scope="module")
def pairs() -> list[PromptPair]:
    every = load_pairs(Path(__file__).parents[3] / "models" / "culture_pairs" / "miniature.jsonl")
    return [pair for pair in every if pair.culture in ("de", "fr")][::2]


def train(clip: CLIP, pairs: list[PromptPair], layer: int = 1, choice: str = "") -> TrainedSAE:
    return train_sae_on_clip(clip, pairs, "", layer, "hidden_state", CONFIG, encoder_choice=choice)


@pytest.mark.parametrize("choice", ["t5xxl", "clip_l", "l"])
def test_an_sae_is_of_the_encoder_that_was_chosen(
    choice: str, clips: Callable[[str], CLIP], pairs: list[PromptPair]
) -> None:
    clip = clips("flux")
    key = choose_encoders(clip, choice)[0]
    culture_sae, _, report = train(clip, pairs, choice=choice)
    assert culture_sae.encoder_key == key and f"'{key}'" in report
    assert culture_sae.encoder == ComfyTextEncoder(clip, key).fingerprint()


def test_without_a_choice_it_is_of_the_largest(clips: Callable[[str], CLIP], pairs: list[PromptPair]) -> None:
    clip = clips("flux")
    assert [train(clip, pairs).culture_sae.encoder_key] == choose_encoders(clip)


def test_an_sae_of_several_encoders_is_refused(clips: Callable[[str], CLIP], pairs: list[PromptPair]) -> None:
    with pytest.raises(TextEncoderError, match="of one encoder: name one of clip_l, t5xxl"):
        train(clips("flux"), pairs, choice="all")


@pytest.mark.parametrize("layer", [3, -1])
def test_a_layer_that_the_conditioning_skips_is_refused(
    layer: int, clips: Callable[[str], CLIP], pairs: list[PromptPair]
) -> None:
    with pytest.raises(TextEncoderError, match=rf"Layer {layer} .*layers 0 to 2 of 'clip_h'"):
        train(clips("sd2"), pairs, layer)


def test_detection_reads_the_encoder_that_the_sae_is_of(
    clips: Callable[[str], CLIP], pairs: list[PromptPair]
) -> None:
    clip = clips("sdxl")  # whose encoders have one shape here
    found = {}
    for key in ("clip_l", "clip_g"):
        trained = train(clip, pairs, choice=key).culture_sae
        found[key] = detect_neurons_in_clip(clip, trained, pairs, count=3).culture_sae
        assert found[key].encoder_key == key and set(found[key].cultures) == {"de", "fr"}
    wfs = [culture_sae.cultures["de"].wfs_cultural.tolist() for culture_sae in found.values()]
    assert wfs[0] != wfs[1]

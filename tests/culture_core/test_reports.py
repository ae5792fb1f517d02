"""What probing and training found, in words and pictures."""

from dataclasses import replace

import pytest
import torch

from culture_core.pairs import PairError, PromptPair
from culture_core.probing import LayerProbe
from culture_core.reports import (
    language_report,
    loss_picture,
    probe_picture,
    probe_report,
    spread,
    training_figures,
    training_summary,
    training_texts,
)
from culture_core.sae import SAEConfig, train_sae


def pair(number: int, language: str = "en") -> PromptPair:
    return PromptPair(
        str(number),
        "th",
        language,
        f"Thai chair {number}",
        f"chair {number}",
        ((0, 4),),
        ((5, 10),),
        ((0, 5),),
    )


def a_probe() -> LayerProbe:
    curve = torch.tensor([0.1, 0.3, 0.2])
    band = torch.stack([curve - 0.05, curve + 0.05], dim=1)
    return LayerProbe(
        curve,
        curve,
        curve,
        band,
        curve,
        band,
        curve / 2,
        1,
        "it stands out",
        "visible",
        "none",
        9,
        ("a", "b"),
        layer_attention=1,
        layer_causal=1,
    )


def test_a_probe_is_told_layer_by_layer():
    text = probe_report(a_probe(), "clip, 'l'")
    assert text.startswith("Key layer: 1 of 0 to 2 (clip, 'l')\nWhy: it stands out\n")
    assert "Attention counted: visible; reference for neutral prompts: none" in text
    assert "Pairs: 9 used, 2 skipped a, b" in text
    assert text.splitlines()[-2].split() == ["1", "0.3000", "0.2500", "0.3500", "0.150"]


def test_a_probe_is_drawn_with_its_subject():
    plain, named = probe_picture(a_probe()), probe_picture(a_probe(), "Thai")
    assert plain.size == named.size == (800, 800)
    assert plain.tobytes() != named.tobytes()
    assert probe_picture(a_probe()._replace(layer_causal=None)).size == (800, 400)


def test_languages_are_told_as_a_table():
    text = language_report(
        {"th": a_probe(), "ko": a_probe()._replace(layer_attention=None, layer_causal=None)}
    )
    lines = [line.split() for line in text.splitlines()]
    assert lines[1][:5] == ["th", "9", "1", "1", "1"] and lines[2] == ["ko", "9", "1", "-", "-"]


def test_a_training_is_summed_up():
    config = SAEConfig(n_latents=16, k=2, steps=5)
    _, report = train_sae(torch.randn(200, 8), config)
    figures = training_figures(report, config)
    lines = training_summary(figures, ["memorises"])
    assert lines[0] == f"Trained on {report.vectors} vectors"
    assert f"{report.fvu_train:.3f} in training, {report.fvu_heldout:.3f} on held-out" in lines[1]
    assert str(report.dead) in lines[2] and lines[-1] == "Warning: memorises"
    assert figures["config"]["n_latents"] == 16
    assert loss_picture(report.losses).tobytes() != loss_picture(report.losses, start=50).tobytes()


@pytest.mark.parametrize(
    "figures", [{}, {"fvu_train": "low"}, {"dead": [1], "dense": None}, {"vectors": True}]
)
def test_figures_that_are_no_numbers_are_left_out(figures):
    assert training_summary(figures) == []


def test_without_held_out_prompts_none_are_spoken_of():
    line = "Variance left unexplained: 0.250 in training (0 is best)"
    assert training_summary({"fvu_train": 0.25, "fvu_heldout": None}) == [line]


def test_every_text_is_trained_on_once():
    texts = training_texts([pair(1), pair(2)], ["chair 1", "  a dog ", "", "a dog"])
    assert texts == ["Thai chair 1", "chair 1", "Thai chair 2", "chair 2", "a dog"]


@pytest.mark.parametrize("split", ["test", "unseen", "neuron_detection", "dev"])
def test_prompts_that_measure_are_never_trained_on(split):
    hidden = replace(pair(2), split=split)
    lines = ["a dog", " chair 2", "Thai chair 2", "chair 1"]
    assert training_texts([pair(1), hidden], lines) == ["Thai chair 1", "chair 1", "a dog"]
    with pytest.raises(PairError, match=split):
        training_texts([hidden], lines)


@pytest.mark.parametrize(
    ("limit", "kept"),
    [(None, [*range(7)]), (7, [*range(7)]), (99, [*range(7)]), (4, [0, 2, 4, 6]), (3, [0, 3, 6]), (1, [0])],
)
def test_a_limit_spreads_over_all_pairs(limit, kept):
    chosen = [int(one.id) for one in spread([pair(number) for number in range(7)], limit)]
    assert chosen == kept

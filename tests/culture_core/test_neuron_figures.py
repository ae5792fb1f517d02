"""The figures behind a choice survive JSON, and anything else is refused."""

import json

import pytest
import torch

from culture_core.neuron_figures import Curve, Selection, Trial, best_trial, curve_of, mean_activation_on
from culture_core.neurons import CultureNeurons, LatentStatistics


def selection() -> Selection:
    return Selection(
        "effect", "specificity", "mean", 0.5, active=9, noun_side=4, candidates=5, elbow=2, vectors=(40, 38),
        scores=(0.75, 0.25), ranking=(0.75, 0.25, 0.125), curve=Curve((3, 1), (1.5, 0.5), (0.0, 0.25)),
        activation={"th": 1.0, "ja": 0.125}, criterion="share",
        trials=(
            Trial("elbow", "mean", 2, {"share": 0.5, "cosine": 0.25}),
            Trial("count", "maximum", 4, {"share": 0.25, "cosine": 0.5}),
        ),
    )  # fmt: skip


def record(**changes: object) -> dict:
    return {**json.loads(json.dumps(selection().to_json())), **changes}


def test_a_selection_comes_back_from_json():
    again = Selection.from_json(record(), neurons=2, latents=10)
    assert again == selection()
    assert again.effect == {"share": 0.5, "cosine": 0.25}


def test_the_best_trial_has_the_largest_figure_and_of_equals_the_fewest_neurons():
    trials = [Trial("count", None, count, {"x": x, "y": -x}) for count, x in ((5, 1.0), (3, 2.0), (2, 2.0))]
    assert best_trial(trials, "x").count == 2
    assert best_trial(trials, "y").count == 5
    assert Selection.from_json(record(trials=[], criterion=None), 2, 10).effect == {}


def test_numbers_are_kept_to_six_digits():
    found = Selection.from_json(record(tau=0.123456789), 2, 10)
    assert found.to_json()["tau"] == 0.123457


BAD = {
    "no object": [],
    "nothing": {},
    "unknown entry": record(virus=1),
    "rule": record(rule="luck"),
    "contrast": record(contrast=["mean"]),
    "tau NaN": record(tau=float("nan")),
    "tau infinite": record(tau=float("inf")),
    "tau text": record(tau="0.5"),
    "tau huge": record(tau=10**400),
    "count negative": record(candidates=-1),
    "count no whole number": record(elbow=1.5),
    "count a truth": record(active=True),
    "count beyond": record(noun_side=11),
    "vectors": record(vectors=[1]),
    "scores too few": record(scores=[0.5]),
    "ranking too long": record(ranking=[0.5] * 201),
    "curve parts": record(curve={"latents": [1]}),
    "curve lengths": record(curve={"latents": [1, 2], "wfs_cultural": [1.0], "wfs_neutral": [1.0, 2.0]}),
    "curve latent beyond": record(curve={"latents": [10], "wfs_cultural": [1.0], "wfs_neutral": [1.0]}),
    "activation": record(activation={"th": None}),
    "activation name": record(activation={"\x1b[2J": 1.0}),
    "criterion": record(criterion=5),
    "criterion unmeasured": record(criterion="beauty"),
    "trial": record(trials=[{"rule": "elbow"}]),
    "trial figure": record(trials=[{**record()["trials"][0], "figures": {"share": "x"}}]),
    "trials endless": record(trials=record()["trials"] * 600),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_record_is_refused(case):
    with pytest.raises(ValueError) as raised:
        Selection.from_json(BAD[case], neurons=2, latents=10)
    assert len(str(raised.value)) < 300


def test_the_curve_is_sorted_by_use_and_leaves_out_what_never_fires():
    cultural = LatentStatistics(*(torch.tensor([0.0, 3.0, 1.0, 2.0]) for _ in range(3)))
    neutral = LatentStatistics(*(torch.tensor([9.0, 0.5, 0.0, 4.0]) for _ in range(3)))
    assert curve_of(cultural, neutral) == Curve((1, 3, 2), (3.0, 2.0, 1.0), (0.5, 4.0, 0.0))


def test_activation_on_a_culture_is_the_mean_wfs_of_the_neurons_there():
    neurons = CultureNeurons(torch.tensor([2, 0]), *(torch.zeros(2) for _ in range(4)))
    there = {"ja": LatentStatistics(torch.zeros(3), torch.zeros(3), torch.tensor([1.0, 7.0, 4.0]))}
    assert mean_activation_on(neurons, there) == {"ja": 2.5}

"""Pictures of culture neurons, from figures that may come from a file."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from culture_core.files import CultureSAE
from culture_core.neuron_figures import Curve, Selection
from culture_core.neuron_pictures import (
    activation_picture,
    curves_picture,
    overlap_picture,
    pictures_of,
    ranking_picture,
)
from culture_core.neurons import CultureNeurons
from culture_core.overlap import overlap
from culture_core.plots import COLOURS
from culture_core.sae import TopKSAE

CURVE = Curve((5, 1, 9, 2), (4.0, 2.0, 1.0, 0.5), (0.0, 1.5, 0.25, 0.5))
SELECTION = Selection(
    "elbow", "specificity", "maximum", 0.5, 9, 4, 5, 2, (9, 9), (3.0, 0.5), (3.0, 0.5, 0.25), CURVE,
    {"th": 2.0, "ja": 0.5},
)  # fmt: skip


def neurons(*indices: int) -> CultureNeurons:
    return CultureNeurons(torch.tensor(indices), *(torch.ones(len(indices)) for _ in range(4)))


def amount(picture, colour: int) -> int:
    return int((np.asarray(picture) == COLOURS[colour]).all(axis=-1).sum())


def culture_sae() -> CultureSAE:
    cultures = {"th": neurons(5, 9), "ja": neurons(1)}
    other = replace(SELECTION, scores=(1.0,), activation={"th": 0.5, "ja": 1.0})
    return CultureSAE(
        TopKSAE(4, 16, 2), 0, "hidden_state", {}, cultures, selection={"th": SELECTION, "ja": other}
    )


def test_a_file_with_figures_gives_every_picture():
    found = pictures_of(culture_sae())
    assert list(found) == ["wfs", "activation", "overlap", "ranking-th", "ranking-ja"]


def test_a_file_without_figures_gives_the_overlap_alone():
    item = culture_sae()
    item.selection = {}
    assert list(pictures_of(item)) == ["overlap"]
    item.cultures = {}
    assert pictures_of(item) == {}


def test_the_chosen_neurons_are_marked_on_the_curve():
    one, none = (curves_picture({"th": chosen}, {"th": SELECTION}) for chosen in (neurons(5, 9), neurons(15)))
    # The legend's ring is there in both.
    assert amount(one, 2) > amount(none, 2) > 0


def test_the_elbow_is_where_the_ranking_has_it():
    first, second = (
        np.asarray(ranking_picture("th", neurons(5, 9), replace(SELECTION, elbow=elbow))).astype(int)
        for elbow in (1, 2)
    )
    changed = np.flatnonzero((first[450:] != second[450:]).any(axis=(0, 2)))
    # Ranks 1 to 3 lie from pixel 76 to 776: the line moves from the axis to the middle.
    assert changed[0] <= 80 and 420 <= changed[-1] <= 430


def test_activation_is_shown_relative_to_the_own_culture():
    item = culture_sae()
    same = activation_picture(item.selection)
    scaled = {
        code: replace(one, activation={other: 10 * value for other, value in one.activation.items()})
        for code, one in item.selection.items()
    }
    assert activation_picture(scaled).tobytes() == same.tobytes()
    weaker = {**item.selection, "th": replace(SELECTION, activation={"th": 2.0, "ja": 0.0})}
    assert activation_picture(weaker).tobytes() != same.tobytes()


def test_a_shared_neuron_colours_the_overlap():
    apart, shared = (overlap_picture(overlap({"th": neurons(5, 9), "ja": neurons(last)})) for last in (1, 9))
    assert apart.size == shared.size and apart.tobytes() != shared.tobytes()


def test_a_curve_that_is_not_kept_is_missed():
    with pytest.raises(ValueError, match="detect the neurons anew"):
        curves_picture({"th": neurons(5)}, {"th": replace(SELECTION, curve=None)})

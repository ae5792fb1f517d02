"""The report of what neurons cultures share."""

import json

import pytest
import torch

from culture_core.neurons import CultureNeurons
from culture_core.overlap import overlap


def neurons(*indices: int) -> CultureNeurons:
    return CultureNeurons(torch.tensor(indices), *(torch.ones(len(indices)) for _ in range(4)))


def test_overlap_counts_by_hand():
    found = overlap({"ar": neurons(1, 2, 3), "ja": neurons(3, 4), "th": neurons(3, 2, 9, 8)})
    assert found.codes == ["ar", "ja", "th"]
    assert found.counts == [[3, 1, 2], [1, 2, 1], [2, 1, 4]]
    assert found.jaccard[0] == pytest.approx([1.0, 1 / 4, 2 / 5])
    assert found.shared == {3: ["ar", "ja", "th"], 2: ["ar", "th"]}
    assert found.mean_jaccard == pytest.approx((1 / 4 + 2 / 5 + 1 / 5) / 3)
    assert "latent 3: ar, ja, th" in found.table() and "2 latents belong" in found.table()
    assert json.loads(json.dumps(found.to_json()))["shared"][0] == {
        "latent": 3, "cultures": ["ar", "ja", "th"],
    }  # fmt: skip


def test_a_long_list_of_shared_latents_is_cut():
    found = overlap({"ar": neurons(*range(9)), "ja": neurons(*range(9))})
    assert found.table(most=4).count("  latent ") == 4 and "and 5 more" in found.table(most=4)


def test_cultures_without_common_neurons_are_said_to_have_none():
    found = overlap({"ar": neurons(1), "ja": neurons(2)})
    assert found.shared == {} and found.mean_jaccard == 0
    assert "No latent belongs to more than one culture" in found.table()
    assert overlap({"ar": neurons(1)}).mean_jaccard == 0
    with pytest.raises(ValueError, match="detect some first"):
        overlap({})

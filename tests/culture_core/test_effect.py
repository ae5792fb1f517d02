"""The encoder-side measures, by hand and on small encoders."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from culture_core.controls import measure_controls
from culture_core.effect import (
    AmplifiedEffect,
    CentroidReader,
    MaskedEffect,
    PairVectors,
    Place,
    amplifying,
    moved,
    noun_of,
    noun_vectors,
)
from culture_core.encoders import HIDDEN_STATE
from culture_core.features import noun_features
from culture_core.files import load_culture_sae
from culture_core.neurons import CultureNeurons
from culture_core.pairs import load_pairs
from culture_core.sae import TopKSAE
from culture_core.shares import Share

PLACE = Place(0, HIDDEN_STATE)


def some_neurons(*indices: int) -> CultureNeurons:
    count = len(indices)
    return CultureNeurons(
        torch.tensor(indices), torch.full((count,), 2.0), torch.full((count,), 0.5),
        torch.ones(count), torch.zeros(count),
    )  # fmt: skip


def test_how_far_vectors_moved_by_hand():
    start = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    target = torch.tensor([[4.0, 0.0], [1.0, 2.0]])
    assert moved(start, target, target) == pytest.approx((1.0, 1.0))
    assert moved(start, start, target).share == pytest.approx(0.0)
    away = torch.tensor([[-4.0, 0.0], [1.0, -2.0]])
    assert moved(start, away, target) == pytest.approx((-1.0, -1.0))
    # Sideways by 3 from 4 away: 5 are left. The other one goes half of its way.
    result = torch.tensor([[0.0, 3.0], [1.0, 1.0]])
    assert moved(start, result, target) == pytest.approx(((1 - 5 / 4 + 0.5) / 2, (0 + 1) / 2))


def test_a_pair_that_is_the_same_from_the_start_counts_as_unmoved():
    same = torch.ones(1, 3)
    assert moved(same, same + 1, same).share == 0.0


def test_a_culture_is_read_by_the_nearest_centroid_of_other_nouns():
    vectors = torch.tensor([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0], [4.0, 9.0]])
    reader = CentroidReader(vectors, ["ar", "ar", "ja", "ja"], ["hat", "bed", "hat", "bed"])
    # Without hats the centroids are (0, 1) and (4, 9), with neither noun they are the means of both.
    assert reader.read(torch.tensor([[4.0, 2.0]]), ["hat"]) == ["ar"]
    assert reader.read(torch.tensor([[4.0, 2.0], [0.0, 2.0]]), ["boat", "boat"]) == ["ja", "ar"]
    with pytest.raises(ValueError, match="all prompts have the noun 'hat'"):
        CentroidReader(vectors[:1], ["ar"], ["hat"]).read(vectors, ["hat"] * 4)


def test_a_vector_is_the_mean_conditioning_of_the_noun(bert, pairs):
    pair = pairs[0]
    found = noun_vectors(bert, [pair.cultural], [pair.nouns_cultural])
    tokens = bert.tokenize([pair.cultural])
    with torch.no_grad():
        hidden = bert.encode(tokens).hidden[0]
    assert torch.allclose(found[0], hidden[tokens.positions(0, pair.nouns_cultural)].mean(dim=0), atol=1e-6)


def test_an_edit_acts_where_and_while_it_should(bert, pairs):
    pair, counted = pairs[0], []
    plain = noun_vectors(bert, [pair.neutral], [pair.nouns_neutral], done=counted.append)
    edited = noun_vectors(
        bert, [pair.neutral], [pair.nouns_neutral], PLACE, lambda x, tokens: x + 1, counted.append
    )
    assert not torch.allclose(plain, edited)
    assert torch.equal(noun_vectors(bert, [pair.neutral], [pair.nouns_neutral]), plain)
    assert counted == [1, 1]


def test_a_noun_without_a_token_is_an_error_that_names_the_prompt(bert):
    with pytest.raises(ValueError, match="'a chair' has no token"):
        noun_vectors(bert, ["a chair"], [[(1, 2)]])


def test_an_edit_touches_the_tokens_asked_for(bert, pairs):
    sae = TopKSAE(32, 64, 64).requires_grad_(False)
    tokens = bert.tokenize([pairs[0].neutral])
    x = torch.randn(1, tokens.ids.shape[1], 32)
    for which, mask in (("content", tokens.content_mask), ("all", tokens.attention_mask)):
        changed = (amplifying(sae, some_neurons(3, 4), 2.0, tokens=which)(x, tokens) != x).any(dim=-1)
        assert torch.equal(changed, mask)
    with pytest.raises(ValueError, match="content or all"):
        amplifying(sae, some_neurons(3), 1.0, tokens="some")


@pytest.fixture
def two_cultures(pairs):
    """Half of the pairs are said to be Japanese."""
    return [replace(p, id=f"{p.id}{i}", culture=("th", "ja")[i % 2]) for i, p in enumerate(pairs)]


def test_the_effect_of_amplifying_is_that_of_its_best_strength(bert, two_cultures):
    sae, neurons = TopKSAE(32, 64, 8).requires_grad_(False), some_neurons(3, 4, 5)
    vectors, counted = PairVectors.of(bert, two_cultures), []
    measure = AmplifiedEffect(
        bert, sae, PLACE, vectors, vectors.reader(), strengths=(0.25, 1.0), done=counted.append
    )
    figures = measure("th", neurons)
    own = [pair for pair in two_cultures if pair.culture == "th"]
    texts, spans = [pair.neutral for pair in own], [pair.nouns_neutral for pair in own]
    target = noun_vectors(bert, [pair.cultural for pair in own], [pair.nouns_cultural for pair in own])
    start, shares = noun_vectors(bert, texts, spans), {}
    for strength in (0.25, 1.0):
        result = noun_vectors(bert, texts, spans, PLACE, amplifying(sae, neurons, strength))
        shares[strength] = moved(start, result, target)
        assert figures[f"share_at_{strength:g}"] == pytest.approx(shares[strength].share, abs=1e-6)
    best = max(shares, key=lambda strength: shares[strength].share)
    assert figures["strength"] == best
    assert figures["share"] == pytest.approx(shares[best].share, abs=1e-6)
    assert figures["cosine"] == pytest.approx(shares[best].cosine, abs=1e-6)
    assert 0 <= figures["read"] <= 100 and 0 <= figures["neutral_read"] <= 100
    assert counted == [len(own)] * 2


def test_masking_is_measured_against_the_neutral_partner(bert, two_cultures):
    sae = TopKSAE(32, 64, 8).requires_grad_(False)
    measure = MaskedEffect(bert, sae, PLACE, two_cultures)
    nothing = measure(None)
    assert nothing["moved"] == pytest.approx(0.0) and nothing["read"].count == len(two_cultures)
    everything = some_neurons(*range(64))
    figures = measure({"th": everything, "ja": everything})
    masked = torch.cat(
        [
            noun_vectors(bert, [p.cultural], [p.nouns_cultural], PLACE, amplifying(sae, everything, -1.0))
            for p in two_cultures
        ]
    )
    vectors = PairVectors.of(bert, two_cultures)
    assert figures["moved"] == pytest.approx(moved(vectors.cultural, masked, vectors.neutral).share, abs=1e-5)
    seen = vectors.reader().read(masked, [noun_of(p) for p in two_cultures])
    right = [code == p.culture for code, p in zip(seen, two_cultures, strict=True)]
    assert figures["read"] == Share(sum(right), len(right))
    by_culture = [figures[f"read_{code}"] for code in ("th", "ja")]
    assert sum(s.right for s in by_culture) == sum(right) and [s.count for s in by_culture] == [6, 6]
    read_neutral = vectors.reader().read(vectors.neutral, [noun_of(p) for p in two_cultures])
    assert measure.neutral_read().right == sum(
        code == p.culture for code, p in zip(read_neutral, two_cultures, strict=True)
    )


def test_real_neurons_carry_what_random_ones_do_not(e5):
    """Masking the shipped neurons of three cultures takes the prompts towards the neutral ones."""
    models = Path(__file__).parents[2] / "models"
    file = load_culture_sae(models / "culture_sae" / "miniature.safetensors")
    codes = ("es", "fr", "ja")
    every = load_pairs(models / "culture_pairs" / "miniature.jsonl")
    used = [pair for code in codes for pair in [p for p in every if p.culture == code][:5]]
    place = Place(file.layer, file.feature)
    neurons = {code: file.cultures[code] for code in codes}
    features = noun_features(e5, used, *place).cultural
    found = measure_controls(
        file.sae, neurons, features, MaskedEffect(e5, file.sae, place, used), draws=1, matches=("norm",)
    )
    random = found.random["norm"].figures
    assert found.untreated.figures["read"].mean > 90
    assert found.neurons.figures["cosine"].mean > random["cosine"].mean + 0.2
    assert found.neurons.figures["moved"].mean > random["moved"].mean + 0.1

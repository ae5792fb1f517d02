"""Detection for a culture SAE in one call."""

from dataclasses import replace

import pytest
import torch

from culture_core.detection import (
    Candidate,
    Detection,
    DetectOptions,
    best_by_effect,
    choose_neurons,
    detect_in,
    hold_out,
)
from culture_core.effect import noun_of
from culture_core.encoders import HIDDEN_STATE
from culture_core.features import noun_features
from culture_core.files import CultureSAE, FileError, Strengths, load_culture_sae, save_culture_sae
from culture_core.neurons import CultureNeurons, LatentStatistics, all_statistics, detect_all
from culture_core.sae import TopKSAE


@pytest.fixture
def two_cultures(pairs):
    """Thai pairs with the modifier first, "Japanese" ones with the modifier last."""
    return [
        replace(pair, id=f"{pair.id}-{code}", culture=code)
        for pair in pairs
        for code in ("th", "ja")
        if pair.id.endswith("1") == (code == "th")
    ]


@pytest.fixture
def culture_sae(bert) -> CultureSAE:
    sae = TopKSAE(32, 128, 16, seed=3).requires_grad_(False)
    return CultureSAE(sae, 1, HIDDEN_STATE, bert.fingerprint(), licence="MIT")


def test_neurons_are_those_of_detect_all_on_the_noun_features(bert, culture_sae, two_cultures):
    options = DetectOptions(count=4, contrast="maximum", tau=0.8)
    found = detect_in(culture_sae, bert, two_cultures, options)
    features = noun_features(bert, two_cultures, 1, HIDDEN_STATE)
    wanted = detect_all(culture_sae.sae, *features, count=4, contrast="maximum", tau=0.8)
    assert set(found.culture_sae.cultures) == {"th", "ja"}
    for code, neurons in wanted.items():
        assert torch.equal(found.culture_sae.cultures[code].indices, neurons.indices)
        one = found.culture_sae.selection[code]
        assert (one.rule, one.contrast, one.tau) == ("count", "maximum", 0.8)
        assert one.vectors == (len(features.cultural[code]), len(features.neutral[code]))
        assert one.candidates + one.noun_side <= one.active
        own = float(neurons.wfs_cultural.mean())
        assert one.activation[code] == pytest.approx(own, rel=1e-5)
    assert culture_sae.cultures == {} and culture_sae.selection == {}, "the one given is unchanged"


def test_the_result_can_be_saved_and_drawn_from_the_file_alone(bert, culture_sae, two_cultures, tmp_path):
    found = detect_in(culture_sae, bert, two_cultures)
    path = save_culture_sae(found.culture_sae, tmp_path / "n.safetensors")
    again = Detection(load_culture_sae(path), found.detected, found.overlap, "", 0)
    drawn, redrawn = found.pictures(), again.pictures()
    assert set(drawn) == {"wfs", "activation", "overlap", "ranking-th", "ranking-ja"} == set(redrawn)
    for name in drawn:
        assert drawn[name].tobytes() == redrawn[name].tobytes(), name
    assert "Thai (th)" in found.report and "Neurons that cultures share" in found.report


def test_other_cultures_stay_and_old_strengths_of_new_neurons_go(bert, culture_sae, two_cultures):
    first = detect_in(culture_sae, bert, two_cultures, DetectOptions(count=2)).culture_sae
    first.strengths = {"th": Strengths(1.0, 2.0), "ja": Strengths(3.0, 4.0)}
    thai = [pair for pair in two_cultures if pair.culture == "th"]
    second = detect_in(first, bert, thai, DetectOptions(count=3)).culture_sae
    assert torch.equal(second.cultures["ja"].indices, first.cultures["ja"].indices)
    assert second.selection["ja"] == first.selection["ja"] and second.selection["th"].score == "wfs"
    assert len(second.cultures["th"].indices) == 3
    assert second.strengths == {"ja": Strengths(3.0, 4.0)}


def test_test_pairs_are_never_looked_at(bert, culture_sae, two_cultures):
    tested = [replace(pair, split="test", id=f"{pair.id}-t") for pair in two_cultures[:3]]
    found = detect_in(culture_sae, bert, two_cultures + tested)
    assert found.left_out == 3
    assert found.culture_sae.selection == detect_in(culture_sae, bert, two_cultures).culture_sae.selection
    with pytest.raises(ValueError, match="no prompt pairs"):
        detect_in(culture_sae, bert, tested)


def test_another_encoder_is_refused(clip, culture_sae, two_cultures):
    with pytest.raises(FileError, match="another text encoder"):
        detect_in(culture_sae, clip, two_cultures)


def test_the_choice_by_effect_is_the_best_of_what_was_measured(bert, culture_sae, two_cultures):
    options = DetectOptions(by_effect=True, counts=(None, 1, 3), strengths=(0.5,), tau=0.9)
    steps = []
    found = detect_in(
        culture_sae, bert, two_cultures, options, lambda done, total: steps.append((done, total))
    )
    for code, one in found.culture_sae.selection.items():
        assert one.rule == "effect" and one.criterion == "share" and len(one.trials) >= 2
        best = max(trial.figures["share"] for trial in one.trials)
        assert one.effect["share"] == best
        assert len(found.culture_sae.cultures[code].indices) in {
            trial.count for trial in one.trials if trial.figures["share"] == best
        }
    assert steps == sorted(steps) and steps[-1][0] == steps[-1][1] and len({t for _, t in steps}) == 1
    assert "Effects on pairs kept from the detection" in found.report


def test_a_measure_of_the_callers_decides(bert, culture_sae, two_cultures):
    asked = []

    def most_neurons(culture: str, neurons) -> dict[str, float]:
        asked.append(culture)
        return {"size": float(len(neurons.indices))}

    options = DetectOptions(by_effect=True, counts=(1, 3, 2), contrasts=("mean",), criterion="size", tau=0.9)
    found = detect_in(culture_sae, bert, two_cultures, options, measure=most_neurons)
    assert sorted(asked) == ["ja"] * 3 + ["th"] * 3
    assert [len(neurons.indices) for neurons in found.culture_sae.cultures.values()] == [3, 3]


def test_two_rules_that_lead_to_the_same_neurons_are_measured_once():
    values = torch.tensor([9.0, 8.0, 0.3, 0.2, 0.1])
    own = LatentStatistics((values > 0).float(), values, values)
    nothing = LatentStatistics(values * 0, values * 0, values * 0)
    calls = []

    def measure(_culture: str, neurons: CultureNeurons) -> dict[str, float]:
        calls.append(len(neurons.indices))
        return {"share": -float(len(calls))}

    options = DetectOptions(by_effect=True, counts=(None, 2, 5, 99))
    neurons, one = choose_neurons("th", {"th": own}, {"th": nothing}, (9, 9), options, measure)
    assert calls == [2, 5] == [trial.count for trial in one.trials]
    assert neurons.indices.tolist() == [0, 1] and one.elbow == 2 and one.contrast is None


def test_given_sets_are_chosen_from_by_their_effect():
    sets = [
        Candidate(CultureNeurons(torch.arange(count), *(torch.ones(count) for _ in range(4))), "count")
        for count in (4, 2, 3)
    ]
    effects = {4: 0.5, 2: 0.25, 3: 0.5}
    chosen, trials = best_by_effect(sets, lambda one: {"seen": effects[len(one.indices)]}, "seen")
    assert len(chosen.neurons.indices) == 3, "of equals the smallest"
    assert [(trial.count, trial.figures["seen"]) for trial in trials] == [(4, 0.5), (2, 0.25), (3, 0.5)]
    for figures in ({}, {"other": 1.0}, {"seen": float("nan")}):
        with pytest.raises(ValueError, match="must give 'seen' and finite numbers"):
            best_by_effect(sets, lambda _, figures=figures: figures, "seen")


def test_held_out_pairs_have_other_nouns(two_cultures):
    fit, held = hold_out(two_cultures, DetectOptions(holdout=0.5))
    assert len(fit) + len(held) == len(two_cultures)
    for code in ("th", "ja"):
        nouns = [{noun_of(pair) for pair in part if pair.culture == code} for part in (fit, held)]
        assert nouns[0] and nouns[1] and not nouns[0] & nouns[1]
    assert hold_out(two_cultures, DetectOptions(holdout=0.5)) == (fit, held)


def test_a_validation_split_is_what_is_held_out(two_cultures):
    marked = [replace(pair, split="validation") if i < 6 else pair for i, pair in enumerate(two_cultures)]
    fit, held = hold_out(marked, DetectOptions())
    assert sorted(pair.id for pair in held) == sorted(pair.id for pair in marked[:6])
    assert len(fit) == len(marked) - 6


def test_one_noun_cannot_be_held_out(two_cultures):
    one = [pair for pair in two_cultures if noun_of(pair) == "chair"]
    with pytest.raises(ValueError, match="too few nouns"):
        hold_out(one, DetectOptions())


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0}, {"contrast": "median"}, {"score": "f"}, {"tau": 0.0}, {"tau": float("nan")},
        {"counts": ()}, {"counts": (0,)}, {"contrasts": ("x",)}, {"strengths": (0.0,)}, {"holdout": 1.0},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DetectOptions(**wrong)


def test_what_progress_raises_ends_the_detection(bert, culture_sae, two_cultures):
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detect_in(culture_sae, bert, two_cultures, progress=stop)


def test_detection_works_under_inference_mode(bert, culture_sae, two_cultures, tmp_path):
    with torch.inference_mode():
        found = detect_in(culture_sae, bert, two_cultures, DetectOptions(count=2))
        save_culture_sae(found.culture_sae, tmp_path / "n.safetensors")
    plain = detect_in(culture_sae, bert, two_cultures, DetectOptions(count=2))
    assert found.culture_sae.selection == plain.culture_sae.selection


def test_statistics_need_both_kinds_of_prompts():
    sae = TopKSAE(8, 8, 2)
    with pytest.raises(ValueError, match="no neutral features for th"):
        all_statistics(sae, {"th": torch.ones(1, 8)}, {})

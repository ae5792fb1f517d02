"""Figures on paired items, against literal ones."""

import random
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from culture_core.judges.results import summarise
from culture_core.judges.run import read_run
from culture_core.studies import read_measured
from culture_core.studies.figures import Paired
from culture_core.studies.measured import CULTURE


@pytest.fixture(scope="module")
def found(finished):
    return read_measured(finished["run"], [finished["judged"]], [finished["metrics"]])


def test_macro_accuracy_and_recall_are_the_judges(found, finished):
    paired = Paired(found, found.measures[CULTURE], found.systems, draws=200)
    for system in found.systems:
        files = {picture.file for picture in found.of(system).values()}
        expected = summarise([one for one in read_run(finished["judged"]) if one.file in files])
        figure = paired.figure(system)
        assert figure.value == pytest.approx(expected.macro.percent)
        assert (figure.low, figure.high) == pytest.approx(expected.macro.interval)
        assert (figure.pictures, figure.prompts) == (40, 20)
        recall = {code: share.percent for code, share in paired.recall(system).items()}
        assert recall == pytest.approx({code: share.percent for code, share in expected.recall.items()})


def test_a_comparison_is_that_of_a_literal_paired_bootstrap(found):
    """Prompt by prompt, both seeds of both systems together."""
    measure = found.measures["distance_to_neutral"]
    (one,) = Paired(found, measure, found.systems, draws=400).compare([("amplified", "explicit")])
    prompts = sorted({picture.item.group for picture in found.pictures})
    by_prompt = {
        prompt: [
            measure.values[found.of("amplified")[item].file] - measure.values[found.of("explicit")[item].file]
            for item in found.of("amplified")
            if item.group == prompt
        ]
        for prompt in prompts
    }
    drawn = np.random.default_rng(0).integers(len(prompts), size=(400, len(prompts)))
    means = [np.mean([value for index in draw for value in by_prompt[prompts[index]]]) for draw in drawn]
    assert one.difference == pytest.approx(np.mean(list(by_prompt.values())))
    assert (one.low, one.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    assert (one.items, one.prompts, one.mcnemar) == (40, 20, None)


def test_right_and_wrong_are_compared_by_mcnemar_and_corrected_by_holm(found):
    paired = Paired(found, found.measures[CULTURE], found.systems)
    first, second = paired.compare([("explicit", "neutral"), ("amplified", "explicit")])
    test = first.mcnemar
    table = [[test.both, test.first_only], [test.second_only, test.neither]]
    assert test.p_value == pytest.approx(mcnemar(table, exact=True).pvalue) and sum(map(sum, table)) == 40
    assert first.difference > 40 and first.low > 20 and first.told_apart and not second.told_apart
    assert first.p_holm == pytest.approx(2 * first.p) and second.p_holm == second.p
    assert not first.to_json()["p"] > 0.001


def test_with_one_seed_the_test_over_prompts_is_mcnemars(found):
    only = Paired(found, found.measures[CULTURE], found.systems, lambda p: p.item.seed == 0)
    (one,) = only.compare([("neutral", "amplified")])
    assert one.items == one.prompts == 20
    if one.mcnemar.first_only + one.mcnemar.second_only <= 12:
        assert one.p == pytest.approx(one.mcnemar.p_value)
    else:
        assert one.p == pytest.approx(one.mcnemar.p_value, abs=0.002)


def test_items_that_one_system_lacks_are_left_out_of_all(found):
    measure = found.measures[CULTURE]
    lost = {picture.file for item, picture in found.of("explicit").items() if item.culture == "th"}
    fewer = replace(measure, values={f: v for f, v in measure.values.items() if f not in lost})
    paired = Paired(found, fewer, found.systems, draws=50)
    assert len(paired.items) == 30 and {item.culture for item in paired.items} == {"ja", "de", "fr"}
    assert paired.left_out == {"neutral": 10, "explicit": 0, "amplified": 10}
    none = replace(measure, values={f: v for f, v in measure.values.items() if f in lost})
    assert Paired(found, none, found.systems).systems == ["explicit"]
    assert not Paired(found, replace(measure, values={}), found.systems)


def test_all_right_is_a_hundred_percent_with_an_interval(found):
    measure = replace(found.measures[CULTURE], values={picture.file: 1.0 for picture in found.pictures})
    paired = Paired(found, measure, found.systems, draws=50)
    figure = paired.figure("neutral")
    assert figure.value == figure.high == 100 and 85 < figure.low < 95
    (one,) = paired.compare([("explicit", "neutral")])
    assert (one.difference, one.p, one.mcnemar.p_value) == (0, 1, 1) and not one.told_apart


def test_intervals_hold_what_they_say():
    """Of 200 experiments with a known difference, about 95 % have it in their interval."""
    from culture_core.significance import Resamples

    inside = 0
    for seed in range(200):
        rng = random.Random(seed)
        prompts = [(f"{n:02d}", rng.gauss(0, 1)) for n in range(40)]
        values = [(name, 0.5 + level + rng.gauss(0, 0.3)) for (name, level), _ in product(prompts, range(3))]
        resamples = Resamples([name for name, _ in values], draws=400, seed=seed)
        found = resamples.estimate(resamples.means([v for _, v in values], [n for n, _ in values]))
        inside += found.low <= 0.5 <= found.high
    assert 0.89 <= inside / 200 <= 0.99

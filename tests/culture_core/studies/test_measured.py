"""A run and what was found of it belong together, or are refused."""

import json
import shutil

import pytest

from culture_core.studies import StudyError, read_measured
from culture_core.studies.measured import CULTURE, Item, _described

from .conftest import read_lines, write_lines


@pytest.fixture
def copied(finished, tmp_path):
    """The finished run, for a test to change."""
    return {name: shutil.copytree(path, tmp_path / name) for name, path in finished.items()}


def change(path, edit):
    """Rewrite the lines of a file."""
    lines = read_lines(path)
    write_lines(path, [line for n, line in enumerate(lines) if edit(n, line) is not False])


def test_a_run_is_read_with_all_that_was_found_of_it(finished):
    found = read_measured(finished["run"], [finished["judged"]], [finished["metrics"]])
    assert found.systems == ["neutral", "explicit", "amplified"] and len(found.pictures) == 120
    assert list(found.measures) == [CULTURE, "noun", "distance_to_neutral"]
    culture, noun = found.measures[CULTURE], found.measures["noun"]
    answers = {line["file"]: line for line in read_lines(finished["judged"] / "answers.jsonl")}
    right = {file: line["answers"][0] == line["culture"] for file, line in answers.items()}
    assert culture.values == right and 0.5 < sum(right.values()) / 120 < 0.8
    assert noun.share and set(noun.values.values()) <= {0.0, 1.0}
    assert not found.measures["distance_to_neutral"].share
    picture = found.of("explicit")[Item("th-fish", "th", 1)]
    assert (picture.record["noun"], picture.strength) == ("fish", None)
    assert dict(found.instruments)["noun accuracy"] == "metric miniature"
    assert [w for w in found.warnings if "stands in for a vision-language model" in w]


def test_systems_can_be_chosen_and_each_strength_is_one(copied):
    def strong(n, line):
        line.update(strength=2.0 if line["system"] == "amplified" else 0.0)
        line.update(system="pack" if line["system"] != "neutral" else "neutral")

    change(copied["run"] / "metadata.jsonl", strong)
    names = ["pack, strength 2.0", "neutral"]
    assert read_measured(copied["run"], [copied["judged"]], systems=names).systems == names
    with pytest.raises(StudyError, match="no system nobody: it has neutral; pack, strength 0.0; pack"):
        read_measured(copied["run"], [copied["judged"]], systems=["nobody"])


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda n, line: line.update(neutral=f"other {n}"), "not the same item, and cannot be compared"),
        (
            lambda n, line: line.update(noun="boat" if n > 90 else line["noun"]),
            "noun is 'bottle' in one and 'boat' in the other",
        ),
        (lambda n, line: line.update(seed=0), "are both of 'neutral', the same prompt, culture and seed"),
        (lambda n, line: line.update(culture="ko"), "judged .* for .*, the run drew it for ko"),
        (lambda n, line: line.update(culture="xx"), "line 1: unknown culture"),
        (lambda n, line: line.update(file_name="../out.png"), "leads out of the run"),
        (lambda n, line: line.update(file_name="images/none.png"), "the picture is missing"),
        (lambda n, line: line.update(seed="1"), "line 1: seed must be a whole number"),
        (lambda n, line: line.pop("system"), "line 1: it must be an object"),
        (lambda n, line: False, "lists no picture"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(copied, edit, reason):
    change(copied["run"] / "metadata.jsonl", edit)
    with pytest.raises(ValueError, match=reason):
        read_measured(copied["run"], [copied["judged"]])


def test_answers_and_figures_of_another_run_are_refused(copied):
    with pytest.raises(StudyError, match="nothing to study"):
        read_measured(copied["run"])
    with pytest.raises(StudyError, match="cannot be read"):
        read_measured(copied["judged"], [copied["judged"]])
    change(copied["judged"] / "answers.jsonl", lambda n, line: line.update(file=f"other/{n}.png"))
    with pytest.raises(StudyError, match="no answer about any picture of this run"):
        read_measured(copied["run"], [copied["judged"]])
    with pytest.raises(StudyError, match="which another folder has too"):
        read_measured(copied["run"], [], [copied["metrics"], copied["metrics"]])
    change(copied["metrics"] / "metrics.jsonl", lambda n, line: line.update(file_name=f"other/{n}.png"))
    with pytest.raises(StudyError, match="no figure of any picture of this run"):
        read_measured(copied["run"], [], [copied["metrics"]])
    (copied["metrics"] / "metrics.jsonl").write_text("[1]\n")
    with pytest.raises(StudyError, match="has no figures to read"):
        read_measured(copied["run"], [], [copied["metrics"]])


def test_what_is_missing_is_counted_by_system(copied):
    change(copied["judged"] / "answers.jsonl", lambda n, line: n >= 3)
    change(copied["metrics"] / "metrics.jsonl", lambda n, line: line.pop("noun") if n >= 80 else None)
    warnings = read_measured(copied["run"], [copied["judged"]], [copied["metrics"]]).warnings
    assert [w for w in warnings if "CultureVQA is missing" in w and "3 of 40 of neutral" in w]
    assert "noun accuracy was not measured of amplified" in warnings


def test_another_model_that_answered_is_warned_of(copied):
    settings = {"judge": "vlm", "model": "asked-1", "rotations": 1}
    (copied["judged"] / "run.json").write_text(json.dumps(settings))
    change(copied["judged"] / "answers.jsonl", lambda n, line: line.update(models=["asked-1"]))
    found = read_measured(copied["run"], [copied["judged"]])
    assert not found.warnings and "asked-1; answers: 120 by asked-1" in found.instruments[0][1]
    change(
        copied["judged"] / "answers.jsonl",
        lambda n, line: line.update(models=["new-2"] if n else ["asked-1"]),
    )
    warnings = read_measured(copied["run"], [copied["judged"]]).warnings
    assert any("asked-1 was asked, new-2 answered" in warning for warning in warnings)
    assert any("several models answered" in warning for warning in warnings)


def test_a_second_judge_stands_beside_the_first(copied, tmp_path):
    other = shutil.copytree(copied["judged"], tmp_path / "other")
    (other / "run.json").write_text(json.dumps({"judge": "vlm", "model": "second"}))
    change(other / "answers.jsonl", lambda n, line: line.update(answers=["th"], shares={"th": 1.0}))
    found = read_measured(copied["run"], [copied["judged"], other])
    second = found.measures["culture_vqa_2"]
    assert second.name == "CultureVQA by second" and sum(second.values.values()) == 30
    ((name, agreed),) = found.agreement
    same = sum(verdict.label == "th" for verdict in found.verdicts.values()) / 120
    assert (name, agreed.pictures, agreed.agreed) == ("second", 120, pytest.approx(same))
    assert found.verdicts[found.pictures[-1].file].models == ("miniature",)


def test_grades_are_measures_and_invalid_ones_are_missing(copied):
    def grade(n, line):
        line["grades"] = {"exaggeration": {"value": None if n == 5 else 1 + n % 5, "text": ""}}

    change(copied["judged"] / "answers.jsonl", grade)
    found = read_measured(copied["run"], [copied["judged"]])
    measure = found.measures["exaggeration"]
    assert (measure.better, measure.share, len(measure.values)) == (-1, False, 119)
    assert any("exaggeration, 1 to 5 is missing" in w and "1 of 40 of neutral" in w for w in found.warnings)


def test_figures_of_whole_systems_are_read_with_their_warnings(copied):
    kid = {"value": 0.25, "interval": [0.1, 0.4], "pictures": [40, 40], "warning": "few"}
    spread = {"groups": 20, "pictures": 2.0, "spread": 0.5, "vendi": 1.5, "quality_vendi": None}
    summary = {
        "systems": {"neutral": {"kid": kid, "diversity": spread, "clip": {"mean": 0.2, "pictures": 40}}},
        "settings": {"kid": {"instruments": [{"metric": "inception", "weights": "a" * 64}]}},
        "too_long": {"clip": 3, "lpips": 0},
    }
    (copied["metrics"] / "metrics.json").write_text(json.dumps(summary))
    found = read_measured(copied["run"], [], [copied["metrics"]])
    assert found.sets == {
        "kid": {"neutral": 0.25}, "diversity, spread": {"neutral": 0.5}, "diversity, vendi": {"neutral": 1.5}
    }  # fmt: skip
    assert found.instruments == (("kid", f"metric inception, weights {'a' * 12}…"),)
    assert "kid of neutral: few" in found.warnings
    assert [w for w in found.warnings if w.startswith("clip: 3 texts were too long")]


def test_an_instrument_is_named_without_the_names_of_fields():
    assert _described({"instruments": [{"metric": "miniature"}]}) == "metric miniature"
    assert (
        _described({"model": "m", "instruments": [{"metric": "alex", "kept": 3}]})
        == "model m, metric alex, kept 3"
    )

"""The report that compares systems, written and read back."""

import json
import shutil

import pytest

from culture_core.studies import StudyError, evaluate, read_measured
from culture_core.studies.measured import CULTURE

from .conftest import read_lines, write_lines
from .reports import Page, csv_rows, same_tables


@pytest.fixture(scope="module")
def found(finished):
    return read_measured(finished["run"], [finished["judged"]], [finished["metrics"]])


@pytest.fixture(scope="module")
def report(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    splits = {"in domain": [f"{c}-{n}" for c in ("th", "ja") for n in ("boat", "fish")]}
    study = evaluate(found, by=["category"], splits=splits, draws=300)
    study.write(folder)
    return study, folder


def figure(study, system, key=CULTURE, part="all prompts"):
    return next(
        one for one in study.result["figures"]
        if (one["of"], one["system"], one["measure"]) == (part, system, key)
    )  # fmt: skip


def test_the_page_shows_every_system_with_its_interval(report):
    study, folder = report
    page = Page(folder / "report.html")
    rows = {row["system"]: row for row in page.table("system", "CultureVQA, %", "noun accuracy, %")}
    assert list(rows) == ["neutral", "explicit", "amplified"]
    for system, row in rows.items():
        one = figure(study, system)
        assert row["CultureVQA, %"] == f"{one['value']:.1f} ({one['low']:.1f} – {one['high']:.1f})"
    assert page.headings[0].startswith("Outcome")
    assert {"Read with care", "By culture", "Pictures"} <= set(page.headings)
    assert page.pictures == 3 + 1 + 1 + 3, "intervals, recall, sheet, confusion of each system"
    assert page.text.index("<img") < page.text.index("<table"), "plots first"
    assert "stands in for a vision-language model" in page.text


def test_every_table_is_the_same_in_csv_and_latex(report):
    _, folder = report
    assert same_tables(folder / "tables") > 200
    rows = csv_rows(folder / "tables" / "figures.csv")
    exact = {(r["of"], r["system"], r["measure"]): float(r["value"]) for r in rows}
    study = report[0]
    assert exact["all prompts", "explicit", "CultureVQA, %"] == figure(study, "explicit")["value"]


def test_differences_are_to_the_baseline_and_marked(report, found):
    study, folder = report
    rows = csv_rows(folder / "tables" / "differences.csv")
    assert {row["against"] for row in rows} == {"neutral"} and len(rows) == 2 * 3
    culture = {row["system"]: row for row in rows if row["measure"] == "CultureVQA"}
    assert (
        culture["explicit"]["difference (mark)"] == "more" and culture["explicit"]["McNemar p"] == "< 0.001"
    )
    noun = next(row for row in rows if row["measure"] == "noun accuracy")
    assert noun["difference (mark)"] == "not told apart"
    assert any("noun accuracy does not tell apart" in warning for warning in study.result["warnings"])
    other = evaluate(found, "amplified", draws=50).result
    assert {one["other"] for one in other["comparisons"]["all prompts"]} == {"amplified"}
    assert json.dumps(study.result, allow_nan=False)


def test_splits_are_measured_by_themselves(report, found):
    study, folder = report
    parts = list(study.result["comparisons"])
    assert parts[:2] == ["all prompts", "in domain"] and "category: tableware" in parts
    own = [
        found.measures[CULTURE].values[picture.file]
        for item, picture in found.of("amplified").items()
        if item.culture in ("th", "ja") and picture.record["noun"] in ("boat", "fish")
    ]
    one = figure(study, "amplified", part="in domain")
    assert one["value"] == pytest.approx(100 * sum(own) / len(own)) and one["pictures"] == len(own) == 8
    assert "By split (Table 6)" in Page(folder / "report.html").headings


def test_few_items_seeds_and_overlaps_are_warned_of(report):
    warnings = " ".join(report[0].result["warnings"])
    assert "only 20 prompts are compared" in warnings
    assert "Wilson's interval takes pictures as independent" in warnings
    assert "intervals overlap" not in warnings, "neutral is far from both others"


def test_overlapping_intervals_are_named(found):
    warnings = " ".join(evaluate(found, "explicit", draws=50).result["warnings"])
    assert "CultureVQA: intervals overlap of amplified and explicit" in warnings


def test_one_system_alone_has_figures_and_nothing_to_compare(finished, tmp_path):
    found = read_measured(finished["run"], [finished["judged"]], systems=["explicit"])
    study = evaluate(found, draws=50)
    study.write(tmp_path)
    assert study.result["comparisons"] == {"all prompts": []}
    assert "There is nothing to compare with" in Page(tmp_path / "report.html").text


def test_a_missing_picture_is_named_and_left_out_of_all(finished, tmp_path):
    run = shutil.copytree(finished["run"], tmp_path / "run")
    lines = read_lines(run / "metadata.jsonl")
    lost = next(line for line in lines if line["system"] == "explicit")
    write_lines(run / "metadata.jsonl", [line for line in lines if line is not lost])
    study = evaluate(read_measured(run, [finished["judged"]]), draws=50)
    study.write(tmp_path / "out")
    (row,) = csv_rows(tmp_path / "out" / "tables" / "missing.csv")
    assert (row["system"], row["item"], row["seed"]) == ("explicit", lost["item"], str(lost["seed"]))
    assert {one["pictures"] for one in study.result["figures"]} == {39}
    assert "1 of neutral, 1 of amplified" in " ".join(study.result["warnings"])


def test_a_metric_that_one_system_lacks_is_left_open(finished, tmp_path):
    metrics = shutil.copytree(finished["metrics"], tmp_path / "metrics")
    lines = read_lines(metrics / "metrics.jsonl")
    for line in lines[:40]:
        del line["noun"]
    write_lines(metrics / "metrics.jsonl", lines)
    study = evaluate(read_measured(finished["run"], [finished["judged"]], [metrics]), draws=50)
    study.write(tmp_path / "out")
    rows = {row["system"]: row for row in csv_rows(tmp_path / "out" / "tables" / "systems.csv")}
    assert rows["neutral"]["noun accuracy, %"] == "" and rows["explicit"]["noun accuracy, %"]
    assert "noun accuracy was not measured of neutral" in study.result["warnings"]
    assert not [one for one in study.result["comparisons"]["all prompts"] if one["measure"] == "noun"]


def test_without_answers_the_metrics_are_compared_alone(finished, tmp_path):
    study = evaluate(read_measured(finished["run"], [], [finished["metrics"]]), draws=50)
    study.write(tmp_path)
    page = Page(tmp_path / "report.html")
    assert "By culture" not in page.headings and "judged by nobody" not in page.text
    assert {one["measure"] for one in study.result["figures"]} == {"noun", "distance_to_neutral"}


def test_systems_without_a_common_item_are_refused(finished, tmp_path):
    run = shutil.copytree(finished["run"], tmp_path / "run")
    lines = read_lines(run / "metadata.jsonl")
    for line in lines:
        line["item"] += line["system"]
    write_lines(run / "metadata.jsonl", lines)
    with pytest.raises(StudyError, match="have no item in common .* CultureVQA"):
        evaluate(read_measured(run, [finished["judged"]]), draws=50)


def test_what_is_not_there_is_refused(found):
    with pytest.raises(StudyError, match="no system 'nobody' to compare with: there are neutral; explicit"):
        evaluate(found, "nobody")
    with pytest.raises(StudyError, match="no picture of the run has a field 'colour'"):
        evaluate(found, by=["colour"])
    with pytest.raises(StudyError, match="no item of 'elsewhere'"):
        evaluate(found, splits={"elsewhere": ["xx"]}, draws=50)


def test_progress_is_told_and_may_end_the_work(found):
    told = []
    evaluate(found, by=["category"], draws=20, progress=lambda done, total: told.append((done, total)))
    assert told[0][0] == 0 and told[-1][0] == told[-1][1] == len(told)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(found, progress=stop)


def test_the_papers_figures_stand_beside_systems_of_the_same_name(finished, tmp_path):
    run = shutil.copytree(finished["run"], tmp_path / "run")
    lines = read_lines(run / "metadata.jsonl")
    for line in lines:
        line["system"] = {"explicit": "AltDiffusion"}.get(line["system"], line["system"])
    write_lines(run / "metadata.jsonl", lines)
    study = evaluate(read_measured(run, [finished["judged"]]), paper=True, draws=50)
    study.write(tmp_path / "out")
    rows = {row["system"]: row for row in csv_rows(tmp_path / "out" / "tables" / "systems.csv")}
    assert rows["AltDiffusion"]["paper: CultureVQA %"] == "23.05" and not rows["neutral"]["paper: CLIPScore"]


def test_nothing_is_replaced_unless_that_is_allowed(report, tmp_path):
    study, folder = report
    with pytest.raises(StudyError, match="is there already"):
        study.write(folder)
    before = (folder / "report.html").read_bytes()
    study.write(folder, overwrite=True)
    assert (folder / "report.html").read_bytes() == before
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "old.csv").touch()
    with pytest.raises(StudyError, match=r"old\.csv is there already"):
        study.write(tmp_path)

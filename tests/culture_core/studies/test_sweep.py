"""Systems over their strengths."""

import numpy as np
import pytest

from culture_core.studies import StudyError, read_measured, sweep
from culture_core.studies.measured import CULTURE

from .conftest import judged, measured, write_run
from .reports import Page, csv_rows, same_tables

STRENGTHS = {0.0: 0.1, 2.5: 0.5, 6.0: 0.95, 8.0: 0.6}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    systems = {"pack": STRENGTHS, "explicit": 0.9}
    run = write_run(folder / "run", systems, cultures=("th", "ja"), nouns=("boat", "bottle", "bowl", "fish"))
    return read_measured(run, [judged(run, folder / "judged")], [measured(run, folder / "metrics")])


@pytest.fixture(scope="module")
def report(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    study = sweep(found, draws=300)
    study.write(folder)
    return study, folder


def means(found, culture=None):
    values = {}
    for picture in found.pictures:
        if picture.strength is not None and culture in (None, picture.item.culture):
            right = found.measures[CULTURE].values[picture.file]
            values.setdefault(picture.strength, []).append(right)
    return {strength: np.mean(own) for strength, own in values.items()}


def test_the_best_strength_has_the_highest_mean_of_all_and_of_each_culture(report, found):
    best = report[0].result["best"]["pack"]
    assert best["all"] == 6.0 == max(means(found), key=means(found).get)
    for culture in ("th", "ja"):
        own = means(found, culture)
        assert own[best["cultures"][culture]] == max(own.values())
    assert 0.0 not in best["not_told_apart"]


def test_the_report_shows_strengths_of_the_swept_system_alone(report):
    study, folder = report
    page = Page(folder / "report.html")
    rows = page.table("strength", "CultureVQA, %", "noun accuracy, %")
    assert [row["strength"] for row in rows] == ["0", "2.5", "6", "8"]
    assert study.result["systems"] == {"pack": [0.0, 2.5, 6.0, 8.0]}
    assert page.pictures == 3 + 1 + 1, "a curve a measure, the cultures' panels, the sheet"
    assert same_tables(folder / "tables") > 60
    rows = csv_rows(folder / "tables" / "differences.csv")
    assert {row["against"] for row in rows} == {"pack, strength 0.0"} and len(rows) == 3
    assert len(csv_rows(folder / "tables" / "differences-others.csv")) == 2 * 3
    assert any("choose it on others (validation)" in warning for warning in study.result["warnings"])


def test_an_optimum_at_the_end_is_warned_of(found):
    names = ["pack, strength 0.0", "pack, strength 2.5", "pack, strength 6.0"]
    judged_in, metrics = found.folder.parent / "judged", found.folder.parent / "metrics"
    read = read_measured(found.folder, [judged_in], [metrics], names)
    study = sweep(read, draws=50)
    assert study.result["best"]["pack"]["all"] == 6.0
    assert any("the optimum may lie beyond" in warning for warning in study.result["warnings"])


def test_another_measure_may_choose_and_ties_go_to_the_weakest(found):
    from dataclasses import replace

    same = replace(found.measures["noun"], values={picture.file: 1.0 for picture in found.pictures})
    tied = replace(found, measures={**found.measures, "noun": same})
    best = sweep(tied, "noun", draws=50).result["best"]["pack"]
    assert best["all"] == 0.0 and best["not_told_apart"] == [2.5, 6.0, 8.0]
    with pytest.raises(StudyError, match="nothing was measured as 'taste'"):
        sweep(found, "taste")


def test_a_run_without_strengths_is_refused(finished):
    with pytest.raises(StudyError, match="no system of this run ran at several strengths"):
        sweep(read_measured(finished["run"], [finished["judged"]]))

"""What masking leaves and which gap is closed."""

import shutil

import numpy as np
import pytest

from culture_core.studies import StudyError, ablate, read_measured
from culture_core.studies.ablate import TREATMENTS, treatments_of
from culture_core.studies.measured import CULTURE

from .conftest import judged, read_lines, write_lines, write_run
from .reports import Page, csv_rows, same_tables

SYSTEMS = {
    "plain": 0.1, "explicit": 0.9, "pack": 0.8, "noise": 0.1, "masked": 0.2,
    "masked, random (frequency)": 0.85,
}  # fmt: skip
GIVEN = {"plain": "neutral", "pack": "amplified", "noise": "amplified, random (norm)"}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablated")
    run = write_run(folder / "run", SYSTEMS, cultures=("th", "ja"))
    return read_measured(run, [judged(run, folder / "judged")])


def macro(found, system):
    """Mean recall of the cultures, in percent, by hand."""
    rights = {}
    for item, picture in found.of(system).items():
        rights.setdefault(item.culture, []).append(found.measures[CULTURE].values[picture.file])
    return 100 * np.mean([np.mean(values) for values in rights.values()])


def test_shares_are_ratios_of_macro_accuracies(found):
    result = ablate(found, GIVEN, draws=300).result
    low, high = macro(found, "plain"), macro(found, "explicit")
    closed, left = result["gap_closed"], result["left"]
    assert closed["amplified"][0] == pytest.approx((macro(found, "pack") - low) / (high - low))
    assert left["masked"][0] == pytest.approx(macro(found, "masked") / high)
    assert left["masked"][1] < left["masked"][0] < left["masked"][2] < left["masked, random (frequency)"][1]
    pairs = {(one["system"], one["other"]) for one in result["comparisons"]}
    assert pairs == {
        ("pack", "plain"), ("pack", "explicit"), ("noise", "plain"), ("noise", "explicit"), ("pack", "noise"),
        ("masked", "explicit"), ("masked, random (frequency)", "explicit"),
        ("masked", "masked, random (frequency)"), ("explicit", "plain"),
    }  # fmt: skip


def test_the_report_has_both_tables_with_the_papers_figures(found, tmp_path):
    study = ablate(found, GIVEN, paper="alt", draws=300)
    study.write(tmp_path)
    page = Page(tmp_path / "report.html")
    (masked,) = [row for row in page.table("treatment", "explicit score left")
                 if row["treatment"] == TREATMENTS["masked"]]  # fmt: skip
    assert masked["paper: CultureVQA %"] == "12.04"
    value, low, high = study.result["left"]["masked"]
    assert masked["explicit score left"] == f"{value:.2f} ({low:.2f} – {high:.2f})"
    assert page.table("treatment", "gap closed")[2]["treatment"] == TREATMENTS["amplified"]
    assert same_tables(tmp_path / "tables") > 80
    named = {row["treatment"]: row["system"] for row in csv_rows(tmp_path / "tables" / "treatments.csv")}
    assert named["culture neurons amplified"] == "pack"


def test_the_metadata_may_say_what_a_system_is(found, tmp_path):
    run = shutil.copytree(found.folder, tmp_path / "run")
    lines = read_lines(run / "metadata.jsonl")
    for line in lines:
        line["treatment"] = GIVEN.get(line["system"])
    write_lines(run / "metadata.jsonl", lines)
    read = read_measured(run, [found.folder.parent / "judged"])
    assert treatments_of(read, {}) == {
        "neutral": "plain", "explicit": "explicit", "amplified": "pack", "amplified, random (norm)": "noise",
        "masked": "masked", "masked, random (frequency)": "masked, random (frequency)",
    }  # fmt: skip


def test_what_has_no_control_or_no_gap_is_warned_of(found):
    systems = {"plain": "neutral", "noise": "explicit", "pack": "amplified"}
    read = read_measured(found.folder, [found.folder.parent / "judged"], systems=list(systems))
    study = ablate(read, systems, draws=300)
    warnings = " ".join(study.result["warnings"])
    assert "No random control stands beside culture neurons amplified" in warnings
    assert "no gap to close" in warnings or "shares of it mean little" in warnings
    value, low, high = study.result["gap_closed"]["amplified"]
    assert (low, high) == (None, None), "a ratio that is often undefined has no interval"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "no system is 'neutral': name it with --neutral, of plain; explicit; pack"),
        ({"nobody": "neutral"}, "the run has no system nobody"),
        ({"plain": "bare"}, "there is no treatment bare: there are neutral; explicit"),
        ({"plain": "neutral", "pack": "masked"}, "'pack' and 'masked' are both 'masked'"),
    ],
)
def test_unclear_treatments_are_refused(found, given, reason):
    with pytest.raises(StudyError, match=reason):
        ablate(found, given)


def test_nothing_to_ablate_is_refused(found, finished):
    read = read_measured(found.folder, [found.folder.parent / "judged"], systems=["plain", "explicit"])
    with pytest.raises(StudyError, match="nothing but neutral and explicit"):
        ablate(read, {"plain": "neutral"})
    with pytest.raises(StudyError, match="needs CultureVQA"):
        ablate(read_measured(finished["run"], [], [finished["metrics"]]))

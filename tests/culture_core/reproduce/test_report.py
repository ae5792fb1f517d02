"""The whole study, so small that its figures mean nothing: every stage and every part of the report runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from culture_core.miniature.logs import MODELS
from culture_core.reproduce.measures import ClipPlan
from culture_core.reproduce.method import EnhancerPlan
from culture_core.reproduce.report import make_report
from culture_core.reproduce.study import QUICK, Sizes, Study
from culture_core.sae import SAEConfig

TINY = Sizes(
    base_steps=2, alt_steps=2, pea_steps=2, sae=SAEConfig(n_latents=128, k=16, steps=20),
    enhancer=EnhancerPlan(steps=1, batch=4, bottleneck=4), enhancers=((11, 0.5),),
    places=((11, "hidden_state"),), counts=(4,), repetitions=1, wrappers=(0,), renders=1, sampling_steps=1,
    start_steps=2, clip=ClipPlan(pictures=64, steps=2), candidate_strengths=(1.0,), strengths=(1.0,),
    sweep=(0.0, 1.0), nouns=1, kinds=("pea",),
)  # fmt: skip

PARTS = (
    "Fig. 4", "Fig. 6 and 14", "Fig. 7, 15 and 16", "Tables 1 and 5", "Fig. 10 and 11", "Table 2", "Table 3",
    "Table 6", "Fig. 13", "Beyond the paper", "What was tried", "Enhancers tried by hand",
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(MODELS, tmp_path_factory.mktemp("reproduce"), TINY)


def test_the_report_has_every_table_and_figure(study: Study, tmp_path: Path) -> None:
    document, outcome = make_report(study)
    page = document.write_html(tmp_path / "report.html").read_text(encoding="utf-8")
    for part in PARTS:
        assert part in page
    assert page.count("<img") >= 13
    # Hundreds of stages, but a line for each kind of work; the stages are folded away.
    document.write_csv(tmp_path / "tables")
    times = (tmp_path / "tables" / "time.csv").read_text(encoding="utf-8")
    assert "training SAEs" in times and len(times.splitlines()) < 10 < len(study.cache.seconds)
    # An untrained system draws nothing that a judge knows: what must be reached is missed, and said so.
    assert outcome[0][0] == "amplified: gap closed" and "missed" in outcome[0][2]
    made = {path: path.stat().st_mtime_ns for path in study.cache.folder.iterdir()}
    again = Study(MODELS, study.cache.folder, TINY)
    assert str(again.probes) == str(study.probes)
    assert all(len(row["culture"]) == len(row["of"]) == 30 for row in again.rows("pea", 0).values())
    assert {path: path.stat().st_mtime_ns for path in study.cache.folder.iterdir()} == made  # nothing twice


def test_only_what_short_runs_change_names_the_cache_anew() -> None:
    """Settings that came later leave the names of what earlier runs made as they were."""
    assert Sizes().unusual() == {}
    assert QUICK.unusual().keys() == {
        "batch",
        "rate",
        "start_steps",
        "clip",
        "candidate_strengths",
        "strengths",
        "nouns",
    }
    assert replace(Sizes(), nouns=1, sweep=(1.0,)).unusual() == {"nouns": 1}

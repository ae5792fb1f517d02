"""Counts, and their pictures."""

from culture_core.bench import REJECTED, Bench, statistics
from culture_core.bench.counts import describe, pictures


def test_counts_are_those_of_accepted_records(ready):
    first = next(iter(ready.records.values()))
    ready.decide(first.id, REJECTED, "jane", "poor picture")
    figures = statistics(ready)
    assert (figures["records"], figures["accepted"]) == (6, 5)
    assert figures["by"]["decision"] == {"accepted": 5, "rejected": 1}
    assert sum(figures["by"]["culture"].values()) == sum(figures["by"]["region"].values()) == 5
    for code, row in figures["culture_category"].items():
        for category, count in row.items():
            own = [r for r in ready.accepted() if (r.culture, r.category) == (code, category)]
            assert count == len(own)
        assert sum(row.values()) == figures["by"]["culture"][code]
    assert "rejected" in describe(figures) and list(figures["by"]["culture"]) == ["ja", "th", "de"]


def test_pictures_show_the_counts(ready, tmp_path):
    drawn = pictures(statistics(ready))
    assert set(drawn) == {"cultures", "categories", "regions", "splits", "culture_category"}
    before = drawn["cultures"].tobytes()
    ready.decide(next(iter(ready.records)), REJECTED, "jane", "poor picture")
    assert pictures(statistics(ready))["cultures"].tobytes() != before
    assert pictures(statistics(Bench(tmp_path / "empty"))) == {}

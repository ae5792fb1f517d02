"""What a bench holds, in figures and pictures (the paper's Fig. 3)."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from PIL import Image

from ..cultures import CULTURES
from ..plots import bar_picture, heat_map
from .records import Bench, Record

COUNTED = ("culture", "category", "region", "split", "decision", "language", "licence")


def statistics(bench: Bench) -> dict[str, Any]:
    """Counts by every field of `COUNTED`, and accepted records by culture and category, for JSON."""
    records, accepted = list(bench.records.values()), bench.accepted()
    counts = {name: _counts(records if name == "decision" else accepted, name) for name in COUNTED}
    table = {
        code: {category: _cell(accepted, code, category) for category in counts["category"]}
        for code in counts["culture"]
    }
    return {"records": len(records), "accepted": len(accepted), "by": counts, "culture_category": table}


def pictures(figures: dict[str, Any]) -> dict[str, Image.Image]:
    """The counts of `statistics`, by file name without ending; none where no record is accepted."""
    by, table = figures["by"], figures["culture_category"]
    if not figures["accepted"]:
        return {}
    categories = list(by["category"])
    return {
        "cultures": bar_picture({_name(code): count for code, count in by["culture"].items()}, "Cultures"),
        "categories": bar_picture(by["category"], "Categories"),
        "regions": bar_picture(by["region"], "Regions"),
        "splits": bar_picture(by["split"], "Splits"),
        "culture_category": heat_map(
            [[row[category] for row in table.values()] for category in categories],
            categories,
            list(table),
            "Records by category and culture",
            decimals=0,
        ),  # fmt: skip
    }


def describe(figures: dict[str, Any]) -> str:
    """The counts for people."""
    lines = [f"{figures['records']} records, {figures['accepted']} of them accepted"]
    for name, counts in figures["by"].items():
        if counts:
            lines += ["", f"by {name}:", *(f"  {key:28} {count:6d}" for key, count in counts.items())]
    return "\n".join(lines)


def _counts(records: Sequence[Record], name: str) -> dict[str, int]:
    """Most frequent first; cultures in their usual order."""
    counts = Counter(getattr(record, name) or "none" for record in records)
    if name == "culture":
        return {code: counts[code] for code in CULTURES if code in counts}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _cell(records: Sequence[Record], culture: str, category: str) -> int:
    return sum(record.culture == culture and record.category == category for record in records)


def _name(code: str) -> str:
    return f"{CULTURES[code].name} ({code})"

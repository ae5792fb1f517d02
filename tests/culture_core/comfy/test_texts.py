"""Reports in Preview as Text."""

from culture_core.comfy.texts import for_preview


def test_lines_stay_lines_and_tables_stay_tables_in_markdown() -> None:
    report = "Key layer: 3\nWhy: so\n\n\nlayer   CA\n    1  0.2\n\nlast\n"
    assert for_preview(report) == "Key layer: 3  \nWhy: so\n\n    layer   CA\n        1  0.2\n\nlast"


def test_no_word_is_lost() -> None:
    report = "a b\nc  d\n\ne\n f"
    assert for_preview(report).split() == report.split()
    assert for_preview("") == ""

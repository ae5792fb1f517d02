"""The table of cultures."""

import pytest

from culture_core.cultures import CULTURES, culture


def test_the_table_has_the_papers_fifteen_groups_each_under_its_own_code():
    assert list(CULTURES) == "ar zh ja ko th de ru it nl pl tr uk es pt fr".split()
    for code, entry in CULTURES.items():
        assert entry.code == code and culture(code) is entry
        assert all(entry) and all(len(script) == 4 for script in entry.scripts)
    for field in ("name", "autonym", "language"):
        assert len({getattr(entry, field) for entry in CULTURES.values()}) == 15


@pytest.mark.parametrize("code", ["xx", "", "TH"])
def test_an_unknown_code_is_refused_by_name(code):
    with pytest.raises(ValueError, match=f"unknown culture '{code}'"):
        culture(code)

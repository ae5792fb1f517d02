"""The command bench, from a folder of pictures to prompt pairs."""

import json

import pytest

from culture_core.__main__ import main
from culture_core.bench import ACCEPTED, Bench, hashes
from culture_core.bench.exchange import FORMATS
from culture_core.commands import bench as command
from culture_core.miniature.make_bench import FOLDER
from culture_core.pairs import load_pairs
from culture_core.splits import BENCH_SPLITS

from ..bench.conftest import NOUNS, draw


@pytest.fixture
def photos(tmp_path):
    for number in range(10):
        draw(tmp_path / "photos" / "th" / ("food", "art")[number % 2] / f"{number}.png", number)
    return tmp_path / "photos"


def told(capsys, *arguments: object) -> dict:
    assert main(["bench", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_pictures_become_prompt_pairs(photos, tmp_path, capsys):
    folder = tmp_path / "bench"
    options = ("--licence", "CC0-1.0", "--source", "us")
    ids = told(capsys, "ingest", folder, photos, *options)["added"]
    assert len(ids) == 10 and told(capsys, "ingest", folder, photos, *options)["known"] == 10
    noun, modifier = NOUNS["th"]
    rows = [
        {"id": id, "language": "th", "cultural": f"<{noun}> {n} [{modifier}]", "neutral": f"<{noun}> {n}"}
        for n, id in enumerate(ids)
    ]
    given = tmp_path / "given.jsonl"
    given.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert told(capsys, "caption", folder, "--given", given)["done"] == 10
    told(capsys, "review", folder, "--reviewer", "jane", "--accept", *ids[1:])
    decided = told(capsys, "review", folder, "--reviewer", "jane", "--reject", ids[0], "--reason", "poor")[
        "decided"
    ]
    assert decided == {"accepted": 9, "rejected": 1}
    assert Bench.open(folder).records[ids[1]].decision == ACCEPTED
    # One thing of one culture: it must stay together.
    split = told(capsys, "split", folder)
    assert split["groups"] == 1 and split["counts"] == {"train": 9, "test": 0, "neuron_detection": 0}
    assert not told(capsys, "validate", folder)["failed"]
    out = tmp_path / "out"
    assert told(capsys, "export", folder, out, "--format", "pairs", "--splits", "train")["counts"] == {
        "train": 9
    }
    assert len(load_pairs(out / "train.jsonl")) == 9
    told(capsys, "export", folder, tmp_path / "hf")
    assert told(capsys, "import", tmp_path / "again", tmp_path / "hf")["records"] == 9
    pictures = told(capsys, "statistics", folder, "--picture", tmp_path / "drawn")["pictures"]
    assert len(pictures) == 5


def test_errors_of_a_bench_are_the_exit_code(photos, tmp_path, capsys):
    folder = tmp_path / "bench"
    assert main(["bench", "ingest", str(folder), str(photos)]) == 0
    capsys.readouterr()
    assert main(["bench", "validate", str(folder)]) == 1
    assert "error: licence" in capsys.readouterr().out
    assert main(["bench", "--json", "validate", str(folder)]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert {problem["check"] for problem in problems if problem["level"] == "error"} == {"licence"}


def test_what_cannot_be_done_is_said(photos, tmp_path, caplog, capsys):
    assert main(["bench", "split", str(tmp_path / "nothing")]) == 1
    assert "bench ingest" in caplog.text
    main(["bench", "ingest", str(tmp_path / "b"), str(photos)])
    assert main(["bench", "split", str(tmp_path / "b")]) == 1
    assert "review some first" in caplog.text
    assert main(["bench", "statistics", str(tmp_path / "b"), "--picture", str(tmp_path / "p")]) == 1
    for wrong in (
        ["fly"],
        ["review", "x"],
        ["review", "x", "--reviewer", "j", "--accept", "a", "--reject", "b"],
    ):
        with pytest.raises(SystemExit) as raised:
            main(["bench", *wrong])
        assert raised.value.code == 2
    with pytest.raises(SystemExit):
        main(["bench", "review", str(tmp_path / "b"), "--reviewer", "j", "--reason", "x"])


def test_choices_and_defaults_are_those_of_the_library():
    assert command.FORMATS == FORMATS and command.SPLITS == BENCH_SPLITS and command.NEAR == hashes.NEAR


def test_the_example_that_ships_is_in_order(capsys):
    result = told(capsys, "validate", FOLDER)
    assert not result["failed"] and {problem["check"] for problem in result["problems"]} == {"balance"}

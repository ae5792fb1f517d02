"""The command user-study: from a run to figures."""

import csv
import json

import pytest
from PIL import Image

from culture_core.__main__ import main
from culture_core.commands.user_study import KEY, PAGE, RESULTS
from culture_core.user_study.answers import ANSWERS_FORMAT
from culture_core.user_study.design import read_key

from ..user_study.conftest import SYSTEMS, right, write_run


@pytest.fixture
def built(tmp_path, capsys):
    """A run's folder and a study of it."""
    run, output = write_run(tmp_path / "run"), tmp_path / "study"
    arguments = ["user-study", "build", str(run), "--output", str(output), "--raters", "6", "--ratings", "2"]
    assert main([*arguments, "--questions", "6", "--json"]) == 0
    return output, json.loads(capsys.readouterr().out), [*arguments, "--questions", "6"]


def answer_files(folder, study, count, changes=None):
    folder.mkdir()
    for code, rater in list(study.raters.items())[:count]:
        answers = [
            {"number": number, "task": q.task, "picture": q.picture, "asked": q.asked, "seconds": 1,
             "answer": q.check or right(study)(q)}
            for number, q in enumerate(rater.questions, start=1)
        ]  # fmt: skip
        record = {"format": ANSWERS_FORMAT, "version": 1, "study": study.id, "rater": code, "language": "th"}
        (folder / f"{code}.json").write_text(
            json.dumps(record | {"answers": answers} | (changes or {})), "utf-8"
        )
    return [str(path) for path in sorted(folder.glob("*.json"))]


def test_build_writes_page_and_key_and_says_what_is_in_them(built, capsys):
    output, result, arguments = built
    study = read_key(output / KEY)
    assert sorted(path.name for path in output.iterdir()) == sorted([PAGE, KEY])
    assert result["study"] == study.id and result["raters"] == list(study.raters)
    assert (result["items"], result["ratings"], result["questions"]) == (6, 2.0, 21)
    assert result["systems"] == sorted(SYSTEMS)
    assert main(arguments) == 1, "nothing is replaced unasked"
    assert main([*arguments, "--overwrite"]) == 0
    said = capsys.readouterr().out
    assert "for you alone" in said and all(code in said for code in study.raters)


def test_analyse_writes_figures_tables_and_a_picture(built, tmp_path, capsys):
    output, _, _ = built
    study = read_key(output / KEY)
    files = answer_files(tmp_path / "answers", study, 5)
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    results = tmp_path / "results"
    arguments = [
        "user-study",
        "analyse",
        *files,
        str(bad),
        "--key",
        str(output / KEY),
        "--output",
        str(results),
    ]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    told = "5 raters answered", "1 did not", "Refused: ", "x 20 = 100.0"
    assert all(text in said for text in told)
    assert sorted(path.name for path in results.iterdir()) == sorted(RESULTS)
    record = json.loads((results / "analysis.json").read_text("utf-8"))
    assert len(record["refused"]) == len(record["silent"]) == 1
    with open(results / "ratings.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 18 and {row["system"] for row in rows} == set(SYSTEMS)
    with open(results / "scores.csv", encoding="utf-8", newline="") as file:
        scores = {(row["measure"], row["system"]): row for row in csv.DictReader(file)}
    assert scores["csr", SYSTEMS[0]]["mean_times_20"] == "100.0"
    assert Image.open(results / "analysis.png").width >= 800
    assert main(arguments) == 1, "nothing is replaced unasked"


def test_what_cannot_be_done_is_said(built, tmp_path, caplog, capsys):
    output, _, arguments = built
    study = read_key(output / KEY)
    files = answer_files(tmp_path / "answers", study, 1, {"study": "other"})
    assert (
        main(["user-study", "analyse", *files, "--key", str(output / KEY), "--output", str(tmp_path / "r")])
        == 1
    )
    assert "no file can be used" in caplog.text and "belongs to study 'other'" in caplog.text
    caplog.clear()
    assert main([*arguments[:4], str(tmp_path / "new"), "--raters", "2"]) == 1
    assert "ask more people" in caplog.text
    with pytest.raises(SystemExit) as raised:
        main(["user-study"])
    assert raised.value.code == 2 and "build|analyse" in capsys.readouterr().err

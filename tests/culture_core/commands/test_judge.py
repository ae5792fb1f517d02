"""The command judge, with the miniature's CNN and with a server."""

import csv
import json

import pytest
from PIL import Image

from culture_core.__main__ import main
from culture_core.commands import judge as command
from culture_core.judges.questions import GRADED, ROTATIONS
from culture_core.judges.run import WORKERS

from ...chat_server import MODEL, ChatServer, chosen, failed
from ..judges.conftest import drawn

NAMES = {"th": "Thai", "ja": "Japanese"}


@pytest.fixture
def folder(tmp_path):
    """Two drawings a culture, and one that is not what it should be."""
    lines = []
    for code in NAMES:
        for index in range(3):
            path = tmp_path / "pictures" / f"{code}-{index}.png"
            path.parent.mkdir(exist_ok=True)
            drawn("ja" if index == 2 else code, index + 10 * (code == "th")).save(path)
            lines.append(json.dumps({"file_name": path.name, "culture": code}))
    (tmp_path / "pictures" / "metadata.jsonl").write_text("\n".join(lines))
    return tmp_path / "pictures"


@pytest.fixture
def by_server(monkeypatch, tmp_path):
    """Makes a server the judge "vlm"."""

    def use(server: ChatServer, **settings) -> None:
        path = tmp_path / "models.json"
        path.write_text(json.dumps({"vlm": {"url": server.url, "model": MODEL, "retries": 0, **settings}}))
        monkeypatch.setenv("CULTURE_VLM_CONFIG", str(path))

    monkeypatch.delenv("CULTURE_VLM_URL", raising=False)
    monkeypatch.setenv("CULTURE_VLM_CACHE", str(tmp_path / "cache"))
    return use


def test_help_knows_what_the_library_knows():
    assert (command.ROTATIONS, command.WORKERS, command.GRADED) == (ROTATIONS, WORKERS, tuple(GRADED))


def test_the_miniatures_cnn_judges_a_folder(folder, tmp_path, capsys):
    output = tmp_path / "judged"
    assert main(["judge", str(folder), "--output", str(output), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["summary"]["recall"]["th"]["percent"] == pytest.approx(200 / 3)
    assert result["summary"]["recall"]["ja"]["percent"] == 100
    assert result["summary"]["flip_rate"] is None and result["cost"] is None
    assert json.loads((output / "summary.json").read_text(encoding="utf-8")) == result
    rows = list(csv.DictReader((output / "answers.csv").open(encoding="utf-8")))
    assert [row["seen"] for row in rows if row["right"] == "0"] == ["ja"] and len(rows) == 6
    assert Image.open(output / "confusion.png").size[0] > 700
    assert main(["judge", str(folder), "--output", str(output)]) == 0
    assert "83.3 % (" in capsys.readouterr().out


def test_a_server_judges_says_its_cost_and_is_compared(folder, tmp_path, capsys, caplog, by_server):
    first, second = tmp_path / "cnn", tmp_path / "vlm"
    main(["judge", str(folder), "--output", str(first)])
    with ChatServer(lambda asked: chosen("2" if "1 to 5" in asked.text else "Thai")) as server:
        by_server(server, prices={"prompt": 10, "completion": 20, "currency": "EUR"})
        arguments = ["judge", str(folder), "--judge", "vlm", "--output", str(second), "--grade", "relevance"]
        caplog.set_level("INFO")
        assert main([*arguments, "--estimate"]) == 0
        # 6 pictures, asked 4 times each; 100 and 5 tokens a time.
        assert "24 answers, 2,400 prompt tokens and 120 answer tokens, 0.0264 EUR" in capsys.readouterr().out
        assert not second.exists() and len(server.asked) == 4
        assert main([*arguments, "--against", str(first)]) == 0
        assert len(server.asked) == 24
    said = capsys.readouterr().out
    assert "right in the first alone 1, in the second alone 3" in said.replace("  ", " ")
    assert "Used now: 20 answers" in said and "Cohen's kappa" in said
    result = json.loads((second / "summary.json").read_text(encoding="utf-8"))
    assert result["summary"]["grades"]["relevance"]["th"]["mean"] == 2
    assert result["comparison"]["mcnemar"]["p_value"] == pytest.approx(0.625)
    assert "Estimate for all 6 pictures" in caplog.text


def test_what_cannot_be_judged_is_said(folder, tmp_path, caplog, by_server):
    output = ["--output", str(tmp_path / "out")]
    assert main(["judge", str(tmp_path), *output]) == 1 and "unknown culture 'pictures'" in caplog.text
    assert (
        main(["judge", str(folder), *output, "--judge", "nobody"]) == 1 and "no judge 'nobody'" in caplog.text
    )
    assert (
        main(["judge", str(folder), *output, "--against", str(tmp_path)]) == 1 and "no answers" in caplog.text
    )
    with ChatServer(lambda asked: failed(401)) as server:
        by_server(server)
        assert main(["judge", str(folder), *output, "--judge", "vlm"]) == 1
    assert "does not accept the key" in caplog.text
    assert not (tmp_path / "out" / "summary.json").exists()

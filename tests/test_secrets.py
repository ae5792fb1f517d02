"""The keys of judges are in nothing that the commands write, print or log."""

import json
import logging
from pathlib import Path

import pytest
from PIL import Image

from culture_core.__main__ import main

from .chat_server import MODEL, ChatServer, chosen
from .secrets import STATUSES, everything_in, places_of, telling

KEYS = {
    "environment": "sk-env+0123/4567=ab?",
    "file": "sk-file+89ab/cdef=gh?",
    "named": "sk-named+5/6=cd?xyz",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "run" / "images"
    pictures.mkdir(parents=True)
    records = []
    for seed, status in enumerate(("fine", *STATUSES)):
        Image.new("RGB", (9, 9), (30 * seed, 0, 0)).save(pictures / f"{seed}-{status}.png")
        records.append({
            "file_name": f"images/{seed}-{status}.png", "culture": "th", "system": "plain",
            "prompt": "a house", "neutral": "a house", "language": "en", "item": "1", "seed": seed,
        })  # fmt: skip
    (tmp_path / "run" / "metadata.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return tmp_path / "run"


def test_a_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    for key in KEYS.values():
        with ChatServer(telling("401")) as server:
            asked = server.answer(type("Asked", (), {"headers": {"authorization": f"Bearer {key}"}}))
        assert len(places_of([key], {"answer": json.dumps(asked.body).encode()})) >= 4


@pytest.mark.parametrize("judge", ["vlm", "filed", "named"])
def test_no_key_is_left_behind_by_a_judge_whatever_the_server_says(
    judge: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    config = tmp_path / "models.json"
    seen: list[str] = []
    with ChatServer(lambda _: chosen("Thai")) as server:

        def answer(asked):
            seen.append(asked.headers["authorization"])
            status = ("fine", *STATUSES)[round(asked.image.convert("RGB").getpixel((4, 4))[0] / 30)]
            if judge == "vlm" and status == "500":  # the environment's judge asks again for half a minute
                status = "401"
            return chosen("Thai") if status == "fine" else telling(status)(asked)

        server.answer = answer
        entry = {"url": server.url, "model": MODEL, "retries": 0}
        config.write_text(json.dumps({
            "filed": {**entry, "key": KEYS["file"]}, "named": {**entry, "key_env": "NAMED_KEY"},
        }))  # fmt: skip
        config.chmod(0o600)
        names = {"URL": server.url, "MODEL": MODEL, "KEY": KEYS["environment"], "CONFIG": str(config)}
        for name, value in {**names, "CACHE": str(tmp_path / "cache")}.items():
            monkeypatch.setenv(f"CULTURE_VLM_{name}", value)
        monkeypatch.setenv("NAMED_KEY", KEYS["named"])
        told = []
        for command in (["--json"], ["--estimate"]):
            code = main(
                ["judge", str(folder), "--judge", judge, "--rotations", "1", "--workers", "1",
                 "--output", str(tmp_path / f"judged-{len(told)}"), *command]
            )  # fmt: skip
            printed = capsys.readouterr()
            told += [printed.out + printed.err, str(code)]
        judged = [str(tmp_path / "judged-0")]
        main(["study", "evaluate", str(folder), "--judged", *judged, "--output", str(tmp_path / "study")])
        printed = capsys.readouterr()
    assert set(seen) == {f"Bearer {KEYS[{'vlm': 'environment', 'filed': 'file'}.get(judge, 'named')]}"}
    assert any(
        "0-fine.png" in text.decode(errors="ignore") for text in everything_in(tmp_path / "judged-0").values()
    )
    texts = everything_in(tmp_path, without=[config])
    texts |= {"log": caplog.text.encode(), "printed": "".join([*told, printed.out, printed.err]).encode()}
    assert "cache" in "".join(texts) and "wrong" in texts["printed"].decode() + texts["log"].decode()
    assert not places_of(KEYS.values(), texts)

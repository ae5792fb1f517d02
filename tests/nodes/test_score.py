"""Score Culture in this process: the miniature's CNN and a VLM server as judges."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from culture_core.comfy import judge_choices, judge_state
from culture_core.judges.pictures import RIGHT, WRONG
from culture_core.miniature.scenes import draw_scene

from ..chat_server import MODEL, ChatServer, chosen, failed


@pytest.fixture(autouse=True)
def _own_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("URL", "MODEL", "KEY"):
        monkeypatch.delenv(f"CULTURE_VLM_{name}", raising=False)
    (tmp_path / "models.json").write_text("{}")
    monkeypatch.setenv("CULTURE_VLM_CONFIG", str(tmp_path / "models.json"))
    monkeypatch.setenv("CULTURE_VLM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def score(node_classes: dict[str, type]) -> Callable[..., tuple[float, str, Tensor]]:
    return lambda *inputs: node_classes["CultureScore"].execute(*inputs).args


def image(*cultures: str) -> Tensor:
    drawn = [draw_scene("house", culture, np.random.default_rng(0)) for culture in cultures]
    return torch.from_numpy(np.stack(drawn)).float() / 255


def shows(sheet: Tensor, colour: tuple[int, int, int]) -> bool:
    return bool((np.round(sheet.numpy() * 255) == colour).all(-1).any())


def test_the_cnn_scores_a_batch_picture_by_picture(score: Callable[..., Any]) -> None:
    value, answers, sheet = score(image("th", "ja"), "Thai (th)", "miniature")
    assert value == pytest.approx(0.5, abs=0.01)
    assert answers.splitlines() == ["Thai 100 %", "Japanese; Thai 0 %"]
    assert sheet.shape[0] == 1 and sheet.shape[3] == 3 and shows(sheet, RIGHT) and shows(sheet, WRONG)


def test_a_server_judges_with_its_key_and_without_leaving_it_anywhere(
    score: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with ChatServer(lambda asked: chosen("Thai")) as server:
        monkeypatch.setenv("CULTURE_VLM_URL", server.url)
        monkeypatch.setenv("CULTURE_VLM_MODEL", MODEL)
        monkeypatch.setenv("CULTURE_VLM_KEY", "secret-0123")
        assert judge_choices() == ["vlm", "miniature"]
        value, answers, sheet = score(image("th"), "Japanese (ja)", "vlm")
    assert (value, answers) == (0, "Thai; Japanese 0 %") and shows(sheet, WRONG) and not shows(sheet, RIGHT)
    assert len(server.asked) == 3 and server.asked[0].headers["authorization"] == "Bearer secret-0123"
    assert server.asked[0].image.size == (64, 64)
    assert "secret" not in caplog.text and server.url not in caplog.text


def test_a_judge_follows_its_configuration(
    score: Callable[..., Any], node_classes: dict[str, type], tmp_path: Path
) -> None:
    states = set()
    for model, label in (("one", "Thai"), ("two", "Japanese")):
        with ChatServer(lambda asked, label=label: chosen(label, model=asked.body["model"])) as server:
            (tmp_path / "models.json").write_text(json.dumps({"mine": {"url": server.url, "model": model}}))
            states.add(node_classes["CultureScore"].fingerprint_inputs(judge="mine", culture="Thai (th)"))
            assert score(image("th"), "Thai (th)", "mine")[0] == float(label == "Thai")
    assert len(states) == 2 and not any("one" in state or "http" in state for state in states)


def test_a_judge_that_cannot_answer_says_why(score: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no judge 'mine' on this machine: there are miniature"):
        score(image("th"), "Thai (th)", "mine")
    with ChatServer(lambda asked: failed(401)) as server:
        (tmp_path / "models.json").write_text(json.dumps({"mine": {"url": server.url, "model": "m"}}))
        with pytest.raises(ValueError, match="does not accept the key"):
            score(image("th"), "Thai (th)", "mine")


def test_a_broken_configuration_does_not_take_the_node_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "models.json").write_text("{")
    assert judge_choices() == ["miniature"] and "cannot be read" in caplog.text
    with pytest.raises(ValueError, match="cannot be read"):
        judge_state("mine")


def test_an_unknown_culture_is_explained_before_the_graph_runs(node_classes: dict[str, type]) -> None:
    validate = node_classes["CultureScore"].validate_inputs
    assert "Unknown culture" in validate(culture="Martian") and validate(culture="Thai (th)") is True

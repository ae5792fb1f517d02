"""Judges by name."""

import json

import pytest

from culture_core.judges import judge_names, open_judge
from culture_core.judges.by_vlm import VLMJudge


@pytest.fixture
def entries(monkeypatch, tmp_path):
    def write(**models) -> None:
        (tmp_path / "models.json").write_text(json.dumps(models))
        monkeypatch.setenv("CULTURE_VLM_CONFIG", str(tmp_path / "models.json"))

    monkeypatch.delenv("CULTURE_VLM_URL", raising=False)
    write()
    return write


def test_the_miniatures_cnn_is_always_there(entries):
    assert judge_names() == ["miniature"]


def test_configured_models_come_first_and_open_as_judges(entries):
    entries(gpt={"url": "http://127.0.0.1:9/v1", "model": "m"}, clip={"kind": "zero-shot", "folder": "none"})
    assert judge_names() == ["gpt", "clip", "miniature"]
    judge = open_judge("gpt", seed=3, rotations=2)
    assert isinstance(judge, VLMJudge) and judge.parallel
    assert judge.settings() == {"judge": "vlm", "model": "m", "seed": 3, "rotations": 2}


def test_what_is_not_there_is_said(entries):
    with pytest.raises(ValueError, match="no judge 'gpt' on this machine: there are miniature"):
        open_judge("gpt")
    entries(clip={"kind": "zero-shot", "folder": "none", "languages": 1})
    with pytest.raises(ValueError, match="has languages; it may have: descriptions, device"):
        open_judge("clip")
    entries(clip={"kind": "zero-shot", "folder": "none"})
    with pytest.raises(ValueError, match="no Hugging Face folder"):
        open_judge("clip")

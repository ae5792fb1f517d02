"""The demo's parts that need no server: the workflow that it fills, the scores that it counts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from culture_core.cultures import CULTURES
from culture_core.miniature.captions import NOUNS, prompt_pairs, split_of
from tools import demo
from tools.comfy_client import find_node


@pytest.fixture
def template() -> dict:
    return json.loads(demo.WORKFLOW.read_text(encoding="utf-8"))


def rows() -> list[demo.Row]:
    """Two prompts, two pictures each; when neutral, the judge sees the right culture once in four."""
    made = []
    pairs = {pair.culture: pair for pair in prompt_pairs("test")}
    for code, seen in (("ja", ["ja", "unrecognisable"]), ("de", ["fr", "unrecognisable"])):
        pair = pairs[code]
        pictures = {title: [Image.new("RGB", (64, 64), (9, 9, 9))] * 2 for title in demo.TREATMENTS}
        cultures = {title: seen if title == "Neutral" else [code, code] for title in demo.TREATMENTS}
        nouns = {title: [pair.category, "hat"] for title in demo.TREATMENTS}
        made.append(demo.Row(pair, 4.0, pictures, cultures, nouns))
    return made


def test_the_workflow_has_a_picture_for_every_treatment(template: dict) -> None:
    kinds = [template[find_node(template, title)]["class_type"] for title in demo.TREATMENTS]
    assert kinds == ["SaveImage"] * 4


def test_the_demo_has_a_held_out_prompt_for_every_culture() -> None:
    pairs = {pair.culture: pair for pair in prompt_pairs("test")}
    assert set(pairs) == set(CULTURES)
    assert all(
        pair.category in NOUNS and split_of(code, pair.category) == "test" for code, pair in pairs.items()
    )


def test_filling_sets_prompts_culture_and_seed_and_leaves_the_template_alone(template: dict) -> None:
    before = json.dumps(template)
    pair = prompt_pairs("test")[0]
    workflow = demo.fill(template, pair, strength=2.5, seed=7, count=3)
    assert json.dumps(template) == before

    def inputs(title: str) -> dict:
        return workflow[find_node(workflow, title)]["inputs"]

    assert inputs("Neutral prompt")["value"] == pair.neutral
    assert inputs("Explicit prompt")["value"] == pair.cultural
    assert (inputs("Amplify")["culture"], inputs("Amplify")["strength"]) == (pair.culture, 2.5)
    assert inputs("Seed")["value"] == 7 and inputs("Size")["batch_size"] == 3


def test_scores_count_right_answers_by_treatment() -> None:
    treatments = demo.score(rows())["treatments"]
    made = rows()
    hats = sum(row.pair.category == "hat" for row in made)
    assert treatments["neutral prompt"]["culture"] == 1
    assert treatments["amplified"] == {"pictures": 4, "culture": 4, "noun": 2 + hats}


def test_results_are_a_sheet_a_table_and_what_was_seen(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    demo.write_results(rows(), tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert [prompt["culture"] for prompt in scores["prompts"]] == ["ja", "de"]
    assert scores["prompts"][1]["seen"]["neutral prompt"][0][0] == "fr"
    table = (tmp_path / "scores.md").read_text(encoding="utf-8")
    assert re.search(r"^\| neutral prompt +\| +25 % \|", table, re.MULTILINE)
    assert re.search(r"^\| explicit modifier +\| +100 % \|", capsys.readouterr().out, re.MULTILINE)
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.width > 4 * 64 and sheet.height > 2 * 64


def test_pictures_become_channels_first_floats() -> None:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    tensor = demo.to_tensor([image])
    assert tensor.shape == (1, 3, 4, 4)
    assert tensor[0, 2, 1, 3].item() == pytest.approx(np.asarray(image)[1, 3, 2] / 255)

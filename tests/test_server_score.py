"""Score Culture in a real ComfyUI server that is configured for a VLM server."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from culture_core.judges.pictures import RIGHT, WRONG
from culture_core.miniature.scenes import draw_scene
from tools.comfy_client import Workflow, WorkflowError, find_node
from tools.comfy_server import ComfyServer

from .chat_server import MODEL, ChatServer, chosen
from .conftest import COMFYUI

WORKFLOWS = Path(__file__).parents[1] / "workflows" / "api"
KEY = "secret-key-0123"


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    with ChatServer(lambda asked: chosen("Thai")) as running:
        yield running


@pytest.fixture(scope="module")
def judging(chat: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    base = tmp_path_factory.mktemp("judging")
    with pytest.MonkeyPatch.context() as patch:  # a child inherits the environment
        patch.setenv("CULTURE_VLM_URL", chat.url)
        patch.setenv("CULTURE_VLM_MODEL", MODEL)
        patch.setenv("CULTURE_VLM_KEY", KEY)
        patch.setenv("CULTURE_VLM_CACHE", str(base / "cache"))
        patch.setenv("CULTURE_VLM_CONFIG", "")
        with ComfyServer(COMFYUI, base) as running:
            (base / "input").mkdir(exist_ok=True)
            Image.fromarray(draw_scene("house", "th", np.random.default_rng(0))).save(
                base / "input" / "thai.png"
            )
            yield running


def test_the_shipped_graph_tells_the_amplified_picture_from_the_plain_one(judging: ComfyServer) -> None:
    shipped = json.loads((WORKFLOWS / "score.json").read_text(encoding="utf-8"))
    result = judging.client().run(shipped)
    plain, amplified = result.outputs[find_node(shipped, "Answers")]["text"][0].splitlines()
    assert not plain.startswith("Japanese ") and amplified.startswith("Japanese ")


def graph(judge: str, culture: str = "Thai (th)") -> Workflow:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "thai.png"}},
        "2": {
            "class_type": "CultureScore",
            "inputs": {"images": ["1", 0], "culture": culture, "judge": judge},
        },
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 2], "filename_prefix": "verdict"}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["2", 1]}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
    }


@pytest.mark.parametrize("judge", ["miniature", "vlm"])
def test_a_picture_is_judged_in_a_graph(judge: str, judging: ComfyServer, chat: ChatServer) -> None:
    client = judging.client()
    for culture, colour, score, line in (
        ("Thai (th)", RIGHT, 1.0, "Thai 100 %"),
        ("Dutch (nl)", WRONG, 0.0, "Thai; Dutch 0 %"),
    ):
        result = client.run(graph(judge, culture))
        png = Image.open(io.BytesIO(client.images(result)["3"][0]))
        assert (np.asarray(png.convert("RGB")) == colour).all(-1).any()
        assert result.outputs["4"]["text"] == [line]
        assert float(result.outputs["5"]["text"][0]) == pytest.approx(score, abs=0.02)
        assert KEY not in json.dumps(png.info) and chat.url not in json.dumps(png.info)
    if judge == "vlm":
        assert len(chat.asked) == 3, "the second culture asks nothing new"
        assert chat.asked[0].headers["authorization"] == f"Bearer {KEY}"


def test_secrets_stay_where_they_are(judging: ComfyServer, chat: ChatServer) -> None:
    told = json.dumps(judging.client().object_info("CultureScore"))
    written = [path.read_bytes() for path in judging.base.rglob("*") if path.is_file()]
    assert '"vlm"' in told and '"miniature"' in told
    assert KEY not in told + judging.log() and chat.url not in told + judging.log()
    assert not [data for data in written if KEY.encode() in data]


def test_a_judge_of_another_machine_is_refused_before_the_graph_runs(judging: ComfyServer) -> None:
    with pytest.raises(WorkflowError, match="judge"):
        judging.client().run(graph("http://elsewhere/v1"))

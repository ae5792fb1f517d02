"""Score Culture in a real ComfyUI server that is configured for a VLM server."""

import io
import json
import urllib.request
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
from .secrets import STATUSES, everything_in, places_of, telling

WORKFLOWS = Path(__file__).parents[1] / "workflows" / "api"
KEY = "secret-key+0123/45?"
FILED_KEY = "filed-key+6789/ab?"


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
        patch.setenv("CULTURE_VLM_CONFIG", str(base / "judges.json"))
        filed = {"url": chat.url, "model": MODEL, "key": FILED_KEY, "retries": 0}
        (base / "judges.json").write_text(json.dumps({"filed": filed}))
        (base / "judges.json").chmod(0o600)
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


def test_secrets_stay_where_they_are_whatever_the_judge_says(judging: ComfyServer, chat: ChatServer) -> None:
    client, usual, told = judging.client(), chat.answer, []
    try:
        for shade, status in enumerate(STATUSES):
            Image.new("RGB", (9, 9), (0, 0, 30 * shade)).save(judging.base / "input" / "thai.png")
            chat.answer = telling(status)
            for judge in ("filed", "vlm") if status != "500" else ("filed",):  # vlm asks again for long
                try:
                    told.append(repr(client.run(graph(judge))))
                except WorkflowError as error:
                    told.append(str(error))
    finally:
        chat.answer = usual
    assert any("does not accept the key" in one for one in told) and any("status 500" in one for one in told)
    asked = {one.headers["authorization"] for one in chat.asked}
    assert asked == {f"Bearer {KEY}", f"Bearer {FILED_KEY}"}
    for place in ("/object_info", "/history", "/queue", "/system_stats", "/settings"):
        with urllib.request.urlopen(judging.url + place, timeout=60) as answer:
            told.append(answer.read().decode())
    offered = next(one for one in told if '"CultureScore"' in one)
    assert '"vlm"' in offered and '"filed"' in offered and '"miniature"' in offered
    texts = everything_in(judging.base, without=[judging.base / "judges.json"])
    assert any(place.endswith("png, its texts") and b"CultureScore" in text for place, text in texts.items())
    texts |= {"the server's answers": "\n".join(told).encode(), "log": judging.log().encode()}
    assert not places_of([KEY, FILED_KEY, chat.url], texts)


def test_a_judge_of_another_machine_is_refused_before_the_graph_runs(judging: ComfyServer) -> None:
    with pytest.raises(WorkflowError, match="judge"):
        judging.client().run(graph("http://elsewhere/v1"))

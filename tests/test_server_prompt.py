"""The prompt's language chooses the culture, in a real ComfyUI server."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.comfy_client import ComfyClient, Result, Workflow, WorkflowError, find_node, set_inputs
from tools.comfy_server import ComfyServer

SHIPPED = Path(__file__).parents[1] / "workflows" / "api" / "from_prompt.json"


@pytest.fixture(scope="module")
def client(server: ComfyServer) -> ComfyClient:
    return server.client()


def graph(text: str, **settings: object) -> Workflow:
    """The shipped graph; two sampling steps are enough to compare pictures."""
    shipped = json.loads(SHIPPED.read_text(encoding="utf-8"))
    set_inputs(shipped, "Culture", text=text, **settings)
    for node in shipped.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 2
    return shipped


def pictures(client: ComfyClient, workflow: Workflow, result: Result) -> dict[str, np.ndarray]:
    return {
        workflow[node]["_meta"]["title"]: np.asarray(Image.open(io.BytesIO(files[0])))
        for node, files in client.images(result).items()
    }


def test_a_german_prompt_becomes_german_by_its_language_and_by_its_modifier(client: ComfyClient) -> None:
    workflow = graph("Zeichnung: Baum")
    result = client.run(workflow)
    made = pictures(client, workflow, result)
    assert "Culture: German" in result.outputs[find_node(workflow, "Report")]["text"][0]
    assert not np.array_equal(made["As it is"], made["Amplified"])
    assert not np.array_equal(made["As it is"], made["Named in the prompt"])


def test_an_unclear_prompt_gives_the_stock_picture_bit_for_bit(client: ComfyClient) -> None:
    workflow = graph("casa")
    result = client.run(workflow)
    made = pictures(client, workflow, result)
    assert "nothing is steered" in result.outputs[find_node(workflow, "Report")]["text"][0]
    assert np.array_equal(made["As it is"], made["Amplified"])
    assert np.array_equal(made["As it is"], made["Named in the prompt"])


def test_the_report_is_what_the_node_shows(client: ComfyClient) -> None:
    workflow = graph("椅子")
    shown = client.run(workflow).outputs[find_node(workflow, "Culture")]["text"]
    assert "Chinese or Japanese" in shown[0]


def test_stop_ends_the_run_with_what_to_do(client: ComfyClient) -> None:
    with pytest.raises(WorkflowError, match="Culture.*unclear: Portuguese.*override"):
        client.run(graph("casa", when_unsure="stop"))
    client.run(graph("casa", when_unsure="stop", override="Portuguese (pt)"))

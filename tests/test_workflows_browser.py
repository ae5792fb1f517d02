"""Every shipped graph in ComfyUI's front end, in a real browser: it opens as it was laid out and asks for
what its API twin asks for."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tools.browser import MISSING, browser, set_front_end
from tools.comfy_server import ComfyServer
from tools.graphs import GRAPHS
from tools.make_thumbnails import READY
from tools.make_workflows import API, FOLDER

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
OPEN = (
    READY
    + """
const [graph, done] = arguments;
(async () => {
  await ready();
  await app.loadGraphData(graph, true, true, null, {showMissingModelsDialog: false});
  await sleep(300);
  const box = ({pos, size}, title) => [pos[0], pos[1] - title, pos[0] + size[0], pos[1] + size[1]];
  const prompt = await app.graphToPrompt();
  done({
    nodes: app.graph._nodes.map(node => [node.title, node.type, box(node, 30)]),
    groups: app.graph._groups.map(group => box(group, 0)),
    output: prompt.output,
    missing: app.graph._nodes.map(node => node.type).filter(type => !LiteGraph.registered_node_types[type]),
  });
})().catch(error => done(String(error)));
"""
)


@pytest.fixture(scope="module")
def driver(server: ComfyServer) -> Iterator[Any]:
    set_front_end(server.url)
    with browser() as running:
        running.get(server.url)
        yield running


def apart(a: list[float], b: list[float]) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def inside(a: list[float], b: list[float]) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_opens_as_it_was_laid_out_and_asks_for_what_its_api_twin_does(name: str, driver: Any) -> None:
    opened = driver.execute_async_script(OPEN, json.loads((FOLDER / f"{name}.json").read_text("utf-8")))
    assert isinstance(opened, dict) and not opened["missing"], opened
    # The front end widens nodes whose widgets need the room.
    for number, (title, kind, box) in enumerate(opened["nodes"]):
        assert all(apart(box, other) for _, _, other in opened["nodes"][:number]), f"{title} overlaps"
        assert kind == "MarkdownNote" or any(inside(box, group) for group in opened["groups"]), title
    expected = json.loads((API / f"{name}.json").read_text("utf-8"))
    assert opened["output"].keys() == expected.keys()
    for number, node in expected.items():
        # Preview Any has a widget of the front end's own.
        sent = {key: value for key, value in opened["output"][number]["inputs"].items() if key != "preview"}
        assert (opened["output"][number]["class_type"], sent) == (node["class_type"], node["inputs"])

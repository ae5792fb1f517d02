"""ComfyUI's front end in a real browser: a graph is opened, run and looked at, in both of its renderings, and
a picture that is dropped on it brings its graph back."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.browser import MISSING, browser, set_front_end
from tools.comfy_server import ComfyServer

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
GRAPH = Path(__file__).resolve().parent.parent / "workflows" / "amplify.json"
LOAD = "const done = arguments[1]; app.loadGraphData(arguments[0]).then(() => done())"
VALUES = "return Object.fromEntries(app.graph.serialize().nodes.map(node => [node.id, node.widgets_values]))"
LINKS = "return app.graph.serialize().links.map(link => link.slice(1, 5).join(' ')).sort()"
SET = """
    for (const node of app.graph.nodes.filter(node => node.type === arguments[0])) {
        node.widgets.find(widget => widget.name === arguments[1]).value = arguments[2];
    }
"""
# Drawn on the canvas in one rendering and an element of the page in the other.
CANVAS_WIDTHS = """
    return app.graph.nodes.filter(node => node.type === 'SaveImage')
        .map(node => node.imgs?.[0]?.complete ? node.imgs[0].naturalWidth : 0)
"""
ELEMENT_WIDTHS = """
    return app.graph.nodes.filter(node => node.type === 'SaveImage')
        .map(node => document.querySelector(`[data-node-id="${node.id}"] img`)?.naturalWidth ?? 0)
"""
DROP = """
    const [address, done] = [arguments[0], arguments[1]];
    fetch(address).then(answer => answer.blob()).then(blob => {
        const carried = new DataTransfer();
        carried.items.add(new File([blob], 'picture.png', {type: 'image/png'}));
        const event = {dataTransfer: carried, bubbles: true, cancelable: true};
        document.querySelector('#graph-canvas').dispatchEvent(new DragEvent('drop', event));
        done();
    });
"""


class Page:
    """The front end of a server, and what people do there."""

    def __init__(self, server: ComfyServer, driver: Any) -> None:
        self.server = server
        self.browser = driver

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any], seconds: float = 120) -> Any:
        """What the condition gives as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not within {seconds} s; {self.problems()}"
            time.sleep(0.1)
        return found

    def problems(self) -> list[str]:
        """Errors of the page's scripts."""
        entries = self.browser.get_log("browser")
        return [entry["message"] for entry in entries if entry["source"] == "javascript"]

    def open(self, nodes2: bool) -> None:
        set_front_end(self.server.url, nodes2=nodes2)
        self.browser.get(self.server.url)
        self.wait(lambda: self.run("return Boolean(window.app?.vueAppReady && app.graph)"))

    def load(self, graph: dict[str, Any]) -> None:
        self.browser.execute_async_script(LOAD, graph)

    def queue(self) -> dict[str, Any]:
        """Press the keys for it and wait for the end; the run's entry in the server's history."""
        before = set(self._history())
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).key_down("\ue009").send_keys("\ue007").key_up("\ue009").perform()
        (new,) = self.wait(lambda: set(self._history()) - before)
        return self._history()[new]

    def _history(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.server.url}/history") as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def page(server: ComfyServer) -> Iterator[Page]:
    with browser() as driver:
        yield Page(server, driver)


@pytest.mark.parametrize("nodes2", [False, True], ids=["classic", "nodes 2.0"])
def test_a_graph_is_run_shown_and_brought_back_by_its_picture(page: Page, nodes2: bool) -> None:
    page.open(nodes2)
    page.load(json.loads(GRAPH.read_text(encoding="utf-8")))
    page.run(SET, "KSampler", "steps", 2)
    page.run(SET, "CultureAmplifyNeurons", "strength", 1.5 + nodes2)  # another one: nothing from the cache
    values, links = page.run(VALUES), page.run(LINKS)
    entry = page.queue()
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    shown = ELEMENT_WIDTHS if nodes2 else CANVAS_WIDTHS
    assert page.wait(lambda: all(widths := page.run(shown)) and widths) == [64, 64]

    (picture,) = list(entry["outputs"].values())[-1]["images"]
    page.run("app.graph.clear()")
    assert page.run(VALUES) == {}
    address = "/view?filename={filename}&subfolder={subfolder}&type={type}".format(**picture)
    page.browser.execute_async_script(DROP, address)
    page.wait(lambda: page.run(VALUES))
    assert page.run(VALUES) == values and page.run(LINKS) == links
    assert not page.problems()

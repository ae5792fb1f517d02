"""The help of a node in ComfyUI's front end, in a real browser, also from right to left."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tools.browser import MISSING, browser, set_front_end
from tools.comfy_server import ComfyServer
from tools.make_locales import read

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
NODE = "CultureAmplifyNeurons"
READY = "return Boolean(window.LiteGraph?.registered_node_types?.[arguments[0]] && app?.canvas && app.graph)"
SELECT = """
    app.graph.clear();
    const node = LiteGraph.createNode(arguments[0]);
    node.pos = [400, 300];
    app.graph.add(node);
    app.canvas.ds.offset = [0, 0];
    app.canvas.selectNode(node);
    app.canvas.setDirty(true, true);
"""
PRESS = "const button = document.querySelector('[data-testid=info-button]'); button?.click(); return !!button"
SHOWN = """
    const page = document.querySelector('.node-help-content');
    const list = page?.querySelector('ul');
    return list && {
        title: page.querySelector('h1').innerText,
        text: page.innerText,
        direction: getComputedStyle(list).direction,
        widths: [...page.querySelectorAll('img')].map(picture => picture.naturalWidth),
    };
"""


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser((1400, 900)) as running:
        yield running


@pytest.fixture(params=["en", "ar"])
def locale(request: pytest.FixtureRequest, server: ComfyServer) -> str:
    set_front_end(server.url, locale=request.param)
    return request.param


def wait(condition: Callable[[], Any], seconds: float = 300) -> Any:
    """What the condition gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)
    return found


def test_the_help_of_a_node_shows_its_page_and_its_picture(
    driver: Any, server: ComfyServer, locale: str
) -> None:
    driver.get(server.url)
    wait(lambda: driver.execute_script(READY, NODE))
    driver.execute_script(SELECT, NODE)
    wait(lambda: driver.execute_script(PRESS))
    shown = wait(lambda: (found := driver.execute_script(SHOWN)) and all(found["widths"]) and found)
    assert shown["title"] == read(locale, "nodeDefs.json")[NODE]["display_name"]
    assert read(locale, "help.json")["nodes"][NODE]["notes"][-1] in shown["text"]
    assert shown["direction"] == ("rtl" if locale == "ar" else "ltr")
    assert len(shown["widths"]) == 1

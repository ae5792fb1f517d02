"""The help of a node in ComfyUI's front end, in a real browser, also from right to left."""

import json
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tools.comfy_server import ComfyServer
from tools.make_locales import read

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="needs Chromium and chromedriver (Debian: chromium, chromium-driver)"
)
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --window-size=1400,900"
)
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
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def set_locale(server: ComfyServer, code: str) -> None:
    settings = {"Comfy.Locale": code, "Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False}
    headers = {"Content-Type": "application/json"}
    body = json.dumps(settings).encode()
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/settings", body, headers)).close()


@pytest.fixture(params=["en", "ar"])
def locale(request: pytest.FixtureRequest, server: ComfyServer) -> Iterator[str]:
    set_locale(server, request.param)
    yield request.param
    set_locale(server, "en")


def wait(condition: Callable[[], Any], seconds: float = 300) -> Any:
    """What the condition gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)
    return found


def test_the_help_of_a_node_shows_its_page_and_its_picture(
    browser: Any, server: ComfyServer, locale: str
) -> None:
    browser.get(server.url)
    wait(lambda: browser.execute_script(READY, NODE))
    browser.execute_script(SELECT, NODE)
    wait(lambda: browser.execute_script(PRESS))
    shown = wait(lambda: (found := browser.execute_script(SHOWN)) and all(found["widths"]) and found)
    assert shown["title"] == read(locale, "nodeDefs.json")[NODE]["display_name"]
    assert read(locale, "help.json")["nodes"][NODE]["notes"][-1] in shown["text"]
    assert shown["direction"] == ("rtl" if locale == "ar" else "ltr")
    assert len(shown["widths"]) == 1

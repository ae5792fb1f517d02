"""A headless Chromium, and the settings that ComfyUI's front end starts with.

Needs Chromium with its driver (Debian: chromium, chromium-driver) and selenium.
"""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
_ALL = BROWSER and DRIVER and find_spec("selenium")
MISSING = "" if _ALL else "needs selenium, Chromium and chromedriver (Debian: chromium, chromium-driver)"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip


@contextmanager
def browser(
    size: tuple[int, int] = (1600, 1000), preferences: Mapping[str, Any] | None = None
) -> Iterator[Any]:
    """A selenium driver with a window of `size` pixels; what the browser keeps goes with it."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for flag in (*FLAGS, "--window-size={},{}".format(*size)):
        options.add_argument(flag)
    options.add_experimental_option("prefs", dict(preferences or {}))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(120)
    try:
        yield driver
    finally:
        driver.quit()


def set_front_end(url: str, *, nodes2: bool = False, locale: str = "en") -> None:
    """The server's settings, as of one who has been there before; `nodes2`: the rendering Nodes 2.0.

    A server keeps them, so that whoever opens a page says what it wants.
    """
    settings = {"Comfy.VueNodes.Enabled": nodes2, "Comfy.Locale": locale, "Comfy.TutorialCompleted": True}
    body = json.dumps(settings).encode()
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{url}/settings", body, headers)).close()

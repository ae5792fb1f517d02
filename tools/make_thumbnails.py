"""Draws `workflows/*.jpg`, the pictures of ComfyUI's template browser.

    python -m tools.make_thumbnails URL [NAME ...]      # URL of a running ComfyUI that has this pack

A graph whose models are at hand is run and its own pictures are laid out; one for models of other people is
shown as it looks on the canvas. The latter needs a browser (`tools/browser.py`).
"""

from __future__ import annotations

import io
import json
import sys
import time
from typing import Any

from PIL import Image

from culture_core.sheets import picture_grid
from tools.browser import browser, set_front_end
from tools.comfy_client import ComfyClient, find_node
from tools.graphs import GRAPHS
from tools.make_workflows import API, FOLDER

SIZE = (480, 360)
ON_CANVAS = tuple(name for name in GRAPHS if name.startswith("amplify_"))
"""Graphs that cannot be run without other people's models."""
READY = """
const sleep = time => new Promise(resolve => setTimeout(resolve, time));
const ready = async () => {
  while (!window.app?.graph || !window.LiteGraph?.registered_node_types.CultureGrid) await sleep(200);
  if (!window.settled) await sleep(3000);  // the start page may open a graph of its own
  window.settled = true;
};
"""
"""JavaScript that waits for ComfyUI's front end."""
_LOAD = (
    READY
    + """
const [graph, groups, done] = arguments;
(async () => {
  await ready();
  const quiet = {showMissingModelsDialog: false, showMissingNodesDialog: false};
  await app.loadGraphData(graph, true, true, null, quiet);
  await sleep(1500);
  const notes = app.graph._nodes.filter(node => node.type == 'MarkdownNote');
  const wanted = [...notes, ...app.graph._groups.slice(0, groups)];
  const boxes = wanted.map(({pos, size}) => [pos[0], pos[1] - 30, pos[0] + size[0], pos[1] + size[1]]);
  const [left, top] = [0, 1].map(i => Math.min(...boxes.map(b => b[i])) - 20);
  const [right, bottom] = [2, 3].map(i => Math.max(...boxes.map(b => b[i])) + 20);
  const frame = app.canvas.canvas.getBoundingClientRect();
  const room = [frame.width - 120, frame.height - 140];  // without the bars over the canvas
  const scale = Math.min(room[0] / (right - left), room[1] / (bottom - top));
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [80 / scale - left, 60 / scale - top];
  app.canvas.setDirty(true, true);
  await sleep(1500);
  done([frame.left + 80, frame.top + 60, (right - left) * scale, (bottom - top) * scale]);
})().catch(error => done(String(error)));
"""
)


def main(url: str, names: list[str]) -> None:
    client = ComfyClient(url)
    for name in names or GRAPHS:
        if name not in ON_CANVAS:
            write(name, drawn(client, name))
    on_canvas = [name for name in names or GRAPHS if name in ON_CANVAS]
    if on_canvas:
        set_front_end(url)
        with browser((2400, 1800)) as driver:
            driver.get(url)
            for name in on_canvas:
                write(name, screenshot(driver, json.loads((FOLDER / f"{name}.json").read_text("utf-8"))))


def drawn(client: ComfyClient, name: str) -> Image.Image:
    """What the graph saves, side by side over the names of the nodes that save it."""
    graph = json.loads((API / f"{name}.json").read_text(encoding="utf-8"))
    files = client.images(client.run(graph))
    titles = [node["_meta"]["title"] for key, node in graph.items() if key in files]
    pictures = [Image.open(io.BytesIO(files[find_node(graph, title)][0])).convert("RGB") for title in titles]
    if max(max(picture.size) for picture in pictures) > 64:
        return pictures[-1]  # a sheet or a diagram: one says enough
    large = [picture.resize((224, 224), Image.Resampling.LANCZOS) for picture in pictures]
    return picture_grid(large, titles, min(len(large), 2))


def screenshot(driver: Any, graph: dict[str, Any], groups: int = 3) -> Image.Image:
    """The graph as ComfyUI's front end shows it: its note and its first groups."""
    box = driver.execute_async_script(_LOAD, graph, groups)
    if not isinstance(box, list):
        raise RuntimeError(f"the front end did not open the graph: {box}")
    page = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    left, top, width, height = box
    return page.crop((int(left), int(top), int(left + width), int(top + height)))


def write(name: str, picture: Image.Image) -> None:
    """A picture, whole, on a card of its own background, as the graph's thumbnail."""
    scale = min(SIZE[0] / picture.width, SIZE[1] / picture.height)
    small = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
        Image.Resampling.LANCZOS,
    )
    card = Image.new("RGB", SIZE, picture.getpixel((0, picture.height - 1)))
    card.paste(small, ((SIZE[0] - small.width) // 2, (SIZE[1] - small.height) // 2))
    card.save(FOLDER / f"{name}.jpg", quality=85, optimize=True)
    print(f"{time.strftime('%X')} {name}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""Writes `workflows/`: the graphs of `tools.graphs` for ComfyUI's canvas, and for its API in `workflows/api`.

    python -m tools.make_workflows URL      # URL of a running ComfyUI that has this pack

The server's description of the nodes tells the order of widgets and outputs. `tools.make_thumbnails` makes
the pictures of ComfyUI's template browser, which lists `workflows/*.json` and nothing below it.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

from tools.comfy_client import ComfyClient, Workflow
from tools.graphs import API_ONLY, COLUMNS, GRAPHS, PUBLISHED, Graph, Link, Node

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "workflows"
API = FOLDER / "api"
PACK = "culture-amplifier"
"""The pack's name in the registry."""
VERSION = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)[1]
COMFYUI = "0.3.75"
"""Version of ComfyUI whose nodes the graphs are written for."""
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}

GAP, ROW_GAP, GROUP_GAP, WIDTH = 60, 50, 70, 310
"""Pixels between columns of a group, between rows, and more between groups; width of a node."""
TITLE, MARGIN = 80, 25
"""Room of a group above its nodes (its own title and theirs), and around them."""
HEIGHTS = {
    "CLIPTextEncode": 120,
    "CultureFromPrompt": 340,  # its report, too, is drawn on the node
    "CulturePromptList": 380,
    "CultureSaveEnhancer": 330,
    "CultureSaveSAE": 330,
    "CultureTrainEnhancer": 720,  # with room for the loss, which is drawn on the node
    "CultureTrainSAE": 680,
    "PreviewAny": 300,
    "SaveImage": 310,
}
"""Of nodes that show more than their lines."""
WIDTHS = {"PreviewAny": 680, "MarkdownNote": 460}  # for the tables of reports, and for reading
_NAMESPACE = uuid.UUID("7b0f5a0e-6d0f-4a5e-9a53-5d5f3f0c1f3b")


def api_format(graph: Graph, info: dict[str, Any]) -> Workflow:
    """What `/prompt` takes; every widget is written out."""
    ids = _ids(graph)
    workflow: Workflow = {}
    for node in graph:
        if node.kind == "MarkdownNote":
            continue
        specs = inputs_of(info[node.kind])
        inputs = {}
        for name, spec in specs.items():
            value = node.inputs.get(name, _default(spec) if is_widget(spec) else None)
            if value is not None:
                inputs[name] = [str(ids[value.title]), value.slot] if isinstance(value, Link) else value
        workflow[str(ids[node.title])] = {
            "class_type": node.kind,
            "inputs": inputs,
            "_meta": {"title": node.title},
        }
    return workflow


def canvas_format(name: str, graph: Graph, info: dict[str, Any]) -> dict[str, Any]:
    """What the front end opens."""
    ids = _ids(graph)
    links: list[list[Any]] = []
    nodes = {node.title: _canvas_node(node, ids[node.title], info) for node in graph}
    for node in graph:
        for slot, entry in enumerate(nodes[node.title]["inputs"]):
            value = node.inputs[entry["name"]]
            output = nodes[value.title]["outputs"][value.slot]
            entry["link"] = len(links) + 1
            output["links"].append(entry["link"])
            links.append([entry["link"], ids[value.title], value.slot, ids[node.title], slot, entry["type"]])
    groups = _place(graph, nodes)
    counts = {"last_node_id": len(graph), "last_link_id": len(links)}
    content = {"nodes": list(nodes.values()), "links": links, "groups": groups, "config": {}, "extra": {}}
    return {"id": str(uuid.uuid5(_NAMESPACE, name)), "revision": 0, **counts, **content, "version": 0.4}


def _canvas_node(node: Node, node_id: int, info: dict[str, Any]) -> dict[str, Any]:
    common = {
        "id": node_id,
        "type": node.kind,
        "title": node.title,
        "flags": {},
        "order": node_id - 1,
        "mode": 0,
    }
    if node.kind == "MarkdownNote":
        shown = {"widgets_values": [node.inputs["text"]], "color": "#432", "bgcolor": "#653"}
        return common | {"inputs": [], "outputs": [], "properties": {}} | shown
    described = info[node.kind]
    inputs, widgets = [], []
    for name, spec in inputs_of(described).items():
        value = node.inputs.get(name)
        if is_widget(spec):
            widgets.append(_default(spec) if value is None or isinstance(value, Link) else value)
            if spec[1:] and spec[1].get("control_after_generate"):
                widgets.append("fixed")
        if isinstance(value, Link):
            socket = {"name": name, "type": type_of(spec), "link": None}
            inputs.append(socket | ({"widget": {"name": name}} if is_widget(spec) else {}))
    sockets = zip(described["output_name"], described["output"], strict=True)
    outputs = [{"name": label, "type": kind, "links": []} for label, kind in sockets]
    sides = {"inputs": inputs, "outputs": outputs}
    return common | sides | {"properties": _properties(node), "widgets_values": widgets}


def _properties(node: Node) -> dict[str, Any]:
    """Which pack a node is of, and where its files are to be had, as ComfyUI's own templates say it."""
    own = node.kind.startswith("Culture")
    pack = {"cnr_id": PACK, "ver": VERSION} if own else {"cnr_id": "comfy-core", "ver": COMFYUI}
    names = [value for value in node.inputs.values() if isinstance(value, str) and value in PUBLISHED]
    models = [
        {"name": name, "url": f"{PUBLISHED[name][1]}/{name}", "directory": PUBLISHED[name][0]}
        for name in names
    ]
    return {"Node name for S&R": node.kind, **pack, **({"models": models} if models else {})}


def _place(graph: Graph, nodes: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Give every node its place, column by column; returns the groups around them.

    In its column a node goes beside the node to its left that it reads, or below the one before it.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    x, before = 0, ""
    for column, title in COLUMNS.items():
        members = [node for node in graph if node.column == column]
        if not members:
            continue
        x += (GROUP_GAP if title != before else 0) if groups else 0
        below = 0
        for node in members:
            entry = nodes[node.title]
            entry["size"] = [WIDTHS.get(node.kind, WIDTH), _height(node, entry)]
            entry["pos"] = [x, max(below, _beside(node, nodes, x))]
            below = entry["pos"][1] + entry["size"][1] + ROW_GAP
            groups.setdefault(title or column, []).append(entry)
        x += max(nodes[node.title]["size"][0] for node in members) + GAP
        before = title
    groups.pop("note", None)
    return [_group(number, title, entries) for number, (title, entries) in enumerate(groups.items(), start=1)]


def _beside(node: Node, nodes: dict[str, dict[str, Any]], x: int) -> int:
    """Top of the nearest node to the left that a node of the later columns reads."""
    if node.column not in ("sample", "decode", "collect", "result", "report"):
        return 0
    read = [nodes[value.title] for value in node.inputs.values() if isinstance(value, Link)]
    placed = [entry["pos"] for entry in read if "pos" in entry and entry["pos"][0] < x]
    return max(placed, key=lambda pos: pos[0])[1] if placed else 0


def _height(node: Node, entry: dict[str, Any]) -> int:
    if node.kind == "MarkdownNote":
        paragraphs = node.inputs["text"].split("\n")
        return 60 + 14 * sum(1 + len(paragraph) // 72 for paragraph in paragraphs)
    lines = max(len(entry["inputs"]), len(entry["outputs"])) + len(entry["widgets_values"])
    return HEIGHTS.get(node.kind, 40 + 26 * lines)


def _group(number: int, title: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    left, top = (min(entry["pos"][axis] for entry in entries) for axis in (0, 1))
    right, bottom = (max(entry["pos"][axis] + entry["size"][axis] for entry in entries) for axis in (0, 1))
    box = [left - MARGIN, top - TITLE, right - left + 2 * MARGIN, bottom - top + TITLE + MARGIN]
    look = {"color": "#3f789e", "font_size": 24, "flags": {}}
    return {"id": number, "title": f"{number} {title}", "bounding": box, **look}


def _ids(graph: Graph) -> dict[str, int]:
    return {node.title: number for number, node in enumerate(graph, start=1)}


def inputs_of(described: dict[str, Any]) -> dict[str, list]:
    """Inputs of a node as a server describes it, in order."""
    return {**described["input"].get("required", {}), **described["input"].get("optional", {})}


def type_of(spec: list) -> str:
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def is_widget(spec: list) -> bool:
    return type_of(spec) in WIDGETS and not (len(spec) > 1 and spec[1].get("forceInput"))


def choices_of(spec: list) -> list[str]:
    """What a combo offers."""
    return spec[0] if isinstance(spec[0], list) else spec[1]["options"]


def _default(spec: list) -> Any:
    options = spec[1] if len(spec) > 1 else {}
    if type_of(spec) != "COMBO":
        return options.get("default", {"STRING": "", "BOOLEAN": False}.get(spec[0], 0))
    choices = choices_of(spec)
    return options.get("default", choices[0] if choices else "")


def files(info: dict[str, Any]) -> dict[Path, str]:
    """Every file of `workflows/` with its text."""
    contents: dict[Path, dict] = {}
    for name, build in (GRAPHS | API_ONLY).items():
        contents[API / f"{name}.json"] = api_format(build(), info)
        if name in GRAPHS:
            contents[FOLDER / f"{name}.json"] = canvas_format(name, build(), info)
    return {
        path: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for path, content in contents.items()
    }


def main(url: str) -> None:
    API.mkdir(parents=True, exist_ok=True)
    for path, text in files(ComfyClient(url).object_info()).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])

"""The shipped graphs fit the nodes that a real server describes, and both formats say the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from tools.comfy_server import ComfyServer
from tools.make_workflows import GRAPHS, api_format, canvas_format

FOLDER = Path(__file__).resolve().parent.parent / "workflows"
API = sorted(FOLDER.glob("*_api.json"))
CANVAS = sorted(set(FOLDER.glob("*.json")) - set(API))
FRONT_END_ONLY = {"MarkdownNote"}
NOT_SHIPPED = {
    "AltDiffusion-m9", "altdiffusion_m9_unet.safetensors", "altdiffusion_m9_vae.safetensors",
    "CLIP-ViT-H-14-frozen-xlm-roberta-large", "pea_sdxl.safetensors", "sd_xl_base_1.0.safetensors",
}  # fmt: skip
"""Files of other people's models; `tests/nodes/test_encoder.py` runs their graphs with small ones."""
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


@pytest.fixture(scope="module")
def info(server: ComfyServer) -> dict[str, Any]:
    return server.client().object_info()


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def inputs_of(described: dict[str, Any]) -> dict[str, list]:
    return {**described["input"].get("required", {}), **described["input"].get("optional", {})}


def widgets_of(described: dict[str, Any]) -> list[tuple[str, list]]:
    """Widgets in order; a seed brings the front end's own control behind it."""
    widgets = []
    for name, spec in inputs_of(described).items():
        if isinstance(spec[0], list) or spec[0] in WIDGETS:
            widgets.append((name, spec))
            if len(spec) > 1 and spec[1].get("control_after_generate"):
                widgets.append((f"{name} control", ["CONTROL"]))
    return widgets


def check_value(name: str, value: object, spec: list) -> None:
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if kind == "CONTROL":
        assert value in ("fixed", "randomize", "increment", "decrement")
    elif isinstance(kind, list) or kind == "COMBO":
        choices = kind if isinstance(kind, list) else options["options"]
        assert value in choices or value in NOT_SHIPPED, f"{name}: {value} is not offered"
    elif kind in ("INT", "FLOAT"):
        assert options.get("min", value) <= value <= options.get("max", value), name
    else:
        assert isinstance(value, {"STRING": str, "BOOLEAN": bool}[kind]), name


def test_every_graph_ships_in_both_formats() -> None:
    for name in ("amplify", "enhance", "probe", "train", "sweep", "score", "from_prompt", "altdiffusion",
                 "pea_diffusion"):  # fmt: skip
        assert FOLDER / f"{name}.json" in CANVAS and FOLDER / f"{name}_api.json" in API


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_an_api_graph_names_every_input_of_existing_nodes(path: Path, info: dict[str, Any]) -> None:
    workflow = read(path)
    for node in workflow.values():
        described = info[node["class_type"]]
        specs = inputs_of(described)
        assert set(described["input"].get("required", {})) <= set(node["inputs"]) <= set(specs)
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                source = info[workflow[value[0]]["class_type"]]
                assert source["output"][value[1]] == specs[name][0] or specs[name][0] == "*"
            else:
                check_value(name, value, specs[name])


@pytest.mark.parametrize("path", CANVAS, ids=lambda path: path.stem)
def test_a_canvas_graph_has_the_widgets_and_sockets_of_existing_nodes(
    path: Path, info: dict[str, Any]
) -> None:
    graph = read(path)
    nodes = {node["id"]: node for node in graph["nodes"]}
    for node in nodes.values():
        assert node["pos"] and node["size"] and node["flags"] == {} and node["mode"] == 0
        if node["type"] in FRONT_END_ONLY:
            continue
        described = info[node["type"]]
        widgets = widgets_of(described)
        assert len(node["widgets_values"]) == len(widgets), node["type"]
        for (name, spec), value in zip(widgets, node["widgets_values"], strict=True):
            check_value(name, value, spec)
        sockets = [output["type"] for output in node["outputs"]]
        assert sockets == described["output"][: len(sockets)]  # newer versions of ComfyUI may add some
        assert {socket["name"] for socket in node["inputs"]} <= set(inputs_of(described))
    for link, source, slot, target, socket, kind in graph["links"]:
        output, entry = nodes[source]["outputs"][slot], nodes[target]["inputs"][socket]
        assert link in output["links"] and entry["link"] == link
        assert kind == entry["type"] and (output["type"] == kind or kind == "*")


@pytest.mark.parametrize("path", CANVAS, ids=lambda path: path.stem)
def test_no_nodes_overlap_on_the_canvas(path: Path) -> None:
    boxes = [(*node["pos"], *node["size"]) for node in read(path)["nodes"]]
    for number, (x, y, width, height) in enumerate(boxes):
        for x2, y2, width2, height2 in boxes[:number]:
            apart = x + width <= x2 or x2 + width2 <= x or y + height <= y2 or y2 + height2 <= y
            assert apart


def test_both_formats_are_what_the_generator_writes(info: dict[str, Any]) -> None:
    for name, build in GRAPHS.items():
        assert read(FOLDER / f"{name}_api.json") == api_format(build(), info), "run tools.make_workflows"
        if (FOLDER / f"{name}.json").exists():
            shipped, made = read(FOLDER / f"{name}.json"), canvas_format(name, build(), info)
            for ours, node in zip(shipped["nodes"], made["nodes"], strict=True):
                added = node["outputs"][len(ours["outputs"]) :]
                assert not any(output["links"] for output in added)
                del node["outputs"][len(ours["outputs"]) :]
            assert shipped == made

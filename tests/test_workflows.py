"""The shipped graphs fit the nodes that a real server describes, and both formats say the same."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from culture_core.comfy.folders import PACK_MODELS
from tools.comfy_client import Workflow
from tools.comfy_server import PACK_NAME, ComfyServer
from tools.graphs import API_ONLY, GRAPHS, PUBLISHED
from tools.make_thumbnails import SIZE
from tools.make_workflows import API, FOLDER, PACK, VERSION, choices_of, files, inputs_of, is_widget, type_of

CANVAS_FILES, API_FILES = sorted(FOLDER.glob("*.json")), sorted(API.glob("*.json"))
FRONT_END_ONLY = {"MarkdownNote"}
ISSUED = {
    "amplify", "amplify_sd15", "amplify_sdxl", "amplify_sd35", "amplify_flux", "amplify_qwen_image",
    "amplify_z_image", "amplify_altdiffusion", "amplify_pea_diffusion", "blend", "sweep", "languages",
    "english", "enhance", "from_prompt", "probe", "train", "detect", "train_enhancer", "score",
}  # fmt: skip
"""Graphs that must be there."""
OWN_FILES = {
    "AltDiffusion-m9", "altdiffusion_m9_unet.safetensors", "altdiffusion_m9_vae.safetensors",
    "CLIP-ViT-H-14-frozen-xlm-roberta-large", "pea_sdxl.safetensors",
    *(f"{name.removeprefix('amplify_')}.safetensors" for name in GRAPHS if name.startswith("amplify_")),
}  # fmt: skip
"""Files that a user makes, converts or renames, as the graph's note says."""


@pytest.fixture(scope="module")
def info(server: ComfyServer) -> dict[str, Any]:
    return server.client().object_info()


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def widgets_of(described: dict[str, Any]) -> list[tuple[str, list]]:
    """Widgets in order; a seed brings the front end's own control behind it."""
    widgets = []
    for name, spec in inputs_of(described).items():
        if is_widget(spec):
            widgets.append((name, spec))
            if len(spec) > 1 and spec[1].get("control_after_generate"):
                widgets.append((f"{name} control", ["CONTROL"]))
    return widgets


def check_value(name: str, value: object, spec: list) -> None:
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if kind == "CONTROL":
        assert value in ("fixed", "randomize", "increment", "decrement")
    elif type_of(spec) == "COMBO":
        assert value in {*choices_of(spec), *PUBLISHED, *OWN_FILES}, f"{name}: {value} is not offered"
    elif kind in ("INT", "FLOAT"):
        assert options.get("min", value) <= value <= options.get("max", value), name
    else:
        assert isinstance(value, {"STRING": str, "BOOLEAN": bool}[kind]), name


def check_api_graph(workflow: Workflow, info: dict[str, Any]) -> None:
    for node in workflow.values():
        described = info[node["class_type"]]
        specs = inputs_of(described)
        assert set(described["input"].get("required", {})) <= set(node["inputs"]) <= set(specs)
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                source = info[workflow[value[0]]["class_type"]]
                assert source["output"][value[1]] == type_of(specs[name]) or specs[name][0] == "*"
            else:
                check_value(name, value, specs[name])


def notes(graph: dict[str, Any]) -> str:
    texts = [node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "MarkdownNote"]
    return "\n".join(texts)


def test_every_graph_that_was_asked_for_is_there_in_both_formats_and_nothing_else() -> None:
    assert ISSUED <= set(GRAPHS)
    assert {path.stem for path in CANVAS_FILES} == set(GRAPHS)
    assert {path.stem for path in API_FILES} == {*GRAPHS, *API_ONLY}


def test_the_template_browser_lists_every_canvas_graph_and_no_other(server: ComfyServer) -> None:
    listed = server.client()._json("/workflow_templates")[PACK_NAME]
    assert sorted(listed) == sorted(GRAPHS)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_has_a_thumbnail_that_the_template_browser_is_given(name: str, server: ComfyServer) -> None:
    # The front end asks for this address, with .jpg, for every graph of a pack.
    path = f"/api/workflow_templates/{PACK_NAME}/{name}.jpg"
    assert server.client()._request(path) == (FOLDER / f"{name}.jpg").read_bytes()
    picture = Image.open(FOLDER / f"{name}.jpg")
    assert picture.format == "JPEG" and picture.size == SIZE
    assert len(picture.convert("RGB").resize((96, 72)).getcolors(96 * 72)) > 100  # no empty card
    assert (FOLDER / f"{name}.jpg").stat().st_size < 60_000


@pytest.mark.parametrize("path", API_FILES, ids=lambda path: path.stem)
def test_an_api_graph_names_every_input_of_existing_nodes(path: Path, info: dict[str, Any]) -> None:
    check_api_graph(read(path), info)


def test_the_check_of_api_graphs_can_fail(info: dict[str, Any]) -> None:
    def spoil(title: str, **inputs: object) -> Workflow:
        workflow = read(API / "amplify.json")
        next(node for node in workflow.values() if node["_meta"]["title"] == title)["inputs"].update(inputs)
        return workflow

    for wrong in (
        spoil("Amplify", strength=13.0),
        spoil("Amplify", mode="boost"),
        spoil("Amplify", unknown=1),
        spoil("Amplify", clip=["3", 0]),
        spoil("VAE", vae_name="other.safetensors"),
    ):
        with pytest.raises(AssertionError):
            check_api_graph(wrong, info)


@pytest.mark.parametrize("path", CANVAS_FILES, ids=lambda path: path.stem)
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


@pytest.mark.parametrize("path", CANVAS_FILES, ids=lambda path: path.stem)
def test_a_canvas_graph_explains_itself(path: Path) -> None:
    graph = read(path)
    text = notes(graph)
    assert text.startswith("## ") and "**Turn**" in text
    assert "**Needs**" in text or "**Culture SAE**" in text
    values = {value for node in graph["nodes"] for value in node["widgets_values"] if isinstance(value, str)}
    for name in values & {*PUBLISHED, *OWN_FILES}:
        assert name in text, f"the note does not say where {name} goes"


@pytest.mark.parametrize("path", CANVAS_FILES, ids=lambda path: path.stem)
def test_every_node_says_which_pack_it_is_of_and_where_its_files_are(path: Path) -> None:
    for node in read(path)["nodes"]:
        if node["type"] in FRONT_END_ONLY:
            continue
        own = node["type"].startswith("Culture")
        expected = (PACK, VERSION) if own else ("comfy-core", "0.3.75")
        assert (node["properties"]["cnr_id"], node["properties"]["ver"]) == expected
        models = {model["name"]: model for model in node["properties"].get("models", [])}
        # The front end offers a file only where a widget of the node has its name.
        assert set(models) == {value for value in node["widgets_values"] if value in PUBLISHED}
        for name, model in models.items():
            assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith(f"/{name}")
            assert model["directory"] in ("checkpoints", "diffusion_models", "text_encoders", "vae")


@pytest.mark.parametrize("path", CANVAS_FILES, ids=lambda path: path.stem)
def test_no_nodes_overlap_and_each_stands_in_one_group(path: Path) -> None:
    graph = read(path)
    boxes = [(*node["pos"], *node["size"]) for node in graph["nodes"]]
    groups = [group["bounding"] for group in graph["groups"]]
    assert not any(overlap(*pair) for pair in [*combinations(boxes, 2), *combinations(groups, 2)])
    for node, box in zip(graph["nodes"], boxes, strict=True):
        around = [group for group in groups if overlap(group, box)]
        assert len(around) == (node["type"] not in FRONT_END_ONLY)
        assert all(inside(box, group) for group in around)


def overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def inside(a: tuple, b: tuple) -> bool:
    left, top, right, bottom = a[0] - b[0], a[1] - b[1], b[0] + b[2] - a[0] - a[2], b[1] + b[3] - a[1] - a[3]
    return min(left, right, bottom) >= 0 and top >= 30  # a node's title stands over its box


@pytest.mark.parametrize("path", CANVAS_FILES, ids=lambda path: path.stem)
def test_links_go_from_left_to_right(path: Path) -> None:
    graph = read(path)
    nodes = {node["id"]: node for node in graph["nodes"]}
    for _, source, _, target, *_ in graph["links"]:
        left, right = nodes[source]["pos"], nodes[target]["pos"]
        assert left[0] < right[0] or (left[0] == right[0] and left[1] < right[1]), nodes[target]["title"]


def test_both_formats_are_what_the_generator_writes(info: dict[str, Any]) -> None:
    for path, text in files(info).items():
        shipped, made = read(path), json.loads(text)
        for ours, node in zip(shipped.get("nodes", ()), made.get("nodes", ()), strict=True):
            # Newer versions of ComfyUI give nodes further outputs, which nothing is connected to.
            added = node["outputs"][len(ours["outputs"]) :]
            assert not any(output["links"] for output in added)
            del node["outputs"][len(ours["outputs"]) :]
        assert shipped == made, f"{path.name}: run tools.make_workflows"


def test_the_pairs_with_pictures_are_those_of_the_shipped_bench() -> None:
    pairs = (PACK_MODELS / "culture_pairs" / "miniature_pictures.jsonl").read_text("utf-8").splitlines()
    records = (PACK_MODELS / "culture_bench" / "miniature" / "records.jsonl").read_text("utf-8").splitlines()
    images = {record["image"] for record in map(json.loads, records) if record["split"] == "train"}
    assert {pair["image"] for pair in map(json.loads, pairs)} == images

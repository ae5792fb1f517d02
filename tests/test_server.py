"""The pack in a real ComfyUI server over HTTP: the shipped graphs, and every kind of bad input."""

import io
import json
import shutil
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from culture_core.enhancer import LayerEnhancer
from culture_core.files import (
    CultureSAE,
    EnhancerFile,
    load_culture_sae,
    load_enhancer,
    save_culture_sae,
    save_enhancer,
)
from culture_core.neurons import CultureNeurons
from culture_core.pairs import load_pairs, save_pairs
from culture_core.sae import TopKSAE
from culture_core.sheets import GAP
from tools.comfy_client import ComfyClient, Progress, Result, Workflow, WorkflowError, find_node, set_inputs
from tools.comfy_server import ComfyServer

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows" / "api"
PAIRS = WORKFLOWS.parents[1] / "models" / "culture_pairs" / "miniature.jsonl"
BENCH_IMAGES = WORKFLOWS.parents[1] / "models" / "culture_bench" / "miniature" / "images"
E5 = {"family": "bert", "layers": 12, "width": 384, "heads": 12, "vocabulary": 250037, "weights": [0.5]}
SIZES = (384, 64, 8)


@pytest.fixture(scope="module")
def client(server: ComfyServer) -> ComfyClient:
    return server.client()


def workflow(name: str) -> Workflow:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def pictures(client: ComfyClient, graph: Workflow, result: Result) -> dict[str, np.ndarray]:
    """Pixels by the title of the node that saved them."""
    files = client.images(result)
    pixels = {node: np.asarray(Image.open(io.BytesIO(data[0]))) for node, data in files.items()}
    return {graph[node]["_meta"]["title"]: picture for node, picture in pixels.items()}


def small(graph: Workflow) -> Workflow:
    """Two sampling steps are enough to compare pictures."""
    for node in graph.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 2
    return graph


def neurons() -> CultureNeurons:
    ones = torch.ones(4)
    return CultureNeurons(torch.arange(4), ones, ones, ones, ones * 0)


def good_sae() -> CultureSAE:
    return CultureSAE(TopKSAE(*SIZES), 11, "hidden_state", E5, {"ja": neurons()})


# ------------------------------------------------------------------------------------------------ shipped
# graphs


@pytest.mark.parametrize(
    ("name", "changed", "dial"), [("amplify", "Amplified", "Amplify"), ("enhance", "Enhanced", "Enhance")]
)
def test_the_graph_runs_and_strength_zero_gives_the_very_same_picture(
    client: ComfyClient, name: str, changed: str, dial: str
) -> None:
    graph = small(workflow(name))
    shown = pictures(client, graph, client.run(graph))
    assert shown["As it is"].shape == (64, 64, 3) and shown["As it is"].std() > 0
    assert not np.array_equal(shown["As it is"], shown[changed])
    set_inputs(graph, dial, strength=0.0)
    neutral = pictures(client, graph, client.run(graph))
    assert np.array_equal(neutral[changed], shown["As it is"])


def test_the_probe_graph_gives_a_layer_a_picture_and_a_report(client: ComfyClient) -> None:
    graph = workflow("probe")
    set_inputs(graph, "Probe", max_pairs=6)
    steps: list[Progress] = []
    result = client.run(graph, on_progress=steps.append)
    report = result.outputs[find_node(graph, "Report")]["text"][0]
    assert "Key layer:" in report and "Why:" in report and report.count("\n") > 12
    assert pictures(client, graph, result)["Curves"].shape == (800, 800, 3)
    assert any(step.node == "Probe" and step.steps for step in steps)


def test_a_probe_of_each_language_gives_a_picture_each_and_none_without(client: ComfyClient) -> None:
    graph = workflow("probe")
    graph["each"] = {"class_type": "SaveImage", "inputs": {
        "images": [find_node(graph, "Probe"), 3], "filename_prefix": "culture/language",
    }}  # fmt: skip
    set_inputs(graph, "Prompt pairs", file="few.jsonl")
    assert "each" not in client.run(graph).outputs
    set_inputs(graph, "Probe", per_language=True)
    assert len(client.images(client.run(graph))["each"]) == 3


def test_the_demo_graph_makes_four_different_pictures(client: ComfyClient) -> None:
    graph = small(workflow("demo"))
    shown = pictures(client, graph, client.run(graph))
    assert sorted(shown) == ["Amplified", "Enhanced", "Explicit", "Neutral"]
    assert len({picture.tobytes() for picture in shown.values()}) == 4


def test_a_schedule_of_one_strength_paints_what_that_strength_paints(client: ComfyClient) -> None:
    graph = small(workflow("amplify"))
    node = graph[find_node(graph, "Encode amplified")]
    sources = {name: graph[find_node(graph, "Amplify")]["inputs"][name] for name in ("clip", "culture_sae")}
    painted = [pictures(client, graph, client.run(graph))["Amplified"]]
    how = {"culture": "ja", "ramp": 0, "mode": "inject", "tokens": "content", "words": ""}
    node["class_type"] = "CultureEncodeSchedule"
    for schedule in ("0: 2", "0: 2, 0.5: 0", "0: 0"):
        node["inputs"] = {"text": node["inputs"]["text"], "schedule": schedule} | sources | how
        shown = pictures(client, graph, client.run(graph))
        painted.append(shown["Amplified"])
    assert np.array_equal(painted[0], painted[1]) and np.array_equal(painted[3], shown["As it is"])
    assert len({picture.tobytes() for picture in painted}) == 3


def test_a_culture_may_be_given_by_its_code(client: ComfyClient) -> None:
    graph = small(workflow("amplify"))
    by_label = pictures(client, graph, client.run(graph))
    set_inputs(graph, "Amplify", culture="ja")
    by_code = pictures(client, graph, client.run(graph))
    assert np.array_equal(by_label["Amplified"], by_code["Amplified"])


def test_an_empty_prompt_is_encoded_as_it_is(client: ComfyClient) -> None:
    graph = small(workflow("amplify"))
    set_inputs(graph, "Prompt", value="")
    shown = pictures(client, graph, client.run(graph))
    assert np.array_equal(shown["As it is"], shown["Amplified"])


def test_a_probe_can_be_interrupted_and_the_server_goes_on(client: ComfyClient) -> None:
    graph = workflow("probe")
    set_inputs(graph, "Probe", max_pairs=1000)

    def stop(progress: Progress) -> None:
        if progress.node == "Probe" and progress.step:
            client.interrupt()

    with pytest.raises(WorkflowError, match="interrupted"):
        client.run(graph, on_progress=stop)
    assert client.object_info("CultureProbeLayer")


# ------------------------------------------------------------------------------------- training, comparing

TRAIN = {"steps": 60, "latents": 128, "k": 8, "batch_size": 16, "layer": 11, "checkpoint": ""}


@pytest.fixture(scope="module", autouse=True)
def few_pairs(server: ComfyServer) -> None:
    """A file of four pairs of three cultures: enough to train and detect in a second."""
    every = load_pairs(PAIRS)
    chosen = [[pair for pair in every if pair.culture == code][:4] for code in ("de", "ja", "th")]
    save_pairs(sum(chosen, []), server.base / "models" / "culture_pairs" / "few.jsonl")


def training(**settings: object) -> Workflow:
    graph = workflow("train")
    set_inputs(graph, "Prompt pairs", file="few.jsonl")
    set_inputs(graph, "Train", **(TRAIN | settings))
    return graph


def saved_path(graph: Workflow, result: Result) -> Path:
    return Path(result.outputs[find_node(graph, "Save")]["text"][0])


def test_the_training_graph_gives_a_file_that_loads_and_amplifies(
    client: ComfyClient, server: ComfyServer
) -> None:
    graph = training()
    set_inputs(graph, "Save", filename_prefix="first/try", author="Ada")
    result = client.run(graph)
    path = saved_path(graph, result)
    assert path == server.base / "output" / "culture_sae" / "first" / "try_00001_.safetensors"
    shown = pictures(client, graph, result)
    assert shown["Loss"].shape == (480, 800, 3) and shown["Neurons"].std() > 0
    report = result.outputs[find_node(graph, "Detection report")]["text"][0]
    assert "Thai (th)" in report and load_culture_sae(path).author == "Ada"
    painting = small(workflow("amplify"))
    set_inputs(painting, "Culture SAE", file=str(Path("first") / "try_00001_.safetensors"))
    set_inputs(painting, "Amplify", strength=6.0)
    painted = pictures(client, painting, client.run(painting))
    assert not np.array_equal(painted["As it is"], painted["Amplified"])


def test_a_training_that_was_cancelled_goes_on_to_the_same_file(
    client: ComfyClient, server: ComfyServer
) -> None:
    long = training(steps=1500, checkpoint="half")
    kept = server.base / "output" / "culture_checkpoints" / "half.safetensors"

    def stop(progress: Progress) -> None:
        if progress.node == "Train" and progress.steps and progress.step > progress.steps - 1400:
            client.interrupt()

    with pytest.raises(WorkflowError, match="interrupted in node .*Train"):
        client.run(long, on_progress=stop)
    assert kept.is_file() and f"kept in {kept}" in server.log()
    resumed = client.run(long)
    assert "come from the checkpoint" in resumed.outputs[find_node(long, "Training report")]["text"][0]
    assert not kept.exists()
    # Another name is another node to ComfyUI's cache, and to the training nothing.
    undisturbed = training(steps=1500, checkpoint="other")
    files = [saved_path(long, resumed), saved_path(undisturbed, client.run(undisturbed))]
    first, second = map(load_file, files)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_loss_is_drawn_on_the_node_while_it_trains(client: ComfyClient) -> None:
    from websocket import create_connection

    socket = create_connection(client.url.replace("http", "ws", 1) + f"/ws?clientId={client.client_id}")
    prompt = client.queue(training(seed=1))
    previews = []
    try:
        while True:
            message = socket.recv()
            if isinstance(message, bytes):
                previews.append(message)
            elif (data := json.loads(message))["type"] == "executing" and data["data"]["node"] is None:
                break
    finally:
        socket.close()
    assert client.history(prompt)["status"]["status_str"] == "success" and previews
    # Four bytes name the kind of message, four that of the picture.
    assert Image.open(io.BytesIO(previews[0][8:])).size == (800, 480)


def test_the_sweep_graph_gives_one_sheet_with_a_picture_a_strength(client: ComfyClient) -> None:
    graph = small(workflow("sweep"))
    set_inputs(graph, "Strengths", values="0, 2, 6")
    result = client.run(graph)
    assert len(client.images(result)[find_node(graph, "Sheet")]) == 1
    sheet = pictures(client, graph, result)["Sheet"]
    room = (sheet.shape[1] - GAP) // 3
    lefts = [GAP + index * room + (room - GAP - 64) // 2 for index in range(3)]
    plain = small(workflow("amplify"))
    expected = pictures(client, plain, client.run(plain))
    # Columns that a picture fills have no paper in them.
    filled = (sheet.min(axis=-1) < 250).sum(axis=0)
    assert all(filled[left : left + 64].min() > 32 for left in lefts)
    top = next(
        y for y in range(sheet.shape[0]) if np.array_equal(expected["As it is"], cell(sheet, lefts[0], y))
    )
    found = [cell(sheet, left, top) for left in lefts]
    assert np.array_equal(found[1], expected["Amplified"])  # whose strength is 2
    assert not np.array_equal(found[1], found[2])


def cell(sheet: np.ndarray, left: int, top: int) -> np.ndarray:
    return sheet[top : top + 64, left : left + 64]


def test_a_sweep_fans_out_what_stands_behind_it_once_a_strength(client: ComfyClient) -> None:
    graph = small(workflow("sweep"))
    set_inputs(graph, "Strengths", start=0.0, stop=1.0, steps=4)
    graph["show"] = {"class_type": "SaveImage", "inputs": {
        "images": [find_node(graph, "Decode picture"), 0], "filename_prefix": "culture/each",
    }}  # fmt: skip
    assert len(client.images(client.run(graph))["show"]) == 4


@pytest.mark.parametrize(
    ("title", "inputs", "message"),
    [
        ("Train", {"checkpoint": "../../x"}, "no plain file name"),
        ("Train", {"layer": 12}, "Layer 12 cannot be used.*layers 0 to 11"),
        ("Train", {"k": 300}, "k=300"),
        ("Train", {"encoder": "clip_g"}, "no encoder clip_g: it has multilingual_e5"),
        ("Detect", {"contrast": "median"}, "median"),
        ("Save", {"filename_prefix": "../x"}, "stays inside the output folder"),
        ("Prompt pairs", {"file": "no-such.jsonl"}, "no-such.jsonl"),
    ],
)
def test_a_training_graph_with_a_bad_value_says_what_is_wrong(
    client: ComfyClient, title: str, inputs: dict, message: str
) -> None:
    graph = training()
    set_inputs(graph, title, **inputs)
    with pytest.raises(WorkflowError, match=f"(?s){title}.*{message}"):
        client.run(graph)


def test_a_list_of_strengths_that_are_no_numbers_is_refused(client: ComfyClient) -> None:
    graph = small(workflow("sweep"))
    set_inputs(graph, "Strengths", values="0, much")
    with pytest.raises(WorkflowError, match="Strengths.*'much' is no number"):
        client.run(graph)


def test_a_checked_text_may_come_from_another_node(client: ComfyClient) -> None:
    graph = small(workflow("sweep"))
    graph["list"] = {"class_type": "PrimitiveString", "inputs": {"value": "0, much"}}
    set_inputs(graph, "Strengths", values=["list", 0])
    with pytest.raises(WorkflowError, match="Strengths.*failed.*'much' is no number"):
        client.run(graph)


# --------------------------------------------------------------------------------------------------- bad
# input


def amplify_only(file: str, culture: str = "ja", **inputs: object) -> Workflow:
    """Load a file, amplify, and nothing else."""
    dial = {"culture": culture, "strength": 2.0, "mode": "inject", "tokens": "content", "words": ""} | inputs
    return {
        "1": {"class_type": "CultureLoadTextEncoder", "inputs": {"folder": "multilingual-e5-small"}},
        "2": {"class_type": "CultureLoadSAE", "inputs": {"file": file}},
        "3": {
            "class_type": "CultureAmplifyNeurons",
            "inputs": dial | {"clip": ["1", 0], "culture_sae": ["2", 0]},
        },
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}},
    }


def rewrite(
    path: Path, metadata: dict[str, str] | None = None, tensors: dict[str, torch.Tensor] | None = None
) -> None:
    """Change a file behind the back of the code that checks what it writes."""
    with safe_open(path, framework="pt") as file:
        kept = file.metadata()
    save_file(load_file(path) | (tensors or {}), path, kept | (metadata or {}))


def truncated(path: Path) -> None:
    save_culture_sae(good_sae(), path)
    path.write_bytes(path.read_bytes()[:5000])


def corrupt(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 20)


def of_the_wrong_kind(path: Path) -> None:
    save_enhancer(EnhancerFile(LayerEnhancer(384, 4), 11, E5), path)


def of_a_newer_version(path: Path) -> None:
    save_culture_sae(good_sae(), path)
    rewrite(path, metadata={"format_version": "99"})


def with_nan_weights(path: Path) -> None:
    save_culture_sae(good_sae(), path)
    rewrite(path, tensors={"W_enc": torch.full((SIZES[1], SIZES[0]), float("nan"))})


def for_another_encoder(path: Path) -> None:
    other = {**E5, "family": "clip", "width": 64, "layers": 12}
    save_culture_sae(replace(good_sae(), sae=TopKSAE(64, 64, 8), encoder=other), path)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncated, "truncated"),
    "corrupt": (corrupt, "damaged"),
    "wrong-kind": (of_the_wrong_kind, "not a culture SAE"),
    "newer-version": (of_a_newer_version, "update"),
    "nan-weights": (with_nan_weights, "NaN"),
    "wrong-encoder": (for_another_encoder, "another text encoder"),
}


@pytest.fixture(scope="module")
def sae_folder(server: ComfyServer) -> Path:
    folder = server.base / "models" / "culture_sae"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def works(client: ComfyClient, sae_folder: Path) -> Callable[[], Result]:
    """Run a good file; proves that the server is still fine."""
    save_culture_sae(good_sae(), sae_folder / "good.safetensors", overwrite=True)
    return lambda: client.run(amplify_only("good.safetensors"))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_with_what_to_do_and_the_server_goes_on(
    name: str, client: ComfyClient, sae_folder: Path, works: Callable[[], Result]
) -> None:
    write, message = BAD[name]
    write(sae_folder / f"{name}.safetensors")
    with pytest.raises(WorkflowError, match=f"(?s){name}.safetensors.*{message}"):
        client.run(amplify_only(f"{name}.safetensors"))
    works()


def test_the_error_is_in_the_history(client: ComfyClient, sae_folder: Path) -> None:
    corrupt(sae_folder / "history.safetensors")
    prompt = client.queue(amplify_only("history.safetensors"))
    while not client.history(prompt):
        pass
    status = client.history(prompt)["status"]
    assert status["status_str"] == "error" and "history.safetensors" in json.dumps(status["messages"])


def test_an_enhancer_file_in_the_wrong_folder_is_refused(client: ComfyClient, server: ComfyServer) -> None:
    folder = server.base / "models" / "culture_enhancer"
    folder.mkdir(parents=True, exist_ok=True)
    save_culture_sae(good_sae(), folder / "an-sae.safetensors", overwrite=True)
    graph = {
        "1": {"class_type": "CultureLoadEnhancer", "inputs": {"file": "an-sae.safetensors"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    with pytest.raises(WorkflowError, match=r"an-sae\.safetensors.*not a layer enhancer"):
        client.run(graph)


def test_broken_pairs_are_named_with_the_line(client: ComfyClient, server: ComfyServer) -> None:
    folder = server.base / "models" / "culture_pairs"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "broken.jsonl").write_text("\n{not json}\n")
    graph = {
        "1": {"class_type": "CultureLoadPairs", "inputs": {"file": "broken.jsonl"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    with pytest.raises(WorkflowError, match=r"broken\.jsonl, line 2"):
        client.run(graph)


def test_an_unknown_culture_is_refused_with_the_known_ones(
    client: ComfyClient, works: Callable[[], Result]
) -> None:
    with pytest.raises(WorkflowError, match=r"Unknown culture 'xx'.*Japanese \(ja\)"):
        client.run(amplify_only("good.safetensors", culture="xx"))
    works()


def test_a_culture_that_the_file_lacks_is_named_with_those_it_has(
    client: ComfyClient, works: Callable[[], Result]
) -> None:
    works()
    with pytest.raises(WorkflowError, match=r"good\.safetensors.*'de'.*ja"):
        client.run(amplify_only("good.safetensors", culture="German (de)"))


@pytest.mark.parametrize(
    "inputs", [{"strength": 12.5}, {"strength": -1.5}, {"mode": "boost"}, {"tokens": "some"}]
)
def test_a_value_that_the_widget_does_not_offer_is_refused(
    client: ComfyClient, works: Callable[[], Result], inputs: dict
) -> None:
    works()
    with pytest.raises(WorkflowError, match=str(next(iter(inputs.values())))):
        client.run(amplify_only("good.safetensors", **inputs))


def test_a_file_that_is_not_there_is_refused(client: ComfyClient) -> None:
    for name in ("no-such-file.safetensors", "../../../server.log"):
        with pytest.raises(WorkflowError, match=r"is not there: put it into .*culture_sae"):
            client.run(amplify_only(name))


def test_a_changed_file_is_loaded_again_and_an_unchanged_one_is_not(
    client: ComfyClient, sae_folder: Path
) -> None:
    path = sae_folder / "changing.safetensors"
    save_culture_sae(good_sae(), path)
    graph = amplify_only(path.name)
    client.run(graph)
    assert "2" in client.run(graph).cached
    save_culture_sae(replace(good_sae(), description="changed"), path, overwrite=True)
    assert "2" not in client.run(graph).cached


def test_the_packs_models_are_offered_by_the_stock_loaders(client: ComfyClient) -> None:
    offered = client.object_info("UNETLoader")["UNETLoader"]["input"]["required"]["unet_name"][0]
    assert "culture_miniature.safetensors" in offered


# ---------------------------------------------------------------------------------- graphs of other machines


def refusal(client: ComfyClient, graph: Workflow, canvas: dict | None = None) -> str:
    """What the server says when the graph is queued, from a canvas if given; nothing of it runs."""
    body = {"prompt": graph, "client_id": client.client_id}
    if canvas is not None:
        body["extra_data"] = {"extra_pnginfo": {"workflow": canvas}}
    with pytest.raises(urllib.error.HTTPError) as refused:
        client._json("/prompt", body)
    answer = json.loads(refused.value.read())
    problems = [error for node in answer["node_errors"].values() for error in node["errors"]]
    return "\n".join(f"{error['message']}: {error['details']}" for error in problems)


def canvas(version: str, **models: str) -> dict:
    """A canvas as the front end sends it along: made with a version of the pack, naming where files are."""
    named = [{"name": f"{name}.safetensors", "url": url} for name, url in models.items()]
    properties = {"cnr_id": "culture-amplifier", "ver": version, "models": named}
    return {"nodes": [{"id": 2, "type": "CultureLoadSAE", "properties": properties}]}


@pytest.mark.parametrize(
    ("kind", "file", "folder"),
    [
        ("CultureLoadSAE", "theirs.safetensors", "culture_sae"),
        ("CultureLoadEnhancer", "theirs.safetensors", "culture_enhancer"),
        ("CultureLoadPairs", "theirs.jsonl", "culture_pairs"),
    ],
)
def test_a_missing_file_is_told_when_the_graph_is_queued(
    client: ComfyClient, server: ComfyServer, kind: str, file: str, folder: str
) -> None:
    graph = {
        "1": {"class_type": kind, "inputs": {"file": file}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    message = refusal(client, graph)
    place = server.base / "models" / folder
    assert f"'{file}' is not there: put it into {place}" in message and "press R" in message
    assert "The workflow does not say where to get it: ask whoever made it" in message


def test_a_missing_text_encoder_and_adapter_are_told_when_the_graph_is_queued(client: ComfyClient) -> None:
    graph = amplify_only("miniature.safetensors")
    graph["1"]["inputs"]["folder"] = "their-encoder"
    assert "There is no folder 'their-encoder' with a text encoder in" in refusal(client, graph)
    graph["1"]["inputs"] |= {"folder": "multilingual-e5-small", "adapter": "theirs.safetensors"}
    assert "'theirs.safetensors' is not there: put it into" in refusal(client, graph)


def test_the_address_of_a_missing_file_that_the_workflow_names_is_told(client: ComfyClient) -> None:
    address = "https://example.org/theirs.safetensors"
    graph = amplify_only("theirs.safetensors")
    message = refusal(client, graph, canvas("0.1.0", theirs=address))
    assert f"The workflow says where to get it: {address}" in message
    # Of the next request, which names none, nothing is left.
    assert address not in refusal(client, graph)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"warmth": 0.5}, "has an input 'warmth' that is not known here"),
        ({"mode": "boost"}, "mode 'boost' is none of inject, scale"),
        ({"tokens": "verbs"}, "tokens 'verbs' is none of content"),
    ],
)
def test_a_graph_of_a_newer_version_says_to_update(
    client: ComfyClient, works: Callable[[], Result], changed: dict, said: str
) -> None:
    works()
    graph = amplify_only("good.safetensors", **changed)
    message = refusal(client, graph)
    assert said in message and "was probably made with a newer Culture Amplifier" in message
    message = refusal(client, graph, canvas("99.1.0"))
    assert said in message and "was made with Culture Amplifier 99.1.0, newer than this one" in message
    assert "update the pack" in message and "restart ComfyUI" in message
    works()


def test_a_newer_graph_that_asks_for_nothing_new_runs(
    client: ComfyClient, works: Callable[[], Result]
) -> None:
    works()
    body = {"prompt": amplify_only("good.safetensors"), "client_id": client.client_id}
    body["extra_data"] = {"extra_pnginfo": {"workflow": canvas("99.1.0")}}
    prompt = client._json("/prompt", body)["prompt_id"]
    while not client.history(prompt):
        pass
    assert client.history(prompt)["status"]["status_str"] == "success"


@pytest.mark.parametrize(
    "strange", [[], {"nodes": [1, {"properties": 3}]}, {"nodes": {}}, "x", {"nodes": [{}]}]
)
def test_a_canvas_of_a_strange_shape_harms_nothing(client: ComfyClient, strange: object) -> None:
    graph = amplify_only("theirs.safetensors", warmth=1)
    assert "theirs.safetensors' is not there" in refusal(client, graph, strange)


def test_a_node_that_only_a_newer_version_has_is_named(client: ComfyClient) -> None:
    graph = amplify_only("miniature.safetensors")
    graph["3"]["class_type"] = "CultureOfTomorrow"
    with pytest.raises(WorkflowError, match="CultureOfTomorrow"):
        client.run(graph)


def test_a_prompt_list_draws_once_for_each_line(client: ComfyClient) -> None:
    graph = small(workflow("languages"))
    set_inputs(graph, "Languages", prompts="teapot\n\n急須\nTeekanne")
    result = client.run(graph)
    assert sorted(pictures(client, graph, result)) == ["Sheet as it is", "Sheet enhanced"]
    graph["show"] = {"class_type": "SaveImage", "inputs": {
        "images": [find_node(graph, "Decode enhanced"), 0], "filename_prefix": "culture/each",
    }}  # fmt: skip
    assert len(client.images(client.run(graph))["show"]) == 3
    set_inputs(graph, "Languages", prompts=" \n ")
    with pytest.raises(WorkflowError, match="holds 0 prompts: write 1 to 100, one a line"):
        client.run(graph)


@pytest.mark.parametrize(
    ("name", "titles"),
    [("blend", ["As it is", "Both", "First"]), ("english", ["As it is", "Italian", "Japanese", "Thai"])],
)
def test_a_graph_of_several_treatments_gives_as_many_pictures(
    client: ComfyClient, name: str, titles: list[str]
) -> None:
    graph = small(workflow(name))
    shown = pictures(client, graph, client.run(graph))
    assert sorted(shown) == titles and len({picture.tobytes() for picture in shown.values()}) == len(titles)


def test_the_detection_graph_adds_cultures_to_a_file_that_exists(client: ComfyClient) -> None:
    graph = workflow("detect")
    set_inputs(graph, "Prompt pairs", file="few.jsonl")
    result = client.run(graph)
    found = load_culture_sae(saved_path(graph, result))
    assert len(found.cultures) == 15 and pictures(client, graph, result)["Neurons"].std() > 0


def test_the_enhancer_training_graph_gives_a_file(client: ComfyClient, server: ComfyServer) -> None:
    shutil.copytree(BENCH_IMAGES, server.base / "input" / "culture_miniature" / "images", dirs_exist_ok=True)
    graph = workflow("train_enhancer")
    every = load_pairs(PAIRS.with_name("miniature_pictures.jsonl"))
    save_pairs(every[::50], server.base / "models" / "culture_pairs" / "few_pictures.jsonl")
    set_inputs(graph, "Prompt pairs", file="few_pictures.jsonl")
    set_inputs(graph, "Train", steps=2, checkpoint="")
    result = client.run(graph)
    assert load_enhancer(saved_path(graph, result)).layer == 9
    assert pictures(client, graph, result)["Loss"].std() > 0

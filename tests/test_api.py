"""Without a browser: plain HTTP and comfy-cli, and every node's failure with its reason."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image

from culture_core.enhancer import LayerEnhancer
from culture_core.files import CultureSAE, EnhancerFile, Strengths, save_culture_sae, save_enhancer
from culture_core.neurons import CultureNeurons
from culture_core.pairs import load_pairs, save_pairs
from culture_core.sae import TopKSAE
from tools.comfy_server import ComfyServer

ROOT = Path(__file__).resolve().parent.parent
E5 = {"family": "bert", "layers": 12, "width": 384, "heads": 12, "vocabulary": 250037, "weights": [0.5]}
OTHER = {**E5, "family": "clip", "width": 64}
PAGE = (ROOT / "docs" / "API.md").read_text(encoding="utf-8")
Graph = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def files(server: ComfyServer) -> None:
    """Good and bad files in the server's model folders."""
    models = server.base / "models"
    ones = torch.ones(2)
    neurons = {"ja": CultureNeurons(torch.arange(2), ones, ones, ones, ones * 0)}
    for name, width, encoder in (("api-good", 384, E5), ("api-other", 64, OTHER)):
        sae = CultureSAE(TopKSAE(width, 64, 8), 11, "hidden_state", encoder, neurons)
        sae.strengths = {"ja": Strengths(1.5, 2.0)}
        save_culture_sae(sae, models / "culture_sae" / f"{name}.safetensors", overwrite=True)
        enhancer = EnhancerFile(LayerEnhancer(width, 4), 11, encoder)
        save_enhancer(enhancer, models / "culture_enhancer" / f"{name}.safetensors", overwrite=True)
    for kind in ("culture_sae", "culture_enhancer"):
        (models / kind / "api-damaged.safetensors").write_bytes(bytes(range(256)) * 20)
    (models / "text_encoders" / "api-empty").mkdir(parents=True, exist_ok=True)
    (models / "text_encoders" / "api-empty" / "config.json").write_text("{")
    (models / "culture_pairs").mkdir(exist_ok=True)
    (models / "culture_pairs" / "api-broken.jsonl").write_text("\n{not json}\n")
    few = load_pairs(ROOT / "models" / "culture_pairs" / "miniature.jsonl")[:4]
    save_pairs(few, models / "culture_pairs" / "api-few.jsonl")


# ------------------------------------------------------------------------------------- every node's failure


class Failure(NamedTuple):
    """What the server says of a graph that it cannot run."""

    ran: bool
    """Whether it failed while running (in the history), or was refused before (in the answer)."""
    node: str
    kind: str
    """Class of the node."""
    reason: str


def ask(server: ComfyServer, route: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + route, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def failure(server: ComfyServer, graph: Graph) -> Failure:
    try:
        job = ask(server, "/prompt", {"prompt": graph})["prompt_id"]
    except urllib.error.HTTPError as refused:
        assert refused.code == 400
        ((node, told),) = json.load(refused)["node_errors"].items()
        reasons = [f"{one['message']} {one['details']}" for one in told["errors"]]
        return Failure(False, node, told["class_type"], "\n".join(reasons))
    record = finished(server, job)
    assert record["status"]["status_str"] == "error", "the graph ran"
    (told,) = (told for kind, told in record["status"]["messages"] if kind == "execution_error")
    return Failure(True, told["node_id"], told["node_type"], told["exception_message"])


def finished(server: ComfyServer, job: str) -> dict:
    deadline = time.monotonic() + 120
    while not (found := ask(server, f"/history/{job}")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found[job]


GOOD: Graph = {
    "clip": {"class_type": "CultureLoadTextEncoder", "inputs": {"folder": "multilingual-e5-small"}},
    "sae": {"class_type": "CultureLoadSAE", "inputs": {"file": "api-good.safetensors"}},
    "other sae": {"class_type": "CultureLoadSAE", "inputs": {"file": "api-other.safetensors"}},
    "enhancer": {"class_type": "CultureLoadEnhancer", "inputs": {"file": "api-good.safetensors"}},
    "other enhancer": {"class_type": "CultureLoadEnhancer", "inputs": {"file": "api-other.safetensors"}},
    "pairs": {"class_type": "CultureLoadPairs", "inputs": {"file": "api-few.jsonl"}},
    "image": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 2, "color": 0}},
    "model": {"class_type": "UNETLoader", "inputs": {
        "unet_name": "culture_miniature.safetensors", "weight_dtype": "default",
    }},
    "vae": {"class_type": "VAELoader", "inputs": {"vae_name": "culture_miniature_vae.safetensors"}},
}  # fmt: skip
"""Nodes that work; a case's inputs refer to them by name."""
HOW = {"mode": "inject", "tokens": "content", "words": ""}
AMPLIFY = {"clip": "clip", "culture_sae": "sae", "culture": "ja", "strength": 1.0, **HOW}
SCHEDULE = {
    "clip": "clip",
    "culture_sae": "sae",
    "culture": "ja",
    "text": "",
    "schedule": "0: 1",
    "ramp": 0,
    **HOW,
}
SWEEP = {"start": 0.0, "stop": 1.0, "steps": 2, "values": "", "label": ""}
PROBE = {
    "clip": "clip", "culture_pairs": "pairs", "max_pairs": 4, "direction": "auto", "reference": "context",
    "encoder": "",
}  # fmt: skip
TRAIN = {
    "clip": "clip", "culture_pairs": "pairs", "layer": 11, "feature": "hidden_state", "latents": 64, "k": 4,
    "steps": 5, "batch_size": 8, "learning_rate": 0.001, "seed": 0, "checkpoint": "", "encoder": "",
}  # fmt: skip
DETECT = {
    "clip": "clip",
    "culture_sae": "sae",
    "culture_pairs": "pairs",
    "contrast": "mean",
    "count": 0,
    "tau": 0.5,
    "by_effect": False,
}
ENHANCER = {
    "model": "model", "vae": "vae", "clip": "clip", "culture_pairs": "pairs", "pictures": "", "layer": 11,
    "loss": "latent", "size": 64, "bottleneck": 8, "steps": 1, "accumulate": 1, "learning_rate": 0.001,
    "ema": 0.0, "seed": 0, "checkpoint": "", "encoder": "",
}  # fmt: skip
APPLY = {"clip": "clip", "culture_enhancer": "enhancer", "strength": 1.0}
GRID = {"images": "image", "labels": "", "columns": 0, "title": ""}
SAVE = {"filename_prefix": "api", "author": "", "licence": "", "description": ""}
SCORE = {"images": "image", "culture": "ja", "judge": "miniature"}
REFUSED, RAN, EITHER = False, True, None
"""What is no choice is refused by newer versions of ComfyUI, and by the node in older ones."""
PROMPTS = {"prompts": "house\nbridge"}
FROM_PROMPT = {"text": "dom", "threshold": 0.1, "override": "auto", "when_unsure": "off"}
CASES = [
    ("CultureLoadTextEncoder", {"folder": "no-such"}, {}, REFUSED, "no-such"),
    ("CultureLoadTextEncoder", {"folder": "api-empty"}, {}, RAN, "api-empty"),
    ("CultureLoadSAE", {"file": "api-damaged.safetensors"}, {}, RAN, "api-damaged.*damaged"),
    ("CultureLoadSAE", {"file": "no-such.safetensors"}, {}, REFUSED, "is not there: put .*culture_sae"),
    ("CultureAmplifyNeurons", AMPLIFY, {"strength": 13}, REFUSED, "12"),
    ("CultureAmplifyNeurons", AMPLIFY, {"mode": "boost"}, EITHER, "boost"),
    ("CultureAmplifyNeurons", AMPLIFY, {"culture": "xx"}, REFUSED, "Unknown culture 'xx'"),
    ("CultureAmplifyNeurons", AMPLIFY, {"culture_sae": "enhancer"}, REFUSED, "CULTURE_ENHANCER"),
    ("CultureAmplifyNeurons", AMPLIFY, {"culture_sae": "other sae"}, RAN, "another text encoder"),
    ("CultureAmplifyNeurons", AMPLIFY, {"culture": "de"}, RAN, "has no culture 'de'; it has ja"),
    ("CultureAmplifyNeurons", AMPLIFY, {"encoders": "clip_g"}, RAN, "no encoder clip_g"),
    ("CultureFromPrompt", FROM_PROMPT, {"text": "casa", "when_unsure": "stop"}, RAN, "casa|unclear|language"),
    ("CultureFromPrompt", FROM_PROMPT, {"override": "xx"}, REFUSED, "'xx' is none of auto"),
    ("CulturePromptList", PROMPTS, {"prompts": ""}, REFUSED, "prompt"),
    ("CultureModifier", {"text": "house", "culture": "it", "language": "own"}, {"culture": "xx"}, REFUSED,
     "Unknown culture 'xx'"),
    ("CultureEncodeSchedule", SCHEDULE, {"schedule": "soon"}, REFUSED, "'share: strength'"),
    ("CultureEncodeSchedule", SCHEDULE, {"schedule": "0: 99"}, REFUSED, "out of range"),
    ("CultureEncodeSchedule", SCHEDULE, {"culture": "de"}, RAN, "has no culture 'de'"),
    ("CultureLoadEnhancer", {"file": "api-damaged.safetensors"}, {}, RAN, "api-damaged.*damaged"),
    ("CultureApplyEnhancer", APPLY, {"strength": 5}, REFUSED, "4"),
    ("CultureApplyEnhancer", APPLY, {"culture_enhancer": "other enhancer"}, RAN, "another text encoder"),
    ("CultureLoadPairs", {"file": "api-broken.jsonl"}, {}, RAN, r"api-broken\.jsonl, line 2"),
    ("CultureProbeLayer", PROBE, {"max_pairs": 1}, REFUSED, "2"),
    ("CultureProbeLayer", PROBE, {"encoder": "clip_g"}, RAN, "no encoder clip_g: it has multilingual_e5"),
    ("CultureTrainSAE", TRAIN, {"checkpoint": "../../x"}, REFUSED, "no plain file name"),
    ("CultureTrainSAE", TRAIN, {"layer": 12}, RAN, "Layer 12 cannot be used"),
    ("CultureDetectNeurons", DETECT, {"contrast": "median"}, EITHER, "median"),
    ("CultureDetectNeurons", DETECT, {"culture_sae": "other sae"}, RAN, "another text encoder"),
    ("CultureTrainEnhancer", ENHANCER, {"loss": "fast"}, EITHER, "fast"),
    ("CultureTrainEnhancer", ENHANCER, {}, RAN, "image"),
    ("CultureSaveSAE", {"culture_sae": "sae", **SAVE}, {"filename_prefix": "../x"}, RAN, "output folder"),
    ("CultureSaveEnhancer", {"culture_enhancer": "enhancer", **SAVE}, {"filename_prefix": "/x"}, RAN,
     "output folder"),
    ("CultureStrengthSweep", SWEEP, {"values": "0, much"}, REFUSED, "'much' is no number"),
    ("CultureStrengthSweep", SWEEP, {"stop": 20}, REFUSED, "12"),
    ("CultureGrid", GRID, {"labels": "a\nb\nc"}, RAN, "as many labels"),
    ("CultureScore", SCORE, {"judge": "nobody"}, EITHER, "nobody"),
    ("CultureScore", SCORE, {"images": "clip"}, REFUSED, "CLIP"),
]  # fmt: skip
"""(node, inputs, what is changed of them, when it fails, what the reason says)."""


def graph_of(kind: str, inputs: dict[str, Any]) -> Graph:
    """A graph that runs one node, with what its inputs refer to."""
    linked = {name: [value, 0] if value in GOOD else value for name, value in inputs.items()}
    graph = {"it": {"class_type": kind, "inputs": linked}}
    graph |= {value: GOOD[value] for value in inputs.values() if value in GOOD}
    return graph | {"show": {"class_type": "PreviewAny", "inputs": {"source": ["it", 0]}}}


@pytest.mark.parametrize(
    ("kind", "inputs", "changed", "ran", "reason"),
    CASES,
    ids=[f"{one[0]}-{index}" for index, one in enumerate(CASES)],
)
def test_a_failing_node_is_named_with_the_reason(
    server: ComfyServer, kind: str, inputs: dict, changed: dict, ran: bool | None, reason: str
) -> None:
    found = failure(server, graph_of(kind, inputs | changed))
    assert found[1:3] == ("it", kind) and ran in (found.ran, EITHER)
    assert re.search(reason, found.reason, re.DOTALL), found.reason


def test_every_node_of_the_pack_has_been_made_to_fail(node_classes: dict[str, type]) -> None:
    assert set(node_classes) - {kind for kind, *_ in CASES} == set()


def test_every_node_names_the_inputs_that_it_lacks(
    server: ComfyServer, node_classes: dict[str, type]
) -> None:
    for kind, node in node_classes.items():
        found = failure(server, graph_of(kind, {}))
        assert found[:3] == (REFUSED, "it", kind) and "Required input is missing" in found.reason
        required = node.INPUT_TYPES()["required"]
        assert all(name in found.reason for name in required)


def test_a_strength_beyond_the_limit_is_warned_about_in_the_history_and_in_the_log(
    server: ComfyServer,
) -> None:
    def warned(strength: float, **changed: object) -> list[str]:
        inputs = AMPLIFY | {"strength": strength, **changed}
        job = ask(server, "/prompt", {"prompt": graph_of("CultureAmplifyNeurons", inputs)})["prompt_id"]
        return finished(server, job)["outputs"]["it"]["text"]

    text = "Strength 2.5 is beyond 2, the limit measured for Japanese in api-good.safetensors"
    assert text not in server.log()
    assert not warned(2.0) and not warned(8.0, mode="scale")
    (line,) = warned(2.5)
    assert line.startswith(f"⚠ {text}") and "best at 1.5" in line and text in server.log()


# ------------------------------------------------------------------------------------------ comfy-cli, HTTP


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The amplifying graph with one step, and a copy of it that cannot run."""
    folder = tmp_path_factory.mktemp("graphs")
    graph = json.loads((ROOT / "workflows" / "api" / "amplify.json").read_text(encoding="utf-8"))
    for node in graph.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 1
    (folder / "graph.json").write_text(json.dumps(graph), encoding="utf-8")
    for node in graph.values():
        if node["class_type"] == "CultureLoadSAE":
            node["inputs"]["file"] = "api-damaged.safetensors"
    (folder / "damaged.json").write_text(json.dumps(graph), encoding="utf-8")
    return folder


@pytest.fixture
def comfy(server: ComfyServer, tmp_path: Path) -> Callable[[Path], tuple[int, str]]:
    """`comfy run` of a graph: exit code and what it prints. It keeps its settings in a folder of its own."""
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    environment = {**os.environ, **home, "DO_NOT_TRACK": "1", "PYTHONUTF8": "1"}

    def run(graph: Path) -> tuple[int, str]:
        place = ["--host", "127.0.0.1", "--port", str(server.port), "--wait", "--json"]
        command = [
            sys.executable,
            "-m",
            "comfy_cli",
            "--skip-prompt",
            "run",
            "--workflow",
            str(graph),
            *place,
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        return done.returncode, done.stdout + done.stderr

    return run


def test_comfy_run_runs_a_graph(comfy: Callable[[Path], tuple[int, str]], painting: Path) -> None:
    code, text = comfy(painting / "graph.json")
    last = json.loads([line for line in text.splitlines() if line.startswith("{")][-1])
    assert code == 0 and last["ok"] and ".png" in json.dumps(last), text


def test_comfy_run_takes_a_graph_of_the_browser(comfy: Callable[[Path], tuple[int, str]]) -> None:
    code, text = comfy(ROOT / "workflows" / "amplify.json")
    assert code == 0 and ".png" in text, text


def test_comfy_run_names_the_node_and_the_reason(
    comfy: Callable[[Path], tuple[int, str]], painting: Path
) -> None:
    code, text = comfy(painting / "damaged.json")
    assert code != 0 and "CultureLoadSAE" in text and "api-damaged.safetensors" in text, text


@pytest.fixture
def run_page(server: ComfyServer, tmp_path: Path) -> Callable[[Path], subprocess.CompletedProcess]:
    """The page's script, run as it tells to; it leaves its pictures in `tmp_path`."""
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "run.py").write_text(script, encoding="utf-8")

    def run(graph: Path) -> subprocess.CompletedProcess:
        command = [sys.executable, "-I", "run.py", server.url, str(graph)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    return run


def test_the_pages_script_runs_a_graph_and_saves_its_pictures(
    run_page: Callable[[Path], subprocess.CompletedProcess], painting: Path, tmp_path: Path
) -> None:
    done = run_page(painting / "graph.json")
    assert done.returncode == 0, done.stderr
    pictures = [Image.open(path) for path in tmp_path.glob("*.png")]
    assert len(pictures) == 2 and all(picture.size == (64, 64) for picture in pictures)


def test_the_pages_script_names_the_node_and_the_reason(
    run_page: Callable[[Path], subprocess.CompletedProcess], painting: Path, tmp_path: Path
) -> None:
    done = run_page(painting / "damaged.json")
    assert done.returncode == 1 and re.search(r"node \w+ \(CultureLoadSAE\): .*api-damaged", done.stderr)
    graph = json.loads((painting / "graph.json").read_text(encoding="utf-8"))
    for node in graph.values():
        if node["class_type"] == "CultureAmplifyNeurons":
            node["inputs"]["strength"] = 99
    (tmp_path / "refused.json").write_text(json.dumps(graph), encoding="utf-8")
    done = run_page(tmp_path / "refused.json")
    assert done.returncode == 1 and re.search(r"node \w+: .*99", done.stderr)


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_the_pages_curl_lines_work(server: ComfyServer, painting: Path, tmp_path: Path) -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith(("curl", "jq"))]
    assert len(lines) == 4
    (tmp_path / "graph.json").write_text((painting / "graph.json").read_text(encoding="utf-8"))

    def shell(line: str) -> str:
        line = line.replace("http://127.0.0.1:8188", server.url)
        return subprocess.run(
            line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    assert "CULTURE_SAE" in shell(lines[0])
    job = json.loads(
        shell(
            lines[1].replace(
                "jq '{prompt: ., client_id: \"me\"}' graph.json", f"{sys.executable} -c {WRAP!r}"
            )
        )
    )
    record = finished(server, job["prompt_id"])
    told = json.loads(shell(lines[2].replace("PROMPT_ID", job["prompt_id"])))[job["prompt_id"]]
    assert told["status"]["status_str"] == record["status"]["status_str"] == "success"
    image = next(shown["images"][0] for shown in told["outputs"].values() if "images" in shown)
    shell(lines[3].replace("NAME.png", image["filename"]).replace("=culture ", f"={image['subfolder']} "))
    assert Image.open(tmp_path / "picture.png").size == (64, 64)


WRAP = "import json; print(json.dumps({'prompt': json.load(open('graph.json')), 'client_id': 'me'}))"
"""What jq does, which need not be installed."""

"""Systems on real ComfyUI servers: the shipped ones fit the nodes, and a run draws what the graph draws."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from culture_core.generators import GeneratorError, read_pictures
from culture_core.generators.comfyui import ComfyWorker, check_workflow, server_addresses
from culture_core.generators.prompts import read_prompts
from culture_core.generators.run import check_systems, plan, run_jobs
from culture_core.generators.systems import WORKFLOW, read_systems
from tools.comfy_server import ComfyServer
from tools.make_systems import FOLDER, GRAPHS, text

SYSTEMS = FOLDER / "systems.yaml"
ROOT = FOLDER.parent
SMALL = """
systems:
  plain: {workflow: graph.json, output: plain, steps: 2,
          slots: {prompt: prompt.value, seed: seed.value, steps: sample_plain.steps}}
  louder: {workflow: graph.json, output: amplified, steps: 2, strengths: [0, 2],
           slots: {prompt: prompt.value, seed: seed.value, steps: sample_amplified.steps,
                   strength: amplify.strength, culture: amplify.culture}}
  broken: {workflow: broken.json, output: plain, slots: {prompt: prompt.value, seed: seed.value}}
"""
FILES_OF_OTHERS = {
    "sd_xl_base_1.0.safetensors", "sdxl.safetensors", "sd3.5_large.safetensors", "sd35.safetensors",
    "clip_g.safetensors", "clip_l.safetensors", "t5xxl_fp16.safetensors", "flux1-dev.safetensors",
    "ae.safetensors", "flux.safetensors", "AltDiffusion-m9", "altdiffusion_m9_unet.safetensors",
    "altdiffusion_m9_vae.safetensors", "altdiffusion.safetensors", "pea_sdxl.safetensors",
    "CLIP-ViT-H-14-frozen-xlm-roberta-large", "pea_diffusion.safetensors",
}  # fmt: skip


@pytest.fixture
def systems(tmp_path) -> Path:
    """The miniature, with few steps."""
    graph = json.loads((FOLDER / "miniature.json").read_text(encoding="utf-8"))
    (tmp_path / "graph.json").write_text(json.dumps(graph), encoding="utf-8")
    graph["sample_plain"]["inputs"]["sampler_name"] = "no such sampler"
    (tmp_path / "broken.json").write_text(json.dumps(graph), encoding="utf-8")
    path = tmp_path / "systems.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return path


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def test_the_shipped_graphs_are_what_the_tool_writes() -> None:
    for name, build in GRAPHS.items():
        assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == text(build()), (
            "run tools.make_systems"
        )
    assert {path.stem for path in FOLDER.glob("*.json")} == set(GRAPHS)


def test_every_shipped_system_fits_the_nodes_of_a_real_server(server: ComfyServer) -> None:
    info = server.client().object_info()
    shipped = [system for system in read_systems(SYSTEMS) if system.kind == WORKFLOW]
    assert len(shipped) == 48
    for system in shipped:
        problems = check_workflow(system, info)
        files = [problem for problem in problems if "which the server does not have" in problem]
        assert files == problems, system.name
        assert all(any(f"is {file!r}" in problem for file in FILES_OF_OTHERS) for problem in files)
        assert bool(files) != system.name.startswith("miniature")


def test_a_run_draws_what_the_graph_draws_by_hand(server: ComfyServer, systems: Path, tmp_path: Path) -> None:
    prompts = [prompt for prompt in read_prompts("miniature") if prompt.culture in ("th", "fr")][:3]
    drawn = read_systems(systems, ["plain", "louder"])
    workers = check_systems(drawn, [ComfyWorker(server.url, "server 1")])
    jobs = plan(drawn, prompts, [7], [], lambda prompt, treatment: prompt.neutral)
    summary = run_jobs(tmp_path / "run", drawn, jobs, workers)
    assert (summary.made, summary.failed) == (9, [])
    pictures = {(p.system, p.strength, p.item): p for p in read_pictures(tmp_path / "run")}
    for prompt in prompts:
        plain, off, loud = (
            pixels(Image.open(pictures[(*system, prompt.item)].path))
            for system in (("plain", None), ("louder", 0.0), ("louder", 2.0))
        )
        assert plain.std() > 0
        assert np.array_equal(plain, off) and not np.array_equal(plain, loud)

    graph = json.loads((FOLDER / "miniature.json").read_text(encoding="utf-8"))
    graph = {key: graph[key] for key in graph if not key.endswith(("_plain", "_enhanced", "_both"))}
    for name in ("plain", "enhanced", "both"):
        del graph[name]
    prompt = prompts[-1]
    graph["prompt"]["inputs"]["value"], graph["seed"]["inputs"]["value"] = prompt.neutral, 7
    label = {"th": "Thai (th)", "fr": "French (fr)"}[prompt.culture]
    graph["amplify"]["inputs"] |= {"culture": label, "strength": 2.0}
    graph["sample_amplified"]["inputs"]["steps"] = 2
    client = server.client()
    (by_hand,) = client.images(client.run(graph))["amplified"]
    made = Image.open(pictures["louder", 2.0, prompt.item].path)
    assert np.array_equal(pixels(Image.open(io.BytesIO(by_hand))), pixels(made))
    # The file is a ComfyUI picture still, of the graph that drew it.
    inside = json.loads(made.text["prompt"])
    assert inside["amplify"]["inputs"]["culture"] == label and "enhance" not in inside
    assert str(server.port) not in json.dumps(made.text)


def test_what_a_real_server_refuses_is_said_in_the_users_terms(
    server: ComfyServer, systems: Path, tmp_path: Path
) -> None:
    broken = read_systems(systems, ["broken"])
    worker = ComfyWorker(server.url, "server 1")
    with pytest.raises(
        GeneratorError, match=r"sample_plain 'Sample, plain' .KSampler.: 'sampler_name' is 'no"
    ):
        check_systems(broken, [worker])
    jobs = plan(broken, read_prompts("miniature")[:1], [0], [], lambda prompt, treatment: prompt.neutral)
    summary = run_jobs(tmp_path / "run", broken, jobs, [worker])
    assert summary.failed[0].attempts == 1
    assert "refuses the graph" in summary.failed[0].reason and "sample_plain" in summary.failed[0].reason


def test_a_run_that_is_killed_loses_at_most_the_picture_in_work(
    server: ComfyServer, systems: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [
        sys.executable, "-m", "culture_core", "generate", "miniature", "--systems", str(systems),
        "--system", "plain", "--output", str(run), "--limit", "1",
    ]  # fmt: skip
    environment = {**os.environ, "CULTURE_COMFYUI": server.url}
    first = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    images = run / "images"
    while not (images.is_dir() and len(list(images.glob("[!.]*.png"))) >= 2):
        assert first.poll() is None
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in images.glob("[!.]*.png")}
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout)
    assert result["new"] == 15 - len(kept) and result["pictures"] == 15
    pictures = read_pictures(run)
    assert len({picture.culture for picture in pictures}) == len(pictures) == 15
    assert kept == {name: (images / name).stat().st_mtime_ns for name in kept}
    written = "".join(path.read_text(encoding="utf-8") for path in run.glob("*.json*"))
    assert str(server.port) not in written and str(tmp_path) not in written


def test_addresses_come_from_the_command_line_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CULTURE_COMFYUI", "10.0.0.1:8188, http://b/,10.0.0.1:8188")
    assert server_addresses(["https://c:1/x/"]) == ["https://c:1/x"]
    assert server_addresses() == ["http://10.0.0.1:8188", "http://b"]
    monkeypatch.delenv("CULTURE_COMFYUI")
    assert server_addresses() == ["http://127.0.0.1:8188"]
    for wrong in ("ftp://a", "http://user:secret@a", "http://"):
        with pytest.raises(GeneratorError, match="address 1 of the ComfyUI servers") as caught:
            server_addresses([wrong])
        assert "secret" not in str(caught.value)

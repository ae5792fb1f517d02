"""Starting and stopping a real ComfyUI, and talking to it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tools.comfy_client import Progress, ProgressLine, WorkflowError, find_node, set_inputs
from tools.comfy_server import PACK, PACK_NAME, ComfyServer, ServerError, link_pack

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "ComfyUI")

pytestmark = pytest.mark.skipif(not COMFYUI.is_dir(), reason="no ComfyUI: run `python dev.py setup`")


def graph(color: int = 0xFF0000) -> dict:
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 64, "height": 32, "batch_size": 2, "color": color},
            "_meta": {"title": "Plain picture"},
        },
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}, "_meta": {"title": "Preview"}},
    }


def files_of_comfyui() -> set[Path]:
    return {path for path in COMFYUI.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def files_before() -> set[Path]:
    """What is in ComfyUI's folder before the server starts."""
    return files_of_comfyui()


@pytest.fixture(scope="module")
def server(files_before: set[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    with ComfyServer(COMFYUI, tmp_path_factory.mktemp("base"), cpu=True) as server:
        yield server


# ---------------------------------------------------------------------------------------------- the client


def test_a_workflow_gives_its_pictures(server: ComfyServer) -> None:
    client = server.client()
    pictures = client.images(client.run(graph()))
    opened = [Image.open(io.BytesIO(data)) for data in pictures["2"]]
    assert [(picture.size, picture.getpixel((0, 0))) for picture in opened] == [((64, 32), (255, 0, 0))] * 2


def test_progress_counts_the_nodes_and_names_them(server: ComfyServer) -> None:
    seen = []
    server.client().run(graph(color=1), on_progress=seen.append)
    assert [(p.node, p.done, p.total) for p in seen] == [("Plain picture", 0, 2), ("Preview", 1, 2)]


def test_a_second_run_of_the_same_workflow_comes_from_the_cache(server: ComfyServer) -> None:
    client = server.client()
    first = client.run(graph(color=2))
    second = client.run(graph(color=2))
    assert first.cached == frozenset() and second.cached == {"1", "2"}
    assert client.images(second) == client.images(first)


def test_a_refused_input_names_node_and_reason(server: ComfyServer) -> None:
    workflow = graph()
    set_inputs(workflow, "Plain picture", width=-5)
    with pytest.raises(WorkflowError, match=r"1 'Plain picture' \(EmptyImage\): Value -5 smaller than min"):
        server.client().run(workflow)


def test_a_workflow_that_is_only_partly_valid_is_refused_whole(server: ComfyServer) -> None:
    workflow = graph() | {
        "3": {"class_type": "LoadImage", "inputs": {"image": "missing.png"}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    with pytest.raises(WorkflowError, match="LoadImage.*missing.png"):
        server.client().run(workflow)


def test_a_failing_node_is_named_and_the_server_lives_on(server: ComfyServer) -> None:
    workflow = graph()
    inputs = {"width": 4096, "height": 16384, "x": 0, "y": 0, "image": ["1", 0]}
    workflow["3"] = {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["4", 0]}}
    workflow["4"] = {"class_type": "MaskToImage", "inputs": {"mask": ["5", 0]}}
    workflow["5"] = {"class_type": "ImageToMask", "inputs": {"image": ["6", 0], "channel": "alpha"}}
    workflow["6"] = {"class_type": "ImageCrop", "inputs": inputs}
    workflow["2"]["inputs"]["images"] = ["3", 0]
    with pytest.raises(WorkflowError, match=r"ImageToMask.*IndexError"):
        server.client().run(workflow)
    assert server.client().images(server.client().run(graph()))["2"]


def test_an_unknown_node_is_an_empty_description(server: ComfyServer) -> None:
    assert server.client().object_info("EmptyImage")["EmptyImage"]["name"] == "EmptyImage"
    assert server.client().object_info("NoSuchNode") == {}


def test_titles_find_nodes_and_inputs_must_exist() -> None:
    workflow = graph()
    assert find_node(workflow, "Preview") == "2"
    with pytest.raises(WorkflowError, match="0 nodes are titled 'Prompt'.*Plain picture, Preview"):
        find_node(workflow, "Prompt")
    with pytest.raises(WorkflowError, match="has no input colour; it has width"):
        set_inputs(workflow, "Plain picture", colour=1)


def test_the_progress_line_without_a_terminal_is_at_most_one_line_a_node(server: ComfyServer) -> None:
    stream = io.StringIO()
    server.client().run(graph(color=3), on_progress=ProgressLine("run ", stream, interval=0))
    assert stream.getvalue() == "run [0/2] Plain picture\nrun [1/2] Preview\n"


def test_the_progress_line_without_a_terminal_keeps_its_interval() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream=stream, interval=3600)
    for node in ("one", "two", "three"):
        line(Progress(node, 0, 3))
    assert stream.getvalue() == "[0/3] one\n"


# ---------------------------------------------------------------------------------------------- the server


def test_the_pack_is_linked_and_comfyuis_own_folder_is_left_alone(
    server: ComfyServer, files_before: set[Path]
) -> None:
    server.client().run(graph(color=4))
    assert (server.base / "custom_nodes" / PACK_NAME).resolve() == PACK.resolve()
    assert files_of_comfyui() == files_before


def test_a_stale_link_is_replaced_and_its_old_target_kept(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "file").touch()
    link = link_pack(tmp_path / "base", old)
    assert link_pack(tmp_path / "base", PACK).resolve() == PACK.resolve()
    assert link.resolve() == PACK.resolve() and (old / "file").exists()


def test_a_server_that_dies_at_start_shows_why(tmp_path: Path) -> None:
    server = ComfyServer(COMFYUI, tmp_path, cpu=True, arguments=("--no-such-argument",))
    with pytest.raises(ServerError, match=r"exit code 2(.|\n)*unrecognized arguments: --no-such-argument"):
        server.__enter__()
    assert server.process.poll() == 2


def test_a_server_that_dies_during_a_run_is_reported(tmp_path: Path) -> None:
    with ComfyServer(COMFYUI, tmp_path, cpu=True) as server:
        threading.Timer(1.0, server.process.kill).start()
        workflow = graph()
        workflow["1"]["inputs"] |= {"width": 8192, "height": 8192, "batch_size": 4}  # seconds of PNG encoding
        with pytest.raises(ServerError, match="ended with exit code"):
            server.client().run(workflow)


def test_a_folder_without_comfyui_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no main.py"), ComfyServer(tmp_path, tmp_path / "base"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_server(tmp_path: Path, number: int, hear_interrupts: Callable[[], None]) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tools.comfy_server import ComfyServer\n"
        "with ComfyServer(Path(sys.argv[1]), Path(sys.argv[2]), cpu=True) as server:\n"
        "    Path(sys.argv[2], 'pid').write_text(str(server.process.pid)); time.sleep(120)\n"
    )
    command = [sys.executable, "-c", code, str(COMFYUI), str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, preexec_fn=hear_interrupts)
    deadline = time.monotonic() + 120
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    process.wait(timeout=60)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)

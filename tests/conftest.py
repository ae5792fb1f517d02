"""Real ComfyUI for the tests, in this process and as a server.

ComfyUI's folder goes first on the path and the repository's last, because both have a `nodes`. The pack
itself is loaded the way ComfyUI does it, from its root, under the name `comfyui_culture`.
"""

import asyncio
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "ComfyUI").resolve()
HAS_COMFYUI = (COMFYUI / "main.py").is_file()
PACK = "comfyui_culture"

# Tests of the core alone run without ComfyUI; `python dev.py test` always has it.
collect_ignore = (
    []
    if HAS_COMFYUI
    else [
        "nodes",
        "test_server.py",
        "test_server_score.py",
        "test_workflows.py",
        "test_workflows_browser.py",
        "culture_core/test_comfy.py",
        "culture_core/generators/test_comfyui.py",
        "culture_core/generators/test_cluster.py",
    ]
)

if HAS_COMFYUI:
    sys.path.insert(0, str(COMFYUI))
    import comfy.cli_args

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
sys.path.append(str(ROOT))

from tools.comfy_server import ComfyServer  # noqa: E402  the path is set above


def pytest_report_header() -> str:
    where = (
        COMFYUI
        if HAS_COMFYUI
        else f"none in {COMFYUI}: tests that need it are left out, run `python dev.py setup`"
    )
    return f"ComfyUI: {where}"


@pytest.fixture
def hear_interrupts() -> Callable[[], None]:
    """For `preexec_fn`: a process that a shell put into the background is born deaf to Ctrl-C, and so are
    its children."""
    return lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def pack() -> ModuleType:
    """The pack, loaded as ComfyUI loads it; its folders are registered."""
    if PACK not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[PACK] = module
        spec.loader.exec_module(module)
    return sys.modules[PACK]


@pytest.fixture(scope="session")
def node_classes(pack: ModuleType) -> dict[str, type]:
    """The pack's node classes by their id."""

    async def load() -> list[type]:
        return await (await pack.comfy_entrypoint()).get_node_list()

    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(load())}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A ComfyUI server with this pack; its models and output folders are under `server.base`."""
    if not HAS_COMFYUI:
        pytest.skip("no ComfyUI: run `python dev.py setup`")
    with ComfyServer(COMFYUI, tmp_path_factory.mktemp("comfyui")) as running:
        yield running

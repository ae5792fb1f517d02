"""From click to picture: the amplified and the enhanced graph against the stock graph.

    python benchmarks/click_to_picture.py [--rounds 6] [--clicks 6] [--steps 20] [--size 64]

A headless ComfyUI draws with the shipped miniature. A stock graph (loader, encode, KSampler, decode, save),
the same one once more, and those with the amplifier and the enhancer take turns in blocks of some clicks,
every click with a prompt and a seed of its own. The first click of a block also loads the graph's files; the
table has it apart. Seconds run from the request to the end of the run, and of the server's processor time.
Ratios are those to the stock block of the same round: their median and quartiles. The miniature samples in a
second; on a real image model the same milliseconds are a far smaller part. ComfyUI is the one in COMFYUI_PATH
or .comfyui.
"""

import argparse
import copy
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
from tools.comfy_client import ComfyClient, Workflow, set_inputs  # noqa: E402
from tools.comfy_server import ComfyServer  # noqa: E402

COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "ComfyUI").resolve()
GRAPHS = {
    "stock": ("amplify", "As it is"),
    "stock again": ("amplify", "As it is"),
    "amplified": ("amplify", "Amplified"),
    "enhanced": ("enhance", "Enhanced"),
}
"""A shipped graph, and the node whose picture is wanted."""


class Click(NamedTuple):
    seconds: float
    processor: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--clicks", type=int, default=6, help="of a block")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    show(blocks_of(options.rounds, options.clicks, options.steps, options.size))


def blocks_of(rounds: int, clicks: int, steps: int, size: int) -> dict[str, list[list[Click]]]:
    """The clicks of each graph, in blocks, one a round."""
    graphs = {name: wanted(*graph, steps, size) for name, graph in GRAPHS.items()}
    blocks: dict[str, list[list[Click]]] = {name: [] for name in graphs}
    with tempfile.TemporaryDirectory() as folder, ComfyServer(COMFYUI, Path(folder)) as server:
        client = server.client()
        process = psutil.Process(server.process.pid)
        nonce = 0
        for _ in range(rounds + 1):
            for name, graph in graphs.items():
                blocks[name].append([])
                for _ in range(clicks):
                    nonce += 1
                    blocks[name][-1].append(click(client, process, graph, nonce))
    return {name: found[1:] for name, found in blocks.items()}  # without what is loaded once a server


def wanted(name: str, title: str, steps: int, size: int) -> Workflow:
    """The part of a shipped graph that leads to one picture."""
    graph = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8"))
    ends = [key for key, node in graph.items() if node["_meta"]["title"] == title]
    kept: set[str] = set()
    while ends:
        key = ends.pop()
        kept.add(key)
        ends.extend(value[0] for value in graph[key]["inputs"].values() if isinstance(value, list))
    for key in kept:
        inputs = graph[key]["inputs"]
        inputs.update(
            {k: v for k, v in {"steps": steps, "width": size, "height": size}.items() if k in inputs}
        )
    return {key: node for key, node in graph.items() if key in kept}


def click(client: ComfyClient, process: psutil.Process, graph: Workflow, nonce: int) -> Click:
    graph = copy.deepcopy(graph)
    set_inputs(graph, "Prompt", value=f"家 {nonce}")
    set_inputs(graph, "Seed", value=nonce)
    began, before = time.perf_counter(), process.cpu_times()
    client.run(graph)
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    return Click(time.perf_counter() - began, used)


def show(blocks: dict[str, list[list[Click]]]) -> None:
    for title, part in (("clicks after the first", slice(1, None)), ("first click of a graph", slice(0, 1))):
        print(
            f"\n{title:24}{'seconds':>9}{'ratio (quartiles)':>24}{'processor':>11}{'ratio (quartiles)':>24}"
        )
        for name in blocks:
            line = f"{name:24}"
            for which in range(2):
                own, ratios = medians(blocks, name, part, which)
                low, middle, high = statistics.quantiles(ratios, n=4)
                figures = f"{middle:.3f} ({low:.3f}–{high:.3f})"
                line += f"{statistics.median(own):{9 + 2 * which}.3f}{figures:>24}"
            print(line)


def medians(
    blocks: dict[str, list[list[Click]]], name: str, part: slice, which: int
) -> tuple[list[float], list[float]]:
    """Of each block, the median of a part of its clicks, and its ratio to that of the stock block."""
    own, stock = (
        [statistics.median(click[which] for click in block[part]) for block in blocks[graph]]
        for graph in (name, "stock")
    )
    return own, [a / b for a, b in zip(own, stock, strict=True)]


if __name__ == "__main__":
    main()

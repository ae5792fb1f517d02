"""What the pack adds to ComfyUI's start.

    python benchmarks/import_time.py [--rounds 5]

Each round starts a process that imports what ComfyUI imports before it loads custom nodes, then loads the
pack as ComfyUI does and asks it for its nodes. Shown are the seconds, on the clock and of the processor, and
what the pack imported anew, the slowest first. ComfyUI is the one in COMFYUI_PATH or .comfyui.
"""

import argparse
import asyncio
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "ComfyUI").resolve()
HEAVY = (
    "transformers",
    "diffusers",
    "accelerate",
    "sae_lens",
    "matplotlib",
    "pandas",
    "scipy",
    "sklearn",
    "datasets",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure()))
        return
    runs = []
    for _ in range(options.rounds):
        output = subprocess.run(
            [sys.executable, __file__, "--measure"], check=True, capture_output=True, text=True, cwd=COMFYUI
        ).stdout
        runs.append(json.loads(output.splitlines()[-1]))
    for name in ("comfyui", "pack", "pack_processor"):
        seconds = [run[name] for run in runs]
        print(f"{name:16}{statistics.median(seconds):7.3f} s   ({min(seconds):.3f} to {max(seconds):.3f})")
    print(f"\nimported anew: {len(runs[0]['new'])} modules outside the pack")
    print("heavy ones among them:", ", ".join(sorted(set(runs[0]["heavy"]))) or "none")
    for name, seconds in runs[-1]["slowest"]:
        print(f"    {seconds:7.3f} s  {name}")


def measure() -> dict:
    """One start: seconds for ComfyUI and for the pack, and what the pack imported."""
    sys.path.insert(0, str(COMFYUI))
    sys.argv = sys.argv[:1]
    began = time.perf_counter()
    import comfy.cli_args
    import torch

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    import comfy_api.latest  # noqa: F401

    import nodes  # noqa: F401  with all that ComfyUI itself needs

    ready = time.perf_counter()
    gc.collect()  # or the pack may be charged for a collection of all that ComfyUI made
    before, own = set(sys.modules), Timer()
    sys.meta_path.insert(0, own)
    processor = time.process_time()
    start = time.perf_counter()
    load_pack()
    seconds = time.perf_counter() - start
    processor = time.process_time() - processor
    new = [name for name in set(sys.modules) - before if not name.startswith("comfyui_culture")]
    return {
        "comfyui": ready - began,
        "pack": seconds,
        "pack_processor": processor,
        "new": new,
        "heavy": [name.partition(".")[0] for name in new if name.partition(".")[0] in HEAVY],
        "slowest": sorted(own.seconds.items(), key=lambda entry: -entry[1])[:12],
    }


def load_pack() -> None:
    """As ComfyUI's `load_custom_node` does it."""
    spec = importlib.util.spec_from_file_location(
        "comfyui_culture", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["comfyui_culture"] = module
    spec.loader.exec_module(module)

    async def list_nodes() -> None:
        for node in await (await module.comfy_entrypoint()).get_node_list():
            node.GET_SCHEMA()

    asyncio.run(list_nodes())


class Timer:
    """Notes how long each module took to import, with all that it imports itself."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                self._time(spec)
                return spec
        return None

    def _time(self, spec: object) -> None:
        execute = getattr(spec.loader, "exec_module", None)
        if execute is None:
            return

        def timed(module: object) -> None:
            start = time.perf_counter()
            execute(module)
            self.seconds[module.__name__] = time.perf_counter() - start

        try:
            spec.loader.exec_module = timed
        except AttributeError:
            pass  # a loader of the interpreter's own


if __name__ == "__main__":
    main()

"""What loading the pack costs ComfyUI's start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOAD = """
import asyncio, importlib.util, sys
sys.path.insert(0, {comfyui!r})
import comfy.cli_args
comfy.cli_args.args.cpu = True
import comfy.sd, comfy_api.latest, nodes  # as ComfyUI has before it loads any pack
before = set(sys.modules)
root = {root!r}
file = root + "/__init__.py"
spec = importlib.util.spec_from_file_location("pack", file, submodule_search_locations=[root])
pack = sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
listed = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
for node in listed:
    node.INPUT_TYPES()
added = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(added - set(sys.stdlib_module_names)))
"""


def test_no_other_package_is_imported_before_a_node_runs() -> None:
    comfyui = Path(sys.modules["folder_paths"].__file__).parent
    script = LOAD.format(comfyui=str(comfyui), root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    # Of Pillow, which is there already, a small module more.
    assert set(done.stdout.splitlines()[-1].split()) == {"PIL", "pack"}

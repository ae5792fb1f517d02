"""What loading a large file takes, measured in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from culture_core.enhancer import LayerEnhancer
from culture_core.files import CultureSAE, EnhancerFile, save_culture_sae, save_enhancer
from culture_core.sae import TopKSAE
from culture_core.sae.formats import LIBRARIES, export_sae

WIDTH, LATENTS = 512, 16384
"""64 MiB of float32."""
ENCODER = {"family": "bert", "layers": 2, "width": WIDTH, "heads": 2, "vocabulary": 30, "weights": [0.5]}
MEASURE = """
import sys
from pathlib import Path
import torch
from culture_core.files import load_culture_sae, load_enhancer
from culture_core.sae.formats import import_sae
from tools.fuzz.guards import Cost, measured

path, cost = Path(sys.argv[2]), Cost()
read = {"sae": load_culture_sae, "enhancer": load_enhancer, "foreign": import_sae}[sys.argv[1]]
with torch.inference_mode():
    measured(lambda: read(path), cost)
print(cost.bytes)
"""
ROOT = Path(__file__).resolve().parents[2]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the peak is counted by Linux")


def taken(kind: str, path: Path) -> int:
    """Bytes at the peak, the file's own pages counted where it is mapped."""
    command = [sys.executable, "-c", MEASURE, kind, str(path)]
    return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))


def write(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.safetensors"
    sae = TopKSAE(WIDTH, LATENTS, 32)
    if kind == "sae":
        return save_culture_sae(CultureSAE(sae, 1, "hidden_state", ENCODER), path)
    if kind == "enhancer":
        return save_enhancer(EnhancerFile(LayerEnhancer(WIDTH, LATENTS), 1, ENCODER), path)
    return export_sae(sae, folder / kind, kind)


@linux_only
@pytest.mark.parametrize("kind", ["sae", "enhancer", LIBRARIES[0]])
def test_loading_takes_at_most_twice_the_file(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path)
    assert size_of(path) > 64 << 20
    reader = kind if kind in ("sae", "enhancer") else "foreign"
    assert taken(reader, path) < 2 * size_of(path) + (16 << 20)


@linux_only
def test_a_file_of_half_precision_takes_its_float32_and_itself(tmp_path: Path) -> None:
    """What is kept is twice the file; the third part is the mapped file, which the system may drop."""
    path = write("sae", tmp_path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({name: part.to(torch.bfloat16) for name, part in load_file(path).items()}, path, metadata)
    assert taken("sae", path) < 3 * size_of(path) + (16 << 20)

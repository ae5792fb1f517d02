"""docs/FORMAT.md: its scripts write files that the pack loads, and what it says is what the code does."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from culture_core import file_checks, files, previews
from culture_core.amplifier import Amplifier
from culture_core.embedded_encoder import ENCODER_NAME
from culture_core.fingerprint import VALUES_PER_TENSOR

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "FORMAT.md").read_text(encoding="utf-8")
SCRIPTS = dict(zip(("mine", "enhancer"), re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), strict=True))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page's scripts write; they see no file of the pack but the one they name."""
    folder = tmp_path_factory.mktemp("format")
    source = Path("models", "culture_sae", "miniature.safetensors")
    (folder / source).parent.mkdir(parents=True)
    shutil.copy(ROOT / source, folder / source)
    for script in SCRIPTS.values():
        subprocess.run([sys.executable, "-I", "-c", script], cwd=folder, check=True)
    return folder


def test_the_script_is_as_short_as_promised():
    assert all(len(script.splitlines()) <= 22 for script in SCRIPTS.values())
    assert not any("torch" in script or "culture_core" in script for script in SCRIPTS.values())


def test_the_pack_loads_the_pages_culture_sae(written):
    found = files.load_culture_sae(written / "mine.safetensors")
    assert (found.author, found.licence, found.layer, found.sae.k) == ("you", "CC0-1.0", 11, 8)
    assert found.encoder == files.load_culture_sae(ROOT / "models/culture_sae/miniature.safetensors").encoder
    assert not found.strengths and not found.preview


def test_what_the_page_says_of_strength_is_what_the_amplifier_does(written):
    found = files.load_culture_sae(written / "mine.safetensors")
    feature = torch.zeros(1, 1, found.sae.d_in)
    moved = Amplifier(found.sae, found.neurons("th"), 2.0)(feature, torch.ones(1, 1, dtype=torch.bool))
    # Silent: λ f μ = 2 · 1 · 5 along the neuron's row.
    assert torch.allclose(moved[0, 0], 10 * found.sae.W_dec[7], atol=1e-5)


def test_the_pack_loads_the_pages_enhancer_and_it_computes_what_the_page_says(written):
    enhancer = files.load_enhancer(written / "enhancer.safetensors").enhancer
    torch.manual_seed(0)
    torch.nn.init.normal_(enhancer.gain)
    torch.nn.init.normal_(enhancer.bias)
    h = torch.randn(3, enhancer.width)
    inner = torch.nn.functional.gelu(h @ enhancer.W1.T + enhancer.b1) @ enhancer.W2.T + enhancer.b2
    centred = inner - inner.mean(-1, keepdim=True)
    normed = centred / (inner.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    wanted = h + 0.5 * (enhancer.gain * normed + enhancer.bias)
    assert torch.allclose(enhancer(h, 0.5), wanted, atol=1e-4)


def test_the_fingerprint_is_computed_as_the_page_says():
    folder = ROOT / "models" / "text_encoders" / ENCODER_NAME
    with safe_open(ROOT / "models/culture_sae/miniature.safetensors", "pt") as file:
        told = json.loads(file.metadata()["encoder"])
    with safe_open(folder / "model.safetensors", "pt") as file:
        layers = told["layers"]
        output = "encoder.layer.{}.attention.output.dense.weight"
        names = ["embeddings.word_embeddings.weight"]
        names += [output.format(layer) for layer in (0, layers // 2, layers - 1)]
        matrices = [file.get_tensor(name).flatten().float() for name in names]
    values = [float(flat[i * 2654435761 % len(flat)]) for flat in matrices for i in range(16)]
    assert len(told["weights"]) == 64 == 4 * VALUES_PER_TENSOR
    assert torch.allclose(torch.tensor(values), torch.tensor(told["weights"]), atol=1e-3)


def test_every_tensor_and_every_metadata_entry_of_real_files_stands_on_the_page():
    for path in ("culture_sae/miniature.safetensors", "culture_enhancer/miniature.safetensors"):
        with safe_open(ROOT / "models" / path, "pt") as file:
            tensors, metadata = set(file.keys()), set(file.metadata())
        names = {re.sub(r"^culture\.\w+\.", "culture.C.", name) for name in tensors}
        assert all(f"`{name}`" in PAGE for name in names | metadata)


def test_the_limits_on_the_page_are_those_of_the_code():
    assert file_checks.MAX_FILE_BYTES == 8 << 30 and "At most 8 GiB" in PAGE
    assert file_checks.MAX_METADATA == 1 << 20 and "2²⁰ characters" in PAGE
    assert (files.MAX_LATENTS, files.MAX_WIDTH, files.MAX_LAYERS) == (1 << 20, 1 << 15, 1 << 10)
    assert f"{previews.MAX_BYTES >> 10} KiB and {previews.MAX_EDGE} pixels" in PAGE
    assert f"`{previews.KEY}`" in PAGE

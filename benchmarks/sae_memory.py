"""Memory of a resident culture SAE: what a process holds more once one is loaded and amplifies.

    python benchmarks/sae_memory.py

The shipped file, and files with random weights for the widths of larger encoders. Each is loaded in a process
of its own as the node *Load Culture SAE* loads it, then used once. Beside it stand the bytes of its tensors.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
from benchmarks.processes import figures  # noqa: E402

SHIPPED = ROOT / "models" / "culture_sae" / "miniature.safetensors"
SIZES = {"768 wide": (768, 4096), "1024 wide": (1024, 4096), "4096 wide": (4096, 16384)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(*measure(options.measure))
        return
    print(f"{'culture SAE':30}{'file MB':>9}{'loaded MB':>11}{'in use MB':>11}")
    with tempfile.TemporaryDirectory() as folder:
        files = {"shipped": SHIPPED}
        for name, (width, latents) in SIZES.items():
            label = f"{name}, {latents} latents"
            files[label] = Path(folder) / f"{width}.safetensors"
            write(files[label], width, latents)
        for label, path in files.items():
            loaded, used = figures(__file__, "--measure", path)
            print(f"{label:30}{path.stat().st_size / 2**20:9.1f}{loaded:11.1f}{used:11.1f}")


def write(path: Path, width: int, latents: int) -> None:
    import torch

    from culture_core.encoders import HIDDEN_STATE
    from culture_core.files import CultureSAE, load_culture_sae, save_culture_sae
    from culture_core.neurons import CultureNeurons
    from culture_core.sae import TopKSAE

    fingerprint = load_culture_sae(SHIPPED).encoder | {"width": width}
    neurons = CultureNeurons(torch.arange(40), *(torch.rand(40) for _ in range(4)))
    sae = TopKSAE(width, latents, 32).requires_grad_(False)
    save_culture_sae(CultureSAE(sae, 11, HIDDEN_STATE, fingerprint, {"ja": neurons}), path)


def measure(path: Path) -> tuple[float, float]:
    """Megabytes that the process holds more with the file loaded, and after it amplified a prompt."""
    import psutil
    import torch

    from culture_core.amplifier import Amplifier
    from culture_core.files import load_culture_sae

    torch.set_num_threads(1)
    torch.nn.functional.linear(torch.rand(1, 77, 64), torch.rand(64, 64))
    process = psutil.Process()
    before = process.memory_info().rss
    file = load_culture_sae(path)
    loaded = process.memory_info().rss
    with torch.inference_mode():
        Amplifier(file.sae, file.cultures["ja"], 2.0)(
            torch.rand(1, 77, file.sae.d_in), torch.ones(1, 77, dtype=torch.bool)
        )
    return (loaded - before) / 2**20, (process.memory_info().rss - before) / 2**20


if __name__ == "__main__":
    main()

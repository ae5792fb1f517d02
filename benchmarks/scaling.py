"""How time and memory grow with the size of an SAE's training and of a probe.

    python benchmarks/scaling.py [--threads 1] [--rounds 3] [--only latents vectors ...]

`latents`: a training step over the number of latents (1024 wide, k = 32, batch 1024). `vectors`: a whole run
of one epoch over the number of vectors, start and final report included (384 wide, 4096 latents). `pairs`:
a probe of the shipped multilingual-e5-small (12 layers, 384 wide) with and without activation patching.
`layers`: a probe of 32 pairs over XLM-R models of that width with random weights. `wide`: 4096 wide, and for
layers a decoder-only model of Qwen3-8B's shape cut short, with random weights and 8 pairs. Of each curve:
seconds of the processor, the least of the rounds, whose sizes take turns; most memory beyond what was held
before; and the slopes of both, which are the exponents of the size (1: twice as much for twice the size),
over the whole curve and over its last doubling. `docs/SCALING.md` works with them.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
from benchmarks.probing import E5, SHAPE, captions, peak_memory  # noqa: E402
from benchmarks.processes import figures  # noqa: E402

CURVES = {
    "latents": (1024, 2048, 4096, 8192, 16384, 32768),
    "vectors": (4096, 8192, 16384, 32768, 65536, 131072),
    "pairs": (16, 32, 64, 128, 256, 512),
    "pairs, patching": (16, 32, 64, 128, 256),
    "layers": (3, 6, 12, 24),
    "layers, patching": (3, 6, 12, 24),
    "latents, wide": (4096, 8192, 16384),
    "layers, wide": (1, 2, 4),
    "layers, wide, patching": (1, 2, 4),
}
STEPS, BATCH, K = 6, 1024, 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(CURVES), choices=CURVES)
    parser.add_argument("--measure", nargs=2, metavar=("CURVE", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        curve, size = options.measure
        print(*measure(curve, int(size), options.threads))
        return
    for curve in options.only:
        found: dict[int, list[tuple[float, float]]] = {size: [] for size in CURVES[curve]}
        for _ in range(options.rounds):
            for size, runs in found.items():
                runs.append(measured(curve, size, options.threads))
        show(curve, {size: tuple(map(min, zip(*runs, strict=True))) for size, runs in found.items()})


def show(curve: str, found: dict[int, tuple[float, ...]]) -> None:
    print(f"{curve:>18}{'seconds':>10}{'each, ms':>10}{'peak MB':>9}")
    for size, (seconds, megabytes) in found.items():
        print(f"{size:18}{seconds:10.2f}{1000 * seconds / size:10.3f}{megabytes:9.0f}")
    for which, name in enumerate(("time", "memory")):
        points = [(math.log(size), math.log(values[which])) for size, values in found.items()]
        whole, last = slope(points), slope(points[-2:])
        print(f"slope of {name}: {whole:.2f}, over the last doubling {last:.2f}")
    print(flush=True)


def slope(points: list[tuple[float, float]]) -> float:
    """Of the least-squares line through points (x, y)."""
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def measured(curve: str, size: int, threads: int) -> tuple[float, float]:
    """Seconds of the processor, and most megabytes beyond what was held before, in a process of its own."""
    return figures(__file__, "--measure", curve, size, "--threads", threads)


def measure(curve: str, size: int, threads: int) -> tuple[float, float]:
    """The same in this process."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    what, *how = curve.split(", ")
    if what == "latents":
        work = over_latents(size, 4096 if how else 1024)
    elif what == "vectors":
        work = over_vectors(size)
    else:
        work = probe_of(what, size, "wide" in how, "patching" in how)
    before = peak_memory(reset=True)
    began = time.process_time()
    seconds = work()
    return (
        time.process_time() - began if seconds is None else seconds,
        (peak_memory() - before) / 2**20,
    )


def over_latents(latents: int, width: int) -> Callable[[], float]:
    """Seconds of a step, without a run's start and end."""
    import torch

    from culture_core.sae import SAEConfig, train_sae

    data = features(BATCH, width)
    config = SAEConfig(latents, K, steps=STEPS, batch_size=BATCH, holdout=0.0, dead_after=10**9)

    def run() -> float:
        times: list[float] = []
        train_sae(torch.as_tensor(data), config, progress=lambda *_: times.append(time.process_time()))
        taken = [after - before for before, after in zip(times, times[1:], strict=False)]
        return min(taken)

    return run


def over_vectors(vectors: int) -> Callable[[], None]:
    from culture_core.sae import SAEConfig, train_sae

    data = features(vectors, 384)
    config = SAEConfig(4096, K, steps=vectors // BATCH, batch_size=BATCH, dead_after=10**9)
    return lambda: void(train_sae(data, config))


def features(count: int, width: int):
    """Vectors of a few hundred directions and noise, as real features have a spectrum."""
    import torch

    data = torch.randn(count, 128) @ torch.randn(128, width) / 12
    return data + 0.3 * torch.randn_like(data)


def probe_of(what: str, size: int, wide: bool, patching: bool) -> Callable[[], None]:
    import transformers

    from culture_core.embedded_encoder import ensure_encoder
    from culture_core.encoders import HFTextEncoder
    from culture_core.miniature.captions import prompt_pairs
    from culture_core.probing import probe_layers

    folder = ensure_encoder(E5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if what == "pairs":
        model = transformers.AutoModel.from_pretrained(folder)
    elif wide:
        model = transformers.Qwen3Model(
            transformers.Qwen3Config(
                vocab_size=len(tokenizer), hidden_size=4096, intermediate_size=12288, num_hidden_layers=size,
                num_attention_heads=32, num_key_value_heads=8, head_dim=128,
            )
        )  # fmt: skip
    else:
        shape = SHAPE | {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": size}
        model = transformers.XLMRobertaModel(
            transformers.XLMRobertaConfig(vocab_size=len(tokenizer), **shape)
        )
    encoder = HFTextEncoder(model.eval(), tokenizer, max_length=77)
    pairs = captions(prompt_pairs("train"), size if what == "pairs" else 8 if wide else 32)
    encoder.tokenize([pairs[0].cultural])
    return lambda: void(probe_layers(encoder, pairs, bootstrap=200, patching=patching))


def void(_result: object) -> None:
    """Nothing of a result."""


if __name__ == "__main__":
    main()

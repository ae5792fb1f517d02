"""Whether something became slower: ratios measured here and now, against the limits below.

    python benchmarks/guard.py [--peers .venv/peers] [--only encode ...]

Every ratio compares two things that take turns on one machine, so that no limit knows how fast that is. The
limits leave room for the noise of a busy machine and for processors that multiply otherwise. Ends with 1
where a limit is passed. Takes some minutes.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))


class Ratio(NamedTuple):
    name: str
    found: float
    limit: float
    """Most that it may be."""


def encode(_peers: Path) -> Iterator[Ratio]:
    """An amplified encode to a plain one."""
    import torch

    from benchmarks.amplified_encode import clip_l, hf_variants, times_of

    torch.set_num_threads(1)
    times = times_of(hf_variants(clip_l(), 40), 15)
    for mode in ("inject", "scale"):
        ratios = [a / b for a, b in zip(times[f"{mode}, strength 4"], times["plain"], strict=True)]
        yield Ratio(f"encode amplified ({mode}) / plain", statistics.median(ratios), 1.08)


def step(peers: Path) -> Iterator[Ratio]:
    """A training step of the SAE to its encoder product, and to the best of other libraries."""
    import torch

    from benchmarks.sae_peers import add_packages
    from benchmarks.sae_step import speeds

    torch.set_num_threads(1)
    add_packages(peers)
    speed, others = speeds(7, 1)
    ours = speed["this repository"]
    yield Ratio("SAE step / its encoder product (linear)", speed["encoder product, linear"] / ours, 5.0)
    if others:
        yield Ratio("SAE step / best other library's", max(speed[name] for name in others) / ours, 0.6)


def probe(_peers: Path) -> Iterator[Ratio]:
    """A probe to transformers with `output_attentions=True`."""
    from benchmarks.probing import measured

    for task in ("attention", "causal"):
        count = 64 if task == "attention" else 16
        ours, peer = (measured("xlm-r-base", task, who, count, 1) for who in ("ours", "longest"))
        yield Ratio(f"probe ({task}) / transformers: time", ours[0] / peer[0], 0.7)
        yield Ratio(f"probe ({task}) / transformers: memory", ours[1] / peer[1], 0.4)  # less with more pairs


def click(_peers: Path) -> Iterator[Ratio]:
    """From click to picture: the pack's graphs to the stock graph, in processor time."""
    from benchmarks.click_to_picture import blocks_of, medians

    os.environ["OMP_NUM_THREADS"] = "1"  # of the server: several wait for each other on a busy machine
    blocks = blocks_of(rounds=3, clicks=5, steps=20, size=64)
    for name in ("amplified", "enhanced"):
        _, ratios = medians(blocks, name, slice(1, None), 1)
        yield Ratio(f"click to picture {name} / stock", statistics.median(ratios), 1.15)


def growth(_peers: Path) -> Iterator[Ratio]:
    """Time for twice the size to time for the size."""
    from benchmarks.scaling import measured

    for curve, size, limit in (
        ("latents", 4096, 2.5), ("vectors", 16384, 2.5), ("pairs", 128, 2.5), ("layers", 6, 2.5),
        ("layers, patching", 6, 4.5),
    ):  # fmt: skip
        least = [min(measured(curve, times * size, 1)[0] for _ in range(3)) for times in (1, 2)]
        yield Ratio(f"twice the {curve}", least[1] / least[0], limit)


CHECKS: dict[str, Callable[[Path], Iterator[Ratio]]] = {
    "encode": encode, "step": step, "probe": probe, "click": click, "growth": growth,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv" / "peers")
    parser.add_argument("--only", nargs="*", default=list(CHECKS), choices=CHECKS)
    options = parser.parse_args()
    passed = 0
    print(f"{'':44}{'found':>8}{'limit':>8}")
    for name in options.only:
        for ratio in CHECKS[name](options.peers):
            slower = ratio.found > ratio.limit
            passed += slower
            print(f"{ratio.name:44}{ratio.found:8.2f}{ratio.limit:8.2f}{'  too slow' * slower}", flush=True)
    return int(passed > 0)


if __name__ == "__main__":
    sys.exit(main())

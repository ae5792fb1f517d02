"""Speed of one SAE training step against other libraries, in one run, taking turns.

    python benchmarks/sae_step.py --peers PEERS [--threads 1] [--rounds 15]

PEERS is the folder that `benchmarks/sae_peers.py` says how to fill. The table gives the median of the rounds
as vectors a second (of CPU time with one thread, else of wall time), its ratio to the best peer, and to what
the encoder product alone would allow, as PyTorch multiplies (`linear`) and as this repository does.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))
from benchmarks.sae_peers import Sizes, add_packages, available, our_product, ours  # noqa: E402

SIZES = Sizes(width=1024, latents=4096, k=128, learning_rate=4e-4)
BATCH = 1024
NEVER = 10**7
"""Vectors after which latents are dead, as sparsify and dictionary_learning have it: no AuxK takes part."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder with the other libraries")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    add_packages(options.peers)
    speed, peers = speeds(options.rounds, options.threads)
    best = max((speed[name] for name in peers), default=float("nan"))
    print(
        f"\n{options.threads} thread(s), d {SIZES.width}, {SIZES.latents} latents, k {SIZES.k}, batch {BATCH}"
    )
    print(f"{'':28s}{'vectors/s':>10s}{'/ best peer':>12s}{'/ linear':>10s}{'/ our product':>14s}")
    for name, value in speed.items():
        bounds = [value / speed[f"encoder product, {kind}"] for kind in ("linear", "ours")]
        print(f"{name:28s}{value:10.0f}{value / best:12.2f}{bounds[0]:10.2f}{bounds[1]:14.2f}")


def speeds(rounds: int, threads: int) -> tuple[dict[str, float], list[str]]:
    """Vectors a second of each entry, and which of them are peers."""
    torch.manual_seed(0)
    # A few hundred directions and noise, as real features have a spectrum.
    data = torch.randn(4 * BATCH, 256) @ torch.randn(256, SIZES.width) / 16
    data += 0.3 * torch.randn_like(data)
    data = (data - data.mean(dim=0)) / data.std()
    entries = {
        "this repository": ours(SIZES, data, dead_after=NEVER).step,
        "this repository, bfloat16": ours(SIZES, data, dead_after=NEVER, precision="bfloat16").step,
    }
    peers = available(SIZES, data)
    entries |= {name: peer.step for name, peer in peers.items()}
    weight, bias = torch.randn(SIZES.latents, SIZES.width) / 32, torch.zeros(SIZES.latents)
    entries["encoder product, linear"] = lambda x: torch.nn.functional.linear(x, weight, bias)
    entries["encoder product, ours"] = lambda x: our_product(x, weight, bias)
    times: dict[str, list[float]] = {name: [] for name in entries}
    # One thread's CPU time is not disturbed by what else the machine does.
    clock = time.process_time if threads == 1 else time.perf_counter
    for turn in range(rounds + 2):
        for name, step in entries.items():
            x = data[(turn % 4) * BATCH : (turn % 4 + 1) * BATCH]
            start = clock()
            step(x)
            if turn >= 2:  # memory and caches are warm
                times[name].append(clock() - start)
    speed = {name: BATCH / statistics.median(taken) for name, taken in times.items()}
    return speed, list(peers)


if __name__ == "__main__":
    main()

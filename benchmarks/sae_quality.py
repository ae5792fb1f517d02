"""Quality of SAEs after equal steps on real features: ours and other libraries' training steps.

    python benchmarks/sae_quality.py --peers PEERS [--texts 1500] [--steps 400] [--latents 2048] [--k 32]
                                     [--rates 4e-4 1.5e-3]

PEERS is the folder that `benchmarks/sae_peers.py` says how to fill. The features are the hidden states after
layer 11 of the shipped multilingual-e5-small at the tokens of the miniature's captions. The table gives the
fraction of variance unexplained on the training vectors and on those of held-out texts, and the latents that
no (dead) or more than half (dense) of the training vectors activate. Every library is trained at every
learning rate: the paper's 4e-4, and one near the best in so few steps; sparsify's signum has its own.
SAELens' decoder starts ten times shorter than the others', which makes its steps relatively larger.
"""

import argparse
import random
import sys
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
from benchmarks.sae_peers import Peer, Sizes, add_packages, available, ours  # noqa: E402
from culture_core.embedded_encoder import ENCODER_NAME, MAX_LENGTH, ensure_encoder, load_hf_encoder  # noqa: E402
from culture_core.encoders import HIDDEN_STATE, HFTextEncoder  # noqa: E402
from culture_core.features import content_features  # noqa: E402
from culture_core.miniature.captions import training_captions  # noqa: E402

LAYER, BATCH = 11, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder with the other libraries")
    for name, default in (("texts", 1500), ("steps", 400), ("latents", 2048), ("k", 32), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rates", type=float, nargs="+", default=[4e-4, 1.5e-3], help="learning rates")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    add_packages(options.peers)
    train, heldout = features(options.texts)
    entries = {}
    for rate in options.rates:
        sizes = Sizes(train.shape[1], options.latents, options.k, rate)
        found = {"this repository": ours(sizes, train)} | available(sizes, train)
        entries |= {f"{name}, {rate:g}": peer for name, peer in found.items()}
    print(f"\n{len(train)} training vectors, {len(heldout)} held out, {options.steps} steps of {BATCH}")
    print(f"{'':30s}{'FVU':>8s}{'held out':>10s}{'dead':>7s}{'dense':>7s}")
    for name, peer in entries.items():
        generator = torch.Generator().manual_seed(0)
        for _ in range(options.steps):
            peer.step(train[torch.randint(len(train), (BATCH,), generator=generator)])
        fvu, active = measure(peer, train)
        dead, dense = int((active == 0).sum()), int((active > 0.5 * len(train)).sum())
        print(f"{name:30s}{fvu:8.4f}{measure(peer, heldout)[0]:10.4f}{dead:7d}{dense:7d}", flush=True)


def features(texts: int) -> tuple[Tensor, Tensor]:
    """(training, held-out) vectors, centred and scaled to unit mean square; a tenth of the texts held out."""
    encoder = HFTextEncoder(
        *load_hf_encoder(ensure_encoder(ROOT / "models" / "text_encoders" / ENCODER_NAME)), MAX_LENGTH
    )
    captions = [caption.text for caption in training_captions()]
    random.Random(0).shuffle(captions)
    vectors, of = content_features(encoder, captions[:texts], LAYER, HIDDEN_STATE)
    held = of % 10 == 0
    mean = vectors[~held].mean(dim=0)
    vectors = (vectors - mean) / (vectors[~held] - mean).square().mean().sqrt()
    return vectors[~held], vectors[held]


def measure(peer: Peer, vectors: Tensor) -> tuple[float, Tensor]:
    """(FVU, how many vectors activate each latent)."""
    wrong, active = 0.0, 0
    for part in vectors.split(1024):
        rebuilt, fires = peer.rebuild(part)
        wrong += float((part - rebuilt).double().square().sum())
        active = active + fires.sum(dim=0)
    return wrong / float((vectors - vectors.mean(dim=0)).double().square().sum()), active


if __name__ == "__main__":
    main()

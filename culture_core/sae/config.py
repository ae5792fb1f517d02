"""How to train an SAE, and what to expect of it before it is trained."""

import math
from dataclasses import dataclass

PRECISIONS = ("float32", "bfloat16", "float16")
REVIVALS = ("restart", "auxk", "none")


@dataclass(frozen=True)
class SAEConfig:
    """How to train an SAE.

    Raises:
        ValueError: for a value that makes no sense; the message names it.
    """

    n_latents: int = 4096
    """Number of latents, M."""
    k: int = 32
    """Latents that may be active at once."""
    learning_rate: float = 4e-4
    """Of AdamW, constant."""
    steps: int = 2000
    batch_size: int = 256
    """Vectors a step."""
    revival: str = "auxk"
    """What is done for dead latents: `auxk` adds a loss for them, `restart` lets them begin anew at the
    vectors that are explained worst (it revives more, but the reconstruction may lose a little where there
    are more latents than needed), `none` leaves them."""
    auxk_weight: float = 1 / 32
    """Weight of AuxK's loss, where that is the revival."""
    auxk: int | None = None
    """Dead latents that take part in AuxK at once; None: k."""
    dead_after: int | None = None
    """Vectors without firing after which a latent counts as dead; None: a tenth of all that the run sees, or
    an epoch where that is less."""
    holdout: float = 0.1
    """Share of the vectors (or groups) kept from training to measure the held-out FVU; 0: none."""
    encoder_scale: float | None = None
    """Encoder rows at the start, as a multiple of the decoder's; None: 0.3, or less where reconstructions
    would be longer than the inputs."""
    weight_decay: float = 0.0
    checkpoint_every: int = 500
    """Steps between checkpoints, where a path for them is given."""
    seed: int = 0
    precision: str = "float32"
    """What matrices are multiplied in: `float32`, `bfloat16` or `float16`; on a CPU the encoder's alone.
    Weights and statistics stay float32. The lower ones choose other latents now and then (measured: 0.4 and
    0.1 % of the top 128)."""
    window: int = 65536
    """Vectors of a feature store that are in memory at once; vectors are shuffled within it."""

    def __post_init__(self) -> None:
        checks = {
            "n_latents": self.n_latents >= 1,
            "k": 1 <= self.k <= self.n_latents,
            "learning_rate": 0 < self.learning_rate < math.inf,
            "steps": self.steps >= 1,
            "batch_size": self.batch_size >= 1,
            "revival": self.revival in REVIVALS,
            "auxk_weight": 0 <= self.auxk_weight < math.inf,
            "auxk": self.auxk is None or self.auxk >= 1,
            "dead_after": self.dead_after is None or self.dead_after >= 1,
            "holdout": 0 <= self.holdout < 1,
            "encoder_scale": self.encoder_scale is None or 0 < self.encoder_scale < math.inf,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "checkpoint_every": self.checkpoint_every >= 1,
            "precision": self.precision in PRECISIONS,
            "window": self.window >= self.batch_size,
        }
        wrong = [f"{name}={getattr(self, name)}" for name, good in checks.items() if not good]
        if wrong:
            raise ValueError(
                f"SAEConfig: {', '.join(wrong)} is out of range (k must lie within 1 … n_latents, revival "
                f"be one of {', '.join(REVIVALS)}, precision one of {', '.join(PRECISIONS)}, window at least "
                "batch_size)"
            )


PAPER_PRESETS = {
    "auxk": SAEConfig(k=32, revival="auxk", auxk_weight=1 / 32),
    "sparsity": SAEConfig(k=128, revival="none"),
}
"""The two readings of the paper's "sparsity coefficient 1/32" (C.5): the AuxK weight, or k / M."""

FEW_VECTORS = 8
"""Vectors a latent below which an SAE memorises (measured: with a few thousand prompt tokens for 4096
latents, half of the variance of other text is unexplained)."""
MANY_EPOCHS = 100


def advise(vectors: int, width: int, config: SAEConfig) -> list[str]:
    """What speaks against training on so many vectors of a width with a configuration, before it is done."""
    latents, seen = config.n_latents, config.steps * config.batch_size
    batch = min(config.batch_size, vectors)
    found = []
    if vectors < FEW_VECTORS * latents:
        found.append(
            f"{vectors} vectors are few for {latents} latents, which will memorise them: add more and more "
            f"varied text, or take {max(config.k, vectors // FEW_VECTORS)} latents"
        )
    if seen > MANY_EPOCHS * vectors:
        found.append(
            f"{config.steps} steps go through the {vectors} vectors {seen // vectors} times: "
            f"{max(1, MANY_EPOCHS * vectors // batch)} are enough"
        )
    elif seen < vectors:
        found.append(
            f"{config.steps} steps of {config.batch_size} see {seen} of {vectors} vectors only: "
            f"take {math.ceil(vectors / batch)} steps or more"
        )
    if latents < width:
        found.append(f"{latents} latents are fewer than the features are wide ({width}): take {4 * width}")
    if 2 * config.k > width:
        found.append(
            f"k = {config.k} is no sparse code of features that are {width} wide: take {max(1, width // 8)}"
        )
    if config.revival != "none" and config.dead_after is not None and config.dead_after >= seen:
        found.append(
            f"dead_after = {config.dead_after} is more than the {seen} vectors of the run: nothing is revived"
        )
    return found

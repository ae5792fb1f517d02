"""Random controls: what masking as many other latents does, beside masking the culture neurons."""

import logging

import torch
from torch import Tensor

from .neurons import CultureNeurons, latent_statistics, take_neurons
from .sae import TopKSAE

logger = logging.getLogger(__name__)

_CHUNK = 4096
_NEAREST = 10
"""How many of the nearest latents a frequency-matched draw chooses from."""


def random_latents(
    sae: TopKSAE,
    features: Tensor,
    neurons: CultureNeurons,
    match: str = "frequency",
    seed: int = 0,
    neutral: Tensor | None = None,
) -> CultureNeurons:
    """A random control for chosen neurons, drawn from the other latents active on the features [N, d].

    Args:
        match: "count", as many of the active latents, any; "frequency", as many, each about as often active
            as the neuron that it stands for (the paper's control, tables 1 and 5); "norm", as many as it
            takes for masking them to remove the same norm from the features.
        neutral: features for the neutral WFS of the result; None: zeros.

    Raises:
        ValueError: for an unknown match, or where fewer active latents are left than neurons were chosen.
    """
    cultural = latent_statistics(sae, features)
    plain = (
        latent_statistics(sae, neutral) if neutral is not None else cultural._replace(wfs=cultural.wfs * 0)
    )
    eligible = cultural.frequency > 0
    eligible[neurons.indices] = False
    pool = eligible.nonzero().squeeze(1)
    if len(pool) < len(neurons.indices):
        raise ValueError(
            f"only {len(pool)} other latents are active: too few to stand for {len(neurons.indices)}"
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = pool[torch.randperm(len(pool), generator=generator)]
    if match == "count":
        chosen = shuffled[: len(neurons.indices)]
    elif match == "frequency":
        chosen = _match_frequency(cultural.frequency, neurons.indices, pool, generator)
    elif match == "norm":
        chosen = _match_norm(sae, features, neurons.indices, shuffled)
    else:
        raise ValueError(f"unknown match {match!r}: use count, frequency or norm")
    return take_neurons(chosen, cultural, plain)


def removed_norm(sae: TopKSAE, features: Tensor, indices: Tensor) -> float:
    """Root mean square over features [N, d] of the norm that masking the latents removes."""
    total = 0.0
    indices = indices.to(sae.W_enc.device)
    with torch.no_grad():
        for rows in features.split(_CHUNK):
            removed = sae.encode(rows.to(indices.device))[:, indices] @ sae.W_dec[indices] * sae.scale
            total += float(removed.double().square().sum())
    return (total / len(features)) ** 0.5


def _match_frequency(frequency: Tensor, indices: Tensor, pool: Tensor, generator: torch.Generator) -> Tensor:
    chosen = []
    for index in indices.tolist():
        distances = (frequency[pool] - frequency[index]).abs()
        nearest = distances.sort(stable=True).indices[:_NEAREST]
        pick = nearest[torch.randint(len(nearest), (), generator=generator)]
        chosen.append(pool[pick])
        pool = torch.cat([pool[:pick], pool[pick + 1 :]])
    return torch.stack(chosen)


def _match_norm(sae: TopKSAE, features: Tensor, indices: Tensor, shuffled: Tensor) -> Tensor:
    """As many of the shuffled latents as remove the norm nearest to that of the chosen ones."""
    target = removed_norm(sae, features, indices)
    low, high = 1, len(shuffled)
    if removed_norm(sae, features, shuffled) < target:
        logger.warning(
            "all other latents together remove less norm than the chosen ones; the control is too weak"
        )
        return shuffled
    while low < high:
        middle = (low + high) // 2
        if removed_norm(sae, features, shuffled[:middle]) < target:
            low = middle + 1
        else:
            high = middle
    before = max(1, low - 1)
    gaps = [abs(removed_norm(sae, features, shuffled[:count]) - target) for count in (before, low)]
    return shuffled[: before if gaps[0] <= gaps[1] else low]

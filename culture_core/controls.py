"""Random controls: what other latents do in the place of the culture neurons (paper, tables 1 and 5)."""

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .documents import markdown_table
from .neurons import CultureNeurons, latent_statistics, take_neurons
from .sae import TopKSAE
from .shares import Share

logger = logging.getLogger(__name__)

MATCHES = ("frequency", "norm")
"""What the controls of a table have in common with the culture neurons: the paper's control, and one that
takes as much away."""
_CHUNK = 4096
_NEAREST = 10
"""How many of the nearest latents a frequency-matched draw chooses from."""

Measure = Callable[[Mapping[str, CultureNeurons] | None], Mapping[str, Share | float]]
"""Gets the latents to mask (or amplify) by culture, None for none; gives figures by name."""
Progress = Callable[[int, int], None]
"""Gets (measurements done, measurements in all). What it raises ends the work."""


class Figure(NamedTuple):
    """One figure of a treatment over its draws."""

    mean: float
    """Percent where it is a share."""
    spread: float
    """Standard deviation between draws; 0 for a single one."""
    share: Share | None
    """All draws together, where it is a share."""

    @classmethod
    def of(cls, values: Sequence[Share | float]) -> "Figure":
        """The figure of one value a draw."""
        shares = [value for value in values if isinstance(value, Share)]
        if not shares:
            plain = [value for value in values if not isinstance(value, Share)]
            return cls(statistics.fmean(plain), statistics.pstdev(plain), None)
        pooled = Share(sum(share.right for share in shares), sum(share.count for share in shares))
        return cls(pooled.percent, statistics.pstdev([share.percent for share in shares]), pooled)

    def __str__(self) -> str:
        text = str(self.share) if self.share else f"{self.mean:.3f}"
        return f"{text} ± {self.spread:.{1 if self.share else 3}f}" if self.spread else text


class ControlRow(NamedTuple):
    """What one treatment did."""

    treatment: str
    draws: int
    latents: float
    """Latents a culture, mean over cultures and draws."""
    removed_norm: float
    """What masking them takes from the features, root mean square; mean over cultures and draws."""
    figures: dict[str, Figure]


class Controls(NamedTuple):
    """Culture neurons beside nothing and beside random latents."""

    untreated: ControlRow
    neurons: ControlRow
    random: dict[str, ControlRow]
    """By what the latents were matched in."""

    @property
    def rows(self) -> list[ControlRow]:
        return [self.untreated, self.neurons, *self.random.values()]

    def table(self, names: Sequence[str] | None = None) -> str:
        """A Markdown table, a row a treatment; ± is the standard deviation between draws.

        Args:
            names: the figures to show; None: all.
        """
        names = list(names or self.untreated.figures)
        lines = [["treatment", "draws", "latents", "removed norm", *names]]
        for row in self.rows:
            numbers = [f"{row.draws}", f"{row.latents:.1f}", f"{row.removed_norm:.2f}"]
            lines.append([row.treatment, *numbers, *(str(row.figures[name]) for name in names)])
        return markdown_table(lines)

    def to_json(self) -> list[dict[str, Any]]:
        """The rows as JSON can hold them."""
        return [
            row._asdict() | {"figures": {name: _figure_json(figure) for name, figure in row.figures.items()}}
            for row in self.rows
        ]


def measure_controls(
    sae: TopKSAE,
    neurons: Mapping[str, CultureNeurons],
    features: Mapping[str, Tensor],
    measure: Measure,
    draws: int = 3,
    seed: int = 0,
    matches: Sequence[str] = MATCHES,
    progress: Progress | None = None,
) -> Controls:
    """Measure nothing treated, the culture neurons treated, and random latents in their place.

    Args:
        neurons: by culture code.
        features: of each culture's cultural prompts [N, d]: the controls are drawn from the latents active
            there.
        measure: see `Measure`; called once for nothing, once for the neurons, and once a draw and match.
        draws: how many random draws of each kind; draw n has the seed `seed + n`.
        matches: see `random_latents`.

    Raises:
        ValueError: for less than one draw, no culture, a culture without features, or as `random_latents`.
    """
    if draws < 1 or not neurons:
        raise ValueError("controls need at least one draw and one culture with neurons")
    missing = sorted(set(neurons) - set(features))
    if missing:
        raise ValueError(f"no features to draw controls from for the cultures {', '.join(missing)}")
    total, done = 2 + draws * len(matches), 0

    def row(treatment: str, treated: Sequence[Mapping[str, CultureNeurons] | None]) -> ControlRow:
        nonlocal done
        found = []
        for latents in treated:
            found.append(measure(latents))
            done += 1
            if progress is not None:
                progress(done, total)
        sets = [(code, chosen) for latents in treated if latents for code, chosen in latents.items()]
        return ControlRow(
            treatment,
            len(treated),
            statistics.fmean(len(chosen.indices) for _, chosen in sets) if sets else 0.0,
            statistics.fmean(removed_norm(sae, features[code], chosen.indices) for code, chosen in sets)
            if sets
            else 0.0,
            {name: Figure.of([one[name] for one in found]) for name in found[0]},
        )

    def drawn(match: str, number: int) -> dict[str, CultureNeurons]:
        return {
            code: random_latents(sae, features[code], chosen, match, number)
            for code, chosen in neurons.items()
        }

    return Controls(
        row("none", [None]),
        row("culture neurons", [neurons]),
        {
            match: row(f"random, {match}-matched", [drawn(match, seed + draw) for draw in range(draws)])
            for match in matches
        },
    )


def _figure_json(figure: Figure) -> dict[str, Any]:
    record: dict[str, Any] = {"mean": figure.mean, "spread": figure.spread}
    if figure.share:
        record |= {**figure.share._asdict(), "interval": list(figure.share.interval)}
    return record


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

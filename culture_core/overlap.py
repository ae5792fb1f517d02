"""How far the neurons of cultures are the same (the paper: not at all)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from .neurons import CultureNeurons


class Overlap(NamedTuple):
    """What the neurons of C cultures have in common."""

    codes: list[str]
    counts: list[list[int]]
    """[C, C], latents that both cultures have; on the diagonal, how many a culture has."""
    jaccard: list[list[float]]
    """[C, C], shared latents as a share of all that the two have."""
    shared: dict[int, list[str]]
    """Latents of more than one culture, with the cultures; those of most cultures first."""

    @property
    def mean_jaccard(self) -> float:
        """Over the pairs of different cultures; 0 for one culture."""
        values = [value for row, line in enumerate(self.jaccard) for value in line[:row]]
        return sum(values) / len(values) if values else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            **self._asdict(),
            "shared": [{"latent": latent, "cultures": codes} for latent, codes in self.shared.items()],
            "mean_jaccard": self.mean_jaccard,
        }

    def table(self, most: int = 20) -> str:
        """The pairwise counts, and the latents that are shared, at most so many of them."""
        width = max(4, *(len(code) + 1 for code in self.codes))
        lines = ["".join(f"{code:>{width}}" for code in ("", *self.codes))]
        for code, row in zip(self.codes, self.counts, strict=True):
            lines.append(f"{code:>{width}}" + "".join(f"{count or '.':>{width}}" for count in row))
        lines.append("")
        if not self.shared:
            return "\n".join([*lines, "No latent belongs to more than one culture."])
        lines.append(
            f"{len(self.shared)} latents belong to more than one culture; mean Jaccard index of two cultures "
            f"{self.mean_jaccard:.3f}:"
        )
        listed = list(self.shared.items())
        lines += [f"  latent {latent}: {', '.join(codes)}" for latent, codes in listed[:most]]
        if len(listed) > most:
            lines.append(f"  and {len(listed) - most} more")
        return "\n".join(lines)


def overlap(cultures: Mapping[str, CultureNeurons]) -> Overlap:
    """What the neurons of cultures have in common.

    Raises:
        ValueError: without a culture.
    """
    if not cultures:
        raise ValueError("there are no culture neurons to compare: detect some first")
    sets = {code: set(neurons.indices.tolist()) for code, neurons in cultures.items()}
    counts = [[len(a & b) for b in sets.values()] for a in sets.values()]
    jaccard = [[len(a & b) / len(a | b) for b in sets.values()] for a in sets.values()]
    owners = {
        latent: [code for code, own in sets.items() if latent in own]
        for latent in sorted(set().union(*sets.values()))
    }
    shared = {latent: codes for latent, codes in owners.items() if len(codes) > 1}
    ordered = dict(sorted(shared.items(), key=lambda entry: (-len(entry[1]), entry[0])))
    return Overlap(list(sets), counts, jaccard, ordered)

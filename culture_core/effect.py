"""What amplifying or masking neurons does to the conditioning, measured without an image model.

One vector stands for a prompt: the mean of its final conditioning over the noun's tokens. Two figures are
read off it: how far an edit moves it from where the prompt was to where its partner is (the share of the way,
as in probing's causal check, and the cosine of the two directions), and which culture it is read as, by the
nearest centroid of unedited cultural prompts.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor

from .amplifier import Amplifier
from .encoders import TextEncoder, Tokens
from .neurons import CultureNeurons
from .pairs import PromptPair, Span
from .sae import TopKSAE
from .shares import Share

BATCH = 64
STRENGTHS = (0.5, 1.0, 2.0)
TOKENS = ("content", "all")

Edit = Callable[[Tensor, Tokens], Tensor]
"""Changes a feature [B, S, d] of tokenised prompts."""
Done = Callable[[int], None]
"""Gets how many prompts were encoded since it was called last. What it raises ends the work."""


class Place(NamedTuple):
    """Where an encoder is edited."""

    layer: int
    feature: str
    """`attention_output` or `hidden_state`."""


class Moved(NamedTuple):
    """How far vectors moved from where they were to where they should go, means over prompts."""

    share: float
    """1 − ‖moved − target‖ / ‖start − target‖: 0 not at all, 1 all the way, below 0 away from it."""
    cosine: float
    """Of moved − start with target − start."""


def amplifying(
    sae: TopKSAE, neurons: CultureNeurons, strength: float, mode: str = "inject", tokens: str = "content"
) -> Edit:
    """The edit that amplifies neurons, or masks them at strength −1.

    Args:
        tokens: "content", or "all" but padding.

    Raises:
        ValueError: for unknown tokens, or as `Amplifier`.
    """
    if tokens not in TOKENS:
        raise ValueError(f"unknown tokens {tokens!r}: use {' or '.join(TOKENS)}")
    amplifier = Amplifier(sae, neurons, strength, mode)
    return lambda x, given: amplifier(x, given.content_mask if tokens == "content" else given.attention_mask)


def noun_vectors(
    encoder: TextEncoder,
    texts: Sequence[str],
    nouns: Sequence[Sequence[Span]],
    place: Place | None = None,
    edit: Edit | None = None,
    done: Done | None = None,
) -> Tensor:
    """Final conditioning of prompts, mean over the tokens of the nouns: [P, d] float32 on the CPU.

    Args:
        nouns: spans of the nouns, a list a prompt.
        place: where `edit` changes the encoder.

    Raises:
        ValueError: for a noun that no token stands for.
    """
    rows = []
    for start in range(0, len(texts), BATCH):
        tokens = encoder.tokenize(texts[start : start + BATCH])
        with torch.no_grad(), ExitStack() as stack:
            if edit is not None and place is not None:
                stack.enter_context(encoder.patch(place.layer, place.feature, _at(tokens, edit)))
            hidden = encoder.encode(tokens).hidden.float().cpu()
        for row, values in enumerate(hidden):
            positions = tokens.positions(row, nouns[start + row])
            if not positions:
                raise ValueError(f"the prompt {texts[start + row]!r} has no token for its noun")
            rows.append(values[positions].mean(dim=0))
        if done is not None:
            done(len(hidden))
    return torch.stack(rows)


def moved(start: Tensor, result: Tensor, target: Tensor) -> Moved:
    """How far vectors [P, d] moved from `start` to `target`; pairs that are the same from the start are 0."""
    way, step = target - start, result - start
    whole = way.norm(dim=1)
    share = torch.where(whole > 0, 1 - (target - result).norm(dim=1) / whole.clamp(min=1e-12), 0.0)
    cosine = torch.nn.functional.cosine_similarity(step, way, dim=1)
    return Moved(float(share.mean()), float(cosine.mean()))


class CentroidReader:
    """Reads the culture of vectors: the nearest of the cultures' centroids."""

    def __init__(self, vectors: Tensor, cultures: Sequence[str], nouns: Sequence[str]) -> None:
        """A reader from labelled vectors [P, d].

        Args:
            nouns: the noun of each, so that prompts can be read without what is known of their own noun.
        """
        self.codes = sorted(set(cultures))
        self._rows = torch.tensor([self.codes.index(code) for code in cultures])
        self._nouns = list(nouns)
        self._vectors = vectors

    def read(self, vectors: Tensor, nouns: Sequence[str]) -> list[str]:
        """Cultures of vectors [P, d], each by centroids without the vectors of its own noun."""
        found = [""] * len(vectors)
        for noun in sorted(set(nouns)):
            rows = [row for row, own in enumerate(nouns) if own == noun]
            present, centroids = self._centroids(noun)
            nearest = torch.cdist(vectors[rows], centroids).argmin(dim=1).tolist()
            for row, index in zip(rows, nearest, strict=True):
                found[row] = present[index]
        return found

    def _centroids(self, noun: str) -> tuple[list[str], Tensor]:
        kept = torch.tensor([own != noun for own in self._nouns])
        if not bool(kept.any()):
            raise ValueError(
                f"all prompts have the noun {noun!r}: reading cultures by other nouns' prompts needs two"
            )
        rows, vectors = self._rows[kept], self._vectors[kept]
        present = sorted(set(rows.tolist()))
        centroids = torch.stack([vectors[rows == index].mean(dim=0) for index in present])
        return [self.codes[index] for index in present], centroids


def noun_of(pair: PromptPair) -> str:
    """What prompts of the same noun share: its name or the category, or else the noun as written."""
    return (
        pair.noun
        or pair.category
        or " ".join(pair.neutral[slice(*span)] for span in pair.nouns_neutral).lower()
    )


class PairVectors(NamedTuple):
    """Unedited vectors of prompt pairs [P, d], and what the pairs are about."""

    pairs: list[PromptPair]
    cultural: Tensor
    neutral: Tensor

    @classmethod
    def of(cls, encoder: TextEncoder, pairs: Sequence[PromptPair], done: Done | None = None) -> "PairVectors":
        return cls(
            list(pairs),
            noun_vectors(encoder, [p.cultural for p in pairs], [p.nouns_cultural for p in pairs], done=done),
            noun_vectors(encoder, [p.neutral for p in pairs], [p.nouns_neutral for p in pairs], done=done),
        )

    def reader(self) -> CentroidReader:
        """Reads cultures by the cultural prompts of these pairs."""
        return CentroidReader(
            self.cultural, [p.culture for p in self.pairs], [noun_of(p) for p in self.pairs]
        )


class AmplifiedEffect:
    """How far amplifying a culture's neurons moves its neutral prompts to the cultural ones.

    Called with (culture, neurons) it tries several strengths and reports the figures of the one that moves
    them farthest: more neurons move a prompt farther at one strength, so that a fixed one would settle the
    choice of their number by itself.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        sae: TopKSAE,
        place: Place,
        pairs: PairVectors,
        reader: CentroidReader,
        strengths: Sequence[float] = STRENGTHS,
        done: Done | None = None,
    ) -> None:
        """A measure on pairs that the neurons were not found from."""
        self.encoder, self.sae, self.place = encoder, sae, place
        self.pairs, self.reader, self.strengths, self.done = pairs, reader, tuple(strengths), done

    def __call__(self, culture: str, neurons: CultureNeurons) -> dict[str, float]:
        """Figures: `share` and `cosine` (see `Moved`), `read` and `neutral_read` (percent of the edited and
        of the unedited neutral prompts that are read as the culture), `strength`, and `share_at_…` of every
        strength."""
        rows = [row for row, pair in enumerate(self.pairs.pairs) if pair.culture == culture]
        pairs = [self.pairs.pairs[row] for row in rows]
        start, target = self.pairs.neutral[rows], self.pairs.cultural[rows]
        results = {
            strength: noun_vectors(
                self.encoder, [p.neutral for p in pairs], [p.nouns_neutral for p in pairs], self.place,
                amplifying(self.sae, neurons, strength), self.done,
            )
            for strength in self.strengths
        }  # fmt: skip
        found = {strength: moved(start, result, target) for strength, result in results.items()}
        best = max(found, key=lambda strength: found[strength].share)
        return {
            **found[best]._asdict(),
            "strength": best,
            "read": self._read(results[best], pairs, culture).percent,
            "neutral_read": self._read(start, pairs, culture).percent,
            **{f"share_at_{strength:g}": figures.share for strength, figures in found.items()},
        }

    def _read(self, vectors: Tensor, pairs: Sequence[PromptPair], culture: str) -> Share:
        seen = self.reader.read(vectors, [noun_of(pair) for pair in pairs])
        return Share(sum(code == culture for code in seen), len(seen))


class MaskedEffect:
    """What masking does to cultural prompts; a measure for `controls.measure_controls`.

    `read`: prompts whose culture is still read, and `read_<culture>` those of one culture; `moved` and
    `cosine`: how far they moved to their neutral partners (see `Moved`).
    """

    def __init__(
        self,
        encoder: TextEncoder,
        sae: TopKSAE,
        place: Place,
        pairs: Sequence[PromptPair],
        tokens: str = "content",
        done: Done | None = None,
    ) -> None:
        self.encoder, self.sae, self.place, self.tokens, self.done = encoder, sae, place, tokens, done
        self.vectors = PairVectors.of(encoder, pairs, done)
        self.reader = self.vectors.reader()

    def __call__(self, neurons: Mapping[str, CultureNeurons] | None) -> dict[str, Share | float]:
        """Figures with each culture's latents masked; None: nothing is."""
        result = self.vectors.cultural if neurons is None else self._masked(neurons)
        way = moved(self.vectors.cultural, result, self.vectors.neutral)
        right = self._right(result)
        cultures = [pair.culture for pair in self.vectors.pairs]
        by_culture = {
            f"read_{code}": Share(
                sum(good for good, own in zip(right, cultures, strict=True) if own == code),
                cultures.count(code),
            )
            for code in sorted(set(cultures))
        }
        return {"read": Share(sum(right), len(right)), "moved": way.share, "cosine": way.cosine, **by_culture}

    def neutral_read(self) -> Share:
        """Neutral prompts that are read as the culture of their pair: what the language alone tells."""
        right = self._right(self.vectors.neutral)
        return Share(sum(right), len(right))

    def _right(self, vectors: Tensor) -> list[bool]:
        pairs = self.vectors.pairs
        seen = self.reader.read(vectors, [noun_of(pair) for pair in pairs])
        return [code == pair.culture for code, pair in zip(seen, pairs, strict=True)]

    def _masked(self, neurons: Mapping[str, CultureNeurons]) -> Tensor:
        result = torch.empty_like(self.vectors.cultural)
        for culture, chosen in neurons.items():
            rows = [row for row, pair in enumerate(self.vectors.pairs) if pair.culture == culture]
            pairs = [self.vectors.pairs[row] for row in rows]
            edit = amplifying(self.sae, chosen, -1.0, tokens=self.tokens)
            result[rows] = noun_vectors(
                self.encoder, [p.cultural for p in pairs], [p.nouns_cultural for p in pairs], self.place,
                edit, self.done,
            )  # fmt: skip
        return result


def _at(tokens: Tokens, edit: Edit) -> Callable[[Tensor], Tensor]:
    return lambda x: edit(x, tokens)

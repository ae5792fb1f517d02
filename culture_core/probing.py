"""Probing: in which layer does a culture modifier act on its noun? (paper, section 4.1, eq. 1 to 3)"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .encoders import ATTENTION_OUTPUT, ATTENTION_WEIGHTS, TextEncoder, Tokens
from .pairs import PromptPair

logger = logging.getLogger(__name__)

MODIFIER_TO_NOUN = "modifier_to_noun"
"""Rows modifier, columns noun: the paper's. Zero in a causal encoder where the modifier comes first."""
NOUN_TO_MODIFIER = "noun_to_modifier"
VISIBLE = "visible"
"""For every token pair the direction that the mask lets through, or the mean of both."""
DIRECTIONS = (MODIFIER_TO_NOUN, NOUN_TO_MODIFIER, VISIBLE)
CONTEXT, NONE = "context", "none"
REFERENCES = (CONTEXT, NONE)
CONFIDENCE = 0.95

Progress = Callable[[int, int], None]
"""Gets (pairs done, pairs in all)."""


class LayerProbe(NamedTuple):
    """Curves over the layers, all float32; L layers."""

    ca_cultural: Tensor
    """[L], CA of the cultural prompts (eq. 2)."""
    ca_neutral: Tensor
    """[L], the same of the neutral ones, with the reference in the place of the modifier."""
    delta_ca: Tensor
    """[L], ΔCA (eq. 3)."""
    interval: Tensor
    """[L, 2], 95 % bootstrap interval of ΔCA over pairs."""
    prominence: Tensor
    """[L], ΔCA(l) minus the mean of its neighbours; the key layer is its peak."""
    prominence_interval: Tensor
    """[L, 2], 95 % bootstrap interval of it over pairs."""
    causal: Tensor
    """[L], activation patching: how far the cultural attention output at the noun tokens moves the neutral
    conditioning of the noun towards the cultural one; 0 not at all, 1 all the way."""
    layer: int
    """The key layer."""
    reason: str
    """Why this layer."""
    direction: str
    reference: str
    pairs: int
    """Pairs behind the curves."""
    skipped: tuple[str, ...]
    """Ids of pairs whose modifier or noun shares all of its tokens with other text."""


def probe_layers(
    encoder: TextEncoder,
    pairs: Sequence[PromptPair],
    direction: str | None = None,
    reference: str = CONTEXT,
    batch_size: int = 32,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> LayerProbe:
    """Find the key layer of an encoder from prompt pairs.

    The key layer is the one whose ΔCA stands out most from its neighbours', if the bootstrap interval of that
    excludes zero; otherwise the one that activation patching names. `reason` says which.

    Args:
        direction: whose attention counts, one of `DIRECTIONS`; None: "visible" for a causal encoder,
            otherwise the paper's "modifier_to_noun".
        reference: what stands in for the modifier in a neutral prompt: "context", its other content tokens
            (CA is 0 where there are none), or "none", CA is 0.
        batch_size: pairs at a time.
        bootstrap: resamples.

    Raises:
        ValueError: for no usable pair, or an unknown direction or reference.
    """
    direction = direction or (VISIBLE if encoder.info.causal else MODIFIER_TO_NOUN)
    _check(pairs, direction, reference, batch_size, bootstrap)
    batches, skipped = [], []
    with torch.no_grad():
        for start in range(0, len(pairs), batch_size):
            batch = _Batch.of(encoder, pairs[start : start + batch_size], reference)
            skipped.extend(batch.skipped)
            if batch.pairs:
                batches.append(_probe_batch(encoder, batch, direction))
            if progress is not None:
                progress(min(start + batch_size, len(pairs)), len(pairs))
    if not batches:
        raise ValueError("no prompt pair could be used: in each, modifier and noun share all their tokens")
    if skipped:
        logger.warning(
            "%d of %d prompt pairs were skipped, modifier and noun share tokens", len(skipped), len(pairs)
        )
    cultural, neutral, causal = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return _summary(cultural, neutral, causal, direction, reference, bootstrap, seed, tuple(skipped))


class _Batch(NamedTuple):
    """Pairs with the positions that matter in their tokens; positions in lists, one a pair."""

    pairs: list[PromptPair]
    cultural: Tokens
    neutral: Tokens
    modifiers: list[list[int]]
    """In the cultural prompt."""
    nouns: list[list[int]]
    """In the cultural prompt."""
    stand_ins: list[list[int]]
    """What stands for the modifier in the neutral prompt."""
    neutral_nouns: list[list[int]]
    skipped: list[str]

    @staticmethod
    def of(encoder: TextEncoder, pairs: Sequence[PromptPair], reference: str) -> "_Batch":
        usable, skipped = [], []
        cultural = encoder.tokenize([pair.cultural for pair in pairs])
        neutral = encoder.tokenize([pair.neutral for pair in pairs])
        for row, pair in enumerate(pairs):
            nouns = cultural.positions(row, pair.nouns_cultural)
            # A token that holds letters of both is the noun's: its attention to itself says nothing.
            modifiers = [p for p in cultural.positions(row, pair.modifiers) if p not in nouns]
            neutral_nouns = neutral.positions(row, pair.nouns_neutral)
            if nouns and modifiers and neutral_nouns:
                usable.append(
                    (row, modifiers, nouns, _stand_ins(neutral, row, neutral_nouns, reference), neutral_nouns)
                )
            else:
                skipped.append(pair.id)
        rows = [entry[0] for entry in usable]
        lists = [[entry[part] for entry in usable] for part in (1, 2, 3, 4)]
        return _Batch(
            [pairs[row] for row in rows], _rows(cultural, rows), _rows(neutral, rows), *lists, skipped
        )


def _stand_ins(neutral: Tokens, row: int, nouns: list[int], reference: str) -> list[int]:
    if reference == NONE:
        return []
    # Pieces that are nothing but a word boundary stand for no text: they are no context either.
    return [
        position
        for position, text in enumerate(neutral.offsets[row])
        if text is not None and position not in nouns
    ]


def _rows(tokens: Tokens, rows: list[int]) -> Tokens:
    offsets = None if tokens.offsets is None else [tokens.offsets[row] for row in rows]
    return Tokens(tokens.ids[rows], tokens.attention_mask[rows], tokens.content_mask[rows], offsets)


def _probe_batch(encoder: TextEncoder, batch: _Batch, direction: str) -> tuple[Tensor, Tensor, Tensor]:
    """CA of the cultural and of the neutral prompts and the causal curve, [pairs, L] each."""
    count, layers = len(batch.pairs), encoder.info.layers
    ca_cultural, ca_neutral, causal = (torch.zeros(count, layers) for _ in range(3))
    outputs: dict[int, list[Tensor]] = {}

    def from_cultural(layer: int, what: str, value: Tensor) -> None:
        if what == ATTENTION_WEIGHTS:
            ca_cultural[:, layer] = _ca(value, batch.modifiers, batch.nouns, direction)
        else:
            outputs[layer] = [value[row, nouns].clone() for row, nouns in enumerate(batch.nouns)]

    def from_neutral(layer: int, _what: str, value: Tensor) -> None:
        ca_neutral[:, layer] = _ca(value, batch.stand_ins, batch.neutral_nouns, direction)

    every = range(layers)
    with encoder.watch(every, {ATTENTION_WEIGHTS, ATTENTION_OUTPUT}, from_cultural):
        target = encoder.encode(batch.cultural).hidden
    with encoder.watch(every, {ATTENTION_WEIGHTS}, from_neutral):
        start = encoder.encode(batch.neutral).hidden
    targets = [
        _aligned(target[row, nouns], len(batch.neutral_nouns[row])) for row, nouns in enumerate(batch.nouns)
    ]
    for layer in every:
        with encoder.patch(layer, ATTENTION_OUTPUT, _transplant(outputs[layer], batch.neutral_nouns)):
            moved = encoder.encode(batch.neutral).hidden
        for row, nouns in enumerate(batch.neutral_nouns):
            whole = (start[row, nouns] - targets[row]).norm()
            left = (moved[row, nouns] - targets[row]).norm()
            causal[row, layer] = 1 - left / whole if whole > 0 else 0.0
    return ca_cultural, ca_neutral, causal


def _ca(weights: Tensor, modifiers: list[list[int]], nouns: list[list[int]], direction: str) -> Tensor:
    """CA of every row (eq. 1 and 2): attention weights [B, H, S, S] → [B]; 0 where a side is empty."""
    result = torch.zeros(len(modifiers))
    for row, (modifier, noun) in enumerate(zip(modifiers, nouns, strict=True)):
        if modifier and noun:
            forward = weights[row][:, modifier][:, :, noun].mean(dim=0)
            backward = weights[row][:, noun][:, :, modifier].mean(dim=0).T
            result[row] = _directed(forward, backward, direction)
    return result


def _directed(forward: Tensor, backward: Tensor, direction: str) -> Tensor:
    """Mean over token pairs of the weights modifier → noun and noun → modifier, both [modifiers, nouns]."""
    if direction == MODIFIER_TO_NOUN:
        return forward.mean()
    if direction == NOUN_TO_MODIFIER:
        return backward.mean()
    # The mask makes a hidden token's weight exactly zero, a visible one's is positive.
    visible = (forward > 0).float() + (backward > 0).float()
    seen = visible > 0
    return ((forward + backward)[seen] / visible[seen]).mean() if bool(seen.any()) else torch.zeros(())


def _aligned(values: Tensor, count: int) -> Tensor:
    """Values at the noun's tokens in one prompt [n, d] for its `count` tokens in the other.

    Token by token where the noun is cut alike, otherwise their mean.
    """
    return values if len(values) == count else values.mean(dim=0, keepdim=True).expand(count, -1)


def _transplant(outputs: list[Tensor], nouns: list[list[int]]) -> Callable[[Tensor], Tensor]:
    def patch(feature: Tensor) -> Tensor:
        feature = feature.clone()
        for row, positions in enumerate(nouns):
            feature[row, positions] = _aligned(outputs[row], len(positions)).to(feature.dtype)
        return feature

    return patch


def _summary(
    cultural: Tensor,
    neutral: Tensor,
    causal: Tensor,
    direction: str,
    reference: str,
    bootstrap: int,
    seed: int,
    skipped: tuple[str, ...],
) -> LayerProbe:
    delta = cultural - neutral
    resampled = _resampled_means(delta, bootstrap, seed)
    prominence = _prominence(delta.mean(dim=0)[None])[0]
    bounds = _bounds(_prominence(resampled), len(delta))
    layer, reason = _key_layer(prominence, bounds, causal.mean(dim=0), len(delta))
    return LayerProbe(
        ca_cultural=cultural.mean(dim=0),
        ca_neutral=neutral.mean(dim=0),
        delta_ca=delta.mean(dim=0),
        interval=_bounds(resampled, len(delta)),
        prominence=prominence,
        prominence_interval=bounds,
        causal=causal.mean(dim=0),
        layer=layer,
        reason=reason,
        direction=direction,
        reference=reference,
        pairs=len(delta),
        skipped=skipped,
    )


def _resampled_means(values: Tensor, bootstrap: int, seed: int) -> Tensor:
    """Means [bootstrap, L] over resampled rows of values [P, L]."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.empty(bootstrap, values.shape[1])
    for sample in range(bootstrap):
        means[sample] = values[torch.randint(len(values), (len(values),), generator=generator)].mean(dim=0)
    return means


def _bounds(resampled: Tensor, pairs: int) -> Tensor:
    """95 % percentile interval [L, 2] of resampled values [bootstrap, L]; one pair has no spread."""
    if pairs < 2:
        return torch.tensor([-torch.inf, torch.inf]).expand(resampled.shape[1], 2).clone()
    edges = torch.tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return resampled.quantile(edges, dim=0).T.contiguous()


def _prominence(curves: Tensor) -> Tensor:
    """Curves [n, L] minus the mean of their neighbours, one neighbour at either end."""
    if curves.shape[1] == 1:
        return curves
    inner = (curves[:, :-2] + curves[:, 2:]) / 2
    neighbours = torch.cat([curves[:, 1:2], inner, curves[:, -2:-1]], dim=1)
    return curves - neighbours


def _key_layer(prominence: Tensor, bounds: Tensor, causal: Tensor, pairs: int) -> tuple[int, str]:
    certain = bounds[:, 0] > 0
    moves = int(causal.argmax())
    share = f"{100 * causal[moves]:.1f} % of the way from neutral to cultural, more than any other"
    if not bool(certain.any()):
        return moves, (
            f"layer {moves}: no layer's ΔCA stands out from its neighbours' (every 95 % interval over "
            f"{pairs} pairs reaches zero), so activation patching decides: it moves the noun {share}"
        )
    layer = int(torch.where(certain, prominence, -torch.inf).argmax())
    low, high = bounds[layer].tolist()
    other = f"activation patching names layer {moves} instead, which moves the noun {share}; try both"
    agreement = "activation patching agrees" if moves == layer else other
    return layer, (
        f"layer {layer}: its ΔCA stands out most from its neighbours', by {prominence[layer]:.4f} "
        f"(95 % interval {low:.4f} to {high:.4f} over {pairs} pairs); {agreement}"
    )


def _check(
    pairs: Sequence[PromptPair], direction: str, reference: str, batch_size: int, bootstrap: int
) -> None:
    if not pairs:
        raise ValueError("there are no prompt pairs to probe with")
    if direction not in DIRECTIONS:
        raise ValueError(f"unknown direction {direction!r}: use one of {', '.join(DIRECTIONS)}")
    if reference not in REFERENCES:
        raise ValueError(f"unknown reference {reference!r}: use one of {', '.join(REFERENCES)}")
    if batch_size < 1 or bootstrap < 1:
        raise ValueError(f"batch_size and bootstrap must be at least 1, got {batch_size} and {bootstrap}")

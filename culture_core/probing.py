"""Probing: in which layer does a culture modifier act on its noun? (paper, section 4.1, eq. 1 to 3)"""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from .encoders import ATTENTION_OUTPUT, TextEncoder, Tokens
from .key_layer import AUTO, CAUSAL, CRITERIA, bounds_of, choose_layer, prominence_of, resampled_means
from .pairs import PromptPair
from .text_encoder import LayerRecord

logger = logging.getLogger(__name__)

MODIFIER_TO_NOUN = "modifier_to_noun"
"""Rows modifier, columns noun: the paper's. Zero in a causal encoder where the modifier comes first."""
NOUN_TO_MODIFIER = "noun_to_modifier"
VISIBLE = "visible"
"""For every token pair the direction that the mask lets through, or the mean of both."""
DIRECTIONS = (MODIFIER_TO_NOUN, NOUN_TO_MODIFIER, VISIBLE)
CONTEXT, NONE = "context", "none"
REFERENCES = (CONTEXT, NONE)
_TOKENISE = 256
"""Prompts at a time where only their lengths matter."""
_ORDINARY = 16
"""Tokens of a prompt of ordinary length."""

Progress = Callable[[int, int], None]
"""Gets (pairs done, pairs in all), also several times with the same numbers, so that work can be stopped."""


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
    """[L], ΔCA(l) minus the mean of its neighbours; the attention's key layer is its peak."""
    prominence_interval: Tensor
    """[L, 2], 95 % bootstrap interval of it over pairs."""
    causal: Tensor
    """[L], activation patching: how far the cultural attention output at the noun tokens moves the neutral
    conditioning of the noun towards the cultural one; 0 not at all, 1 all the way. NaN where patching was
    left out."""
    layer: int
    """The key layer, by the criterion."""
    reason: str
    """Why this layer."""
    direction: str
    reference: str
    pairs: int
    """Pairs behind the curves."""
    skipped: tuple[str, ...]
    """Ids of pairs whose modifier or noun shares all of its tokens with other text."""
    criterion: str = AUTO
    """What chose the layer, one of `CRITERIA`."""
    layer_attention: int | None = None
    """The peak of the prominence among the layers where its interval excludes zero; None where there is
    none."""
    layer_causal: int | None = None
    """The peak of the causal curve; None where patching was left out."""


class LanguageProbes(NamedTuple):
    """Probes from the same passes."""

    overall: LayerProbe
    """Of all pairs."""
    languages: dict[str, LayerProbe]
    """Of the pairs of a language, by its code; a language none of whose pairs can be used is missing."""


def probe_layers(
    encoder: TextEncoder,
    pairs: Sequence[PromptPair],
    direction: str | None = None,
    reference: str = CONTEXT,
    batch_size: int = 32,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
    criterion: str = AUTO,
    patching: bool = True,
) -> LayerProbe:
    """Find the key layer of an encoder from prompt pairs.

    Args:
        direction: whose attention counts, one of `DIRECTIONS`; None: "visible" for a causal encoder,
            otherwise the paper's "modifier_to_noun".
        reference: what stands in for the modifier in a neutral prompt: "context", its other content tokens
            (CA is 0 where there are none), or "none", CA is 0.
        batch_size: pairs of ordinary length at a time; fewer of very long ones.
        bootstrap: resamples.
        criterion: what chooses the layer. "attention": the layer whose ΔCA stands out most from its
            neighbours' (the paper's). "causal": the one that activation patching names. "auto": the former,
            if the bootstrap interval of its prominence excludes zero, otherwise the latter; `reason` says
            which, and whether both agree.
        patching: whether to measure the causal curve; it takes several times as long as attention alone.

    Raises:
        ValueError: for no usable pair, or an unknown direction, reference or criterion.
    """
    summary, _ = _probe(
        encoder, pairs, direction, reference, batch_size, bootstrap, seed, progress, criterion, patching
    )
    return summary(None)


def probe_by_language(
    encoder: TextEncoder,
    pairs: Sequence[PromptPair],
    direction: str | None = None,
    reference: str = CONTEXT,
    batch_size: int = 32,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
    criterion: str = AUTO,
    patching: bool = True,
) -> LanguageProbes:
    """As `probe_layers`, with a probe of each language beside that of all pairs."""
    summary, languages = _probe(
        encoder, pairs, direction, reference, batch_size, bootstrap, seed, progress, criterion, patching
    )
    return LanguageProbes(summary(None), {language: summary(language) for language in languages})


def _probe(
    encoder: TextEncoder,
    pairs: Sequence[PromptPair],
    direction: str | None,
    reference: str,
    batch_size: int,
    bootstrap: int,
    seed: int,
    progress: Progress | None,
    criterion: str,
    patching: bool,
) -> tuple[Callable[[str | None], LayerProbe], list[str]]:
    """Go through the pairs once.

    Returns:
        What sums up the pairs of a language, or of all for None; and the languages that it can do that for.
    """
    direction = direction or (VISIBLE if encoder.info.causal else MODIFIER_TO_NOUN)
    _check(pairs, direction, reference, batch_size, bootstrap, criterion, patching)
    curves = _measure(encoder, pairs, direction, reference, batch_size, patching, progress)
    if not curves:
        raise ValueError("no prompt pair could be used: in each, modifier and noun share all their tokens")
    if len(curves) < len(pairs):
        logger.warning(
            "%d of %d prompt pairs were skipped, modifier and noun share tokens",
            len(pairs) - len(curves), len(pairs),
        )  # fmt: skip

    def summary(language: str | None) -> LayerProbe:
        chosen = [index for index, pair in enumerate(pairs) if language in (None, pair.language)]
        parts = zip(*(curves[index] for index in chosen if index in curves), strict=True)
        skipped = tuple(pairs[index].id for index in chosen if index not in curves)
        cultural, neutral, causal = (torch.stack(part) for part in parts)
        return _summary(cultural, neutral, causal, direction, reference, bootstrap, seed, skipped, criterion)

    return summary, sorted({pairs[index].language for index in curves})


def _measure(
    encoder: TextEncoder,
    pairs: Sequence[PromptPair],
    direction: str,
    reference: str,
    batch_size: int,
    patching: bool,
    progress: Progress | None,
) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """CA of the cultural and of the neutral prompt and the causal curve, [L] each, by the pair's index; pairs
    that cannot be used are missing."""
    curves = {}
    done = 0
    with torch.no_grad():
        for chosen in _batches(encoder, pairs, batch_size):
            batch = _Batch.of(encoder, [pairs[index] for index in chosen], reference)

            def report(share: float, done: int = done, size: int = len(chosen)) -> None:
                if progress is not None:
                    progress(done + int(share * size), len(pairs))

            if batch.rows:
                measured = _probe_batch(encoder, batch, direction, patching, report)
                for row, *parts in zip(batch.rows, *measured, strict=True):
                    curves[chosen[row]] = tuple(parts)
            report(1)
            done += len(chosen)
    return curves


def _batches(encoder: TextEncoder, pairs: Sequence[PromptPair], batch_size: int) -> list[list[int]]:
    """Indices of the pairs, short prompts first, so that those of a batch need little padding; fewer of the
    long ones, so that a batch needs no more memory than one of ordinary prompts."""
    lengths: list[int] = []
    for start in range(0, len(pairs), _TOKENISE):
        tokens = encoder.tokenize([pair.cultural for pair in pairs[start : start + _TOKENISE]])
        lengths.extend(tokens.attention_mask.sum(dim=1).tolist())
    batches: list[list[int]] = [[]]
    for index in sorted(range(len(pairs)), key=lengths.__getitem__):
        count = len(batches[-1])
        if count == batch_size or (count and (count + 1) * lengths[index] > batch_size * _ORDINARY):
            batches.append([])
        batches[-1].append(index)
    return batches


class _Block(NamedTuple):
    """Modifier x noun pairs of tokens in a batch of prompts, padded to the same numbers M and N."""

    modifiers: Tensor
    """[B, M] positions."""
    nouns: Tensor
    """[B, N] positions."""
    real: Tensor
    """[B, M, N] bool: no padding."""

    @staticmethod
    def of(modifiers: list[list[int]], nouns: list[list[int]]) -> "_Block":
        (first, first_real), (second, second_real) = _padded(modifiers), _padded(nouns)
        return _Block(first, second, first_real[:, :, None] & second_real[:, None, :])

    def queries(self, direction: str) -> Tensor:
        """Positions [B, Q] of the tokens whose attention counts."""
        if direction == VISIBLE:
            return torch.cat([self.modifiers, self.nouns], dim=1)
        return self.modifiers if direction == MODIFIER_TO_NOUN else self.nouns

    def ca(self, weights: Tensor, direction: str) -> Tensor:
        """CA of every prompt (eq. 1 and 2): attention weights [B, H, Q, S] of the queries → [B]; 0 where a
        side is empty."""
        mean = weights.mean(dim=1)
        modifiers, nouns, real = (part.to(weights.device) for part in self)
        count = modifiers.shape[1]
        if direction == NOUN_TO_MODIFIER:
            values, counted = _columns(mean, modifiers).transpose(1, 2), real
        elif direction == MODIFIER_TO_NOUN:
            values, counted = _columns(mean, nouns), real
        else:
            forward = _columns(mean[:, :count], nouns)
            backward = _columns(mean[:, count:], modifiers).transpose(1, 2)
            # The mask makes a hidden token's weight exactly zero, a visible one's is positive.
            visible = (forward > 0).float() + (backward > 0).float()
            values, counted = (forward + backward) / visible.clamp(min=1), real & (visible > 0)
        values = torch.where(counted, values, 0.0)
        return values.sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp(min=1)


def _padded(lists: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Lists as one tensor [B, N], N at least 1, and which of its entries are real.

    The others repeat the first: at the positions of padding, an encoder may compute NaN.
    """
    width = max(1, *map(len, lists))
    values = torch.tensor([[*entries, *(entries[:1] or [0]) * (width - len(entries))] for entries in lists])
    return values, torch.tensor([[place < len(entries) for place in range(width)] for entries in lists])


def _columns(rows: Tensor, positions: Tensor) -> Tensor:
    """[B, Q, S] at positions [B, N] → [B, Q, N]."""
    return rows.gather(2, positions[:, None].expand(-1, rows.shape[1], -1))


class _Batch(NamedTuple):
    """Pairs as tokens, with the positions that matter in them."""

    rows: list[int]
    """Which of the given pairs can be used; all else is of these alone."""
    cultural: Tokens
    neutral: Tokens
    block: _Block
    """In the cultural prompts."""
    neutral_block: _Block
    """In the neutral ones, with what stands in for the modifiers."""
    noun_tokens: list[tuple[int, int]]
    """Number of noun tokens in the cultural and in the neutral prompt."""

    @staticmethod
    def of(encoder: TextEncoder, pairs: Sequence[PromptPair], reference: str) -> "_Batch":
        cultural = encoder.tokenize([pair.cultural for pair in pairs])
        neutral = encoder.tokenize([pair.neutral for pair in pairs])
        usable: dict[int, tuple[list[int], ...]] = {}
        for row, pair in enumerate(pairs):
            nouns = cultural.positions(row, pair.nouns_cultural)
            # A token that holds letters of both is the noun's: its attention to itself says nothing.
            modifiers = [p for p in cultural.positions(row, pair.modifiers) if p not in nouns]
            neutral_nouns = neutral.positions(row, pair.nouns_neutral)
            if nouns and modifiers and neutral_nouns:
                stand_ins = _stand_ins(neutral, row, neutral_nouns, reference)
                usable[row] = modifiers, nouns, stand_ins, neutral_nouns
        rows = list(usable)
        # Four lists for each row, the row's tokens.
        lists = [[found[part] for found in usable.values()] or [[]] for part in range(4)]
        return _Batch(
            rows,
            _rows(encoder, cultural, rows),
            _rows(encoder, neutral, rows),
            _Block.of(lists[0], lists[1]),
            _Block.of(lists[2], lists[3]),
            [(len(a), len(b)) for a, b in zip(lists[1], lists[3], strict=True)],
        )

    def alignment(self) -> Tensor:
        """[B, N', N]: takes values at the cultural prompt's noun tokens to the neutral one's, token by token
        where the noun is cut alike, otherwise their mean to each."""
        shape = len(self.rows), self.neutral_block.nouns.shape[1], self.block.nouns.shape[1]
        matrix = torch.zeros(shape)
        for row, (there, here) in enumerate(self.noun_tokens):
            matrix[row, :here, :there] = torch.eye(here) if here == there else 1 / there
        return matrix


def _stand_ins(neutral: Tokens, row: int, nouns: list[int], reference: str) -> list[int]:
    if reference == NONE:
        return []
    # Pieces that are nothing but a word boundary stand for no text: they are no context either.
    return [
        position
        for position, text in enumerate((neutral.offsets or [])[row])
        if text is not None and position not in nouns
    ]


def _rows(encoder: TextEncoder, tokens: Tokens, rows: list[int]) -> Tokens:
    if not rows:
        return tokens
    offsets = None if tokens.offsets is None else [tokens.offsets[row] for row in rows]
    chosen = Tokens(tokens.ids[rows], tokens.attention_mask[rows], tokens.content_mask[rows], offsets)
    return encoder.without_padding(chosen)


def _probe_batch(
    encoder: TextEncoder, batch: _Batch, direction: str, patching: bool, report: Callable[[float], None]
) -> tuple[Tensor, Tensor, Tensor]:
    """CA of the cultural and of the neutral prompts and the causal curve, [pairs, L] each.

    `report` gets the share that is done.
    """
    layers = encoder.info.layers
    steps = 2 + (layers if patching else 0)
    nouns = batch.block.nouns
    taken: list[Tensor] = []

    def take(_layer: int, _what: str, value: Tensor) -> None:
        taken.append(_at(value, nouns).clone())

    watched = encoder.watch(range(layers), {ATTENTION_OUTPUT} if patching else (), take)
    with watched:
        target, cultural = _attend(encoder, batch.cultural, batch.block, direction)
    report(1 / steps)
    recording = encoder.record() if patching else nullcontext(LayerRecord())
    with recording as recorded:
        start, neutral = _attend(encoder, batch.neutral, batch.neutral_block, direction)
    report(2 / steps)
    if not patching:
        return cultural, neutral, torch.full_like(cultural, torch.nan)
    alignment = batch.alignment().to(start.device)
    places = batch.neutral_block.nouns
    real = alignment.any(dim=2)
    target, start = alignment @ _at(target, nouns), _at(start, places)
    whole = _distance(start, target, real)
    # A noun that does not see the modifier is the same in both prompts, up to rounding.
    differs = whole > 0.3 * torch.finfo(taken[0].dtype).eps ** 0.5 * _distance(target, 0 * target, real)
    shares = []
    for layer in range(layers):
        # Below the patch, and outside the noun's tokens in its layer, the encode is the neutral one.
        patch = _transplant(alignment.to(taken[layer]) @ taken[layer], places, real)
        with encoder.resume(layer, recorded), encoder.patch(layer, ATTENTION_OUTPUT, patch):
            moved = _at(encoder.encode(batch.neutral).hidden, places)
        share = 1 - _distance(moved, target, real) / whole
        shares.append(torch.where(differs, share, 0.0))
        report((3 + layer) / steps)
    return cultural, neutral, torch.stack(shares, dim=1).cpu()


def _attend(encoder: TextEncoder, tokens: Tokens, block: _Block, direction: str) -> tuple[Tensor, Tensor]:
    """Conditioning [B, S, d] of prompts, and their CA in all layers [B, L], of which no more is kept than the
    numbers themselves."""
    found: list[Tensor] = []

    def keep(_layer: int, _what: str, weights: Tensor) -> None:
        found.append(block.ca(weights, direction))

    with encoder.watch_attention_of(range(encoder.info.layers), block.queries(direction), keep):
        hidden = encoder.encode(tokens).hidden
    return hidden, torch.stack(found, dim=1).cpu()


def _at(values: Tensor, positions: Tensor) -> Tensor:
    """[B, S, d] at positions [B, N] → [B, N, d]."""
    return values.gather(1, positions.to(values.device)[..., None].expand(-1, -1, values.shape[-1]))


def _distance(a: Tensor, b: Tensor, real: Tensor) -> Tensor:
    """‖a − b‖ over the real ones of N tokens: [B, N, d], twice → [B]."""
    return ((a - b) * real[..., None]).flatten(1).norm(dim=1)


def _transplant(values: Tensor, places: Tensor, real: Tensor) -> Callable[[Tensor], Tensor]:
    """Puts values [B, N, d] at the real ones of places [B, N]."""
    rows, slots = real.nonzero(as_tuple=True)
    positions = places.to(rows.device)[rows, slots]

    def patch(feature: Tensor) -> Tensor:
        feature = feature.clone()
        feature[rows, positions] = values[rows, slots].to(feature.dtype)
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
    criterion: str,
) -> LayerProbe:
    """Curves of pairs, [pairs, L] each, as a probe."""
    delta = cultural - neutral
    resampled = resampled_means(delta, bootstrap, seed)
    prominence = prominence_of(delta.mean(dim=0)[None])[0]
    bounds = bounds_of(prominence_of(resampled), len(delta))
    choice = choose_layer(prominence, bounds, causal.mean(dim=0), len(delta), criterion)
    return LayerProbe(
        ca_cultural=cultural.mean(dim=0),
        ca_neutral=neutral.mean(dim=0),
        delta_ca=delta.mean(dim=0),
        interval=bounds_of(resampled, len(delta)),
        prominence=prominence,
        prominence_interval=bounds,
        causal=causal.mean(dim=0),
        layer=choice.layer,
        reason=choice.reason,
        direction=direction,
        reference=reference,
        pairs=len(delta),
        skipped=skipped,
        criterion=criterion,
        layer_attention=choice.attention,
        layer_causal=choice.causal,
    )


def _check(
    pairs: Sequence[PromptPair],
    direction: str,
    reference: str,
    batch_size: int,
    bootstrap: int,
    criterion: str,
    patching: bool,
) -> None:
    if not pairs:
        raise ValueError("there are no prompt pairs to probe with")
    choices = (("direction", direction, DIRECTIONS), ("reference", reference, REFERENCES))
    for name, value, known in (*choices, ("criterion", criterion, CRITERIA)):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}: use one of {', '.join(known)}")
    if criterion == CAUSAL and not patching:
        raise ValueError('the criterion "causal" needs activation patching: leave patching on')
    if batch_size < 1 or bootstrap < 1:
        raise ValueError(f"batch_size and bootstrap must be at least 1, got {batch_size} and {bootstrap}")

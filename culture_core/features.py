"""Feature vectors of prompts: what an SAE is trained on and culture neurons are found from."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .encoders import TextEncoder, Tokens
from .pairs import PromptPair, Span

BATCH = 64


class NounFeatures(NamedTuple):
    """A feature at the noun tokens, by culture code: [N, d] each, float32."""

    cultural: dict[str, Tensor]
    """From the cultural prompts."""
    neutral: dict[str, Tensor]
    """From the neutral prompts of the same pairs."""


def content_features(
    encoder: TextEncoder,
    texts: Sequence[str],
    layer: int,
    feature: str,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """The feature at all content tokens of prompts.

    Args:
        feature: `attention_output` or `hidden_state`.
        progress: gets the number of prompts done.

    Returns:
        Features [N, d] float32, and for each the index of its prompt [N].
    """
    parts, prompts = [], []
    for start, tokens, values in _batches(encoder, texts, layer, feature):
        rows, _ = tokens.content_mask.nonzero(as_tuple=True)
        parts.append(values[tokens.content_mask])
        prompts.append(rows + start)
        if progress:
            progress(start + len(tokens.ids))
    return torch.cat(parts), torch.cat(prompts)


def noun_features(
    encoder: TextEncoder, pairs: Sequence[PromptPair], layer: int, feature: str
) -> NounFeatures:
    """The feature at the noun tokens of prompt pairs, by culture.

    The paper's feature is |T_cult| · |T_noun| wide, which differs from prompt to prompt and does not exist
    for a neutral one; the feature at the noun tokens has one width for all.
    """
    codes = [pair.culture for pair in pairs]
    cultural = _at_spans(
        encoder, [p.cultural for p in pairs], [p.nouns_cultural for p in pairs], codes, layer, feature
    )
    neutral = _at_spans(
        encoder, [p.neutral for p in pairs], [p.nouns_neutral for p in pairs], codes, layer, feature
    )
    return NounFeatures(cultural, neutral)


def _at_spans(
    encoder: TextEncoder,
    texts: list[str],
    spans: list[Sequence[Span]],
    codes: list[str],
    layer: int,
    feature: str,
) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {code: [] for code in codes}
    for start, tokens, values in _batches(encoder, texts, layer, feature):
        for row in range(len(tokens.ids)):
            parts[codes[start + row]].append(values[row, tokens.positions(row, spans[start + row])])
    return {code: torch.cat(rows) for code, rows in parts.items()}


def _batches(
    encoder: TextEncoder, texts: Sequence[str], layer: int, feature: str
) -> Iterator[tuple[int, Tokens, Tensor]]:
    """(index of the first prompt, tokens, feature [B, S, d] on the CPU) of one batch after the other."""
    for start in range(0, len(texts), BATCH):
        tokens = encoder.tokenize(texts[start : start + BATCH])
        with torch.no_grad(), encoder.capture([layer], {feature}) as captured:
            encoder.encode(tokens)
        yield start, tokens, getattr(captured, feature)[layer].float().cpu()

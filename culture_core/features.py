"""Feature vectors of prompts: what an SAE is trained on and culture neurons are found from."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .encoders import TextEncoder, Tokens
from .pairs import PromptPair, Span
from .sae.sources import FeatureStore, StoreWriter

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
    """The feature at all content tokens of prompts, in memory; see `write_features` for more than fits there.

    Args:
        feature: `attention_output` or `hidden_state`.
        progress: gets the number of prompts done.

    Returns:
        Features [N, d] float32, and for each the index of its prompt [N].
    """
    parts, prompts = [], []
    for values, rows, done in _content_batches(encoder, texts, layer, feature, 0):
        parts.append(values)
        prompts.append(rows)
        if progress:
            progress(done)
    return torch.cat(parts), torch.cat(prompts)


def write_features(
    encoder: TextEncoder,
    texts: Sequence[str],
    layer: int,
    feature: str,
    folder: str | os.PathLike[str],
    dtype: str = "float32",
    shard_vectors: int = 65536,
    progress: Callable[[int], None] | None = None,
) -> FeatureStore:
    """The feature at all content tokens of texts, written to a folder; `train_sae` takes the store as it is.

    At most `shard_vectors` vectors and those of one batch of texts are in memory. Files appear whole or not
    at all: a writer that was interrupted or killed goes on after its last shard when called again, and ends
    with the very store of an undisturbed one. A complete store is opened as it is.

    Args:
        feature: `attention_output` or `hidden_state`.
        dtype: `float32`, or `float16` for half the space.
        progress: gets the number of texts done. What it raises ends the work.

    Raises:
        ValueError: for a folder that holds features of something else, or features that are not finite.
    """
    identity = {
        "encoder": encoder.fingerprint(), "layer": layer, "feature": feature, "texts": _texts_hash(texts)
    }  # fmt: skip
    writer = StoreWriter(folder, identity, encoder.info.width, dtype, shard_vectors)
    if not writer.complete:
        for values, rows, done in _content_batches(encoder, texts, layer, feature, writer.texts):
            writer.add(values, rows, done)
            if progress:
                progress(done)
        writer.close(len(texts))
    return FeatureStore(folder)


def noun_features(
    encoder: TextEncoder,
    pairs: Sequence[PromptPair],
    layer: int,
    feature: str,
    progress: Callable[[int], None] | None = None,
) -> NounFeatures:
    """The feature at the noun tokens of prompt pairs, by culture.

    The paper's feature is |T_cult| · |T_noun| wide, which differs from prompt to prompt and does not exist
    for a neutral one; the feature at the noun tokens has one width for all.

    Args:
        progress: gets the number of prompts done, of two a pair.
    """
    codes = [pair.culture for pair in pairs]
    sides = (
        ([pair.cultural for pair in pairs], [pair.nouns_cultural for pair in pairs]),
        ([pair.neutral for pair in pairs], [pair.nouns_neutral for pair in pairs]),
    )
    found = []
    for before, (texts, spans) in zip((0, len(pairs)), sides, strict=True):
        report = progress and _from(before, progress)
        found.append(_at_spans(encoder, texts, spans, codes, layer, feature, report))
    return NounFeatures(*found)


def _from(before: int, progress: Callable[[int], None]) -> Callable[[int], None]:
    return lambda done: progress(before + done)


def _at_spans(
    encoder: TextEncoder,
    texts: list[str],
    spans: Sequence[Sequence[Span]],
    codes: list[str],
    layer: int,
    feature: str,
    progress: Callable[[int], None] | None,
) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {code: [] for code in codes}
    for start, tokens, values in _batches(encoder, texts, layer, feature):
        for row in range(len(tokens.ids)):
            parts[codes[start + row]].append(values[row, tokens.positions(row, spans[start + row])])
        if progress:
            progress(start + len(tokens.ids))
    return {code: torch.cat(rows) for code, rows in parts.items()}


def _content_batches(
    encoder: TextEncoder, texts: Sequence[str], layer: int, feature: str, first: int
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """(features [n, d], index of the text of each [n], texts done) of one batch after the other."""
    for start, tokens, values in _batches(encoder, texts, layer, feature, first):
        rows, _ = tokens.content_mask.nonzero(as_tuple=True)
        yield values[tokens.content_mask], rows + start, start + len(tokens.ids)


def _batches(
    encoder: TextEncoder, texts: Sequence[str], layer: int, feature: str, first: int = 0
) -> Iterator[tuple[int, Tokens, Tensor]]:
    """(index of the first prompt, tokens, feature [B, S, d] on the CPU) of one batch after the other."""
    for start in range(first, len(texts), BATCH):
        tokens = encoder.tokenize(texts[start : start + BATCH])
        with torch.no_grad(), encoder.capture([layer], {feature}) as captured:
            encoder.encode(tokens)
        yield start, tokens, getattr(captured, feature)[layer].float().cpu()


def _texts_hash(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()

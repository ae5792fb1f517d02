"""What the records of each split may be used for: the one place that keeps test data out of training.

Every training entry point, commands and nodes alike, takes its prompt pairs through `usable`. A use lists the
splits that it may see; a pair of any other split, also of one that is not known, is refused.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .pairs import PairError, PromptPair

TRAIN, VALIDATION, TEST, NEURON_DETECTION = "train", "validation", "test", "neuron_detection"
UNSEEN = "unseen"
"""The miniature's second test split: nouns that nothing was trained on."""
BENCH_SPLITS = (TRAIN, TEST, NEURON_DETECTION)
"""The paper's three, in the order of its 7 : 2 : 1."""


class Use(NamedTuple):
    """Something that prompt pairs are used for."""

    name: str
    """For messages: "… may not be used for <name>"."""
    splits: frozenset[str | None]
    """Splits that it may see; None stands for pairs without a split."""


SAE_TRAINING = Use("training an SAE", frozenset({None, TRAIN, VALIDATION}))
ENHANCER_TRAINING = Use("training an enhancer", frozenset({None, TRAIN}))
DETECTION = Use("detecting neurons", frozenset({None, TRAIN, VALIDATION, NEURON_DETECTION}))
EVALUATION = Use("evaluating systems", frozenset({None, TEST, UNSEEN}))


def usable(pairs: Sequence[PromptPair], use: Use) -> list[PromptPair]:
    """The pairs that may be used so; `left_out` says what became of the others.

    Raises:
        PairError: where there are pairs and none of them may.
    """
    kept = [pair for pair in pairs if pair.split in use.splits]
    if pairs and not kept:
        raise PairError(
            f"there are no prompt pairs for {use.name}: all {len(pairs)} are of {_named(pairs)}; give pairs "
            f"of {_allowed(use)}"
        )
    return kept


def check_usable(pairs: Iterable[PromptPair], use: Use) -> None:
    """Every pair must be one that may be used so.

    Raises:
        PairError: where one may not.
    """
    refused = _refused(pairs, use)
    if refused:
        raise PairError(
            f"prompt pair {refused[0].id!r} and {len(refused) - 1} more may not be used for {use.name}: they "
            f"are of {_named(refused)}; give pairs of {_allowed(use)}"
        )


def left_out(pairs: Iterable[PromptPair], use: Use) -> str:
    """A sentence about the pairs that `usable` refuses; empty where there are none."""
    refused = _refused(pairs, use)
    if not refused:
        return ""
    return (
        f"{len(refused)} prompt pairs of {_named(refused)} may not be used for {use.name} and were left out."
    )


def _refused(pairs: Iterable[PromptPair], use: Use) -> list[PromptPair]:
    return [pair for pair in pairs if pair.split not in use.splits]


def _named(pairs: Iterable[PromptPair]) -> str:
    counts = Counter(pair.split for pair in pairs)
    listed = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return f"the split{'s' if len(counts) > 1 else ''} {listed}"


def _allowed(use: Use) -> str:
    return f"the splits {', '.join(sorted(filter(None, use.splits)))}, or without a split"

"""Which splits may be used for what."""

import pytest

from culture_core.pairs import PairError, PromptPair
from culture_core.splits import (
    DETECTION,
    ENHANCER_TRAINING,
    NEURON_DETECTION,
    SAE_TRAINING,
    TEST,
    TRAIN,
    UNSEEN,
    VALIDATION,
    Use,
    check_usable,
    left_out,
    usable,
)

SPLITS = (None, TRAIN, VALIDATION, NEURON_DETECTION, TEST, UNSEEN, "dev", "Train")


def pair(split: str | None) -> PromptPair:
    spans = ((0, 4),), ((5, 9),), ((0, 4),)
    return PromptPair(f"of {split}", "th", "en", "thai bowl", "bowl", *spans, split=split)


@pytest.mark.parametrize(
    ("use", "seen"),
    [
        (SAE_TRAINING, {None, TRAIN, VALIDATION}),
        (ENHANCER_TRAINING, {None, TRAIN}),
        (DETECTION, {None, TRAIN, VALIDATION, NEURON_DETECTION}),
    ],
)
def test_test_data_is_seen_by_nothing_and_detection_data_by_detection_alone(use: Use, seen: set):
    pairs = [pair(split) for split in SPLITS]
    assert {one.split for one in usable(pairs, use)} == seen
    refused = [one for one in pairs if one.split not in seen]
    for one in refused:
        with pytest.raises(PairError, match=f"{use.name}.*{one.split}"):
            usable([one], use)
        with pytest.raises(PairError, match=f"{use.name}.*{one.split}"):
            check_usable([pair(TRAIN), one], use)
        assert one.split in left_out(pairs, use)
    assert left_out(pairs, use).startswith(f"{len(refused)} prompt pairs")


def test_where_all_may_be_used_nothing_is_said():
    pairs = [pair(TRAIN), pair(None)]
    assert usable(pairs, ENHANCER_TRAINING) == pairs and left_out(pairs, ENHANCER_TRAINING) == ""
    assert usable([], SAE_TRAINING) == []
    check_usable(pairs, ENHANCER_TRAINING)

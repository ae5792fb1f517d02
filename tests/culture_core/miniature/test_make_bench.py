"""The example bench: complete, honest about what the miniature was trained on, and small."""

from collections import Counter

import pytest

from culture_core.bench import Bench
from culture_core.cultures import CULTURES
from culture_core.miniature.captions import split_of, training_captions
from culture_core.miniature.make_bench import CATEGORIES, FOLDER, nouns_by_split
from culture_core.splits import NEURON_DETECTION, TEST, TRAIN


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench.open(FOLDER)


def test_every_culture_is_split_seven_to_two_to_one(bench):
    counts = Counter((record.culture, record.split) for record in bench.accepted())
    for code in CULTURES:
        assert [counts[code, split] for split in (TRAIN, TEST, NEURON_DETECTION)] == [14, 4, 2]


def test_the_image_model_saw_no_test_record_and_all_detection_nouns(bench):
    seen = {caption.text for caption in training_captions()}
    for record in bench.accepted(TEST):
        assert split_of(record.culture, record.noun) == "test"
        assert record.cultural not in seen and record.neutral not in seen
    for split in (TRAIN, NEURON_DETECTION):
        for record in bench.accepted(split):
            assert split_of(record.culture, record.noun) == "train" and record.cultural in seen


def test_records_are_those_that_the_script_makes(bench):
    for code in CULTURES:
        for split, nouns in nouns_by_split(code).items():
            own = [record for record in bench.accepted(split) if record.culture == code]
            assert Counter(record.noun for record in own) == dict.fromkeys(nouns, 2)
            assert all(record.noun in CATEGORIES[record.category] for record in own)


def test_it_is_small(bench):
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert len(files) == len(bench) + 1 == 301
    assert sum(path.stat().st_size for path in files) < 3 << 20

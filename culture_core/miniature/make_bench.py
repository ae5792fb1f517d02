"""The miniature as a culture benchmark: pictures drawn to order, with captions, a review and the split.

  python -m culture_core.miniature.make_bench

writes `models/culture_bench/miniature`, the example of `culture_core.bench`. Of each culture it has 20
records, two a noun. The test nouns are those that the miniature's image model never saw in that culture, in
the wording that it never saw; nouns for neuron detection are among those that it was trained on. The
validation nouns, on which strengths were chosen, are left out.
"""

import itertools
import json
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from PIL import Image

from ..bench import ACCEPTED, Bench, BenchError, Defaults, ingest, validate
from ..bench.validation import ERROR
from ..cultures import CULTURES
from ..marks import write_marks
from ..splits import NEURON_DETECTION, TEST, TRAIN
from .captions import ALL_NOUNS, HELD_OUT_WRAPPER, NOUNS, TRAINING_WRAPPERS, WORDS, caption, split_of
from .scenes import draw_scenes

FOLDER = Path(__file__).parents[2] / "models" / "culture_bench" / "miniature"
CATEGORIES = {
    "building": ("house", "bridge"), "nature": ("tree", "fish", "bird"), "clothing": ("dress", "hat"),
    "tableware": ("bottle", "bowl", "teapot"), "furniture": ("chair", "lamp", "bed"), "transport": ("boat",),
}  # fmt: skip
"""Nouns by category."""
TRAIN_NOUNS = 7
"""Of each culture; with one for neuron detection and two for the test, that is 7 : 2 : 1."""
SEED = 5
DEFAULTS = Defaults(licence="GPL-3.0-or-later", source="drawn by culture_core.miniature.scenes")


def nouns_by_split(culture: str) -> dict[str, list[str]]:
    """The nouns of a culture in each split."""
    trained = [noun for noun in NOUNS if split_of(culture, noun) == "train"]
    spelt = Counter(word for language, words in WORDS.items() for word in words if language != "en")
    # A word that two languages share would be a prompt of two splits.
    own = [noun for noun in trained if spelt[WORDS[culture][ALL_NOUNS.index(noun)]] == 1]
    detected = own[list(CULTURES).index(culture) % len(own)]
    rest = [noun for noun in trained if noun != detected]
    return {
        TRAIN: rest[:TRAIN_NOUNS],
        TEST: [noun for noun in NOUNS if split_of(culture, noun) == "test"],
        NEURON_DETECTION: [detected],
    }


def make_bench(folder: Path) -> Bench:
    """Draw the pictures and take them through ingest, review and split into a new bench.

    Raises:
        BenchError: where there is a bench already, or the new one is not valid.
    """
    bench = Bench(folder)
    if len(bench):
        raise BenchError(f"{folder} has a bench already: delete it first")
    rows = [
        (culture, noun, variant, split)
        for culture in CULTURES
        for split, nouns in nouns_by_split(culture).items()
        for noun, variant in itertools.product(nouns, (0, 1))
    ]
    scenes = draw_scenes([(noun, culture) for culture, noun, _, _ in rows], SEED)
    splits: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        drawn, lines = Path(temporary), []
        for (culture, noun, variant, split), scene in zip(rows, scenes, strict=True):
            name = f"{culture}-{noun}-{variant}.png"
            Image.fromarray(scene).save(drawn / name, optimize=True)
            lines.append(json.dumps({"file_name": name, **_facts(culture, noun, variant, split)}))
            splits[f"{culture} {noun}"] = split
        (drawn / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
        found = ingest(drawn, bench, DEFAULTS)
    if found.skipped:
        raise BenchError(f"{found.skipped[0].file} {found.skipped[0].reason}: choose another seed")
    bench.update(
        replace(
            record, decision=ACCEPTED, reviewer="culture_core.miniature", reason="drawn to order",
            split=splits[f"{record.culture} {record.noun}"],
        )
        for record in bench.records.values()
    )  # fmt: skip
    wrong = [problem for problem in validate(bench) if problem.level == ERROR]
    if wrong:
        raise BenchError(f"the bench is not valid: {wrong[0]}")
    return bench


def _facts(culture: str, noun: str, variant: int, split: str) -> dict[str, str]:
    """What the metadata say of one picture."""
    wrapper = HELD_OUT_WRAPPER if split == TEST else NOUNS.index(noun) % len(TRAINING_WRAPPERS)
    cultural = caption(culture, noun, culture, variant, wrapper)
    neutral = caption(culture, noun, None, 0, wrapper)
    return {
        "culture": culture,
        "category": next(name for name, nouns in CATEGORIES.items() if noun in nouns),
        "noun": noun,
        "language": culture,
        "cultural": write_marks(
            cultural.text, [span for span in [cultural.modifier_span] if span], [cultural.noun_span]
        ),
        "neutral": write_marks(neutral.text, [], [neutral.noun_span]),
        "english": caption("en", noun, culture, variant).text,
        "english_neutral": caption("en", noun).text,
    }


if __name__ == "__main__":
    made = make_bench(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
    print(f"{len(made)} records in {made.folder}")

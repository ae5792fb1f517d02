"""What a vision-language model is asked, in which order, and how its answer is read."""

import hashlib
import random
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from ..vlm.images import image_hash
from .base import label_name

ROTATIONS = 3
_AROUND = " \t\n\"'`*.“”‘’「」。"
"""What may stand around an answer without changing it."""


class GradedQuestion(NamedTuple):
    """A question with an answer from 1 to 5."""

    key: str
    text: str
    """With `{culture}`."""

    def about(self, culture: str) -> str:
        return self.text.format(culture=label_name(culture))


GRADES = ("1", "2", "3", "4", "5")
RELEVANCE = GradedQuestion(
    "relevance",
    "How much does this picture show {culture} culture? Look at objects, clothes, buildings, patterns and "
    "scenery.\n1: nothing in it is {culture}\n2: little\n3: some parts are, others are not\n4: most of it\n"
    "5: all of it is clearly {culture}\nAnswer with one number from 1 to 5.",
)
EXAGGERATION = GradedQuestion(
    "exaggeration",
    "Does this picture exaggerate {culture} culture, or show it as a stereotype? Think of how somebody who "
    "lives with it would see it.\n1: not at all, an ordinary sight\n2: hardly\n3: somewhat, well-known "
    "symbols stand out\n4: much, symbols are piled up or out of place\n5: a caricature\n"
    "Answer with one number from 1 to 5.",
)
GRADED = {question.key: question for question in (RELEVANCE, EXAGGERATION)}


def culture_question(options: Sequence[str]) -> str:
    """The single-choice question over labels in this order."""
    listed = "\n".join(f"- {label_name(label)}" for label in options)
    return (
        "Which culture does this picture show? Choose the one that its objects, clothes, buildings, patterns "
        "and scenery point to. If they point to none, choose unrecognisable.\n"
        f"{listed}\nAnswer with exactly one of these options and nothing else."
    )


def orders(image: Image.Image, options: Sequence[str], seed: int, count: int = ROTATIONS) -> list[list[str]]:
    """The orders in which the options are shown for a picture: shuffled by the picture and the seed, then
    turned by equal steps, so that an option stands in a different part of the list each time.

    Models prefer early or late options, whatever these say. The shuffle spreads that over all labels; the
    turns show how much of an answer it was.
    """
    shuffled = list(options)
    digest = hashlib.sha256(f"{image_hash(image)}:{seed}".encode()).digest()
    random.Random(int.from_bytes(digest[:8], "big")).shuffle(shuffled)
    starts = [round(index * len(shuffled) / count) for index in range(count)]
    return [shuffled[start:] + shuffled[:start] for start in starts]


def read_label(text: str, options: Sequence[str]) -> str | None:
    """The label that an answer is. Strictly: an answer that says anything else besides is none."""
    said = text.strip(_AROUND).casefold()
    return next((label for label in options if label_name(label).casefold() == said), None)


def read_grade(text: str) -> int | None:
    """The grade that an answer is, strictly."""
    said = text.strip(_AROUND)
    return int(said) if said in GRADES else None

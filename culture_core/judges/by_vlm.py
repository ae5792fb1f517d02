"""A vision-language model as the judge."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image

from ..vlm import VLM, Reply, VLMRefusal
from ..vlm.server import ServerVLM
from ..vlm.usage import Usage, total
from .base import Verdict, average, label_name, labels
from .questions import GRADES, ROTATIONS, GradedQuestion, culture_question, orders, read_grade, read_label

_MAX_TOKENS = 64
"""An answer takes fewer; some models write a little around it."""
_REFUSED = "(refused)"


class Grade(NamedTuple):
    """The answer to a graded question."""

    value: int | None
    """1 to 5; None for an answer that is no grade."""
    text: str
    cost: float | None


class VLMJudge:
    """Asks a VLM several times a picture, the options in another order each time."""

    def __init__(self, vlm: VLM, seed: int = 0, rotations: int = ROTATIONS) -> None:
        """
        Args:
            seed: of the orders.
            rotations: how often to ask.

        Raises:
            ValueError: for less than one rotation, or more than there are options.
        """
        if not 1 <= rotations <= len(labels()):
            raise ValueError(f"{rotations} rotations are not possible: use 1 to {len(labels())}")
        self.vlm, self.seed, self.rotations = vlm, seed, rotations
        self.name = vlm.name
        self.server = vlm if isinstance(vlm, ServerVLM) else None
        """A VLM that counts tokens, and may cost something."""
        self.parallel = self.server is not None

    def settings(self) -> dict[str, Any]:
        return {"judge": "vlm", "model": self.name, "seed": self.seed, "rotations": self.rotations}

    def judge(self, image: Image.Image) -> Verdict:
        """
        Raises:
            VLMError: where the model gives no answer; a refusal counts as an invalid one.
        """
        replies = [self._choose(order, image) for order in self._orders(image)]
        answers = tuple(read_label(reply.text, labels()) for reply in replies)
        costs = [reply.cost for reply in replies]
        return Verdict(
            answers, average(answers), tuple(reply.text for reply in replies),
            tuple(reply.model for reply in replies), total(costs),
        )  # fmt: skip

    def grade(self, image: Image.Image, culture: str, question: GradedQuestion) -> Grade:
        """Ask how much of a culture, or how exaggerated it is; see `questions.GRADED`."""
        reply = self._ask(question.about(culture), image, GRADES)
        return Grade(read_grade(reply.text), reply.text, reply.cost)

    def estimate(
        self, image: Image.Image, pictures: int, culture: str, graded: Sequence[GradedQuestion] = ()
    ) -> Usage | None:
        """What so many pictures like this one will use, from asking about this one; None for a model that
        costs nothing."""
        if self.server is None:
            return None
        asked = [(culture_question(o), [label_name(label) for label in o]) for o in self._orders(image)]
        asked += [(question.about(culture), list(GRADES)) for question in graded]
        parts = [
            self.server.estimate(pictures, question, image, choices=choices, max_tokens=_MAX_TOKENS)
            for question, choices in asked
        ]
        return sum(parts, Usage())

    def _orders(self, image: Image.Image) -> list[list[str]]:
        return orders(image, labels(), self.seed, self.rotations)

    def _choose(self, order: list[str], image: Image.Image) -> Reply:
        return self._ask(culture_question(order), image, [label_name(label) for label in order])

    def _ask(self, question: str, image: Image.Image, choices: Sequence[str]) -> Reply:
        try:
            return self.vlm.ask(question, image, choices=list(choices), max_tokens=_MAX_TOKENS)
        except VLMRefusal:
            return Reply(_REFUSED, self.name, cached=False, cost=None)

"""What every vision-language model of the pack offers."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from PIL import Image


class VLMError(ValueError):
    """A model that cannot be asked, or gave no answer; the message says why and what to do."""


class VLMRefusal(VLMError):
    """The model declined to answer this question, and would decline again."""


class Reply(NamedTuple):
    """One answer."""

    text: str
    """As the model wrote it, without white space around it; one of the choices only if it kept to them."""
    model: str
    """Name of the model that answered, which may be another one than was asked."""
    cached: bool
    """Whether it was answered before and is repeated from disk."""
    cost: float | None
    """In the currency of the configured prices; 0 for a cached or a local answer, None without prices."""


@runtime_checkable
class VLM(Protocol):
    """A vision-language model."""

    name: str

    def ask(
        self,
        question: str,
        image: Image.Image | None = None,
        *,
        choices: Sequence[str] | None = None,
        max_tokens: int = 256,
    ) -> Reply:
        """Ask one question.

        Args:
            image: the picture that the question is about, if any.
            choices: the only answers that are wanted. A model that can be held to them is; from others the
                text may be anything, so callers read it strictly.
            max_tokens: longest answer.

        Raises:
            VLMError: where there is no answer.
        """
        ...

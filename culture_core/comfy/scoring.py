"""CultureVQA in a graph."""

import functools
import hashlib
import logging

from torch import Tensor

from ..judges.base import Judge
from ..judges.configured import MINIATURE, judge_names, open_judge
from ..judges.pictures import verdict_line, verdict_sheet
from ..vlm import VLMError
from ..vlm.config import configured
from .applying import progress_report
from .pictures import image_tensor, pil_images

logger = logging.getLogger(__name__)


def judge_choices() -> list[str]:
    """Names of the judges of this machine, for a combo. A broken configuration leaves the one that needs
    none, and a warning."""
    try:
        return judge_names()
    except VLMError as error:
        logger.warning("The judges that are configured cannot be used: %s", error)
        return [MINIATURE]


def judge_state(name: str) -> str:
    """Changes whenever the judge's configuration does; says nothing of what is in it."""
    return hashlib.sha256(repr(configured().get(name)).encode()).hexdigest()


def score_images(images: Tensor, culture: str, judge: str) -> tuple[float, str, Tensor]:
    """Ask a judge which culture each picture of an IMAGE shows.

    Args:
        culture: code of the one that they should show.
        judge: one of `judge_choices`.

    Returns:
        The mean share that the culture got, 0 to 1; a line a picture; a sheet [1, height, width, 3].

    Raises:
        ValueError: for a judge that is not there, or gives no answer.
    """
    asked = _opened(judge, judge_state(judge))
    pictures, verdicts = pil_images(images), []
    report = progress_report()
    for index, picture in enumerate(pictures):
        report(index, len(pictures))
        verdicts.append(asked.judge(picture))
    report(len(pictures), len(pictures))
    score = sum(verdict.share(culture) for verdict in verdicts) / len(verdicts)
    lines = "\n".join(verdict_line(verdict, culture) for verdict in verdicts)
    return score, lines, image_tensor([verdict_sheet(pictures, verdicts, culture)])


@functools.lru_cache(maxsize=1)
def _opened(name: str, state: str) -> Judge:
    """The judge that was used last stays loaded, as long as its configuration stays as it is."""
    return open_judge(name)

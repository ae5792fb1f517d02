"""A CLIP or SigLIP 2 as the judge: the label whose description lies nearest to the picture.

**Which language for the descriptions?** English for all labels, unless you say otherwise. A multilingual
model places texts of different languages at different distances from the same picture; if every label were
described in its own language, a picture would be drawn to the languages that lie near, whatever it shows. One
language for all labels cancels that. Other descriptions, in any language that the model reads, can be
configured for all cultures alike (`templates`) or label by label (`descriptions`); the several descriptions
of a label are averaged.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..cultures import CULTURES
from ..dual_encoder import DualEncoder
from .base import UNRECOGNISABLE, Verdict, labels, verdict_of

TEMPLATES = (
    "a photo of something {culture}",
    "a picture that shows {culture} culture",
    "a scene in {region}",
)
"""Of a culture's descriptions; `{culture}` is its English name, `{region}` its region."""
NOTHING = (
    "a photo of an ordinary object of no particular culture",
    "a picture that could be from anywhere",
    "a blurry picture of nothing",
)
"""Descriptions of `UNRECOGNISABLE`."""


class ZeroShotJudge:
    """A Hugging Face folder of CLIP, AltCLIP, SigLIP or SigLIP 2. Nothing is downloaded."""

    parallel = False

    def __init__(
        self,
        folder: Path,
        device: str = "cpu",
        templates: Sequence[str] = TEMPLATES,
        descriptions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """
        Args:
            templates: for every culture; may have `{culture}` and `{region}`.
            descriptions: of single labels, instead of the templates.

        Raises:
            ValueError: for a folder that is missing or holds no such model, or a label that does not exist.
        """
        unknown = set(descriptions or ()) - set(labels())
        if unknown:
            raise ValueError(f"descriptions of unknown labels: {', '.join(sorted(unknown))}")
        self._encoder = DualEncoder(folder, device)
        self.name = self._encoder.name
        self.descriptions = {**_described(templates), **(descriptions or {})}
        means = [self._encoder.texts(texts).mean(0) for texts in self.descriptions.values()]
        self._texts = torch.nn.functional.normalize(torch.stack(means), dim=-1)  # [labels, d]

    def settings(self) -> dict[str, Any]:
        texts = {label: list(descriptions) for label, descriptions in self.descriptions.items()}
        return {"judge": "zero-shot", "model": self.name, "descriptions": texts}

    def judge(self, image: Image.Image) -> Verdict:
        """Shares are the softmax of the scaled cosines between the picture and each label."""
        picture = self._encoder.images([image])[0]  # [d]
        shares = (self._encoder.scale * self._texts @ picture).softmax(0)
        return verdict_of(dict(zip(self.descriptions, shares.tolist(), strict=True)), self.name)


def _described(templates: Sequence[str]) -> dict[str, Sequence[str]]:
    try:
        cultures = {
            code: [template.format(culture=culture.name, region=culture.region) for template in templates]
            for code, culture in CULTURES.items()
        }
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"a template may have {{culture}} and {{region}} only: {error}") from None
    return {**cultures, UNRECOGNISABLE: NOTHING}

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
from torch import Tensor

from ..cultures import CULTURES
from ..vlm.images import prepared
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
        import transformers

        unknown = set(descriptions or ()) - set(labels())
        if unknown:
            raise ValueError(f"descriptions of unknown labels: {', '.join(sorted(unknown))}")
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder} is no Hugging Face folder: it has no config.json")
        try:
            self._processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
            model = transformers.AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
            self._model = model.to(device).eval().requires_grad_(False)
            self._scale = float(model.logit_scale.exp())
        except Exception as error:  # transformers raises a dozen kinds for a damaged folder
            raise ValueError(f"{folder} cannot be loaded as a CLIP or SigLIP: {error}") from error
        self.name = folder.name
        self.descriptions = {**_described(templates), **(descriptions or {})}
        self._texts = torch.stack([self._text(texts) for texts in self.descriptions.values()])  # [labels, d]

    def settings(self) -> dict[str, Any]:
        texts = {label: list(descriptions) for label, descriptions in self.descriptions.items()}
        return {"judge": "zero-shot", "model": self.name, "descriptions": texts}

    @torch.no_grad()
    def judge(self, image: Image.Image) -> Verdict:
        """Shares are the softmax of the scaled cosines between the picture and each label."""
        inputs = self._processor(images=prepared(image, 1024), return_tensors="pt").to(self._model.device)
        picture = _unit(_features(self._model.get_image_features(**inputs)))[0]  # [d]
        shares = (self._scale * self._texts @ picture).softmax(0)
        return verdict_of(dict(zip(self.descriptions, shares.tolist(), strict=True)), self.name)

    @torch.no_grad()
    def _text(self, descriptions: Sequence[str]) -> Tensor:
        """The mean direction of a label's descriptions, [d]."""
        # SigLIP was trained on padded texts and pools its last place, so it must be padded here as well.
        siglip = self._model.config.model_type.startswith("siglip")
        inputs = self._processor(
            text=list(descriptions), padding="max_length" if siglip else True, truncation=True,
            return_tensors="pt",
            **({"max_length": self._model.config.text_config.max_position_embeddings} if siglip else {}),
        ).to(self._model.device)  # fmt: skip
        return _unit(_unit(_features(self._model.get_text_features(**inputs))).mean(0))


def _described(templates: Sequence[str]) -> dict[str, Sequence[str]]:
    try:
        cultures = {
            code: [template.format(culture=culture.name, region=culture.region) for template in templates]
            for code, culture in CULTURES.items()
        }
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"a template may have {{culture}} and {{region}} only: {error}") from None
    return {**cultures, UNRECOGNISABLE: NOTHING}


def _features(found: Any) -> Tensor:
    """[n, d]; later versions of transformers return them inside an output object."""
    return (found if isinstance(found, Tensor) else found.pooler_output).float()


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)

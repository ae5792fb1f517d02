"""CLIPScore: how well a picture agrees with a text.

Hessel et al. (2021) give `w · max(cos, 0)` with w = 2.5, made for OpenAI's CLIP, whose cosines lie between 0
and 0.4. Other models' lie elsewhere, so that the plain cosine is the figure here; `hessel` turns it into the
other. Cosines of different models, or of one model in different languages, cannot be compared with each
other: compare systems on the same prompts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ..dual_encoder import DualEncoder

DEFAULT_MODEL = "google/siglip2-base-patch16-256"
WHY = (
    "SigLIP 2 was trained on texts in over a hundred languages. OpenAI's CLIP reads English: 13 of the 15 "
    "cultures' languages are noise to it, and a caption in Thai does not even fit its 77 tokens. AltCLIP and "
    "other multilingual models can be chosen, but not where the system under test has the same text encoder."
)
"""Why the default is what it is, for people."""
W = 2.5


class ClipScore:
    """The cosine between a picture and a text; as an embedder, the model's directions of pictures."""

    name = "clip"

    def __init__(
        self, model: Path | str = DEFAULT_MODEL, device: str = "cpu", download: bool = False
    ) -> None:
        """
        Args:
            model: a Hugging Face folder, or a name on its hub.
            download: fetch a model that is not on this machine yet.

        Raises:
            ValueError: as `DualEncoder` does.
        """
        self._encoder = DualEncoder(model, device, download)

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        """Cosines, a picture and a text each."""
        if len(images) != len(texts):
            raise ValueError(f"there are {len(images)} pictures and {len(texts)} texts")
        return (self._encoder.images(images) * self._encoder.texts(texts)).sum(1).tolist()

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        return self._encoder.too_long(texts)

    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        return self._encoder.images(images)

    def settings(self) -> dict[str, Any]:
        return {"metric": self.name, "model": self._encoder.name, "weights": self._encoder.sha256}


def hessel(cosine: float, w: float = W) -> float:
    """CLIPScore as Hessel et al. define it, equation 1: `w · max(cos, 0)`."""
    return w * max(cosine, 0.0)

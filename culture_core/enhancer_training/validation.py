"""Pictures with and without the enhancer, now and then during its training."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..atomic import atomic_path
from ..enhancer import LayerEnhancer
from ..sheets import picture_grid
from .image_model import ImageModel
from .run import Place, in_place


class Validation:
    """Draws contact sheets: a row a prompt, without the enhancer and with it as it is at that step."""

    def __init__(
        self,
        model: ImageModel,
        place: Place,
        prompts: Sequence[str],
        folder: Path,
        size: int,
        steps: int = 25,
        seed: int = 0,
    ) -> None:
        """Sheets of prompts in a folder, which is made where it is missing.

        Args:
            size: edge of the pictures, pixels.
            steps: of the sampler.
            seed: of the noise, the same for every picture.
        """
        self._model, self._place, self._prompts = model, place, list(prompts)
        self._folder, self._size, self._steps, self._seed = folder, size, steps, seed
        self._plain: list[Image.Image] = []

    def draw(self, enhancer: LayerEnhancer, step: int) -> Path:
        """Sample and write the sheet of a step; returns its path."""
        self._plain = self._plain or [self._sample(prompt) for prompt in self._prompts]
        with in_place(enhancer, self._place):
            changed = [self._sample(prompt) for prompt in self._prompts]
        pictures = [picture for row in zip(self._plain, changed, strict=True) for picture in row]
        labels = [f"{prompt}{end}" for prompt in self._prompts for end in ("", " · enhanced")]
        path = self._folder / f"step-{step:06d}.png"
        with atomic_path(path) as temporary:
            picture_grid(pictures, labels, columns=2, title=f"Step {step}").save(temporary, format="PNG")
        return path

    def _sample(self, prompt: str) -> Image.Image:
        return self._model.sample(prompt, self._seed, self._steps, self._size)

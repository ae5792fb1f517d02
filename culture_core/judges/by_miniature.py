"""The miniature's CNN as the judge. It knows the miniature's drawings and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..miniature.judge import CULTURE_LABELS, load_judge
from ..miniature.logs import MODELS
from .base import Verdict, verdict_of
from .configured import MINIATURE

_EDGE = 64


class MiniatureJudge:
    """Looks once: it has no options whose order could matter."""

    name, parallel = MINIATURE, False

    def __init__(self, path: Path = MODELS / "judge" / "miniature_judge.safetensors") -> None:
        self._judge = load_judge(path)

    def settings(self) -> dict[str, Any]:
        return {"judge": MINIATURE}

    @torch.no_grad()
    def judge(self, image: Image.Image) -> Verdict:
        """Pictures of another size than its 64 pixels are scaled."""
        image = image.convert("RGB")
        if image.size != (_EDGE, _EDGE):
            image = image.resize((_EDGE, _EDGE), Image.Resampling.BOX)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255  # [1, 3, 64, 64]
        logits, _ = self._judge(pixels)
        return verdict_of(dict(zip(CULTURE_LABELS, logits[0].softmax(0).tolist(), strict=True)), self.name)

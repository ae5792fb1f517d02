"""The miniature's judge: a small CNN that names a picture's culture, or "unrecognisable", and its noun."""

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..cultures import CULTURES
from .captions import ALL_NOUNS

CULTURE_LABELS: tuple[str, ...] = (*CULTURES, "unrecognisable")
NOUN_LABELS: tuple[str, ...] = ALL_NOUNS


class Verdict(NamedTuple):
    """What the judge sees in N pictures."""

    cultures: list[str]
    """A label of `CULTURE_LABELS` a picture."""
    nouns: list[str]
    """A label of `NOUN_LABELS` a picture."""


def _block(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, padding=1), nn.BatchNorm2d(width_out), nn.ReLU(),
        nn.Conv2d(width_out, width_out, 3, padding=1, stride=2), nn.BatchNorm2d(width_out), nn.ReLU(),
    )  # fmt: skip


class Judge(nn.Module):
    """Pictures [N, 3, 64, 64] in 0 to 1 to logits of cultures [N, 16] and nouns [N, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _block(3, 24), _block(24, 48), _block(48, 96), _block(96, 96)
        )  # [N, 96, 4, 4]
        self.cultures = nn.Linear(96 * 16, len(CULTURE_LABELS))
        self.nouns = nn.Linear(96 * 16, len(NOUN_LABELS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images - 0.5).flatten(1)
        return self.cultures(features), self.nouns(features)

    @torch.no_grad()
    def judge(self, images: Tensor) -> Verdict:
        """Name the culture and the noun of pictures [N, 3, 64, 64] in 0 to 1."""
        cultures, nouns = self(images)
        return Verdict(
            [CULTURE_LABELS[i] for i in cultures.argmax(1).tolist()],
            [NOUN_LABELS[i] for i in nouns.argmax(1).tolist()],
        )


def save_judge(judge: Judge, path: Path, metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        k: v.half().contiguous() if v.is_floating_point() else v for k, v in judge.state_dict().items()
    }
    save_file(tensors, path, metadata)


def load_judge(path: Path) -> Judge:
    judge = Judge()
    judge.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
    return judge.eval().requires_grad_(False)

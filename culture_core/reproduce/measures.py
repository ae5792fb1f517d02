"""What is measured in a picture: culture, noun, agreement with the text, distance, diversity.

The study's instruments are miniatures as well, and named for what they are:
- CultureVQA and noun accuracy: the shipped judge, a CNN that tells both labels of a picture.
- CLIP-type score: cosine of a picture's and a caption's embedding, projections that are trained here on
  renders with every caption that fits them; a caption that names no culture fits a picture of any.
- Perceptual distance: LPIPS' form (unit-normalised feature maps, mean squared difference) on the judge's
  convolutions instead of AlexNet's.
- Noun confidence: the judge's probability of the noun. It stands where the paper has ImageReward, a model of
  people's taste that a miniature cannot have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints import Progress
from ..cultures import CULTURES
from ..miniature.captions import NOUNS
from ..miniature.judge import CULTURE_LABELS, NOUN_LABELS, Judge, load_judge
from ..miniature.scenes import draw_scenes
from ..miniature.vae import decode_latents, load_vae
from .fitting import fit
from .generator import Spec
from .systems import Captions

EMBEDDING = 64
PICTURE_WIDTH = 1536
"""Of the judge's features of a picture."""
BATCH, LEARNING_RATE = 128, 2e-3
EXPLICIT_SHARE = 0.4


@dataclass(frozen=True)
class ClipPlan:
    """How the CLIP-type scorer is trained."""

    pictures: int = 3000
    steps: int = 1000


class Clip(nn.Module):
    """Projections of the judge's features of a picture, and of a caption's mean hidden state."""

    def __init__(self, picture_width: int, text_width: int) -> None:
        super().__init__()
        self.picture = nn.Linear(picture_width, EMBEDDING)
        self.text = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, EMBEDDING))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.shift = nn.Parameter(torch.tensor(-2.0))

    def forward(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Cosines [P, T]."""
        return (
            nn.functional.normalize(self.picture(pictures), dim=-1)
            @ nn.functional.normalize(self.text(texts), dim=-1).mT
        )


class Measured(NamedTuple):
    """Figures of N pictures, in the order of their prompts."""

    culture: list[bool]
    """The judge sees the culture asked for (CultureVQA)."""
    noun: list[bool]
    clip: list[float]
    """Cosine with the neutral prompt in its own language, whatever the picture was made from."""
    distance: list[float]
    """Perceptual distance to a rendered picture of the noun in the culture."""
    confidence: list[float]
    """The judge's probability of the noun."""
    seen: list[str]
    """The culture that the judge sees."""


class Instruments:
    """Autoencoder and judge as shipped, and the CLIP-type scorer."""

    def __init__(self, models: Path, clip: Clip | None = None) -> None:
        self.vae = load_vae(models / "vae" / "culture_miniature_vae.safetensors")
        self.judge = load_judge(models / "judge" / "miniature_judge.safetensors")
        self.clip = clip
        self._references: dict[Spec, Tensor] = {}

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [N, 3, 64, 64] in 0 to 1."""
        return torch.cat([decode_latents(self.vae, part) for part in latents.split(60)])

    @torch.no_grad()
    def measure(
        self, pictures: Tensor, cultures: Sequence[str], nouns: Sequence[str], texts: Tensor
    ) -> Measured:
        """Figures of pictures [N, 3, 64, 64] that should show a noun in a culture each.

        Args:
            texts: mean hidden state of each picture's neutral prompt, [N, d].
        """
        clip = self.clip
        assert clip is not None, "measured once it is trained"
        culture_logits, noun_logits = self.judge(pictures)
        seen = [CULTURE_LABELS[index] for index in culture_logits.argmax(1).tolist()]
        named = [NOUN_LABELS[index] for index in noun_logits.argmax(1).tolist()]
        columns = torch.tensor([NOUN_LABELS.index(noun) for noun in nouns])
        confidence = noun_logits.softmax(1).gather(1, columns[:, None])[:, 0]
        references = torch.stack([self._reference((n, c)) for n, c in zip(nouns, cultures, strict=True)])
        return Measured(
            [a == b for a, b in zip(seen, cultures, strict=True)],
            [a == b for a, b in zip(named, nouns, strict=True)],
            clip(self.features(pictures), texts).diagonal().tolist(),
            perceptual_distance(self.judge, pictures, references).tolist(),
            confidence.tolist(),
            seen,
        )

    def features(self, pictures: Tensor) -> Tensor:
        return self.judge.body(pictures - 0.5).flatten(1)

    def _reference(self, spec: Spec) -> Tensor:
        if spec not in self._references:
            self._references[spec] = _to_unit(draw_scenes([spec], 77))[0]
        return self._references[spec]


@torch.no_grad()
def perceptual_distance(judge: Judge, a: Tensor, b: Tensor) -> Tensor:
    """LPIPS' form on the judge's feature maps: [N] of pictures [N, 3, H, W]; 0 for equal ones."""
    x, y, total = a - 0.5, b - 0.5, a.new_zeros(len(a))
    for block in judge.body:
        x, y = block(x), block(y)
        difference = nn.functional.normalize(x, dim=1) - nn.functional.normalize(y, dim=1)
        total = total + difference.square().sum(1).mean((1, 2))
    return total / len(judge.body)


def diversity(judge: Judge, pictures: Tensor, groups: Sequence[str]) -> dict[str, float]:
    """Mean perceptual distance between the pictures of a group, by group."""
    found = {}
    for group in dict.fromkeys(groups):
        rows = [row for row, own in enumerate(groups) if own == group]
        first, second = zip(*[(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]], strict=True)
        found[group] = perceptual_distance(judge, pictures[list(first)], pictures[list(second)]).mean().item()
    return found


def train_clip(
    instruments: Instruments, captions: Captions, plan: ClipPlan, seed: int, progress: Progress | None = None
) -> Clip:
    """Train the CLIP-type scorer by SigLIP's loss; every caption that fits a picture is a positive."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    labels, plain_label = [*CULTURES, None], len(CULTURES)
    nouns, cultures = (
        rng.integers(len(NOUNS), size=plan.pictures),
        rng.integers(len(labels), size=plan.pictures),
    )
    specs = [(NOUNS[noun], labels[culture]) for noun, culture in zip(nouns, cultures, strict=True)]
    caption_nouns = np.array([NOUNS.index(given.noun) for given in captions.captions])
    caption_cultures = np.array([labels.index(given.culture) for given in captions.captions])
    with torch.no_grad():
        pictures = _to_unit(draw_scenes(specs, seed))
        features = torch.cat([instruments.features(part) for part in pictures.split(250)])
    texts = mean_hidden(captions.hidden, captions.mask)
    plain: dict[tuple[str, str | None], list[int]] = {}
    naming: dict[tuple[str, str | None], list[int]] = {}
    for row, given in enumerate(captions.captions):
        rows = (naming if given.culture else plain).setdefault((given.noun, given.culture), [])
        rows.append(row)
    clip = Clip(features.shape[1], texts.shape[1])

    def loss(rng: np.random.Generator) -> Tensor:
        chosen = rng.integers(len(specs), size=BATCH)
        rows = []
        for spec in (specs[index] for index in chosen):
            named = spec in naming and rng.random() < EXPLICIT_SHARE
            rows.append(int(rng.choice(naming[spec] if named else plain[spec[0], None])))
        same = nouns[chosen][:, None] == caption_nouns[rows]
        fits = same & (
            (caption_cultures[rows] == plain_label) | (cultures[chosen][:, None] == caption_cultures[rows])
        )
        logits = clip(features[chosen], texts[rows]) * clip.scale.exp() + clip.shift
        return -nn.functional.logsigmoid(logits * (torch.from_numpy(fits).float() * 2 - 1)).mean()

    fit(clip, loss, plan.steps, LEARNING_RATE, seed, progress)
    return clip


def mean_hidden(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean hidden state [N, d] over the tokens that are no padding."""
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def _to_unit(drawn: np.ndarray) -> Tensor:
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255

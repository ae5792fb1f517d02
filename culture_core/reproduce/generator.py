"""The image model that both miniature systems are built on, trained with its English text tower alone.

It stands for Stable Diffusion: a picture model whose only text tower is an English one (a small CLIP text
transformer over English words, the *teacher*). The two systems give it other languages afterwards, as
AltDiffusion and PEA-Diffusion did. To spare a quarter of an hour, its weights begin as those of the image
model that ships with the pack (trained on the same pictures, by `miniature.train_model`), save for what
depends on the width of the context.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from ..checkpoints import Progress, write_safetensors
from ..cultures import CULTURES
from ..encoders import Conditioning
from ..miniature.captions import NOUNS, STUDY_TRAINING_WRAPPERS, Caption, split_of, training_captions
from ..miniature.model import flow_loss, new_model, random_sigma
from ..miniature.vae import PatchComponents
from .fitting import fit

WIDTH, LENGTH = 128, 16
"""Of the context: width, and tokens of every English prompt (padded with zeros)."""
LEARNING_RATE = 5e-4
EXPLICIT_SHARE, DROPOUT = 0.6, 0.1
"""Shares of captions that name a culture, and that are replaced by the empty prompt (for guidance)."""

Spec = tuple[str, str | None]
"""(noun, culture or None): what a picture shows."""


class EnglishTeacher(nn.Module):
    """A CLIP text transformer over the words of the English training captions."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        super().__init__()
        self.numbers = {word: number for number, word in enumerate(vocabulary, start=3)}
        self.tower = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary) + 3, hidden_size=WIDTH, intermediate_size=4 * WIDTH,
                num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=LENGTH,
                pad_token_id=0, bos_token_id=1, eos_token_id=2,
            )
        )  # fmt: skip

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Word numbers and mask, both int64 [B, 16].

        Raises:
            ValueError: for a word that no training caption has.
        """
        rows = []
        for text in texts:
            unknown = [word for word in words(text) if word not in self.numbers]
            if unknown:
                raise ValueError(f"the English teacher does not know {unknown[0]!r}")
            rows.append([1, *(self.numbers[word] for word in words(text)), 2])
        ids = torch.tensor([row + [0] * (LENGTH - len(row)) for row in rows])
        return ids, torch.tensor([[1] * len(row) + [0] * (LENGTH - len(row)) for row in rows])

    def forward(self, ids: Tensor, mask: Tensor) -> Conditioning:
        hidden = self.tower(ids, attention_mask=mask).last_hidden_state
        return pooled_over(hidden, mask)


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


def pooled_over(hidden: Tensor, mask: Tensor) -> Conditioning:
    """Conditioning of hidden states [B, S, d]: zeros where the mask is 0, and the mean over the others."""
    hidden = hidden * mask[..., None].to(hidden.dtype)
    return Conditioning(hidden, hidden.sum(1) / mask.sum(1, keepdim=True).to(hidden.dtype))


class Base(NamedTuple):
    """The image model and its English teacher."""

    model: SD3Transformer2DModel
    teacher: EnglishTeacher


def english_captions(wrappers: Sequence[int]) -> list[Caption]:
    return [caption for caption in training_captions(wrappers) if caption.language == "en"]


def new_base() -> Base:
    """An untrained base; its teacher has the words of all English captions that may be trained on."""
    captions = english_captions(STUDY_TRAINING_WRAPPERS)
    vocabulary = sorted({word for caption in captions for word in words(caption.text)})
    return Base(new_model(WIDTH), EnglishTeacher(vocabulary))


class Pictures:
    """Latents of many training pictures, drawn once."""

    def __init__(self, count: int) -> None:
        """So many pictures of every noun in every culture, and three times as many without one."""
        specs: dict[Spec, int] = {(noun, None): 3 * count for noun in NOUNS}
        specs |= {(n, c): count for c in CULTURES for n in NOUNS if split_of(c, n) == "train"}
        components = PatchComponents()
        self.latents = {
            spec: components.draw(*spec, count, 100 + number)
            for number, (spec, count) in enumerate(specs.items())
        }

    def draw(self, specs: Sequence[Spec], rng: np.random.Generator) -> Tensor:
        """A random picture of each: latents [N, 16, 8, 8]."""
        return torch.stack([self.latents[spec][rng.integers(len(self.latents[spec]))] for spec in specs])


def begin_as(model: nn.Module, path: Path) -> None:
    """Give a model the weights of a file, where they are there and of the same shape."""
    stored, own = load_file(path), model.state_dict()
    fitting = {k: v.float() for k, v in stored.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(fitting, strict=False)


def train_base(
    pictures: Pictures, begin: Path, wrappers: Sequence[int], steps: int, batch: int, rate: float,
    seed: int,
    progress: Progress | None = None, checkpoint: Path | None = None,
) -> Base:  # fmt: skip
    """Train image model and teacher together on English captions; a neutral caption shows a plain picture.

    Args:
        begin: file of the image model that ships with the pack.
        wrappers: which captions to train on.
    """
    torch.manual_seed(seed)
    base = new_base()
    begin_as(base.model, begin)
    captions = english_captions(wrappers)
    explicit = [row for row, caption in enumerate(captions) if caption.culture]
    neutral = [row for row, caption in enumerate(captions) if not caption.culture]
    ids, mask = base.teacher.tokens([*(caption.text for caption in captions), ""])

    def loss(rng: np.random.Generator) -> Tensor:
        rows = [int(rng.choice(explicit if rng.random() < EXPLICIT_SHARE else neutral)) for _ in range(batch)]
        clean = pictures.draw([(captions[row].noun, captions[row].culture) for row in rows], rng)
        given = [-1 if rng.random() < DROPOUT else row for row in rows]
        with torch.autocast("cpu", torch.bfloat16):
            conditioning = base.teacher(ids[given], mask[given])
            return flow_loss(base.model, clean, conditioning, torch.randn_like(clean), random_sigma(batch))

    fit(nn.ModuleList(base), loss, steps, rate * LEARNING_RATE, seed, progress, checkpoint)
    return base


def save_base(base: Base, path: Path) -> None:
    tensors = {
        f"{name}.{key}": value
        for name, part in base._asdict().items()
        for key, value in part.state_dict().items()
    }
    write_safetensors(path, tensors, {"format": "culture-reproduce-base"})


def load_base(path: Path) -> Base:
    tensors, base = load_file(path), new_base()
    for name, module in base._asdict().items():
        module.load_state_dict(
            {k.removeprefix(name + "."): v for k, v in tensors.items() if k.startswith(name + ".")}
        )
        module.eval().requires_grad_(False)
    return base

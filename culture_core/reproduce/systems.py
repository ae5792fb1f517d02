"""The two systems under study: a multilingual encoder put in the English teacher's place.

*Alt* is made like AltDiffusion: layer normalisation and one linear projection give the image model its
context; after a start by parallel text, projection and the image model's text-side keys and values are tuned
on captioned pictures in all languages, with the bias of web data (a neutral caption shows its language's
culture now and then). *PEA* is made like PEA-Diffusion: the image model stays as it is, and an adapter is
distilled from the English teacher: what a caption in another language makes the model do shall be what the
English translation makes it do.
"""

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..checkpoints import Progress, write_safetensors
from ..cultures import CULTURES
from ..effect import Edit, Place
from ..encoders import Conditioning, HFTextEncoder, Tokens
from ..miniature.captions import Caption, caption, split_of, training_captions
from ..miniature.model import flow_loss, new_model, random_sigma, sample, velocity
from .fitting import fit
from .generator import WIDTH, Base, Pictures, Spec, pooled_over

KINDS = ("alt", "pea")
LENGTH = 20
"""Tokens of every prompt; padding is zeros."""
SAMPLING_BATCH = 60
SHARES = {"explicit": 0.40, "explicit_english": 0.16, "neutral": 0.34, "neutral_english": 0.10}
"""Shares of captions in the training of either system."""
LEAK = 0.18
"""How often a neutral caption of Alt's training shows its language's culture."""
DROPOUT = 0.1
NOISE = 0.15
"""Standard deviation of the noise on standardised hidden states in training: captions of thousands of
wordings, which this study does not have, would make the systems bear small changes of the hidden state."""
SPARSE = 0.4
"""Share of training prompts that lose half of their tokens (never the noun's): what a prompt says shall be
read from each token that carries it, as the encoder has mixed them."""
START_STEPS, START_RATE = 400, 2e-3
"""Of the start by parallel text."""
ALT_TUNED = ("context_embedder", "text_embedder", "add_k_proj", "add_v_proj")
"""What of the image model Alt tunes: what reads the text."""
ALT_RATE, PEA_RATE = 6e-4, 1e-3


class AltHead(nn.Module):
    """LayerNorm and a linear projection, as AltDiffusion's text model ends in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, WIDTH)

    def forward(self, hidden: Tensor, mask: Tensor) -> Conditioning:
        return pooled_over(self.projection(self.norm(hidden)), mask)


class PEAHead(nn.Module):
    """The PEA adapter's layers (DESIGN 6), at this study's widths; the pooled vector is their mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * WIDTH, bias=False), nn.GELU(),
            nn.Linear(2 * WIDTH, 2 * WIDTH, bias=False), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH, bias=False),
        )  # fmt: skip
        self.context = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: Tensor, mask: Tensor) -> Conditioning:
        inner = self.layers(hidden)
        context = self.context(nn.functional.gelu(inner)) * mask[..., None].to(inner.dtype)
        return Conditioning(context, pooled_over(inner, mask).pooled)


class System(nn.Module):
    """Encoder, head and image model: prompts in, pictures out."""

    encoder: HFTextEncoder

    def __init__(self, kind: str, encoder: HFTextEncoder, base: Base | None = None) -> None:
        """An untrained system over a trained base.

        Raises:
            ValueError: for an unknown kind.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown system {kind!r}: use {' or '.join(KINDS)}")
        super().__init__()
        self.kind = kind
        self.head = {"alt": AltHead, "pea": PEAHead}[kind](encoder.info.width)
        self.model = new_model(WIDTH)
        if base is not None:
            self.model.load_state_dict(base.model.state_dict())
        # Not modules of the system: they are never trained, and its file does not hold them.
        self.__dict__["encoder"] = encoder

    def save(self, path: Path) -> None:
        write_safetensors(path, self.state_dict(), {"format": "culture-reproduce-system", "kind": self.kind})

    def load(self, path: Path) -> "System":
        self.load_state_dict(load_file(path))
        return self.eval().requires_grad_(False)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Tokens of prompts, all of one length: the image model attends to the padding's zeros too."""
        return cropped(self.encoder.tokenize(texts))

    @torch.no_grad()
    def hidden(self, tokens: Tokens, edits: Sequence[tuple[Place, Edit]] = ()) -> Tensor:
        """The encoder's final hidden state [B, S, d], with features edited on the way."""
        with ExitStack() as stack:
            for place, edit in edits:
                change = functools.partial(_edited, edit, tokens)
                stack.enter_context(self.encoder.patch(place.layer, place.feature, change))
            return self.encoder.encode(tokens).hidden

    @torch.no_grad()
    def condition(self, texts: Sequence[str], edits: Sequence[tuple[Place, Edit]] = ()) -> Conditioning:
        tokens = self.tokenize(texts)
        return self.head(self.hidden(tokens, edits), tokens.attention_mask)

    @torch.no_grad()
    def latents(self, conditioning: Conditioning, seeds: Sequence[int], steps: int) -> Tensor:
        """Latents [N, 16, 8, 8] of conditioned prompts, one seed each."""
        negative = self.condition([""])
        parts = []
        for start in range(0, len(seeds), SAMPLING_BATCH):
            rows = slice(start, start + SAMPLING_BATCH)
            positive = Conditioning(conditioning.hidden[rows], conditioning.vector[rows])
            with torch.autocast("cpu", torch.bfloat16):
                parts.append(sample(self.model, positive, negative, list(seeds[rows]), steps))
        return torch.cat(parts).float()


def _edited(edit: Edit, tokens: Tokens, x: Tensor) -> Tensor:
    return edit(x, tokens)


def cropped(tokens: Tokens) -> Tokens:
    """Tokens [B, 32] without the columns that no prompt of the study needs."""
    if bool(tokens.attention_mask[:, LENGTH:].any()):
        raise ValueError(f"a prompt has more than {LENGTH} tokens: this study has shorter ones only")
    return Tokens(
        tokens.ids[:, :LENGTH],
        tokens.attention_mask[:, :LENGTH],
        tokens.content_mask[:, :LENGTH],
        tokens.offsets and [row[:LENGTH] for row in tokens.offsets],
    )


class Captions:
    """The training captions of both systems: encoded once, drawn by `SHARES`."""

    def __init__(self, encoder: HFTextEncoder, wrappers: Sequence[int]) -> None:
        self.captions: list[Caption] = training_captions(wrappers)
        texts = [*(caption.text for caption in self.captions), ""]
        tokens = [cropped(encoder.tokenize(texts[i : i + 128])) for i in range(0, len(texts), 128)]
        with torch.no_grad():
            self.hidden = torch.cat([encoder.encode(part).hidden for part in tokens])  # [N + 1, S, d]
        self.mask = torch.cat([part.attention_mask for part in tokens])
        self.kept = torch.zeros_like(self.mask)
        self.kept[:, 0] = True
        for row, given in enumerate(self.captions):
            self.kept[row, tokens[row // 128].positions(row % 128, [given.noun_span])] = True
        self.deviation = self.hidden[self.mask.bool()].std(0)  # [d]
        self.rows = {
            kind: [row for row, caption in enumerate(self.captions) if _kind(caption) == kind]
            for kind in SHARES
        }
        self.english = [_in_english(caption) for caption in self.captions]

    def draw(self, rng: np.random.Generator, batch: int, dropout: float = DROPOUT) -> list[int]:
        """Rows of captions; −1 is the empty prompt."""
        rows = []
        for kind in rng.choice(list(SHARES), batch, p=list(SHARES.values())):
            row = int(rng.choice(self.rows[kind]))
            rows.append(-1 if rng.random() < dropout else row)
        return rows

    def noisy(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Hidden states [B, S, d] with `NOISE` and without some tokens (`SPARSE`), and their mask [B, S]."""
        hidden, mask = self.hidden[rows], self.mask[rows]
        noise = torch.randn_like(hidden) * self.deviation * NOISE
        dropped = (torch.rand(len(rows), 1) < SPARSE) & (torch.rand(mask.shape) < 0.5)
        mask = mask & ~(dropped & ~self.kept[rows])
        return (hidden + noise) * mask[..., None], mask

    def shown(self, row: int, rng: np.random.Generator) -> Spec:
        """What the picture of a caption shows; a neutral caption's may show its language's culture."""
        given = self.captions[row]
        leaks = (
            given.culture is None
            and given.language in CULTURES
            and split_of(given.language, given.noun) == "train"
        )
        if leaks and rng.random() < LEAK:
            return given.noun, given.language
        return given.noun, given.culture


def _kind(given: Caption) -> str:
    kind = "explicit" if given.culture else "neutral"
    return kind + "_english" if given.language == "en" else kind


def _in_english(given: Caption) -> str:
    """The English caption of the same content."""
    return given.text if given.language == "en" else caption(
        "en", given.noun, given.culture, given.variant, given.wrapper
    ).text  # fmt: skip


def train_system(
    system: System, base: Base, captions: Captions, pictures: Pictures, start_steps: int, steps: int,
    batch: int, rate: float, seed: int, progress: Progress | None = None, checkpoint: Path | None = None,
) -> None:  # fmt: skip
    """Train a system over a base: first the start by parallel text, then as its kind is made."""
    with torch.no_grad():
        taught = base.teacher(*base.teacher.tokens([*captions.english, ""]))
    system.requires_grad_(False)
    system.head.requires_grad_(True)

    def start(rng: np.random.Generator) -> Tensor:
        rows = captions.draw(rng, batch)
        given = system.head(*captions.noisy(rows))
        return nn.functional.mse_loss(given.pooled, taught.pooled[rows])

    fit(system.head, start, start_steps, START_RATE, seed)
    system.head.requires_grad_(True)
    if system.kind == "alt":
        for name, value in system.model.named_parameters():
            value.requires_grad_(any(part in name for part in ALT_TUNED))

    def tune(rng: np.random.Generator) -> Tensor:
        """Alt: the flow-matching loss on captioned pictures."""
        rows = captions.draw(rng, batch, 0.0)
        clean = pictures.draw([captions.shown(row, rng) for row in rows], rng)
        rows = [-1 if rng.random() < DROPOUT else row for row in rows]
        with torch.autocast("cpu", torch.bfloat16):
            given = system.head(*captions.noisy(rows))
            return flow_loss(system.model, clean, given, torch.randn_like(clean), random_sigma(batch))

    def distil(rng: np.random.Generator) -> Tensor:
        """PEA: what the teacher's context makes of a noisy picture is what the adapter's shall."""
        rows = captions.draw(rng, batch)
        clean = pictures.draw(
            [(captions.captions[row].noun, captions.captions[row].culture) for row in rows], rng
        )
        sigma = random_sigma(batch)
        level = sigma[:, None, None, None]
        noisy = (1 - level) * clean + level * torch.randn_like(clean)
        teacher = Conditioning(taught.hidden[rows], taught.pooled[rows])
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                wanted = velocity(system.model, noisy, sigma, teacher)
            found = velocity(system.model, noisy, sigma, system.head(*captions.noisy(rows)))
        return nn.functional.mse_loss(found.float(), wanted.float())

    if system.kind == "alt":
        fit(system, tune, steps, rate * ALT_RATE, seed, progress, checkpoint)
    else:
        fit(system, distil, steps, rate * PEA_RATE, seed, progress, checkpoint)

"""The miniature as an instrument: prompts to pictures to CultureVQA and noun accuracy, without ComfyUI."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..effect import Edit, amplifying
from ..embedded_encoder import ENCODER_NAME, MAX_LENGTH, load_hf_encoder
from ..encoders import Conditioning, HFTextEncoder, Tokens
from ..enhancer import LayerEnhancer
from ..neurons import CultureNeurons
from ..pairs import PromptPair
from ..sae import TopKSAE
from ..shares import Share
from .judge import load_judge
from .logs import MODELS
from .model import load_model, sample
from .vae import decode_latents, load_vae


class Score(NamedTuple):
    """What the judge says of a set of pictures."""

    culture: Share
    """CultureVQA: pictures that show the culture that was asked for."""
    noun: Share
    both: Share
    """Pictures that show the noun in that culture."""


class Prompt(NamedTuple):
    text: str
    culture: str
    """The culture that the picture should show."""
    noun: str


def prompts_of(pairs: Sequence[PromptPair], cultural: bool) -> list[Prompt]:
    """The cultural or the neutral prompts of pairs of the miniature."""
    return [
        Prompt(pair.cultural if cultural else pair.neutral, pair.culture, pair.category or "")
        for pair in pairs
    ]


class Miniature:
    """The shipped encoder, image model, autoencoder and judge."""

    def __init__(self, models: Path = MODELS) -> None:
        folder = models / "text_encoders" / ENCODER_NAME
        self.encoder = HFTextEncoder(*load_hf_encoder(folder), MAX_LENGTH)
        self.model = load_model(models / "diffusion_models" / "culture_miniature.safetensors")
        self.vae = load_vae(models / "vae" / "culture_miniature_vae.safetensors")
        self.judge = load_judge(models / "judge" / "miniature_judge.safetensors")
        self.negative = self.condition([""])

    @torch.no_grad()
    def condition(
        self, texts: Sequence[str], layer: int = 0, feature: str = "", edit: Edit | None = None
    ) -> Conditioning:
        """Conditioning of prompts, with one feature edited on the way where an edit is given."""
        tokens = self.encoder.tokenize(texts)
        with ExitStack() as stack:
            if edit is not None:
                stack.enter_context(self.encoder.patch(layer, feature, lambda x: edit(x, tokens)))
            return self.encoder.encode(tokens)

    def pictures(
        self, conditioning: Conditioning, seeds: Sequence[int], batch_size: int = 60, **sampling: Any
    ) -> Tensor:
        """Pictures [N, 3, 64, 64] in 0 to 1, one a prompt and seed."""
        pictures = []
        for start in range(0, len(seeds), batch_size):
            rows = slice(start, start + batch_size)
            positive = Conditioning(conditioning.hidden[rows], conditioning.vector[rows])
            latents = sample(self.model, positive, self.negative, list(seeds[rows]), **sampling)
            pictures.append(decode_latents(self.vae, latents))
        return torch.cat(pictures)

    def score(self, pictures: Tensor, prompts: Sequence[Prompt]) -> Score:
        """Judge pictures [N, 3, 64, 64] against their prompts."""
        verdict = self.judge.judge(pictures)
        cultures = [seen == prompt.culture for seen, prompt in zip(verdict.cultures, prompts, strict=True)]
        nouns = [seen == prompt.noun for seen, prompt in zip(verdict.nouns, prompts, strict=True)]
        both = [culture and noun for culture, noun in zip(cultures, nouns, strict=True)]
        return Score(*(Share(sum(right), len(prompts)) for right in (cultures, nouns, both)))

    def measure(
        self,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        layer: int = 0,
        feature: str = "",
        edits: dict[str, Edit] | None = None,
        **sampling: Any,
    ) -> Score:
        """Score of prompts over seeds; `edits` gives the edit of each culture."""
        order = sorted(prompts, key=lambda prompt: prompt.culture)
        parts = []
        for code in sorted({prompt.culture for prompt in prompts}):
            texts = [prompt.text for prompt in order if prompt.culture == code]
            parts.append(self.condition(texts, layer, feature, edits[code] if edits else None))
        conditioning = Conditioning(
            torch.cat([p.hidden for p in parts]), torch.cat([p.vector for p in parts])
        )
        # Every prompt and seed has noise of its own; all treatments share it.
        drawn = [
            self.pictures(conditioning, [10_000 * seed + i for i in range(len(order))], **sampling)
            for seed in seeds
        ]
        return self.score(torch.cat(drawn), order * len(seeds))


def amplify(
    sae: TopKSAE,
    neurons: Mapping[str, CultureNeurons],
    strength: float | Mapping[str, float],
    mode: str = "inject",
    tokens: str = "content",
) -> dict[str, Edit]:
    """Edits that amplify each culture's neurons on its `content` tokens or on `all` but padding.

    Args:
        strength: one for all cultures, or one a culture.
    """
    given = strength if isinstance(strength, Mapping) else dict.fromkeys(neurons, strength)
    return {code: amplifying(sae, chosen, given[code], mode, tokens) for code, chosen in neurons.items()}


def enhance(enhancer: LayerEnhancer, cultures: Sequence[str], strength: float = 1.0) -> dict[str, Edit]:
    """The same enhancer for every culture: it is not told which."""

    def edit(x: Tensor, given: Tokens) -> Tensor:
        return enhancer(x, strength, given.attention_mask)

    return dict.fromkeys(cultures, edit)

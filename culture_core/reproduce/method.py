"""The method on one system: SAE, neurons, choices on validation prompts, enhancers.

A repetition does all of it anew with a seed of its own; the systems under it stay the same, as a released
model does. Which prompts it is chosen and measured on stands here too.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checkpoints import Progress
from ..cultures import CULTURES
from ..effect import Edit, Place, amplifying
from ..encoders import HIDDEN_STATE, HFTextEncoder, Tokens
from ..enhancer import (
    Batch,
    EnhancerConfig,
    LayerEnhancer,
    enhance_hidden,
    through_encoder,
    train_enhancer,
)
from ..features import NounFeatures, content_features
from ..miniature.captions import (
    HELD_OUT_WRAPPER,
    NOUNS,
    OUTSIDE_DOMAIN_WRAPPERS,
    caption,
    prompt_pairs,
    split_of,
    training_captions,
)
from ..miniature.model import flow_loss
from ..neurons import CultureNeurons
from ..sae import TopKSAE
from .generator import Pictures
from .systems import System

NOISE_LEVEL = 1.0
"""Of an enhancer's training, logit: a picture's culture is decided where there is much noise."""
MASKED = -1.0
"""The strength that takes neurons away."""


class Prompt(NamedTuple):
    """What a picture is made from, and what it should show."""

    text: str
    culture: str
    noun: str
    about: str
    """The neutral prompt in the culture's own language: what the CLIP-type score compares with."""


Edits = Mapping[str, Sequence[tuple[Place, Edit]]]
"""What is changed in the encoder, by culture."""


def _prompt(
    code: str, noun: str, cultural: bool, english: bool, variant: int = 0, wrapper: int = HELD_OUT_WRAPPER
) -> Prompt:
    text = caption("en" if english else code, noun, code if cultural else None, variant, wrapper).text
    return Prompt(text, code, noun, caption(code, noun, None, 0, wrapper).text)


def prompts(
    split: str, cultural: bool, english: bool = False, wrappers: Sequence[int] = (HELD_OUT_WRAPPER,)
) -> list[Prompt]:
    """Prompts of a split, two for every combination (two modifiers; the same neutral prompt twice)."""
    return [
        _prompt(code, noun, cultural, english, variant, wrapper)
        for code, noun, variant, wrapper in itertools.product(CULTURES, NOUNS, (0, 1), wrappers)
        if split_of(code, noun) == split
    ]


def outside(split: str, cultural: bool) -> list[Prompt]:
    """Prompts of another kind than any that is trained on: one of each sentence for every combination."""
    both = prompts(split, cultural, wrappers=OUTSIDE_DOMAIN_WRAPPERS)
    # Every second sentence with every second modifier, so that there are as many as in the other sets.
    return [prompt for number, prompt in enumerate(both) if number % 4 in (0, 3)]


def tuning_prompts(english: bool = False) -> list[Prompt]:
    """Neutral prompts in the held-out wording with nouns that are not the test's: to choose strengths on.

    Of each culture the validation noun twice, and four of the trained ones.
    """
    found = prompts("validation", False, english)
    for code in CULTURES:
        nouns = [noun for noun in NOUNS if split_of(code, noun) == "train"]
        found.extend(_prompt(code, noun, False, english) for noun in nouns[::3])
    return found


@dataclass(frozen=True)
class Design:
    """What is chosen once for a system, on validation prompts."""

    layer: int
    feature: str
    count: int
    """Neurons a culture."""
    contrast: str = "mean"
    tau: float = 1.0
    tokens: str = "content"
    mode: str = "inject"

    @property
    def place(self) -> Place:
        return Place(self.layer, self.feature)


def sae_features(encoder: HFTextEncoder, place: Place, wrappers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Features of all content tokens of the training captions, and which caption each belongs to."""
    texts = [caption.text for caption in training_captions(wrappers)]
    return content_features(encoder, texts, place.layer, place.feature)


def detection_features(encoder: HFTextEncoder, place: Place) -> NounFeatures:
    """Features at all content tokens of native and English training pairs, by culture.

    What both languages share is the culture. The modifier's own tokens count: masking what is found at nouns
    alone leaves the culture in the words that name it.
    """
    pairs = prompt_pairs("train") + prompt_pairs("train", english=True)
    pairs = [pair for pair in pairs if pair.id.endswith(("00", "11"))]
    cultural: dict[str, Tensor] = {}
    neutral: dict[str, Tensor] = {}
    for code in CULTURES:
        own = [pair for pair in pairs if pair.culture == code]
        for found, texts in (
            (cultural, [pair.cultural for pair in own]), (neutral, [pair.neutral for pair in own])
        ):  # fmt: skip
            found[code] = content_features(encoder, texts, place.layer, place.feature)[0]
    return NounFeatures(cultural, neutral)


def amplify(
    sae: TopKSAE,
    neurons: Mapping[str, CultureNeurons],
    design: Design,
    strength: float | Mapping[str, float],
    mode: str | None = None,
    tokens: str | None = None,
) -> Edits:
    """Edits that amplify each culture's neurons; one strength for all or one a culture."""
    given = strength if isinstance(strength, Mapping) else dict.fromkeys(neurons, strength)
    return {
        code: [
            (design.place, amplifying(sae, own, given[code], mode or design.mode, tokens or design.tokens))
        ]
        for code, own in neurons.items()
    }


def mask(sae: TopKSAE, neurons: Mapping[str, CultureNeurons], design: Design) -> Edits:
    """Edits that take each culture's neurons away, from all tokens."""
    return amplify(sae, neurons, design, MASKED, tokens="all")


def enhance(enhancer: LayerEnhancer, layer: int) -> Edits:
    """The same enhancer for every culture: it is not told which."""

    def edit(x: Tensor, tokens: Tokens) -> Tensor:
        return enhancer(x, 1.0, tokens.attention_mask)

    return dict.fromkeys(CULTURES, [(Place(layer, HIDDEN_STATE), edit)])


@dataclass(frozen=True)
class EnhancerPlan:
    """How an enhancer is trained."""

    steps: int
    batch: int = 48
    bottleneck: int = 128
    learning_rate: float = 3e-3
    ema: float = 0.99
    noise: float = 0.5
    """Of what the enhancer sees in training, in standard deviations. Captions are few: without noise they
    are learned by heart."""


def make_enhancer(
    system: System,
    pictures: Pictures,
    wrappers: Sequence[int],
    layer: int,
    plan: EnhancerPlan,
    seed: int,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> LayerEnhancer:
    """Train an enhancer after a layer: neutral captions in, pictures of their language's culture out."""
    captions = [
        (caption(code, noun, None, 0, wrapper), (noun, code))
        for code, noun, wrapper in itertools.product(CULTURES, NOUNS, wrappers)
        if split_of(code, noun) == "train"
    ]
    tokens = system.tokenize([given.text for given, _ in captions])
    # After the last layer there is nothing to go back through: the hidden states are made once.
    last = layer == system.encoder.info.layers - 1
    hidden = system.hidden(tokens) if last else None

    def loss(enhanced: Tensor, batch: Batch) -> Tensor:
        _, token_mask, clean = batch
        with torch.autocast("cpu", torch.bfloat16):
            given = system.head(enhanced, token_mask)
            sigma = torch.sigmoid(torch.randn(len(clean)) + NOISE_LEVEL)
            return flow_loss(system.model, clean, given, torch.randn_like(clean), sigma)

    def batches() -> Iterator[Batch]:
        rng = np.random.default_rng(seed)
        while True:
            rows = rng.integers(len(captions), size=plan.batch).tolist()
            clean = pictures.draw([captions[row][1] for row in rows], rng)
            given = _rows(tokens, rows) if hidden is None else hidden[rows]
            yield given, tokens.attention_mask[rows], clean

    enhancer = LayerEnhancer(system.encoder.info.width, plan.bottleneck, seed=seed)
    seen = _hidden_after(system, tokens, layer)
    enhancer.standardise(seen)
    spread = seen.std(0) * plan.noise

    def apply(enhancer: LayerEnhancer, given: Any, token_mask: Tensor | None) -> Tensor:
        def changed(hidden: Tensor, token_mask: Tensor | None) -> Tensor:
            # The noise is for what the enhancer sees, not for what it adds to.
            noise = torch.randn_like(hidden) * spread
            return enhancer(hidden + noise, token_mask=token_mask) - noise

        if last:
            return enhance_hidden(changed, given, token_mask)
        with torch.autocast("cpu", torch.bfloat16):
            return through_encoder(system.encoder, layer)(changed, given, token_mask).float()

    config = EnhancerConfig(learning_rate=plan.learning_rate, steps=plan.steps, ema=plan.ema, seed=seed)
    train_enhancer(enhancer, batches(), loss, config, progress, checkpoint, apply)
    return enhancer


def _hidden_after(system: System, tokens: Tokens, layer: int) -> Tensor:
    """Hidden states [N, d] of some prompts' tokens after a layer."""
    some = _rows(tokens, list(range(0, len(tokens.ids), 4)))
    with torch.no_grad(), system.encoder.capture([layer], [HIDDEN_STATE]) as captured:
        system.encoder.encode(some)
    return captured.hidden_state[layer][some.attention_mask.bool()]


def _rows(tokens: Tokens, rows: list[int]) -> Tokens:
    return Tokens(tokens.ids[rows], tokens.attention_mask[rows], tokens.content_mask[rows], None)

"""The study: what is trained, what is chosen, and every row that the tables are made of.

All of it is cached. Choices are made on validation prompts; `row` alone sees test prompts.
"""

import base64
import functools
import io
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ..checkpoints import Progress, write_safetensors
from ..controls import random_latents
from ..cultures import CULTURES
from ..detection import DetectOptions, choose_neurons
from ..effect import Place
from ..embedded_encoder import ENCODER_NAME, MAX_LENGTH, load_hf_encoder
from ..encoders import ATTENTION_OUTPUT, HIDDEN_STATE, Conditioning, HFTextEncoder
from ..enhancer import LayerEnhancer
from ..features import NounFeatures
from ..files import CultureSAE
from ..miniature.captions import STUDY_TRAINING_WRAPPERS, held_out_nouns, prompt_pairs
from ..neuron_figures import Selection
from ..neurons import CultureNeurons, all_statistics
from ..probing import LanguageProbes, LayerProbe, probe_by_language
from ..sae import SAEConfig, TopKSAE, train_sae
from .cache import Cache
from .generator import Base, Pictures, load_base, save_base, train_base
from .measures import PICTURE_WIDTH, Clip, ClipPlan, Instruments, diversity, mean_hidden, train_clip
from .method import (
    MASKED,
    Design,
    Edits,
    EnhancerPlan,
    Prompt,
    amplify,
    detection_features,
    enhance,
    make_enhancer,
    mask,
    outside,
    prompts,
    sae_features,
    tuning_prompts,
)
from .systems import KINDS, START_STEPS, Captions, System, train_system

_Module = TypeVar("_Module", bound=torch.nn.Module)
logger = logging.getLogger(__name__)

VERSION = 1
"""Of the study: raise it where results that are cached would come out otherwise."""
SCALE_STRENGTHS = (6.0,)
PAPER_STRENGTH = 6.0
MASK_TARGET = 0.20
"""Of the explicit score, what masking may leave: the study's target."""


@dataclass(frozen=True)
class Sizes:
    """How long everything is trained, and how often the method is repeated."""

    base_steps: int = 1500
    alt_steps: int = 2200
    pea_steps: int = 2000
    batch: int = 64
    """Captions a step of all three."""
    rate: float = 1.0
    """By which the learning rates of all three are multiplied."""
    sae: SAEConfig = SAEConfig(n_latents=2048, k=32, steps=1500, batch_size=256, learning_rate=1e-3)
    enhancer: EnhancerPlan = EnhancerPlan(steps=400)
    enhancers: tuple[tuple[int, float], ...] = ((6, 0.0), (9, 0.0), (11, 0.5))
    """Candidates: layer, and noise in training."""
    repetitions: int = 3
    wrappers: tuple[int, ...] = STUDY_TRAINING_WRAPPERS
    """Which captions are trained on."""
    renders: int = 64
    """Training pictures of every noun in every culture."""
    sampling_steps: int = 12
    places: tuple[tuple[int, str], ...] = ((11, HIDDEN_STATE), (10, HIDDEN_STATE), (11, ATTENTION_OUTPUT))
    """Candidates: what activation patching names, the layer before, and the paper's feature."""
    counts: tuple[int, ...] = (40, 80)
    start_steps: int = START_STEPS
    clip: ClipPlan = ClipPlan()
    candidate_strengths: tuple[float, ...] = (0.4, 0.6, 0.8, 1.0, 1.4)
    strengths: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.4, 2.0)
    """Of which each culture's is chosen."""
    sweep: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 6.0)
    nouns: int | None = None
    """Held-out nouns of a culture that are drawn; None is all."""
    kinds: tuple[str, ...] = KINDS

    def unusual(self) -> dict[str, Any]:
        """Of the settings that a full run never had otherwise, those that are changed: only then do the names
        of what is cached depend on them."""
        names = ("batch", "rate", "start_steps", "clip", "candidate_strengths", "strengths", "nouns")
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(Sizes, name)}


QUICK = Sizes(
    base_steps=250, alt_steps=150, pea_steps=150, batch=48, rate=2.0, start_steps=250,
    sae=replace(Sizes.sae, steps=250), enhancer=EnhancerPlan(steps=60, batch=24, ema=0.95),
    enhancers=((6, 0.0),), repetitions=1, wrappers=(0, 1, 4), renders=6, sampling_steps=6, nouns=1,
    places=((11, HIDDEN_STATE),), counts=(40,), clip=ClipPlan(pictures=1000, steps=400),
    candidate_strengths=(0.7, 1.0), strengths=(0.6, 0.85, 1.2), sweep=(0.0, 0.5, 1.0, 2.0),
)  # fmt: skip
"""Within ten minutes on two CPU cores."""


class Study:
    """Both systems and the method on them, each part made when it is first asked for."""

    def __init__(
        self, models: Path, folder: Path, sizes: Sizes, progress: Callable[[str], Progress] | None = None
    ) -> None:
        self.models, self.sizes = models, sizes
        base = {"version": VERSION, "wrappers": sizes.wrappers, "renders": sizes.renders, **sizes.unusual()}
        self.cache = Cache(folder, base)
        self._progress = progress or (lambda _stage: lambda *_: None)
        path = models / "text_encoders" / ENCODER_NAME
        self.encoder = HFTextEncoder(*load_hf_encoder(path), MAX_LENGTH)
        self._instruments = Instruments(models)

    @functools.cached_property
    def pictures(self) -> Pictures:
        return Pictures(self.sizes.renders)

    @functools.cached_property
    def captions(self) -> Captions:
        return Captions(self.encoder, self.sizes.wrappers)

    @functools.cached_property
    def base(self) -> Base:
        def make(checkpoint: Path) -> Base:
            progress = self._progress("image model")
            begin = self.models / "diffusion_models" / "culture_miniature.safetensors"
            return train_base(
                self.pictures, begin, self.sizes.wrappers, self.sizes.base_steps, self.sizes.batch,
                self.sizes.rate, 2, progress, checkpoint,
            )  # fmt: skip

        return self.cache.model("image model", {"steps": self.sizes.base_steps}, make, save_base, load_base)

    @functools.cache  # noqa: B019
    def system(self, kind: str) -> System:
        stage, steps = f"system {kind}", getattr(self.sizes, f"{kind}_steps")

        def make(checkpoint: Path) -> System:
            system = System(kind, self.encoder, self.base)
            train_system(
                system, self.base, self.captions, self.pictures, self.sizes.start_steps, steps,
                self.sizes.batch, self.sizes.rate, 5, self._progress(stage), checkpoint,
            )  # fmt: skip
            return system

        return self.cache.model(stage, self._of(kind), make, System.save, System(kind, self.encoder).load)

    @functools.cached_property
    def instruments(self) -> Instruments:
        def make(_checkpoint: Path) -> Clip:
            return train_clip(
                self._instruments, self.captions, self.sizes.clip, 3, self._progress("CLIP-type scorer")
            )

        self._instruments.clip = self.cache.model(
            "CLIP-type scorer",
            {},
            make,
            _save_module,
            functools.partial(_load_module, Clip(PICTURE_WIDTH, self.encoder.info.width)),
        )
        return self._instruments

    def _of(self, kind: str) -> dict[str, Any]:
        """What a system depends on, for the cache."""
        return {"base": self.sizes.base_steps, "steps": getattr(self.sizes, f"{kind}_steps")}

    def _with(self, kind: str) -> dict[str, Any]:
        """What measurements with SAEs on a system depend on."""
        sizes = self.sizes
        return {
            **self._of(kind), "sae": asdict(sizes.sae), "sampling": sizes.sampling_steps,
            "places": sizes.places, "counts": sizes.counts,
        }  # fmt: skip

    # The method, in a repetition's seed -------------------------------------------------------------------

    @functools.cache  # noqa: B019
    def features(self, place: Place) -> NounFeatures:
        return detection_features(self.encoder, place)

    @functools.cache  # noqa: B019
    def sae(self, place: Place, seed: int) -> TopKSAE:
        config = replace(self.sizes.sae, seed=seed)
        stage = f"SAE {place.feature} {place.layer} seed {seed}"
        return self.cache.model(
            stage, asdict(config),
            lambda path: self._train_sae(place, config, self._progress(stage), path), _save_module,
            functools.partial(_load_module, TopKSAE(self.encoder.info.width, config.n_latents, config.k)),
        )  # fmt: skip

    def _train_sae(self, place: Place, config: SAEConfig, progress: Progress, checkpoint: Path) -> TopKSAE:
        features, groups = self._sae_features(place)
        return train_sae(features, config, groups=groups, progress=progress, checkpoint=checkpoint)[0]

    @functools.cache  # noqa: B019
    def _sae_features(self, place: Place) -> tuple[Tensor, Tensor]:
        return sae_features(self.encoder, place, self.sizes.wrappers)

    def neurons(self, design: Design, seed: int) -> dict[str, CultureNeurons]:
        return {code: neurons for code, (neurons, _) in self._selected(design, seed).items()}

    @functools.cache  # noqa: B019
    def _selected(self, design: Design, seed: int) -> dict[str, tuple[CultureNeurons, Selection]]:
        features = self.features(design.place)
        statistics = all_statistics(self.sae(design.place, seed), *features)
        options = DetectOptions(count=design.count, contrast=design.contrast, tau=design.tau)
        return {
            code: choose_neurons(
                code, *statistics, (len(features.cultural[code]), len(features.neutral[code])), options
            )
            for code in CULTURES
        }

    def amplified(self, design: Design, seed: int, strength: Any, **options: str) -> Edits:
        return amplify(self.sae(design.place, seed), self.neurons(design, seed), design, strength, **options)

    def masked(self, design: Design, seed: int) -> Edits:
        return mask(self.sae(design.place, seed), self.neurons(design, seed), design)

    def random(self, design: Design, seed: int, match: str) -> dict[str, CultureNeurons]:
        """Random latents in the place of each culture's neurons."""
        sae, features = self.sae(design.place, seed), self.features(design.place)
        return {
            code: random_latents(sae, features.cultural[code], own, match, seed)
            for code, own in self.neurons(design, seed).items()
        }

    def enhancer(self, kind: str, layer: int, noise: float, seed: int) -> LayerEnhancer:
        plan = replace(self.sizes.enhancer, noise=noise)
        stage = f"enhancer {kind} layer {layer} noise {noise:g} seed {seed}"

        def make(checkpoint: Path) -> LayerEnhancer:
            return make_enhancer(
                self.system(kind), self.pictures, self.sizes.wrappers, layer, plan, seed,
                self._progress(stage), checkpoint,
            )  # fmt: skip

        return self.cache.model(
            stage, {**self._of(kind), **asdict(plan)},
            make,
            _save_module,
            functools.partial(_load_module, LayerEnhancer(self.encoder.info.width, plan.bottleneck)),
        )  # fmt: skip

    @functools.cached_property
    def probes(self) -> LanguageProbes:
        """Where a modifier acts: one wording of every training combination."""

        def make() -> dict[str, Any]:
            pairs = [pair for pair in prompt_pairs("train") if pair.id.endswith("-00")]
            overall, languages = probe_by_language(self.encoder, pairs)
            return {
                "overall": _probe_json(overall),
                "languages": {code: _probe_json(probe) for code, probe in languages.items()},
            }

        found = self.cache.figures("probes", {}, make)
        languages = {code: _probe_of(probe) for code, probe in found["languages"].items()}
        return LanguageProbes(_probe_of(found["overall"]), languages)

    def culture_sae(self, design: Design, seed: int) -> CultureSAE:
        """The repetition's culture SAE with the figures behind its neurons."""
        sae, chosen = self.sae(design.place, seed), self._selected(design, seed)
        bare = CultureSAE(sae, design.layer, design.feature, self.encoder.fingerprint())
        cultures = {code: neurons for code, (neurons, _) in chosen.items()}
        return replace(bare, cultures=cultures, selection={code: one for code, (_, one) in chosen.items()})

    # Pictures and what is measured in them ----------------------------------------------------------------

    def draw(self, kind: str, given: Sequence[Prompt], edits: Edits | None, seeds: Sequence[int]) -> Tensor:
        """Pictures [N, 3, 64, 64] of prompts, one seed each."""
        system = self.system(kind)
        parts: list[tuple[list[int], Conditioning]] = []
        for code in dict.fromkeys(prompt.culture for prompt in given):
            rows = [row for row, prompt in enumerate(given) if prompt.culture == code]
            texts = [given[row].text for row in rows]
            parts.append((rows, system.condition(texts, edits[code] if edits else ())))
        order = torch.tensor([row for rows, _ in parts for row in rows]).argsort()
        conditioning = Conditioning(
            *(torch.cat(values)[order] for values in zip(*(c for _, c in parts), strict=True))
        )
        return self.instruments.decode(system.latents(conditioning, seeds, self.sizes.sampling_steps))

    def score(
        self, kind: str, given: Sequence[Prompt], edits: Edits | None, seed: int
    ) -> list[tuple[bool, bool]]:
        """(culture right, noun right) of a picture of each prompt: for choices."""
        pictures = self.draw(kind, given, edits, [1_000_000 + 1000 * seed + row for row in range(len(given))])
        verdict = self.instruments.judge.judge(pictures)
        return [
            (culture == prompt.culture, noun == prompt.noun)
            for culture, noun, prompt in zip(verdict.cultures, verdict.nouns, given, strict=True)
        ]

    # Choices, on validation prompts -----------------------------------------------------------------------

    def tried(self, kind: str) -> list[dict[str, Any]]:
        """What was tried for a system's design: every candidate with its figures on validation prompts."""
        return self.cache.figures(
            f"candidates {kind}", self._with(kind), lambda: list(self._candidates(kind))
        )

    def _candidates(self, kind: str) -> Iterator[dict[str, Any]]:
        neutral, explicit = prompts("validation", False) * 2, prompts("validation", True) * 2
        before = _share(self.score(kind, explicit, None, 0), 0)
        for (layer, feature), count in itertools.product(self.sizes.places, self.sizes.counts):
            plain = Design(layer, feature, count)
            masked = _share(self.score(kind, explicit, self.masked(plain, 0), 0), 0)
            left = masked / before if before else 1.0  # nothing can be masked where nothing is seen
            for tokens, mode in (("content", "inject"), ("all", "inject"), ("content", "scale")):
                design = replace(plain, tokens=tokens, mode=mode)
                strengths = self.sizes.candidate_strengths if mode == "inject" else SCALE_STRENGTHS
                found = {s: self.score(kind, neutral, self.amplified(design, 0, s), 0) for s in strengths}
                best = max(found, key=lambda strength: _both(found[strength]))
                yield {
                    **asdict(design), "strength": best, "culture": _share(found[best], 0),
                    "noun": _share(found[best], 1), "both": _both(found[best]), "explicit_left": left,
                }  # fmt: skip

    def design(self, kind: str) -> Design:
        """The candidate that amplifies best among those whose masking leaves little enough."""
        tried = self.tried(kind)
        masking = [one for one in tried if one["explicit_left"] <= MASK_TARGET]
        best = max(masking or tried, key=lambda one: one["both"])
        return Design(**{name: best[name] for name in Design.__dataclass_fields__})

    def tried_enhancers(self, kind: str) -> list[dict[str, Any]]:
        """Every candidate for the enhancer with its figures on validation prompts."""

        def make() -> list[dict[str, Any]]:
            return [self._tried_enhancer(kind, layer, noise) for layer, noise in self.sizes.enhancers]

        settings = {**self._with(kind), **asdict(self.sizes.enhancer), "tried": self.sizes.enhancers}
        return self.cache.figures(f"enhancers {kind}", settings, make)

    def _tried_enhancer(self, kind: str, layer: int, noise: float) -> dict[str, Any]:
        edits = enhance(self.enhancer(kind, layer, noise, 0), layer)
        found = self.score(kind, prompts("validation", False) * 2, edits, 0)
        return {
            "layer": layer, "noise": noise, "culture": _share(found, 0), "noun": _share(found, 1),
            "both": _both(found),
        }  # fmt: skip

    def best_enhancer(self, kind: str) -> tuple[int, float]:
        """Layer and noise of the candidate with most pictures right in culture and noun."""
        best = max(self.tried_enhancers(kind), key=lambda one: one["both"])
        return best["layer"], best["noise"]

    def strengths(self, kind: str, design: Design, seed: int, english: bool = False) -> dict[str, float]:
        """Each culture's best strength on tuning prompts."""

        def make() -> dict[str, float]:
            given = tuning_prompts(english)
            right = {
                s: self.score(kind, given, self.amplified(design, seed, s), seed)
                for s in self.sizes.strengths
            }
            return {code: _best(right, [p.culture == code for p in given]) for code in CULTURES}

        stage = f"strengths {kind}{' English' if english else ''} seed {seed}"
        return self.cache.figures(stage, {**self._with(kind), **asdict(design)}, make)

    def variants(self, kind: str) -> dict[str, tuple[tuple[Design, ...], float]]:
        """Other places to amplify at, with as many neurons; one strength for all cultures, the best there."""
        design = self.design(kind)
        found: dict[str, tuple[tuple[Design, ...], float]] = {}
        for layer, feature in self.sizes.places:
            elsewhere = replace(design, layer=layer, feature=feature)
            wanted = asdict(elsewhere).items()
            same = next(one for one in self.tried(kind) if wanted <= one.items())
            found[f"{feature}, layer {layer}"] = ((elsewhere,), same["strength"])
        layers = sorted({layer for layer, feature in self.sizes.places if feature == HIDDEN_STATE})
        if len(layers) > 1:
            several = tuple(replace(design, layer=layer, feature=HIDDEN_STATE) for layer in layers)

            def choose() -> float:
                given = prompts("validation", False) * 2
                right = {
                    s: self.score(kind, given, self._together(several, s, 0), 0)
                    for s in self.sizes.candidate_strengths
                }
                return max(right, key=lambda strength: _both(right[strength]))

            strength = self.cache.figures(
                f"several layers {kind}", {**self._with(kind), **asdict(design)}, choose
            )
            found[f"{HIDDEN_STATE}, layers {' and '.join(map(str, layers))}"] = several, strength
        return found

    def _together(self, designs: Sequence[Design], strength: float, seed: int) -> Edits:
        each = [self.amplified(design, seed, strength) for design in designs]
        return {code: [edit for edits in each for edit in edits[code]] for code in CULTURES}

    # Rows of the tables, on test prompts ------------------------------------------------------------------

    def row(
        self, kind: str, name: str, given: Sequence[Prompt], edits: Callable[[], Edits] | None, seed: int,
        **settings: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """One treatment in one repetition: what is measured in a picture of every prompt.

        Args:
            edits: made only where the row is not cached.
            settings: what the edits depend on, besides the system and the seed.
        """

        def make() -> dict[str, Any]:
            # Every prompt of a repetition has noise of its own, the same for all treatments.
            pictures = self.draw(
                kind, given, edits() if edits else None, [10_000 * seed + row for row in range(len(given))]
            )
            cultures, nouns = [prompt.culture for prompt in given], [prompt.noun for prompt in given]
            measured = self.instruments.measure(
                pictures, cultures, nouns, self._about(tuple(prompt.about for prompt in given))
            )
            groups = [f"{prompt.culture} {prompt.noun}" for prompt in given]
            first = [cultures.index(code) for code in CULTURES]
            return {
                **measured._asdict(), "of": cultures, "group": groups,
                "diversity": diversity(self.instruments.judge, pictures, groups),
                "pictures": _strip(pictures[first]) if seed == 0 else None,
            }  # fmt: skip

        settings |= self._with(kind) | asdict(self.sizes.enhancer)
        return self.cache.figures(f"row {kind} {name} seed {seed}", settings, make)

    @functools.cache  # noqa: B019
    def _about(self, texts: tuple[str, ...]) -> Tensor:
        tokens = self.encoder.tokenize(texts)
        with torch.no_grad():
            return mean_hidden(self.encoder.encode(tokens).hidden, tokens.attention_mask)

    def _drawn(self, given: Sequence[Prompt]) -> list[Prompt]:
        """Of test prompts, those that are drawn."""
        count = self.sizes.nouns
        return [prompt for prompt in given if prompt.noun in held_out_nouns(prompt.culture)[:count]]

    def rows(self, kind: str, seed: int) -> dict[str, dict[str, Any]]:
        """Every row of a repetition, by its name."""
        design = self.design(kind)
        strengths = self.strengths(kind, design, seed)
        english = self.strengths(kind, design, seed, english=True)
        neutral, explicit = self._drawn(prompts("test", False)), self._drawn(prompts("test", True))
        translated = self._drawn(prompts("test", False, english=True))
        translated_explicit = self._drawn(prompts("test", True, english=True))
        away, away_explicit = self._drawn(outside("test", False)), self._drawn(outside("test", True))
        layer, noise = self.best_enhancer(kind)
        other = _random_layer(seed, layer, self.encoder.info.layers)
        chosen = {**asdict(design), "strengths": strengths, "enhancer": (layer, noise)}
        sae = functools.partial(self.sae, design.place, seed)

        def inject(**options: str) -> Callable[[], Edits]:
            return lambda: self.amplified(design, seed, strengths, **options)

        def instead(match: str, strength: Any, tokens: str | None = None) -> Callable[[], Edits]:
            return lambda: amplify(sae(), self.random(design, seed, match), design, strength, tokens=tokens)

        def enhanced(layer: int) -> Callable[[], Edits]:
            return lambda: enhance(self.enhancer(kind, layer, noise, seed), layer)

        wanted: dict[str, tuple[list[Prompt], Callable[[], Edits] | None]] = {
            "neutral": (neutral, None),
            "explicit": (explicit, None),
            "translated": (translated, None),
            "translated, explicit": (translated_explicit, None),
            "amplified": (neutral, inject()),
            "enhanced": (neutral, enhanced(layer)),
            "masked": (explicit, lambda: self.masked(design, seed)),
            "masked, random (frequency)": (explicit, instead("frequency", MASKED, "all")),
            "masked, random (norm)": (explicit, instead("norm", MASKED, "all")),
            "amplified, random (frequency)": (neutral, instead("frequency", strengths)),
            "amplified, random (norm)": (neutral, instead("norm", strengths)),
            "enhanced, random layer": (neutral, enhanced(other)),
            "outside, neutral": (away, None),
            "outside, explicit": (away_explicit, None),
            "outside, amplified": (away, inject()),
            "outside, enhanced": (away, enhanced(layer)),
            "English, amplified": (translated, lambda: self.amplified(design, seed, english)),
            "scale": (neutral, inject(mode="scale")),
            "scale, paper's strength": (
                neutral,
                lambda: self.amplified(design, seed, PAPER_STRENGTH, mode="scale"),
            ),
        }
        for strength in self.sizes.sweep:
            wanted[f"strength {strength:g}"] = (
                neutral, functools.partial(self.amplified, design, seed, strength)
            )  # fmt: skip
        # Other places are a matter of the design, which the first repetition's SAEs are chosen by.
        for name, (designs, strength) in self.variants(kind).items() if seed == 0 else ():
            wanted[name] = (neutral, functools.partial(self._together, designs, strength, seed))
        return {
            name: self.row(kind, name, given, edits, seed, **chosen, english=english)
            for name, (given, edits) in wanted.items()
        }


def _random_layer(seed: int, key: int, layers: int) -> int:
    """A layer that was not chosen."""
    others = [layer for layer in range(layers) if layer != key]
    return others[np.random.default_rng(seed).integers(len(others))]


def _share(right: Sequence[tuple[bool, bool]], which: int) -> float:
    return sum(pair[which] for pair in right) / len(right)


def _both(right: Sequence[tuple[bool, bool]]) -> float:
    return sum(all(pair) for pair in right) / len(right)


def _best(right: dict[float, list[tuple[bool, bool]]], own: Sequence[bool]) -> float:
    """The strength with most pictures right in culture and noun; the middle one of equally good ones, which
    is farthest from where either end fails."""
    scores = {
        s: sum(all(pair) for pair, mine in zip(pairs, own, strict=True) if mine) for s, pairs in right.items()
    }
    most = max(scores.values())
    tied = [strength for strength, score in scores.items() if score == most]
    return tied[len(tied) // 2]


def _strip(pictures: Tensor) -> str:
    """Pictures [N, 3, 64, 64] side by side, a PNG in base64."""
    row = (pictures.permute(2, 0, 3, 1).flatten(1, 2) * 255).round().byte()
    with io.BytesIO() as buffer:
        Image.fromarray(row.numpy()).save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()


def _probe_json(probe: LayerProbe) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in probe._asdict().items()}


def _probe_of(found: dict[str, Any]) -> LayerProbe:
    tensors = {k: torch.tensor(v) for k, v in found.items() if isinstance(v, list) and k != "skipped"}
    return LayerProbe(**{**found, **tensors, "skipped": tuple(found["skipped"])})


def _save_module(module: torch.nn.Module, path: Path) -> None:
    write_safetensors(path, module.state_dict(), {"format": "culture-reproduce"})


def _load_module(module: _Module, path: Path) -> _Module:
    module.load_state_dict(load_file(path))
    module.eval().requires_grad_(False)
    return module

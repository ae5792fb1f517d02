"""The demo's figures: `python -m culture_core.miniature.evaluate validation|strengths|test`.

`validation` sweeps what can be chosen, on validation prompts; the choices stand in `train_sae.py` and here.
`strengths` measures each culture's best strength on validation prompts and stores it in the culture SAE.
`test` reports prompts and combinations that nothing was trained or chosen on: the table of the README.
"""

import functools
import itertools
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence

from ..controls import MATCHES, measure_controls
from ..effect import Edit
from ..enhancer import LayerEnhancer
from ..features import NounFeatures, noun_features
from ..files import CultureSAE, Strengths, load_culture_sae, load_enhancer, save_culture_sae
from ..neurons import CultureNeurons, detect_all
from ..shares import Share
from .captions import HELD_OUT_WRAPPER, NOUNS, caption, prompt_pairs, split_of
from .logs import MODELS
from .study import Miniature, Prompt, Score, amplify, enhance, prompts_of

logger = logging.getLogger(__name__)

SEEDS = (0, 1, 2)
RANDOM_DRAWS = 3
TOKENS, MASKED_TOKENS = "content", "all"
"""Which tokens are amplified and which are masked, chosen on validation prompts."""
STRENGTHS = (1.0, 1.4, 1.7, 2.0, 2.3, 2.6, 3.0, 4.0)
NOUNS_SUFFER = 0.9
"""A strength is past its limit where fewer nouns than this share of the neutral prompts' are recognised."""


class Study:
    """The miniature with its SAE, its enhancer, and the features that random controls are drawn by."""

    def __init__(self) -> None:
        self.miniature = Miniature()
        self.file: CultureSAE = load_culture_sae(MODELS / "culture_sae" / "miniature.safetensors")
        path = MODELS / "culture_enhancer" / "miniature.safetensors"
        self.enhancer: LayerEnhancer | None = load_enhancer(path).enhancer if path.exists() else None
        pairs = prompt_pairs("train") + prompt_pairs("train", english=True)
        self.features: NounFeatures = noun_features(
            self.miniature.encoder, pairs, self.file.layer, self.file.feature
        )

    def neurons(self, count: int | None, contrast: str) -> dict[str, CultureNeurons]:
        cultural, neutral = self.features
        return detect_all(self.file.sae, cultural, neutral, count=count, contrast=contrast)

    def controls(
        self,
        prompts: list[Prompt],
        neurons: dict[str, CultureNeurons],
        strength: float | dict[str, float],
        tokens: str,
        draws: int = RANDOM_DRAWS,
        matches: Sequence[str] = MATCHES,
        seeds: Sequence[int] = SEEDS,
    ) -> dict[str, Score]:
        """Scores of prompts untreated ("none"), with the neurons at a strength ("neurons"), and with random
        latents that the culture's own prompts activate, by what they are matched in."""

        def measure(latents: Mapping[str, CultureNeurons] | None) -> dict[str, Share]:
            edits = amplify(self.file.sae, latents, strength, tokens=tokens) if latents else None
            return self.measure(prompts, edits, seeds)._asdict()

        found = measure_controls(
            self.file.sae, neurons, self.features.cultural, measure, draws, matches=matches
        )
        rows = {"none": found.untreated, "neurons": found.neurons, **found.random}
        return {
            name: Score(**{figure: value.share for figure, value in row.figures.items() if value.share})
            for name, row in rows.items()
        }

    def measure(
        self, prompts: list[Prompt], edits: dict[str, Edit] | None = None, seeds: Sequence[int] = SEEDS
    ) -> Score:
        return self.miniature.measure(prompts, seeds, self.file.layer, self.file.feature, edits)


def _show(name: str, score: Score) -> None:
    logger.info("%-58s CultureVQA %s, noun %s", name, score.culture, score.noun)


def validate(study: Study) -> None:
    """Sweep what can be chosen, on validation prompts alone."""
    pairs = prompt_pairs("validation")
    neutral, explicit = prompts_of(pairs, cultural=False), prompts_of(pairs, cultural=True)
    _show("explicit", study.measure(explicit))
    _show("neutral", study.measure(neutral))
    for count, contrast in itertools.product((None, 20, 40, 80), ("mean", "maximum")):
        neurons = study.neurons(count, contrast)
        chosen = f"K = {count}, minus the others' {contrast}"
        for tokens in ("content", "all"):
            for strength in (1.0, 2.0, 2.5, 4.0):
                edits = amplify(study.file.sae, neurons, strength, tokens=tokens)
                _show(
                    f"amplified, {chosen}, {tokens}, strength {strength}", study.measure(neutral, edits, (0,))
                )
            masked = study.controls(explicit, neurons, -1.0, tokens, 1, ("frequency",), (0,))
            _show(f"masked, {chosen}, {tokens}", masked["neurons"])
            _show(f"random masked, {chosen}, {tokens}", masked["frequency"])
    if study.enhancer is not None:
        _show("enhanced", study.measure(neutral, enhance(study.enhancer, list(study.file.cultures))))


def _tuning_prompts(culture: str) -> list[Prompt]:
    """Neutral prompts in wordings that were never trained on, with every noun but the test's."""
    return [
        Prompt(caption(culture, noun, None, 0, HELD_OUT_WRAPPER).text, culture, noun)
        for noun in NOUNS
        if split_of(culture, noun) in ("train", "validation")
    ]


def find_strengths(study: Study) -> dict[str, Strengths]:
    """Each culture's strength with most pictures right in both culture and noun, and where nouns suffer."""
    found = {}
    for code, neurons in study.file.cultures.items():
        prompts = _tuning_prompts(code)
        least = NOUNS_SUFFER * study.measure(prompts, seeds=(7,)).noun.right
        scores = {
            strength: study.measure(
                prompts, amplify(study.file.sae, {code: neurons}, strength, tokens=TOKENS), (7,)
            )
            for strength in STRENGTHS
        }
        most = max(score.both.right for score in scores.values())
        # The middle of those that do equally well is farthest from where either end fails.
        tied = [strength for strength in STRENGTHS if scores[strength].both.right == most]
        best = tied[len(tied) // 2]
        limit = max([s for s in STRENGTHS if s >= best and scores[s].noun.right >= least], default=best)
        found[code] = Strengths(best, limit)
        logger.info("%s: best %.1f, limit %.1f, %s right there", code, best, limit, scores[best].both)
    return found


def test(study: Study) -> dict[str, Score]:
    """Every row of the README's table, on test prompts."""
    pairs = prompt_pairs("test")
    neutral, explicit = prompts_of(pairs, cultural=False), prompts_of(pairs, cultural=True)
    enhancer = study.enhancer
    assert enhancer is not None, "train it first"
    unseen = prompt_pairs("unseen")
    english = prompts_of(prompt_pairs("test", english=True), cultural=False)
    sae, neurons = study.file.sae, study.file.cultures
    best = {code: found.best for code, found in study.file.strengths.items()}
    paper = dict.fromkeys(neurons, 6.0)
    # Nothing is measured twice: a family of rows is measured when its first row is asked for.
    amplified = functools.cache(lambda: study.controls(neutral, neurons, best, TOKENS))
    masked = functools.cache(lambda: study.controls(explicit, neurons, -1.0, MASKED_TOKENS))
    rows: dict[str, Callable[[], Score]] = {
        "explicit modifier": lambda: masked()["none"],
        "neutral": lambda: amplified()["none"],
        "neutral, amplified (inject, best strength)": lambda: amplified()["neurons"],
        "neutral, amplified (scale, strength 6, the paper's)": lambda: study.measure(neutral, amplify(sae, neurons, paper, "scale")),
        "neutral, random latents (frequency-matched)": lambda: amplified()["frequency"],
        "neutral, random latents (norm-matched)": lambda: amplified()["norm"],
        "explicit, culture neurons masked": lambda: masked()["neurons"],
        "explicit, random latents masked (frequency-matched)": lambda: masked()["frequency"],
        "explicit, random latents masked (norm-matched)": lambda: masked()["norm"],
        "neutral, enhanced": lambda: study.measure(neutral, enhance(enhancer, list(neurons))),
        "neutral English": lambda: study.measure(english),
        "neutral English, amplified": lambda: study.measure(english, amplify(sae, neurons, best)),
        "explicit, nouns never trained on": lambda: study.measure(prompts_of(unseen, cultural=True)),
        "neutral, nouns never trained on": lambda: study.measure(prompts_of(unseen, cultural=False)),
        "neutral, nouns never trained on, amplified": lambda: study.measure(prompts_of(unseen, cultural=False), amplify(sae, neurons, best)),
    }  # fmt: skip
    scores = {}
    for name, measure in rows.items():
        scores[name] = measure()
        _show(name, scores[name])
    return scores


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    study = Study()
    if sys.argv[1:] == ["validation"]:
        validate(study)
    elif sys.argv[1:] == ["strengths"]:
        study.file.strengths = find_strengths(study)
        assert study.file.path is not None, "it was loaded"
        save_culture_sae(study.file, study.file.path, overwrite=True)
    elif sys.argv[1:] == ["test"]:
        scores = test(study)
        record = {
            name: {
                "culture": [*score.culture, score.culture.percent],
                "noun": [*score.noun, score.noun.percent],
            }
            for name, score in scores.items()
        }
        strengths = {code: found._asdict() for code, found in study.file.strengths.items()}
        settings = {
            "strengths": strengths,
            "tokens": TOKENS,
            "masked_tokens": MASKED_TOKENS,
            "seeds": SEEDS,
            "random_draws": list(range(RANDOM_DRAWS)),
        }
        path = MODELS / "training_logs" / "study.json"
        path.write_text(
            json.dumps({"settings": settings, "scores": record}, indent=1) + "\n", encoding="utf-8"
        )
    else:
        raise SystemExit("usage: python -m culture_core.miniature.evaluate validation|strengths|test")


if __name__ == "__main__":
    main()

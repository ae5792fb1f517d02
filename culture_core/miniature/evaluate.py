"""The demo's figures: `python -m culture_core.miniature.evaluate [validation|test]`.

`validation` sweeps strength, number of neurons and tokens on validation prompts; the choices go into
`CHOSEN` by hand. `test` reports the chosen settings on prompts and combinations that nothing was trained or
chosen on, and writes the table that the README shows.
"""

import json
import logging
import sys
from collections.abc import Callable
from typing import NamedTuple

from ..enhancer import LayerEnhancer
from ..features import NounFeatures, noun_features
from ..files import CultureSAE, load_culture_sae, load_enhancer
from ..neurons import CultureNeurons, detect_all, random_latents
from .captions import prompt_pairs
from .logs import MODELS
from .study import Edit, Miniature, Prompt, Score, amplify, enhance, prompts_of

logger = logging.getLogger(__name__)

SEEDS = (0, 1, 2)
RANDOM_DRAWS = (0, 1, 2)


class Chosen(NamedTuple):
    """Settings picked on validation prompts."""

    strength: float
    tokens: str
    masked_tokens: str


CHOSEN = Chosen(strength=4.0, tokens="content", masked_tokens="all")


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

    def neurons(self, count: int | None) -> dict[str, CultureNeurons]:
        return detect_all(self.file.sae, self.features.cultural, self.features.neutral, count=count)

    def random(self, neurons: dict[str, CultureNeurons], match: str, seed: int) -> dict[str, CultureNeurons]:
        """Controls drawn among the latents that the culture's own prompts activate."""
        return {
            code: random_latents(self.file.sae, self.features.cultural[code], chosen, match, seed)
            for code, chosen in neurons.items()
        }

    def measure(self, prompts: list[Prompt], edits: dict[str, Edit] | None = None, seeds=SEEDS) -> Score:  # noqa: ANN001
        return self.miniature.measure(prompts, seeds, self.file.layer, self.file.feature, edits)


def _show(name: str, score: Score) -> None:
    logger.info("%-58s CultureVQA %s, noun %s", name, score.culture, score.noun)


def validate(study: Study) -> None:
    """Sweep what can be chosen, on validation prompts alone."""
    pairs = prompt_pairs("validation")
    neutral, explicit = prompts_of(pairs, cultural=False), prompts_of(pairs, cultural=True)
    _show("explicit", study.measure(explicit))
    _show("neutral", study.measure(neutral))
    for count in (None, 10, 20, 40):
        neurons = study.neurons(count)
        for tokens in ("content", "all"):
            for strength in (1.0, 2.0, 3.0, 4.0, 6.0):
                edits = amplify(study.file.sae, neurons, strength, tokens=tokens)
                _show(
                    f"amplified, K = {count}, {tokens}, strength {strength}",
                    study.measure(neutral, edits, (0,)),
                )
            edits = amplify(study.file.sae, neurons, -1, tokens=tokens)
            _show(f"masked, K = {count}, {tokens}", study.measure(explicit, edits, (0,)))
            edits = amplify(study.file.sae, study.random(neurons, "frequency", 0), -1, tokens=tokens)
            _show(f"random masked, K = {count}, {tokens}", study.measure(explicit, edits, (0,)))
    if study.enhancer is not None:
        _show("enhanced", study.measure(neutral, enhance(study.enhancer, list(study.file.cultures))))


def _pooled(draws: list[Score]) -> Score:
    """Several draws of a control as one score."""
    return Score(
        *(
            type(shares[0])(sum(s.right for s in shares), sum(s.count for s in shares))
            for shares in zip(*draws, strict=True)
        )
    )


def test(study: Study) -> dict[str, Score]:
    """Every row of the README's table, on test prompts."""
    pairs = prompt_pairs("test")
    neutral, explicit = prompts_of(pairs, cultural=False), prompts_of(pairs, cultural=True)
    unseen = prompt_pairs("unseen")
    english = prompts_of(prompt_pairs("test", english=True), cultural=False)
    sae, neurons, strength = study.file.sae, study.file.cultures, CHOSEN.strength

    def amplified(
        chosen: dict[str, CultureNeurons], strength: float, mode: str = "inject", tokens: str = CHOSEN.tokens
    ) -> dict[str, Edit]:
        return amplify(sae, chosen, strength, mode, tokens)

    def controls(prompts: list[Prompt], match: str, strength: float, tokens: str) -> Score:
        draws = [study.random(neurons, match, seed) for seed in RANDOM_DRAWS]
        return _pooled([study.measure(prompts, amplified(draw, strength, tokens=tokens)) for draw in draws])

    rows: dict[str, Callable[[], Score]] = {
        "explicit modifier": lambda: study.measure(explicit),
        "neutral": lambda: study.measure(neutral),
        f"neutral, amplified (inject, strength {strength:g})": lambda: study.measure(neutral, amplified(neurons, strength)),
        "neutral, amplified (scale, strength 6, the paper's)": lambda: study.measure(neutral, amplified(neurons, 6, "scale")),
        "neutral, random latents (frequency-matched)": lambda: controls(neutral, "frequency", strength, CHOSEN.tokens),
        "neutral, random latents (norm-matched)": lambda: controls(neutral, "norm", strength, CHOSEN.tokens),
        "explicit, culture neurons masked": lambda: study.measure(explicit, amplified(neurons, -1, tokens=CHOSEN.masked_tokens)),
        "explicit, random latents masked (frequency-matched)": lambda: controls(explicit, "frequency", -1, CHOSEN.masked_tokens),
        "explicit, random latents masked (norm-matched)": lambda: controls(explicit, "norm", -1, CHOSEN.masked_tokens),
        "neutral, enhanced": lambda: study.measure(neutral, enhance(study.enhancer, list(neurons))),
        "neutral English": lambda: study.measure(english),
        "neutral English, amplified": lambda: study.measure(english, amplified(neurons, strength)),
        "explicit, nouns never trained on": lambda: study.measure(prompts_of(unseen, cultural=True)),
        "neutral, nouns never trained on": lambda: study.measure(prompts_of(unseen, cultural=False)),
        "neutral, nouns never trained on, amplified": lambda: study.measure(prompts_of(unseen, cultural=False), amplified(neurons, strength)),
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
    elif sys.argv[1:] in ([], ["test"]):
        scores = test(study)
        record = {
            name: {
                "culture": [*score.culture, score.culture.percent],
                "noun": [*score.noun, score.noun.percent],
            }
            for name, score in scores.items()
        }
        settings = {"chosen": CHOSEN._asdict(), "seeds": SEEDS, "random_draws": RANDOM_DRAWS}
        path = MODELS / "training_logs" / "study.json"
        path.write_text(
            json.dumps({"settings": settings, "scores": record}, indent=1) + "\n", encoding="utf-8"
        )
    else:
        raise SystemExit("usage: python -m culture_core.miniature.evaluate [validation|test]")


if __name__ == "__main__":
    main()

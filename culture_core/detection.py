"""Detection of culture neurons for a culture SAE, from an encoder and prompt pairs (paper, section 4.3)."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from PIL import Image

from .cultures import CULTURES
from .effect import STRENGTHS, AmplifiedEffect, PairVectors, Place, noun_of
from .encoders import TextEncoder
from .features import noun_features
from .files import CultureSAE, check_encoder
from .neuron_figures import (
    CONTRASTS,
    Selection,
    Trial,
    best_trial,
    curve_of,
    kept,
    mean_activation_on,
    scores_of,
)
from .neuron_pictures import pictures_of
from .neurons import CultureNeurons, LatentStatistics, all_statistics, others_of, rank_latents, take_neurons
from .overlap import Overlap, overlap
from .pairs import PromptPair
from .splits import DETECTION, VALIDATION, usable

Progress = Callable[[int, int], None]
"""Gets (prompts encoded, prompts in all). What it raises ends the detection."""
Measure = Callable[[str, CultureNeurons], Mapping[str, float]]
"""Gets a culture and candidate neurons; gives the figures of their effect."""


@dataclass(frozen=True)
class DetectOptions:
    """How to choose culture neurons.

    Raises:
        ValueError: for a value that makes no sense; the message names it.
    """

    count: int | None = None
    """Neurons a culture; None: up to the elbow of the ranking."""
    contrast: str = "mean"
    """What specificity subtracts, the `mean` or the `maximum` of the other cultures' WFS."""
    score: str | None = None
    """Rank by `wfs`, the paper's, or by `specificity`; None: specificity where there are other cultures."""
    tau: float = 0.5
    """Latents with WFS_neutral ≥ tau · WFS_cultural are dropped as noun-side."""
    by_effect: bool = False
    """Choose number and contrast of each culture by measured effect on pairs kept from the detection."""
    counts: tuple[int | None, ...] = (None, 10, 20, 40, 80)
    """Numbers to choose from by effect; None stands for the elbow."""
    contrasts: tuple[str, ...] = CONTRASTS
    """Contrasts to choose from by effect."""
    criterion: str = "share"
    """The figure that decides by effect."""
    strengths: tuple[float, ...] = STRENGTHS
    """Strengths at which an effect is measured; the best counts."""
    holdout: float = 0.25
    """Share of each culture's nouns that is kept to measure effects; unused where the pairs have a split
    called validation."""
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "count": self.count is None or self.count >= 1,
            "contrast": self.contrast in CONTRASTS,
            "score": self.score in (None, "wfs", "specificity"),
            "tau": 0 < self.tau < float("inf"),
            "counts": bool(self.counts) and all(count is None or count >= 1 for count in self.counts),
            "contrasts": bool(self.contrasts) and set(self.contrasts) <= set(CONTRASTS),
            "strengths": bool(self.strengths) and all(0 < strength <= 12 for strength in self.strengths),
            "holdout": 0 < self.holdout < 1,
        }
        wrong = [f"{name}={getattr(self, name)!r}" for name, good in checks.items() if not good]
        if wrong:
            raise ValueError(f"DetectOptions: {', '.join(wrong)} is out of range")


class Detection(NamedTuple):
    """What a detection found."""

    culture_sae: CultureSAE
    """The SAE with the neurons found and the figures behind them; the one given is unchanged."""
    detected: tuple[str, ...]
    """Codes of the cultures that the pairs have."""
    overlap: Overlap
    report: str
    """The figures, for people."""
    left_out: int
    """Pairs of splits that detection may not see, such as test."""

    def pictures(self) -> dict[str, Image.Image]:
        """See `neuron_pictures.pictures_of`; of the cultures that were detected."""
        chosen = {code: self.culture_sae.selection[code] for code in self.detected}
        return pictures_of(replace(self.culture_sae, selection=chosen))


class Candidate(NamedTuple):
    """Neurons that may be chosen for a culture."""

    neurons: CultureNeurons
    rule: str
    """How many there are: up to the `elbow`, or a given `count`."""
    contrast: str | None = None
    """What the ranking subtracts, where it subtracts anything."""


def detect_in(
    culture_sae: CultureSAE,
    encoder: TextEncoder,
    pairs: Sequence[PromptPair],
    options: DetectOptions | None = None,
    progress: Progress | None = None,
    measure: Measure | None = None,
) -> Detection:
    """Find the culture neurons of every culture that the pairs have.

    Neurons of those cultures that the SAE already had are replaced, and with them the strengths that were
    measured with the old ones. Other cultures stay as they are.

    Args:
        measure: what to choose by where `options.by_effect` is set; None: how far amplifying moves the
            conditioning of the kept neutral prompts to that of the cultural ones (see `AmplifiedEffect`).

    Raises:
        FileError: where the SAE belongs to another encoder.
        ValueError: for pairs that cannot be used; the message says why.
    """
    options = options or DetectOptions()
    check_encoder(culture_sae.encoder, encoder.fingerprint(), culture_sae.path)
    seen = usable(pairs, DETECTION)
    if not seen:
        raise ValueError("there are no prompt pairs to detect with")
    fit, held = hold_out(seen, options) if options.by_effect else (seen, [])
    steps = _Steps(progress, _prompts_to_encode(fit, held, options, measure))
    features = noun_features(encoder, fit, culture_sae.layer, culture_sae.feature, steps.reach)
    statistics = all_statistics(culture_sae.sae, *features)
    if not options.by_effect:
        measure = None
    elif measure is None:
        reader = PairVectors.of(encoder, fit, steps.add).reader()
        kept_back = PairVectors.of(encoder, held, steps.add)
        place = Place(culture_sae.layer, culture_sae.feature)
        measure = AmplifiedEffect(
            encoder, culture_sae.sae, place, kept_back, reader, options.strengths, steps.add
        )
    cultures, selection = dict(culture_sae.cultures), dict(culture_sae.selection)
    for code in statistics[0]:
        vectors = len(features.cultural[code]), len(features.neutral[code])
        cultures[code], selection[code] = choose_neurons(code, *statistics, vectors, options, measure)
    steps.finish()
    result = replace(
        culture_sae,
        # In the order in which the file will have them.
        cultures=dict(sorted(cultures.items())),
        selection=dict(sorted(selection.items())),
        strengths={code: known for code, known in culture_sae.strengths.items() if code not in statistics[0]},
        path=None,
    )
    shared = overlap(result.cultures)
    detected = tuple(sorted(statistics[0]))
    return Detection(result, detected, shared, _report(result, detected, shared), len(pairs) - len(seen))


def choose_neurons(
    culture: str,
    cultural: dict[str, LatentStatistics],
    neutral: dict[str, LatentStatistics],
    vectors: tuple[int, int],
    options: DetectOptions,
    measure: Measure | None = None,
) -> tuple[CultureNeurons, Selection]:
    """The neurons of one culture, with every figure behind the choice.

    Args:
        cultural: statistics on the cultural prompts of every culture; `neutral` likewise.
        vectors: how many feature vectors of the culture are behind them.
        measure: chooses among `options.counts` and `options.contrasts`; None: `options.count` and
            `options.contrast` are taken.
    """
    own, plain, others = cultural[culture], neutral[culture], others_of(cultural, culture)
    score = options.score or ("specificity" if others else "wfs")
    contrasts = options.contrasts if measure else (options.contrast,)
    rankings = {
        contrast: rank_latents(own, plain, others, score, options.tau, contrast or CONTRASTS[0])
        for contrast in (contrasts if score == "specificity" else (None,))
    }
    candidates = [
        Candidate(
            take_neurons(ranking.indices[: ranking.elbow if count is None else count], own, plain),
            "elbow" if count is None else "count",
            contrast,
        )
        for contrast, ranking in rankings.items()
        for count in (options.counts if measure else (options.count,))
    ]
    trials: tuple[Trial, ...] = ()
    chosen = candidates[0]
    if measure:
        chosen, trials = best_by_effect(candidates, lambda one: measure(culture, one), options.criterion)
    neurons, ranking = chosen.neurons, rankings[chosen.contrast]
    return neurons, Selection(
        rule="effect" if measure else chosen.rule,
        score=score,
        contrast=chosen.contrast,
        tau=options.tau,
        active=ranking.active,
        noun_side=ranking.noun_side,
        candidates=len(ranking.indices),
        elbow=ranking.elbow,
        vectors=vectors,
        scores=scores_of(ranking, neurons),
        ranking=kept(ranking.scores),
        curve=curve_of(own, plain),
        activation=mean_activation_on(neurons, cultural),
        criterion=options.criterion if measure else None,
        trials=trials,
    )


def best_by_effect(
    candidates: Sequence[Candidate], measure: Callable[[CultureNeurons], Mapping[str, float]], criterion: str
) -> tuple[Candidate, tuple[Trial, ...]]:
    """The candidate with the largest figure `criterion`, of equals the smallest, and what was measured.

    Candidates with the same neurons are measured once.

    Raises:
        ValueError: for a measure that does not give the figure, or one that is no finite number.
    """
    different: dict[tuple[int, ...], Candidate] = {}
    for one in candidates:
        different.setdefault(tuple(one.neurons.indices.tolist()), one)
    measured, trials = list(different.values()), []
    for one in measured:
        figures = {name: float(value) for name, value in measure(one.neurons).items()}
        wrong = [name for name, value in figures.items() if not math.isfinite(value)]
        if criterion not in figures or wrong:
            raise ValueError(
                f"the measure must give {criterion!r} and finite numbers alone, it gave "
                f"{', '.join(figures) or 'nothing'}; not finite: {', '.join(wrong) or 'none'}"
            )
        trials.append(Trial(one.rule, one.contrast, len(one.neurons.indices), figures))
    best = trials.index(best_trial(trials, criterion))
    return measured[best], tuple(trials)


def hold_out(
    pairs: Sequence[PromptPair], options: DetectOptions
) -> tuple[list[PromptPair], list[PromptPair]]:
    """(pairs to detect with, pairs to measure effects on): other nouns of each culture, or its validation
    split where there is one.

    Raises:
        ValueError: for a culture that has too few nouns.
    """
    by_culture: dict[str, list[PromptPair]] = defaultdict(list)
    for pair in pairs:
        by_culture[pair.culture].append(pair)
    fit, held = [], []
    for code, own in by_culture.items():
        kept_back = {id(pair) for pair in own if pair.split == VALIDATION}
        if not kept_back:
            nouns = sorted({noun_of(pair) for pair in own})
            random.Random(f"{options.seed} {code}").shuffle(nouns)
            kept_nouns = nouns[: max(1, round(options.holdout * len(nouns)))]
            kept_back = {id(pair) for pair in own if noun_of(pair) in kept_nouns}
        fit += [pair for pair in own if id(pair) not in kept_back]
        held += [pair for pair in own if id(pair) in kept_back]
        if len(kept_back) == len(own):
            raise ValueError(
                f"culture {code!r} has too few nouns to measure effects on some of them: give pairs of at "
                "least two nouns, or choose the neurons without measuring"
            )
    return fit, held


class _Steps:
    """Counts prompts for a progress callback."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def reach(self, done: int) -> None:
        self.done = done
        if self.progress is not None:
            self.progress(self.done, self.total)

    def add(self, count: int) -> None:
        # Candidates that coincide are measured once, so that the total is an upper bound.
        self.reach(min(self.done + count, self.total))

    def finish(self) -> None:
        self.reach(self.total)


def _prompts_to_encode(
    fit: list[PromptPair], held: list[PromptPair], options: DetectOptions, measure: Measure | None
) -> int:
    if not options.by_effect or measure is not None:
        return 2 * len(fit)
    trials = len(options.counts) * len(options.contrasts) * len(options.strengths)
    return 4 * len(fit) + (2 + trials) * len(held)


def _report(culture_sae: CultureSAE, detected: tuple[str, ...], shared: Overlap) -> str:
    lines = [
        f"Culture neurons of the {culture_sae.feature} after layer {culture_sae.layer}",
        "",
        f"{'culture':16} {'neurons':>7} {'rule':>7} {'contrast':>8} {'elbow':>5} {'candidates':>10} "
        f"{'noun-side':>9} {'WFS best':>8} {'neutral':>8}",
    ]
    for code, neurons in culture_sae.cultures.items():
        name = f"{CULTURES[code].name} ({code})" if code in CULTURES else code
        if code not in detected:
            lines.append(f"{name:16} {len(neurons.indices):7d}   (as they were)")
            continue
        one = culture_sae.selection[code]
        lines.append(
            f"{name:16} {len(neurons.indices):7d} {one.rule:>7} {one.contrast or '-':>8} {one.elbow:5d} "
            f"{one.candidates:10d} {one.noun_side:9d} {float(neurons.wfs_cultural[0]):8.3f} "
            f"{float(neurons.wfs_neutral[0]):8.3f}"
        )
    chosen = {code: culture_sae.selection[code] for code in detected}
    measured = {code: one.effect for code, one in chosen.items() if one.effect}
    if measured:
        names = list(next(iter(measured.values())))
        lines += ["", "Effects on pairs kept from the detection", "culture  " + "  ".join(names)]
        for code, figures in measured.items():
            cells = (f"{figures.get(name, math.nan):{len(name)}.3g}" for name in names)
            lines.append(f"{code:7}  " + "  ".join(cells))
    return "\n".join([*lines, "", "Neurons that cultures share", "", shared.table()])

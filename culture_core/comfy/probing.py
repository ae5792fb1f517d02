"""What the probing node calls: where in a CLIP's text encoder a culture modifier acts on its noun."""

from collections.abc import Sequence
from typing import NamedTuple

import comfy.sd
from torch import Tensor

from ..cultures import CULTURES
from ..key_layer import AUTO
from ..pairs import PromptPair
from ..probe_pictures import attention_map, causal_curves, language_curves
from ..probing import CONTEXT, LanguageProbes, Progress, probe_by_language
from ..reports import language_report, probe_picture, probe_report, spread
from .applying import progress_report
from .inputs import expect_all
from .pictures import image_tensor
from .places import choose_encoders
from .reading import ComfyTextEncoder
from .texts import for_preview


class ProbeResult(NamedTuple):
    """What a probe of a CLIP found."""

    layer: int
    curves: Tensor
    """Pictures of the curves [B, height, width, 3] of all pairs, one an encoder, as ComfyUI passes pictures
    on."""
    report: str
    languages: list[Tensor]
    """Pictures of the languages, where that was asked for: ΔCA, activation patching and attention."""


def probe_clip(
    clip: comfy.sd.CLIP,
    pairs: Sequence[PromptPair],
    direction: str | None = None,
    reference: str = CONTEXT,
    limit: int = 60,
    encoder_choice: str = "",
    bootstrap: int = 1000,
    batch_size: int = 8,
    per_language: bool = False,
    criterion: str = AUTO,
) -> ProbeResult:
    """Probe text encoders of a CLIP for the layer where a culture modifier acts on its noun.

    Args:
        direction: see `probe_layers`; None chooses by the encoder.
        limit: at most so many pairs, spread evenly over all of them.
        encoder_choice: which encoders, see `choose_encoders`; the layer is that of the first.
        bootstrap: resamples behind the intervals.
        batch_size: pairs at a time.
        per_language: also show what the pairs of each language say alone.
        criterion: what chooses the layer, see `probe_layers`.

    Raises:
        TextEncoderError: for an encoder that the CLIP does not have.
        ValueError: where no pair can be used.
    """
    expect_all(pairs, PromptPair, "Load Prompt Pairs")
    encoders = [ComfyTextEncoder(clip, key) for key in choose_encoders(clip, encoder_choice)]
    chosen = spread(pairs, limit)
    report = progress_report()
    curves, texts, layers, languages = [], [], [], []
    for index, encoder in enumerate(encoders):
        probes = probe_by_language(
            encoder, chosen, direction, reference, batch_size, bootstrap, criterion=criterion,
            progress=_part(report, index, len(encoders)),
        )  # fmt: skip
        texts += _report(encoder, probes, per_language)
        layers.append(probes.overall.layer)
        curves.append(probe_picture(probes.overall, encoder.key if len(encoders) > 1 else ""))
        if per_language:
            languages += _language_pictures(probes)
    return ProbeResult(layers[0], image_tensor(curves), for_preview("\n\n".join(texts)), languages)


def _part(report: Progress, index: int, parts: int) -> Progress:
    """Moves a bar over one of so many parts of equal length."""
    return lambda done, total: report(index * total + done, parts * total)


def _language_pictures(probes: LanguageProbes) -> list[Tensor]:
    """The paper's figures 6 and 14, and activation patching."""
    names = {code: CULTURES[code].language for code in probes.languages if code in CULTURES}
    drawings = (language_curves, causal_curves, attention_map)
    return [image_tensor([draw(probes.languages, names)]) for draw in drawings]


def _report(encoder: ComfyTextEncoder, probes: LanguageProbes, per_language: bool) -> list[str]:
    """Paragraphs about all pairs, and about the languages if they are wanted."""
    whole = probe_report(probes.overall, f"{encoder.info.family}, '{encoder.key}'")
    return [whole, language_report(probes.languages)] if per_language else [whole]

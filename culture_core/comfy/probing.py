"""What the probing node calls: where in a CLIP's text encoder a culture modifier acts on its noun."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import comfy.sd
from torch import Tensor

from ..pairs import PromptPair
from ..probing import CONTEXT, LayerProbe, probe_layers
from ..reports import by_language, probe_picture, probe_report, spread
from .applying import progress_report
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
    """Pictures of each language alone, where that was asked for; they may differ in size."""


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
) -> ProbeResult:
    """Probe text encoders of a CLIP for the layer where a culture modifier acts on its noun.

    Args:
        direction: see `probe_layers`; None chooses by the encoder.
        limit: at most so many pairs, spread evenly over all of them.
        encoder_choice: which encoders, see `choose_encoders`; the layer is that of the first.
        bootstrap: resamples behind the intervals.
        batch_size: pairs at a time.
        per_language: also probe with the pairs of each language alone.

    Raises:
        TextEncoderError: for an encoder that the CLIP does not have.
        ValueError: where no pair can be used.
    """
    encoders = [ComfyTextEncoder(clip, key) for key in choose_encoders(clip, encoder_choice)]
    chosen = spread(pairs, limit)
    groups = {"": chosen} | (by_language(chosen) if per_language else {})
    report = _shared_progress(len(encoders) * sum(map(len, groups.values())))
    curves, texts, layers, languages = [], [], [], []
    for encoder in encoders:
        probes = {
            name: probe_layers(
                encoder, group, direction, reference, batch_size, bootstrap, progress=report(len(group))
            )
            for name, group in groups.items()
        }
        texts += _report(encoder, probes)
        whole = probes.pop("")
        layers.append(whole.layer)
        curves.append(probe_picture(whole, encoder.key if len(encoders) > 1 else ""))
        languages += [image_tensor([probe_picture(probe, name)]) for name, probe in probes.items()]
    return ProbeResult(layers[0], image_tensor(curves), for_preview("\n\n".join(texts)), languages)


def _shared_progress(total: int) -> Callable[[int], Callable[[int, int], None]]:
    """Gives callbacks (done, of its own pairs) that move one bar of `total` pairs one after the other."""
    report = progress_report()
    before = 0

    def take(count: int) -> Callable[[int, int], None]:
        nonlocal before
        start, before = before, before + count
        return lambda done, _: report(start + done, total)

    return take


def _report(encoder: ComfyTextEncoder, probes: Mapping[str, LayerProbe]) -> list[str]:
    """Paragraphs about all pairs, and about the languages if there are any."""
    languages = [f"{language}: {probe.reason}" for language, probe in probes.items() if language]
    whole = probe_report(probes[""], f"{encoder.info.family}, '{encoder.key}'")
    return [whole, "\n".join(languages)] if languages else [whole]

"""What the probing node calls: where in a CLIP's text encoder a culture modifier acts on its noun."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import comfy.sd
from PIL import Image
from torch import Tensor

from ..pairs import PromptPair
from ..plots import curve_picture
from ..probing import CONTEXT, LayerProbe, probe_layers
from .applying import progress_report
from .pictures import image_tensor
from .places import choose_encoders
from .reading import ComfyTextEncoder
from .texts import for_preview

_SIZE = (800, 400)


class ProbeResult(NamedTuple):
    """What a probe of a CLIP found."""

    layer: int
    curves: Tensor
    """Pictures of the curves [B, height, width, 3], as ComfyUI passes pictures on: encoder by encoder, of all
    pairs, then of each language where that was asked for."""
    report: str


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
    chosen = pairs[:: max(1, -(-len(pairs) // limit))]
    groups = {"": chosen, **(_by_language(chosen) if per_language else {})}
    report = _shared_progress(len(encoders) * sum(map(len, groups.values())))
    pictures, texts, layers = [], [], []
    for encoder in encoders:
        probes = {
            name: probe_layers(
                encoder, group, direction, reference, batch_size, bootstrap, progress=report(len(group))
            )
            for name, group in groups.items()
        }
        pictures += [_picture(probe, _title(encoders, encoder, name)) for name, probe in probes.items()]
        texts.append(_report(encoder, probes))
        layers.append(probes[""].layer)
    return ProbeResult(layers[0], image_tensor(pictures), for_preview("\n\n".join(texts)))


def _by_language(pairs: Sequence[PromptPair]) -> dict[str, list[PromptPair]]:
    groups: dict[str, list[PromptPair]] = {}
    for pair in pairs:
        groups.setdefault(pair.language, []).append(pair)
    return groups


def _shared_progress(total: int) -> Callable[[int], Callable[[int, int], None]]:
    """Gives callbacks (done, of its own pairs) that move one bar of `total` pairs one after the other."""
    report = progress_report()
    before = 0

    def take(count: int) -> Callable[[int, int], None]:
        nonlocal before
        start, before = before, before + count
        return lambda done, _: report(start + done, total)

    return take


def _title(encoders: list[ComfyTextEncoder], encoder: ComfyTextEncoder, language: str) -> str:
    """What tells a picture from the others."""
    parts = [encoder.key] if len(encoders) > 1 else []
    return "".join(f", {part}" for part in [*parts, language] if part)


def _picture(probe: LayerProbe, behind: str) -> Image.Image:
    """Both curves, one below the other; `behind` is added to their titles."""
    attention = {"ΔCA": probe.delta_ca, "CA cultural": probe.ca_cultural, "CA neutral": probe.ca_neutral}
    upper = curve_picture(
        {name: curve.tolist() for name, curve in attention.items()},
        f"Attention between modifier and noun{behind}", probe.interval.tolist(), probe.layer, "layer",
        size=_SIZE,
    )  # fmt: skip
    lower = curve_picture(
        {"causal": probe.causal.tolist()},
        f"Activation patching: share of the way to the cultural prompt{behind}", None, probe.layer, "layer",
        size=_SIZE,
    )  # fmt: skip
    picture = Image.new("RGB", (_SIZE[0], 2 * _SIZE[1]))
    picture.paste(upper, (0, 0))
    picture.paste(lower, (0, _SIZE[1]))
    return picture


def _report(encoder: ComfyTextEncoder, probes: Mapping[str, LayerProbe]) -> str:
    probe = probes[""]
    lines = [
        f"Key layer: {probe.layer} of 0 to {encoder.info.layers - 1} ({encoder.info.family}, "
        f"'{encoder.key}')",
        f"Why: {probe.reason}",
        f"Attention counted: {probe.direction}; reference for neutral prompts: {probe.reference}",
        f"Pairs: {probe.pairs} used, {len(probe.skipped)} skipped {', '.join(probe.skipped[:5])}".rstrip(),
        "",
        "layer      ΔCA   95 % interval      causal",
    ]
    curves = zip(probe.delta_ca.tolist(), probe.interval.tolist(), probe.causal.tolist(), strict=True)
    for layer, (delta, (low, high), causal) in enumerate(curves):
        lines.append(f"{layer:5d} {delta:8.4f}   {low:7.4f} {high:7.4f}   {causal:8.3f}")
    languages = [f"{name}: {of_language.reason}" for name, of_language in probes.items() if name]
    return "\n".join([*lines, *(["", *languages] if languages else [])])

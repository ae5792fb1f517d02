"""What probing and training found, as pictures and as text; nodes and the command line show the same."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from PIL import Image

from .pairs import PromptPair
from .plots import curve_picture, stacked
from .probing import LayerProbe
from .sae import SAEConfig, SAEReport
from .splits import SAE_TRAINING, usable

_SIZE = (800, 400)
"""Of one chart, in pixels."""


def probe_picture(probe: LayerProbe, subject: str = "") -> Image.Image:
    """Attention over the layers, and activation patching below it; the key layer is marked.

    Args:
        subject: what was probed, a language for instance, for the titles.
    """
    attention = {"ΔCA": probe.delta_ca, "CA cultural": probe.ca_cultural, "CA neutral": probe.ca_neutral}
    behind = f", {subject}" if subject else ""
    upper = curve_picture(
        {name: curve.tolist() for name, curve in attention.items()},
        f"Attention between modifier and noun{behind}", probe.interval.tolist(), probe.layer, "layer",
        size=_SIZE,
    )  # fmt: skip
    if probe.layer_causal is None:  # patching was left out
        return upper
    lower = curve_picture(
        {"causal": probe.causal.tolist()},
        f"Activation patching: share of the way to the cultural prompt{behind}", None, probe.layer, "layer",
        size=_SIZE,
    )  # fmt: skip
    return stacked([upper, lower])


def probe_report(probe: LayerProbe, encoder: str) -> str:
    """The key layer, why it is that, and the curves as a table.

    Args:
        encoder: what to call the encoder.
    """
    lines = [
        f"Key layer: {probe.layer} of 0 to {len(probe.delta_ca) - 1} ({encoder})",
        f"Why: {probe.reason}",
        f"By attention: {_layer(probe.layer_attention)}; by activation patching: "
        f"{_layer(probe.layer_causal)}; criterion: {probe.criterion}",
        f"Attention counted: {probe.direction}; reference for neutral prompts: {probe.reference}",
        f"Pairs: {probe.pairs} used, {len(probe.skipped)} skipped {', '.join(probe.skipped[:5])}".rstrip(),
        "",
        "layer      ΔCA   95 % interval      causal",
    ]
    curves = zip(probe.delta_ca.tolist(), probe.interval.tolist(), probe.causal.tolist(), strict=True)
    for layer, (delta, (low, high), causal) in enumerate(curves):
        lines.append(f"{layer:5d} {delta:8.4f}   {low:7.4f} {high:7.4f}   {causal:8.3f}")
    return "\n".join(lines)


def language_report(probes: Mapping[str, LayerProbe]) -> str:
    """What each language alone says, as a table."""
    lines = ["language  pairs  key layer  by attention  by patching"]
    for code, probe in probes.items():
        moved = "" if probe.layer_causal is None else f" ({100 * float(probe.causal.max()):.0f} % of the way)"
        lines.append(
            f"{code:8s} {probe.pairs:6d} {probe.layer:10d} {_number(probe.layer_attention):>13s} "
            f"{_number(probe.layer_causal):>12s}{moved}"
        )
    return "\n".join(lines)


def _number(layer: int | None) -> str:
    return "-" if layer is None else str(layer)


def _layer(layer: int | None) -> str:
    return "no layer" if layer is None else f"layer {layer}"


def loss_picture(losses: Sequence[float], start: int = 0, title: str = "SAE training") -> Image.Image:
    """Loss of every step of a training, the first of which is step `start` + 1."""
    return curve_picture({"loss": losses}, title, x_label="step", y_label="loss", first_x=start + 1)


def training_figures(report: SAEReport, config: SAEConfig) -> dict[str, Any]:
    """What a culture SAE's file says of its training."""
    names = ("fvu_train", "fvu_heldout", "dead", "dense", "vectors", "data_hash")
    return {name: getattr(report, name) for name in names} | {"config": asdict(config)}


def training_summary(figures: Mapping[str, Any], warnings: Sequence[str] = ()) -> list[str]:
    """Lines that say what `training_figures` mean, as far as they are there; they may come from any file."""
    known = {name: value for name, value in figures.items() if type(value) in (int, float)}
    lines = []
    if "vectors" in known:
        lines.append(f"Trained on {known['vectors']} vectors")
    if "fvu_train" in known:
        unseen = f", {known['fvu_heldout']:.3f} on held-out prompts" if "fvu_heldout" in known else ""
        lines.append(f"Variance left unexplained: {known['fvu_train']:.3f} in training{unseen} (0 is best)")
    if {"dead", "dense"} <= known.keys():
        lines.append(
            f"Dead latents, which nothing activates: {known['dead']}; "
            f"dense ones, which more than half of the vectors activate: {known['dense']}"
        )
    return [*lines, *(f"Warning: {warning}" for warning in warnings)]


def training_texts(pairs: Sequence[PromptPair], lines: Sequence[str]) -> list[str]:
    """What an SAE is trained on: both prompts of pairs and lines of plain text, each once, in order.

    Pairs of splits that it may not see are left out, and lines that are one of their prompts with them.

    Raises:
        PairError: where there are pairs and the SAE may see none of them.
    """
    kept = usable(pairs, SAE_TRAINING)
    prompts = dict.fromkeys(text for pair in kept for text in (pair.cultural, pair.neutral))
    hidden = {text for pair in pairs for text in (pair.cultural, pair.neutral)} - prompts.keys()
    texts = (line.strip() for line in lines)
    return list(prompts | dict.fromkeys(text for text in texts if text and text not in hidden))


def spread(pairs: Sequence[PromptPair], limit: int | None) -> list[PromptPair]:
    """At most so many pairs, evenly from all of them, so that every culture has its share."""
    return list(pairs if limit is None else pairs[:: max(1, -(-len(pairs) // limit))])

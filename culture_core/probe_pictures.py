"""Pictures of probes by language, as the paper's figures 6 and 14."""

from collections.abc import Mapping

from PIL import Image

from .plots import curve_picture, grid_picture, heat_map
from .probing import VISIBLE, LayerProbe

COLUMNS = 4
_SIZE = (320, 230)
_AIR = 0.08
"""Share of the range of values that is left free above and below the curves."""


def language_curves(probes: Mapping[str, LayerProbe], names: Mapping[str, str] | None = None) -> Image.Image:
    """ΔCA over the layers with its interval, one small picture a language, all on one scale (Fig. 6); a line
    marks the key layer.

    Args:
        probes: by language code, such as `LanguageProbes.languages`.
        names: what to call the languages; a missing one is called by its code.

    Raises:
        ValueError: without a probe.
    """
    _check(probes)
    # Without an interval of its own, which a single pair has not, a language takes the room of its curve.
    values = [
        value
        for probe in probes.values()
        for part in (probe.delta_ca, probe.interval)
        for value in part[part.isfinite()].tolist()
    ]
    air = _AIR * (max(values) - min(values)) or 1.0
    pictures = [
        curve_picture(
            {"ΔCA": probe.delta_ca.tolist()},
            f"{(names or {}).get(code, code)}: layer {probe.layer}",
            probe.interval.tolist(),
            probe.layer,
            size=_SIZE,
            legend=False,
            y_range=(min(values) - air, max(values) + air),
        )
        for code, probe in probes.items()
    ]
    return grid_picture(pictures, "ΔCA by layer, with its 95 % interval", COLUMNS)


def causal_curves(probes: Mapping[str, LayerProbe], names: Mapping[str, str] | None = None) -> Image.Image:
    """What activation patching in each layer moves, one small picture a language, all on one scale.

    Raises:
        ValueError: without a probe, or where patching was left out.
    """
    _check(probes)
    if any(probe.layer_causal is None for probe in probes.values()):
        raise ValueError("these probes have no causal curve: probe with patching")
    highest = max(float(probe.causal.max()) for probe in probes.values())
    lowest = min(0.0, *(float(probe.causal.min()) for probe in probes.values()))
    air = _AIR * (highest - lowest) or 1.0
    pictures = [
        curve_picture(
            {"causal": probe.causal.tolist()},
            f"{(names or {}).get(code, code)}: layer {probe.layer_causal}",
            None,
            probe.layer_causal,
            size=_SIZE,
            legend=False,
            y_range=(lowest - air, highest + air),
        )
        for code, probe in probes.items()
    ]
    return grid_picture(pictures, "Activation patching: share of the way to the cultural prompt", COLUMNS)


def attention_map(probes: Mapping[str, LayerProbe], names: Mapping[str, str] | None = None) -> Image.Image:
    """Attention between modifier and noun in cultural prompts, a row a language and a column a layer
    (Fig. 14), in thousandths.

    Raises:
        ValueError: without a probe.
    """
    _check(probes)
    layers = len(next(iter(probes.values())).delta_ca)
    direction = next(iter(probes.values())).direction
    between = "between modifier and noun" if direction == VISIBLE else direction.replace("_", " ")
    return heat_map(
        [(1000 * probe.ca_cultural).tolist() for probe in probes.values()],
        [(names or {}).get(code, code) for code in probes],
        [str(layer) for layer in range(layers)],
        f"Attention {between}, in thousandths",
        column_title="layer",
        decimals=0,
    )


def _check(probes: Mapping[str, LayerProbe]) -> None:
    if not probes:
        raise ValueError("there is no language to draw")

"""Pictures of culture neurons, drawn from the figures that a culture SAE's file keeps.

After the paper: `ranking_picture` its Fig. 7, `curves_picture` its Fig. 15, `activation_picture` its Fig. 16.
"""

from collections.abc import Mapping

from PIL import Image

from .cultures import CULTURES
from .files import CultureSAE
from .neuron_figures import Selection
from .neurons import CultureNeurons
from .overlap import Overlap, overlap
from .plots import curve_picture, grid_picture, heat_map, tiled

_LABELS = ("cultural prompts", "neutral prompts", "culture neurons")
_PANEL = (300, 200)
_RANKS = 60
"""How much of a curve is shown; beyond, it is flat."""


def pictures_of(culture_sae: CultureSAE) -> dict[str, Image.Image]:
    """Every picture that the figures of a culture SAE allow, by file name without ending.

    `wfs` the curves of all cultures, `activation` and `overlap` the heat maps, `ranking-<culture>` one
    culture's ranking with its elbow.
    """
    drawn = {code: one for code, one in culture_sae.selection.items() if one.curve}
    pictures = {}
    if drawn:
        pictures["wfs"] = curves_picture(culture_sae.cultures, drawn)
    if all(one.activation for one in drawn.values()) and drawn:
        pictures["activation"] = activation_picture(drawn)
    if culture_sae.cultures:
        pictures["overlap"] = overlap_picture(overlap(culture_sae.cultures))
    for code, one in drawn.items():
        if one.ranking:
            pictures[f"ranking-{code}"] = ranking_picture(code, culture_sae.cultures[code], one)
    return pictures


def ranking_picture(culture: str, neurons: CultureNeurons, selection: Selection) -> Image.Image:
    """One culture's latents by WFS, cultural against neutral; below, the ranking that has the elbow."""
    panels = [_wfs_panel(f"{_name(culture)}: WFS of its latents", neurons, selection, (800, 400), True)]
    shown = selection.ranking[:_RANKS]
    chosen = len(neurons.indices)
    score = "WFS" if selection.score == "wfs" else f"WFS minus the {selection.contrast} of the other cultures"
    panels.append(
        curve_picture(
            {"score": shown},
            f"Ranking of the {selection.candidates} candidates: {chosen} chosen, elbow at {selection.elbow}",
            marker=selection.elbow if selection.elbow <= len(shown) else None,
            x_label="rank", y_label=score, first_x=1, size=(800, 400),
            points={"culture neurons": list(enumerate(shown[:chosen], start=1))},
        )
    )  # fmt: skip
    return tiled(panels, columns=1)


def curves_picture(
    cultures: Mapping[str, CultureNeurons], selections: Mapping[str, Selection]
) -> Image.Image:
    """The WFS curve of every culture with its neurons marked, a panel a culture.

    Raises:
        ValueError: for a selection without its curve.
    """
    panels = [
        _wfs_panel(
            f"{_name(code)}: {len(cultures[code].indices)} neurons", cultures[code], one, _PANEL, False
        )
        for code, one in selections.items()
    ]
    title = f"WFS of the {_RANKS} latents that each culture's prompts use most"
    columns = min(5, max(3, len(panels)))
    return grid_picture(panels, title, columns, _LABELS, rings=1)


def activation_picture(selections: Mapping[str, Selection]) -> Image.Image:
    """Mean activation of each culture's neurons on all cultures' prompts, as a share of that on its own."""
    codes = list(selections)
    values = []
    for code, one in selections.items():
        own = one.activation.get(code) or 1.0
        values.append([one.activation.get(other, float("nan")) / own for other in codes])
    return heat_map(
        values, [_name(code) for code in codes], codes,
        "Activation of culture neurons, relative to the culture's own prompts",
        "neurons of", "cultural prompts of", highest=1.0,
    )  # fmt: skip


def overlap_picture(found: Overlap) -> Image.Image:
    """How many latents two cultures share."""
    names = [_name(code) for code in found.codes]
    values = [[count or float("nan") for count in row] for row in found.counts]
    return heat_map(values, names, found.codes, "Neurons that two cultures share", decimals=0)


def _wfs_panel(
    title: str, neurons: CultureNeurons, selection: Selection, size: tuple[int, int], legend: bool
) -> Image.Image:
    curve = selection.curve
    if curve is None or not curve.latents:
        raise ValueError("the file keeps no WFS curve: detect the neurons anew")
    chosen = set(neurons.indices.tolist())
    shown = range(min(_RANKS, len(curve.latents)))
    marked = [(rank + 1, curve.wfs_cultural[rank]) for rank in shown if curve.latents[rank] in chosen]
    return curve_picture(
        {_LABELS[0]: curve.wfs_cultural[:_RANKS], _LABELS[1]: curve.wfs_neutral[:_RANKS]}, title,
        x_label="latents by WFS" if legend else "", y_label="WFS" if legend else "", first_x=1, size=size,
        points={_LABELS[2]: marked}, legend=legend,
    )  # fmt: skip


def _name(code: str) -> str:
    return CULTURES[code].name if code in CULTURES else code

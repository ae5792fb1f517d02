"""What a file's measured strengths say of the one that is asked for."""

from typing import NamedTuple

from .cultures import CULTURES
from .files import CultureSAE

MEASURED_MODE = "inject"
"""In which strengths are measured. In the other mode less is changed, and nothing is known of a limit."""


class Advice(NamedTuple):
    """What to tell the user."""

    text: str
    warning: bool
    """Whether the strength is beyond the limit."""


def strength_advice(culture_sae: CultureSAE, culture: str, strength: float, mode: str) -> Advice | None:
    """What was measured of a culture's strength, as a warning where the strength is beyond the limit; None
    where nothing was measured."""
    measured = culture_sae.strengths.get(culture)
    if measured is None or mode != MEASURED_MODE:
        return None
    name = CULTURES[culture].name if culture in CULTURES else culture
    best, limit = f"{measured.best:g}", f"{measured.limit:g}"
    if strength <= measured.limit:
        return Advice(f"{name}: best at {best}, limit {limit} (measured).", False)
    where = f" in {culture_sae.path.name}" if culture_sae.path else ""
    text = (
        f"⚠ Strength {strength:g} is beyond {limit}, the limit measured for {name}{where}: the subject of the "
        f"picture suffers there. The culture showed best at {best}."
    )
    return Advice(text, True)

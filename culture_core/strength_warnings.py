"""Warnings about a strength, from what was measured of its culture and stored in the file."""

import logging
from collections.abc import Sequence

from .cultures import CULTURES
from .files import CultureSAE

logger = logging.getLogger(__name__)

MEASURED_MODE = "inject"
"""In which strengths are measured. The other mode changes less, and nothing is known of its limit."""


def strength_warnings(
    culture_sae: CultureSAE, culture: str | None, strengths: Sequence[float], mode: str
) -> list[str]:
    """A warning where the highest of the strengths is beyond the limit measured for the culture, otherwise
    nothing; None is no culture. It is logged too."""
    measured, strength = culture_sae.strengths.get(culture or ""), max(strengths)
    if culture is None or measured is None or mode != MEASURED_MODE or strength <= measured.limit:
        return []
    name = CULTURES[culture].name if culture in CULTURES else culture
    where = f" in {culture_sae.path.name}" if culture_sae.path else ""
    text = (
        f"Strength {strength:g} is beyond {measured.limit:g}, the limit measured for {name}{where}: the "
        f"subject of the picture suffers there. The culture showed best at {measured.best:g}."
    )
    logger.warning("%s", text)
    return [text]

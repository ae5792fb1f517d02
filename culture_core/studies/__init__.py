"""Studies of a finished run: systems compared, ablations, and sweeps of the strength.

All of it is computed from files: the pictures that a run left behind, a judge's answers, and metrics'
figures. Nothing is drawn, asked or measured here.
"""

from .ablate import ablate
from .evaluate import evaluate
from .measured import Measured, StudyError, read_measured
from .sweep import sweep

__all__ = ["Measured", "StudyError", "ablate", "evaluate", "read_measured", "sweep"]

"""User study: a questionnaire for people from the pictures of a run, and the analysis of their answers.

Three tasks, in this order, because the later ones name a culture and the first must not know it:
  mcc  multiple choice of culture: which of the 15, or unrecognisable
  scc  single-culture check: does the picture show this culture: yes, no, unknown
  csr  culture similarity rating: how well does it match this culture, 1 to 5
"""

from .design import Study, design_study
from .pictures import Picture, StudyError, read_run

__all__ = ["Picture", "Study", "StudyError", "design_study", "read_run"]

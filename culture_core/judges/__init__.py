"""CultureVQA: which culture does a picture show? One of the cultures, or none of them.

A judge answers for one picture (`base.Judge`); `run.judge_folder` asks it about many, and `results` says how
often it was right.
"""

from .base import UNRECOGNISABLE, Judge, Verdict, label_name, labels
from .configured import judge_names, open_judge

__all__ = ["UNRECOGNISABLE", "Judge", "Verdict", "judge_names", "label_name", "labels", "open_judge"]

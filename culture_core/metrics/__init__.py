"""Figures of pictures that no judge gives: agreement with the text, taste, distances, diversity.

Scores of single pictures (`clip_score`, `image_reward`), distances of two (`distances`), figures of sets
(`sets`, `diversity`); `run.measure_run` takes all of them of a finished run.
"""

from .base import MetricError
from .run import METRICS, Instruments, measure_run, read_metrics

__all__ = ["METRICS", "Instruments", "MetricError", "measure_run", "read_metrics"]

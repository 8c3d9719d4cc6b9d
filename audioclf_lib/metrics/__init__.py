"""Scores of predictions, how sure they are, and the results of an experiment.

``scores`` turns predictions into scores, ``uncertainty`` gives intervals, tests and calibration, ``errors`` says
which clips and recordings are wrong, ``results`` holds an experiment together with its finished fits, ``baselines``
scores what models must beat.
"""

from audioclf_lib.metrics.baselines import baseline_table
from audioclf_lib.metrics.results import ExperimentResult
from audioclf_lib.metrics.scores import Scores, evaluate

__all__ = ["ExperimentResult", "Scores", "baseline_table", "evaluate"]

"""Scores of predictions, how sure they are, and the results of an experiment.

``scores`` turns predictions into scores, ``uncertainty`` gives intervals, tests and calibration, ``errors`` says
which clips and recordings are wrong, ``results`` holds an experiment together with its finished fits.
"""

from audioclf_lib.metrics.results import ExperimentResult
from audioclf_lib.metrics.scores import Scores, evaluate

__all__ = ["ExperimentResult", "Scores", "evaluate"]

"""A trained run on new sounds: ``predict`` answers for files, folders and arrays."""

from audioclf_lib.inference.answers import Prediction, predict
from audioclf_lib.inference.choice import choose_runs

__all__ = ["Prediction", "choose_runs", "predict"]

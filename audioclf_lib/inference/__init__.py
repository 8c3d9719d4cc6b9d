"""A trained run on new sounds: ``predict`` answers for them, ``export_onnx`` takes it elsewhere."""

from audioclf_lib.inference.answers import Prediction, predict
from audioclf_lib.inference.choice import choose_fit, choose_runs
from audioclf_lib.inference.export import export_onnx

__all__ = ["Prediction", "choose_fit", "choose_runs", "export_onnx", "predict"]

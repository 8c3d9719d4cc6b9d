"""A run as an ONNX file: windows as they are cut in, logits out, the recipe's input normalisation inside."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor

from audioclf_lib._support.errors import InputError, one_line
from audioclf_lib._support.extras import require_extra
from audioclf_lib._support.paths import explained, replace_file
from audioclf_lib.data.windowing import HOP_SIZE, SAMPLE_RATE, WINDOW_SIZE
from audioclf_lib.runs.store import Run


def export_onnx(run: Run, path: Path) -> None:
    """Write the network of a run, which any program with ONNX Runtime can use without this library.

    The input ``windows`` is (B, 1, 16000) float32 at 16 kHz, the output ``logits`` (B, classes) is that of
    ``run.model()``. Class names, sample rate and hop stand in the file's metadata.

    Raises:
        InputError: the extra ``onnx`` is not installed, the run has no weights, the network has an operation that ONNX
            lacks, or the file cannot be written.
    """
    require_extra("onnx", "onnx", "onnxscript")
    model = run.model()
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)  # of torchvision, which is not needed
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch about itself
            example, batch = torch.zeros(2, 1, WINDOW_SIZE), torch.export.Dim("batch")
            program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
            program = program.run_decompositions({torch.ops.aten.adaptive_max_pool2d.default: _adaptive_max_pool})
            exported = torch.onnx.export(program, input_names=["windows"], output_names=["logits"], verbose=False)
    except Exception as error:  # the network's own code, and many kinds of the exporter
        reason = one_line(str(error))[-300:]
        raise InputError(f"model {run.config.model} cannot be written as ONNX ({reason}); use run.model()") from None
    assert exported is not None
    facts = {"classes": run.config.class_names, "sample_rate": SAMPLE_RATE, "hop": HOP_SIZE, "fit": run.config.fit_id}
    exported.model.metadata_props.update({name: json.dumps(fact) for name, fact in facts.items()})
    with explained(path, "free space or choose another folder"):
        replace_file(path, exported.model_proto.SerializeToString())


def _adaptive_max_pool(x: Tensor, size: list[int]) -> tuple[Tensor, Tensor]:
    """What torch's exporter lacks, of operations that it has; nobody asks for the places, which are left at zero."""
    for axis, n_parts in zip((-2, -1), size, strict=True):
        bounds = [(i * x.shape[axis] // n_parts, -(-(i + 1) * x.shape[axis] // n_parts)) for i in range(n_parts)]
        x = torch.cat([x.narrow(axis, low, high - low).amax(axis, keepdim=True) for low, high in bounds], axis)
    return x, torch.zeros_like(x, dtype=torch.int64)

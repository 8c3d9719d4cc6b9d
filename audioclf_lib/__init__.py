"""audioclf: audio classification as course work, from recordings to a report.

The public names below are all that a notebook needs to train and score; they are loaded when first asked for, so that
importing the package costs nothing and needs no data, no GPU and no file.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audioclf_lib.config import Experiment as Experiment
    from audioclf_lib.data import load_dataset as load_dataset
    from audioclf_lib.data.windowing import cut_windows as cut_windows
    from audioclf_lib.inference import predict as predict
    from audioclf_lib.metrics import evaluate as evaluate
    from audioclf_lib.models import create_model as create_model
    from audioclf_lib.models import register_model as register_model
    from audioclf_lib.models.derivation import derive_layers as derive_layers
    from audioclf_lib.runs import load_run as load_run
    from audioclf_lib.training import fit as fit

if sys.version_info < (3, 11):  # noqa: UP036 (pip refuses older ones, a folder on Python's path does not)
    raise ImportError(f"audioclf needs Python 3.11 or newer, not {sys.version.split()[0]}; choose another kernel")

# Threads of torch's OpenMP that wait for work spin on their core; for long, they take it from those that have work,
# such as the fast path's own threads. Read when torch is loaded, so it must be set before.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_HOMES = {
    "Experiment": "config",
    "create_model": "models",
    "cut_windows": "data.windowing",
    "derive_layers": "models.derivation",
    "evaluate": "metrics",
    "fit": "training",
    "load_dataset": "data",
    "load_run": "runs",
    "predict": "inference",
    "register_model": "models",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

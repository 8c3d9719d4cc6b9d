"""Whether two trainings of one fit came to the same numbers."""

from __future__ import annotations

import pandas as pd
import torch

from audioclf_lib.runs.store import Run


def assert_same_numbers(one: Run, other: Run) -> None:
    """Bit for bit, but for the time it took."""
    pd.testing.assert_frame_equal(
        one.history.drop(columns="seconds"), other.history.drop(columns="seconds"), check_exact=True
    )
    pd.testing.assert_frame_equal(one.predictions, other.predictions, check_exact=True)
    assert one.metrics == other.metrics
    weights = other.weights()
    for name, tensor in one.weights().items():
        assert torch.equal(tensor, weights.pop(name)), name
    assert not weights

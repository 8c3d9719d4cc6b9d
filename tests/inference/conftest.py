"""Finished fits that the tests of this folder share."""

from __future__ import annotations

import pytest
from tiny import make_fit, make_tones

from audioclf_lib.data import Dataset
from audioclf_lib.runs import RunStore
from audioclf_lib.training import fit


@pytest.fixture(scope="session")
def tones() -> Dataset:
    return make_tones()


@pytest.fixture(scope="session")
def store(tones: Dataset, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """Both fits of a CNN's k-fold experiment, of seed 0 and one of seed 1, and a Transformer's."""
    store = RunStore(tmp_path_factory.mktemp("runs"))
    fits = [make_fit(tones, val_fold=2), make_fit(tones, val_fold=3), make_fit(tones, seed=1)]
    for config in [*fits, make_fit(tones, model="transformer", num_heads=2)]:
        fit(config, tones, runs_dir=store.runs_dir, device="cpu")
    return store

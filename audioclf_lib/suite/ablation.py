"""The ablation: the recipe as written with one change at a time.

Every variant is an ordinary fit on the folds of the train-test split. What ``tracing`` computes of some of them is kept
in tables beside the run folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from audioclf_lib._support.paths import DEFAULT_RUNS_DIR
from audioclf_lib.config import DatasetFacts, DeviceName, Experiment, FitConfig
from audioclf_lib.runs.store import RunStore

if TYPE_CHECKING:
    from audioclf_lib.data import Dataset

AS_WRITTEN, HIGH_RATE = "as written", "learning rate 0.01"
_REMEDIES: dict[str, dict[str, Any]] = {
    "statistics re-estimated": {"reestimate_windows": 512},
    "silent windows dropped": {"drop_silent": True},
    "warm-up": {"schedule": "one-cycle", "warmup_fraction": 0.2},
    "augmentation": {"random_crops": True, "gain_db": 6.0, "flip_polarity": True},
    "mixup": {"mixup_alpha": 0.2},
}
# What is changed of the recipe as written, by name. The original states no learning rate, so it may have been too high.
CHANGES: dict[str, dict[str, Any]] = {
    AS_WRITTEN: {},
    **_REMEDIES,
    "all of these": {name: value for changes in _REMEDIES.values() for name, value in changes.items()},
    HIGH_RATE: {"learning_rate": 1e-2},
}
TRACED = (AS_WRITTEN, "warm-up", HIGH_RATE)  # changes whose Transformer is traced

RESCORED, TRACE = "reestimated", "trace"  # names of the tables beside the run folders


@dataclass(frozen=True)
class Variant:
    """One architecture trained by the recipe as written with one change.

    Attributes:
        change: key of ``CHANGES``.
        experiment: the split experiment.
    """

    change: str
    experiment: Experiment

    @property
    def is_traced(self) -> bool:
        """True if ``trace_fit`` looks into its first steps."""
        return self.experiment.model == "transformer" and self.change in TRACED

    def config(self, dataset: DatasetFacts) -> FitConfig:
        """Its one fit."""
        return self.experiment.fits(dataset)[0]


def ablation_variants(
    *,
    dataset: str = "demo",
    epochs: int = 8,
    seeds: Sequence[int] = (0,),
    test_fold: int = 1,
    device: DeviceName = "auto",
    threads: int = 1,
    runs_dir: Path | str = DEFAULT_RUNS_DIR,
    changes: Mapping[str, Mapping[str, Any]] = CHANGES,
) -> list[Variant]:
    """The CNN and the Transformer with one head, each with one change at a time, for each seed.

    Args:
        dataset, epochs, test_fold, device, threads, runs_dir: as of ``Experiment``.
        seeds: of the fits.
        changes: recipe settings by the name of the change; ``HIGH_RATE`` is tried with the Transformer alone.

    Raises:
        InputError: an unknown or impossible value.
    """
    common: dict[str, Any] = {"dataset": dataset, "epochs": epochs, "test_fold": test_fold, "device": device}
    common |= {"threads": threads, "runs_dir": runs_dir, "protocol": "split", "recipe": "as-written"}
    return [
        Variant(name, Experiment(model=model, seed=seed, recipe_changes=dict(settings), **common))
        for seed in seeds
        for model in ("cnn", "transformer")
        for name, settings in changes.items()
        if (model, name) != ("cnn", HIGH_RATE)
    ]


def examine(variants: Iterable[Variant], dataset: Dataset) -> None:
    """Compute the tables of trained variants that do not exist yet, and keep them.

    Raises:
        InputError: a fit that has not been trained.
    """
    from audioclf_lib.suite.tracing import rescore, trace_fit  # they need torch
    from audioclf_lib.training.environment import choose_device

    for variant in variants:
        store, device = RunStore(variant.experiment.runs_dir), choose_device(variant.experiment.device)
        config = variant.config(dataset)
        run = store.load(config)
        if store.load_trace(config, RESCORED) is None:
            store.save_trace(config, RESCORED, rescore(run, dataset, device))
        if variant.is_traced and store.load_trace(config, TRACE) is None:
            store.save_trace(config, TRACE, trace_fit(run, dataset, device))


def ablation_table(variants: Iterable[Variant], dataset: DatasetFacts) -> pd.DataFrame:
    """A row per architecture, change and seed.

    Returns:
        Columns model, change, seed, then ``{train,validation,test}_{loss,accuracy,clip_accuracy}`` of the kept epoch
        (the training scores under dropout) and ``rescored_{validation,test}_{loss,accuracy,clip_accuracy}``, the same
        weights with batch-norm statistics re-estimated; NaN where a fit or its table does not exist.
    """
    rows = []
    for variant in variants:
        store, config = RunStore(variant.experiment.runs_dir), variant.config(dataset)
        row: dict[str, Any] = {"model": config.model_title, "change": variant.change, "seed": config.seed}
        if store.exists(config):
            run = store.load(config)
            kept = run.history.set_index("epoch").loc[run.metrics["chosen"]["epoch"]]
            row |= kept.drop(["seconds", "learning_rate"]).to_dict()
        rescored = store.load_trace(config, RESCORED)
        if rescored is not None:
            row |= {f"rescored_{split}_{name}": value for (split, name), value in rescored.stack().items()}
        rows.append(row)
    return pd.DataFrame(rows)


def load_traces(variants: Iterable[Variant], dataset: DatasetFacts) -> dict[str, pd.DataFrame]:
    """The tables of ``trace_fit`` that exist, by change; of several seeds the first."""
    found: dict[str, pd.DataFrame] = {}
    for variant in variants:
        table = RunStore(variant.experiment.runs_dir).load_trace(variant.config(dataset), TRACE)
        if variant.is_traced and table is not None:
            found.setdefault(variant.change, table)
    return found

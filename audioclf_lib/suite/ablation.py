"""The ablation: the recipe as written with one change at a time.

Every variant is an ordinary fit on the folds of the train-test split. What ``tracing`` computes of some of them is kept
in tables beside the run folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from audioclf_lib.config import DatasetFacts, DeviceName, Experiment
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.plan import Plan

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


def change_experiments(*, seeds: Sequence[int] = (0,), num_heads: int = 1, **settings: Any) -> list[Experiment]:
    """Splits of the CNN and of the Transformer, each with one change at a time, for each seed.

    Args:
        seeds: of the fits.
        num_heads: attention heads of the Transformer.
        settings: others of ``Experiment``: dataset, epochs (8 unless given), test_fold, device, threads, runs_dir.

    Raises:
        InputError: an unknown or impossible value.
    """
    models: list[dict[str, Any]] = [{"model": "cnn"}, {"model": "transformer", "num_heads": num_heads}]
    common = {"epochs": 8} | settings | {"protocol": "split", "recipe": "as-written"}
    return [
        Experiment(**model, seed=seed, recipe_changes=changes, **common)
        for seed in seeds
        for model in models
        for name, changes in CHANGES.items()
        if (model["model"], name) != ("cnn", HIGH_RATE)
    ]


def ablation_parameters(plan: Plan, device: DeviceName = "auto", runs_dir: Path | str = "") -> dict[str, Any]:
    """A plan's ablation as arguments of ``change_experiments``: on its first test fold, no longer than its fits."""
    if plan.ablation is None:
        return {}
    first = plan.experiments_list()[0]
    return {
        "dataset": plan.dataset,
        "epochs": min(plan.ablation.epochs, first.epochs),
        "seeds": list(plan.ablation.seeds),
        "test_fold": first.test_fold,
        "device": device,
        "threads": plan.threads,
        "runs_dir": str(runs_dir),
    }


def ablation_experiments(plan: Plan, device: DeviceName = "auto", runs_dir: Path | str = "") -> list[Experiment]:
    """The experiments of a plan's ablation; none if it has no ablation."""
    parameters = ablation_parameters(plan, device, runs_dir)
    return change_experiments(**parameters) if parameters else []


def change_of(experiment: Experiment) -> str:
    """Which of ``CHANGES`` an experiment makes."""
    return next(name for name, settings in CHANGES.items() if settings == experiment.recipe_changes)


def is_traced(experiment: Experiment) -> bool:
    """True if ``trace_fit`` records the first steps of its fit."""
    return experiment.model == "transformer" and change_of(experiment) in TRACED


def examine(experiments: Iterable[Experiment], dataset: Dataset) -> None:
    """Compute the tables of trained fits that do not exist yet, and keep them.

    Raises:
        InputError: a fit that has not been trained.
    """
    from audioclf_lib.suite.tracing import rescore, trace_fit  # they need torch
    from audioclf_lib.training.environment import choose_device

    for experiment in experiments:
        store, device = RunStore(experiment.runs_dir), choose_device(experiment.device)
        (config,) = experiment.fits(dataset)
        run = store.load(config)
        if store.load_trace(config, RESCORED) is None:
            store.save_trace(config, RESCORED, rescore(run, dataset, device))
        if is_traced(experiment) and store.load_trace(config, TRACE) is None:
            store.save_trace(config, TRACE, trace_fit(run, dataset, device))


def ablation_table(experiments: Iterable[Experiment], dataset: DatasetFacts) -> pd.DataFrame:
    """A row per architecture, change and seed.

    Returns:
        Columns model, change, seed, then ``{train,validation,test}_{loss,accuracy,clip_accuracy}`` of the kept epoch
        (the training scores under dropout) and ``rescored_{validation,test}_{loss,accuracy,clip_accuracy}``, the same
        weights with batch-norm statistics re-estimated; NaN where a fit or its table does not exist.
    """
    rows = []
    for experiment in experiments:
        (config,) = experiment.fits(dataset)
        store = RunStore(experiment.runs_dir)
        row: dict[str, Any] = {"model": experiment.title, "change": change_of(experiment), "seed": experiment.seed}
        if store.exists(config):
            run = store.load(config)
            kept = run.history.set_index("epoch").loc[run.metrics["chosen"]["epoch"]]
            row |= kept.drop(["seconds", "learning_rate"]).to_dict()
        rescored = store.load_trace(config, RESCORED)
        if rescored is not None:
            for split in ("validation", "test"):
                row |= {f"rescored_{split}_{name}": rescored.at[split, name] for name in rescored}
        rows.append(row)
    return pd.DataFrame(rows)


def load_traces(experiments: Iterable[Experiment], dataset: DatasetFacts) -> dict[str, pd.DataFrame]:
    """The tables of ``trace_fit`` that exist, by change; of several seeds the first."""
    found: dict[str, pd.DataFrame] = {}
    for experiment in filter(is_traced, experiments):
        table = RunStore(experiment.runs_dir).load_trace(experiment.fits(dataset)[0], TRACE)
        if table is not None:
            found.setdefault(change_of(experiment), table)
    return found

"""The ablation: the recipe as written with one change at a time.

Every variant is an ordinary fit on the folds of the train-test split. The change "statistics re-estimated" leaves the
training as it is, so it tells what of a score is a matter of evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audioclf_lib._support.choices import DeviceName
from audioclf_lib.config import Experiment
from audioclf_lib.suite.plan import Plan

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


def change_experiments(*, seeds: Sequence[int] = (0,), num_heads: int = 1, **settings: Any) -> list[Experiment]:
    """Splits of the CNN and of the Transformer, each with one change at a time, for each seed.

    Args:
        seeds: of the fits.
        num_heads: attention heads of the Transformer.
        settings: others of ``Experiment``: dataset, epochs (10 unless given), test_fold, device, threads, runs_dir.

    Raises:
        InputError: an unknown or impossible value.
    """
    models: list[dict[str, Any]] = [{"model": "cnn"}, {"model": "transformer", "num_heads": num_heads}]
    common = {"epochs": 10} | settings | {"protocol": "split", "recipe": "as-written"}
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

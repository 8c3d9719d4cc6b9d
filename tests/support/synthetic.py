"""Finished fits without training: real run folders whose predictions are drawn, for tests of results and report."""

from __future__ import annotations

import shutil
import zlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from audioclf_lib.config import FitConfig, KnownDataset
from audioclf_lib.metrics.scores import evaluate_all
from audioclf_lib.models import find_model
from audioclf_lib.runs.store import Run, RunStore
from audioclf_lib.suite.plan import Plan
from audioclf_lib.training.environment import COMPILED, describe_process
from audioclf_lib.training.trainer import CHOICE_RULE

SPLITS = ("train", "validation", "test")
DEMO_CLASSES = (
    *("dog bark", "rain", "sea waves", "baby cry", "clock tick"),
    *("person sneeze", "helicopter", "chainsaw", "rooster", "fire crackling"),
)
DEMO = KnownDataset("demo", "0123456789abcdef", (1, 2, 3, 4, 5), DEMO_CLASSES)


def write_run(
    store: RunStore,
    config: FitConfig,
    *,
    skill: float = 0.6,
    n_windows: int = 9,
    silent_windows: int = 2,
    clips_per_class: int = 1,
    **scores: float,
) -> Run:
    """Save a fit as if it had been trained, with clips of every class in every fold.

    Args:
        skill: share of the windows that are classified correctly, about.
        n_windows: windows of a clip.
        silent_windows: how many of them are silent in every clip of the last class.
        clips_per_class: clips of each class in each fold.
        scores: values of the history in the epoch that is kept, such as ``train_accuracy=0.9``.
    """
    entry = find_model(config.model)
    source = entry.text if entry.is_own else None
    # The same is written for many tests: once made, it is copied.
    drawing = skill, n_windows, silent_windows, clips_per_class
    key = config.model_dump_json(), source, drawing, tuple(scores.items())
    if key not in _MADE:
        made = RunStore(Path(_FOLDER.name) / str(len(_MADE)))
        _MADE[key] = _write_run(made, config, source, *drawing, **scores).path
    shutil.copytree(_MADE[key], store.path(config))
    return store.load(config)


_FOLDER = TemporaryDirectory(prefix="audioclf-tests-")
_MADE: dict[Any, Path] = {}


def _write_run(
    store: RunStore,
    config: FitConfig,
    source: str | None,
    skill: float,
    n_windows: int,
    silent_windows: int,
    clips_per_class: int,
    **scores: float,
) -> Run:
    random = np.random.default_rng(zlib.crc32(config.fit_id.encode()))
    predictions = draw_predictions(config, random, skill, n_windows, silent_windows, clips_per_class)
    all_scores = evaluate_all(predictions, config.class_names)
    kept = {f"{split}_accuracy": all_scores[split]["window"]["accuracy"] for split in SPLITS}
    kept |= {f"{split}_clip_accuracy": all_scores[split]["clip"]["accuracy"] for split in SPLITS}
    history = draw_history(config.epochs, random, kept | scores)
    last = history.iloc[-1]
    chosen = {"epoch": config.epochs, "accuracy": last["validation_accuracy"], "loss": last["validation_loss"]}
    return store.save(
        config,
        history=history,
        predictions=predictions,
        metrics={
            "chosen": chosen | {"rule": CHOICE_RULE},
            "losses": {split: float(last[f"{split}_loss"]) for split in SPLITS},
            "scores": all_scores,
        },
        weights={"base.conv1.weight": torch.ones(128, 1, 7)},
        environment=environment(),
        model_source=source,
    )


def draw_predictions(
    config: FitConfig,
    random: np.random.Generator,
    skill: float,
    n_windows: int,
    silent_windows: int,
    clips_per_class: int,
) -> pd.DataFrame:
    """Rows as ``fit`` writes them."""
    n_classes = len(config.class_names)
    split_of = dict.fromkeys(config.train_folds, "train") | {config.val_fold: "validation", config.test_fold: "test"}
    rows = pd.DataFrame(
        {
            "split": split,
            "clip_id": f"{fold}-{label}-{number}.wav",
            "source": f"{fold}-{label}-{number}",
            "fold": fold,
            "window_index": window,
            "silent": label == n_classes - 1 and window >= n_windows - silent_windows,
            "y_true": label,
        }
        for fold, split in split_of.items()
        for label in range(n_classes)
        for number in range(clips_per_class)
        for window in range(n_windows)
    )
    probabilities = random.dirichlet(np.ones(n_classes), len(rows))
    found = random.random(len(rows)) < skill
    probabilities[found, rows["y_true"][found]] += 1
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return rows.join(pd.DataFrame(probabilities, columns=[f"p_{label}" for label in range(n_classes)]))


def draw_history(epochs: int, random: np.random.Generator, kept: dict[str, float]) -> pd.DataFrame:
    """Falling losses, rising accuracies; the last epoch is the one that is kept."""
    rise = np.linspace(0.3, 1, epochs)
    columns: dict[str, Any] = {"epoch": range(1, epochs + 1), "seconds": 1.5, "learning_rate": 1e-3}
    for split in SPLITS:
        columns[f"{split}_loss"] = 2.5 - rise - 0.01 * random.random()
        columns[f"{split}_accuracy"] = columns[f"{split}_clip_accuracy"] = rise
    history = pd.DataFrame(columns)
    for name, value in kept.items():
        history[name] = history[name].mul(value) if name.endswith("accuracy") else history[name]
        history.loc[history.index[-1], name] = value
    return history


@cache
def environment() -> dict[str, Any]:
    return describe_process(torch.device("cpu"), COMPILED, first_epoch=1) | {"wall_seconds": 12.0}


def write_runs(store: RunStore, plan: Plan, dataset: KnownDataset = DEMO) -> list[Run]:
    """All fits of a plan and its checks, every model a little better than the one before."""
    runs = []
    for position, experiment in enumerate([*plan.experiments_list(), *plan.checks_list()]):
        for config in experiment.fits(dataset):
            if not store.exists(config):
                runs.append(write_run(store, config, skill=0.4 + 0.05 * position))
    return runs

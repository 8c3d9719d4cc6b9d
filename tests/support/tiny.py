"""Data sets and configurations so small that a fit takes a moment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from audioclf_lib.config import Experiment, FitConfig
from audioclf_lib.data import Dataset

CLASSES = ("hum", "hiss", "click")


def make_dataset(*, folds: int = 3, clips_per_class: int = 1, n_windows: int = 2, seed: int = 0) -> Dataset:
    """Three classes of noise in some folds; the last window of the first clip of every fold is silent."""
    labels = np.tile(np.repeat(np.arange(len(CLASSES)), clips_per_class), folds)
    fold_of = np.repeat(np.arange(1, folds + 1), len(CLASSES) * clips_per_class)
    generator = np.random.default_rng(seed)
    waveforms = generator.uniform(-0.5, 0.5, (len(labels), 8_000 * (n_windows + 1))).astype(np.float32)
    if n_windows > 1:
        waveforms[:: len(CLASSES) * clips_per_class, -16_000:] = 0
    names = tuple(f"clip{number}" for number in range(len(labels)))
    return Dataset("tiny", waveforms, labels, fold_of, names, CLASSES, names, fingerprint="0" * 16)


def make_tones() -> Dataset:
    """Three tones of different height with a little noise, two clips each in three folds: learnt in an epoch or two."""
    dataset = make_dataset(clips_per_class=2)
    generator, time = np.random.default_rng(0), np.arange(dataset.waveforms.shape[1]) / 16_000
    frequencies = np.array([100, 900, 5_000])[dataset.labels, None]
    phases = generator.uniform(0, 6, (len(dataset), 1))
    tones = 0.3 * np.sin(2 * np.pi * frequencies * time + phases) + generator.normal(0, 0.01, dataset.waveforms.shape)
    return replace(dataset, name="tones", waveforms=tones.astype(np.float32))


def with_other_sound(dataset: Dataset, folds: list[int]) -> Dataset:
    """The same data set by name and fingerprint, but the clips of these folds sound otherwise."""
    waveforms = dataset.waveforms.copy()
    there = np.isin(dataset.folds, folds)
    waveforms[there] = np.random.default_rng(99).normal(0, 0.3, waveforms[there].shape).astype(np.float32)
    return replace(dataset, waveforms=waveforms)


def make_fit(dataset: Dataset, *, val_fold: int = 2, score_test: bool = True, **experiment: Any) -> FitConfig:
    """One fit of two epochs on a tiny data set, tested on fold 1."""
    values: dict[str, Any] = {"model": "cnn", "epochs": 2, "val_folds": [val_fold]} | experiment
    (fit,) = Experiment(**values).fits(dataset)
    return fit.model_copy(update={"score_test": score_test})


# How a fit is trained, for tests that hold whatever the recipe.
RECIPES: dict[str, dict[str, Any]] = {
    "cnn as written": {"model": "cnn", "recipe": "as-written"},
    "cnn tuned": {"model": "cnn", "recipe": "tuned", "recipe_changes": {"batch_size": 4}},
    "cnn with every lever": {
        "model": "cnn",
        "recipe_changes": {
            "batch_size": 4,
            "speed_perturbation": 1.25,
            "label_smoothing": 0.1,
            "time_pull": 10.0,
            "ema_decay": 0.9,
        },
    },
    "transformer tuned": {"model": "transformer", "num_heads": 4, "recipe_changes": {"batch_size": 4}},
}

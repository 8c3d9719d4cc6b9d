"""Made-up data for the tests of figures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

RNG = np.random.default_rng(0)
SPLITS = ("train", "validation", "test")
TEN = [f"class_{i}" for i in range(10)]
FIFTY = [f"quite_long_class_name_{i}" for i in range(50)]
VARIANTS = ["as written", "one", "two", "three", "four", "five", "all", "too fast"]
PARTS = ("base", "layer1", "layer2", "classifier")
BINS = [(20, 0.31, 0.25), (1234, 0.55, 0.70), (7, 0.9, 0.0), (300, 0.99, 1.0)]


def waveform(seconds: float = 5.0) -> np.ndarray:
    samples = RNG.normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)
    samples[len(samples) // 2 :] = 0
    return samples


def silence_table(names: list[str]) -> pd.DataFrame:
    """All windows are heard, but 12 of 27 of the second class."""
    table = pd.DataFrame({"Class": names, "Windows": 27, "Silent windows": 0})
    table.loc[1, "Silent windows"] = 12
    return table


def history(epochs: int) -> pd.DataFrame:
    columns = {"epoch": np.arange(1, epochs + 1)}
    for split in SPLITS:
        for metric in ("loss", "accuracy", "clip_accuracy"):
            columns[f"{split}_{metric}"] = RNG.random(epochs)
    return pd.DataFrame(columns)


def histories(fits: int = 4, epochs: int = 5) -> dict[str, pd.DataFrame]:
    return {f"validation fold {i + 2}": history(epochs) for i in range(fits)}


def confusion(n_classes: int) -> np.ndarray:
    matrix = RNG.poisson(3 / n_classes, (n_classes, n_classes)) + 12 * np.eye(n_classes, dtype=int)
    matrix[0] = 0  # a class without test clips
    return matrix


def roc(names: list[str]) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, float]]:
    rates = np.linspace(0, 1, 9)
    curves = {name: (rates, rates ** RNG.uniform(0.2, 1)) for name in [*names, "micro", "macro"]}
    return curves, {name: float(np.trapezoid(y, x)) for name, (x, y) in curves.items()}


def per_class(names: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"f1": RNG.random(len(names))}, index=names)


def results() -> pd.DataFrame:
    fits = {"CNN, k-fold": [0.4, 0.5, 0.6, 0.7], "CNN, split": [0.5], "Transformer, split": []}
    return pd.DataFrame(
        {"experiment": name, "level": level, "fits": values}
        for name, values in fits.items()
        for level in ("window", "clip")
    )


def reliability(*bins: tuple[int, float, float], n_bins: int = 15) -> SimpleNamespace:
    """A table with (count, confidence, accuracy) in the bins where the confidences fall; the other bins are empty."""
    edges = np.linspace(0, 1, n_bins + 1)
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": 0, "confidence": np.nan, "accuracy": np.nan})
    for number, confidence, accuracy in bins:
        row = int(np.ceil(confidence * n_bins)) - 1
        table.loc[row, ["count", "confidence", "accuracy"]] = number, confidence, accuracy
    table["count"] = table["count"].astype(int)
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return SimpleNamespace(ece=float((gaps * table["count"]).sum() / table["count"].sum()), bins=table)


def attention(heads: int) -> np.ndarray:
    weights = RNG.random((heads, 33, 33))
    return weights / weights.sum(axis=2, keepdims=True)


def steps(*rows: tuple[str, str, tuple[int, ...], tuple[int, ...]]) -> list[SimpleNamespace]:
    """Steps of a derivation: (block, name, input shape, output shape)."""
    fields = ("block", "name", "input_shape", "output_shape")
    return [SimpleNamespace(**dict(zip(fields, row, strict=True))) for row in rows]


MEL_NET = steps(
    ("front end", "log_mel", (1, 16_000), (1, 40, 51)),
    ("body", "conv1", (1, 40, 51), (32, 40, 51)),
    ("body", "norm1", (32, 40, 51), (32, 40, 51)),
    ("body", "pool1", (32, 40, 51), (32, 20, 25)),
    ("head", "mean", (32, 20, 25), (32,)),
    ("head", "linear", (32,), (10,)),
)


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]

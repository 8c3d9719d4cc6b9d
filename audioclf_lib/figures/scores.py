"""Figures of scores: confusion matrix, ROC curves, F1, reliability, comparison of experiments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from audioclf_lib.figures import style

if TYPE_CHECKING:
    from audioclf_lib.metrics.uncertainty import Calibration

Roc = Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]

LONGEST_TITLE = 16  # letters above a small panel


def plot_confusion(
    matrix: pd.DataFrame,
    *,
    normalise: bool = False,
    ax: Axes | None = None,
    figsize: style.Size | None = None,
    **kwargs: Any,
) -> Axes:
    """Confusion matrix; an empty cell is zero. Columns are numbered as the rows.

    Of more than 20 classes, rows have numbers in place of names, and shades stand for counts.

    Args:
        matrix: (C, C) counts under the names of the classes, rows true, columns predicted.
        normalise: write each row in per cent of its sum instead of counts; a row without counts stays empty.
        kwargs: of :func:`seaborn.heatmap`, such as ``cmap``.
    """
    counts, names = matrix.to_numpy(), [style.on_axis(name) for name in matrix.index]
    many = len(names) > style.MANY_CLASSES
    ax = style.new_axes(
        ax, figsize or (min(1.5 + 0.21 * len(names), style.TEXT_WIDTH), min(0.5 + 0.18 * len(names), 5))
    )
    values = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if normalise else counts
    full = 100 if normalise else max(counts.max(), 1)
    numbers = np.where(counts > 0, np.char.mod("%.0f", values), "")
    writing: style.Look = {"annot": not many and numbers, "fmt": "", "annot_kws": {"fontsize": 8}}
    look: style.Look = {"cmap": "Blues", "vmin": 0, "vmax": full, "cbar": False}
    lines: style.Look = {"linecolor": style.LIGHT_GREY, "linewidths": 0.25 if many else 0.8}
    sns.heatmap(values, ax=ax, **writing | look | lines | kwargs)
    shown = np.arange(0, len(names), 5 if many else 1)
    ax.set_xticks(shown + 0.5, [str(number + 1) for number in shown], rotation=0)
    ax.set_yticks(shown + 0.5, [str(n + 1) if many else f"{names[n]}  {n + 1}" for n in shown], rotation=0)
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.tick_params(labelsize=style.SMALL if many else 8, length=0, pad=2)
    return ax


def plot_confusion_with_f1(matrix: pd.DataFrame, per_class: pd.DataFrame, **kwargs: Any) -> style.Panels:
    """Confusion matrix, and beside its rows the F1 of the classes.

    Args:
        matrix: see :func:`plot_confusion`.
        per_class: see :func:`plot_f1_bars`.
        kwargs: of :func:`seaborn.heatmap`.

    Returns:
        (2,) axes.
    """
    size = (style.TEXT_WIDTH, min(0.45 + 0.17 * len(matrix), 6))
    panels: style.Panels = plt.subplots(1, 2, figsize=size, width_ratios=(1.8, 1))[1]
    plot_confusion(matrix, ax=panels[0], **kwargs)
    plot_f1_bars(per_class, ax=panels[1])
    panels[1].set_ylim(len(matrix) - 0.5, -0.5)
    panels[1].tick_params(labelleft=False)
    return panels


def plot_roc_panels(
    roc: Roc, auc: Mapping[str, float], *, figsize: style.Size | None = None, **kwargs: Any
) -> style.Panels:
    """A small ROC curve for each class with its area, and the macro average in each for comparison.

    Args:
        roc: name -> (false positive rates, true positive rates); class names and ``"macro"``. Of more than 20 classes,
            the ten with the smallest areas are drawn.
        auc: name -> area under the curve; NaN: none.
        kwargs: of :meth:`matplotlib.axes.Axes.plot`, for the classes' curves.

    Returns:
        (classes,) axes.
    """
    names = [name for name in roc if name not in ("micro", "macro")]
    if len(names) > style.MANY_CLASSES:
        names = sorted(names, key=lambda name: np.nan_to_num(auc[name], nan=2.0))[:10]
    titles = [style.on_axis(name, LONGEST_TITLE) for name in names]  # before the axes, for the fonts that they need
    columns = min(5, len(names))
    panels = style.small_multiples(len(names), columns, 1.0, figsize)
    for ax, name, title in zip(panels[:, 0], names, titles, strict=True):
        ax.plot([0, 1], [0, 1], **style.REFERENCE | {"linewidth": 0.6})
        ax.plot(*roc["macro"], color=style.GREY, linewidth=0.8)
        ax.fill_between(*roc[name], color=style.LIGHT_BLUE, alpha=0.5, linewidth=0)
        ax.plot(*roc[name], **style.Look(color="C0", linewidth=1.4, label=style.literal(name)) | kwargs)
        area = "–" if math.isnan(auc[name]) else f"{auc[name]:.2f}"
        ax.text(0.97, 0.06, area, transform=ax.transAxes, ha="right", size=9)
        ax.set_title(title, fontsize=8)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 1), yticks=(0, 1))
        ax.grid(False)
    ax.figure.supxlabel("false positive rate", size=9)  # for all: it is longer than a panel
    ax.figure.supylabel("true positive rate", size=9)
    return panels[:, 0]


def plot_f1_bars(
    per_class: pd.DataFrame, *, ax: Axes | None = None, figsize: style.Size | None = None, **kwargs: Any
) -> Axes:
    """F1 of every class, and their mean (macro F1) as a line.

    Args:
        per_class: index class names, column ``f1``.
        kwargs: of :meth:`matplotlib.axes.Axes.barh`.
    """
    scores = per_class["f1"].to_numpy(dtype=float)
    labels = [f"{score:.2f}" for score in scores]
    ax = style.draw_bars(list(per_class.index), scores, labels, ax=ax, figsize=figsize, **kwargs)
    macro, above = per_class["f1"].mean(), ax.get_xaxis_transform()
    ax.axvline(macro, color="C4", linewidth=1.2, linestyle=(0, (4, 3)))
    ax.text(macro, 1.01, f"macro F1 {macro:.2f}", transform=above, ha="center", va="bottom", color="C4")
    ax.set(xlim=(0, 1.05), xticks=np.linspace(0, 1, 6), xlabel="F1")
    return ax


def plot_reliability(
    calibration: Calibration, *, ax: Axes | None = None, figsize: style.Size = (3.0, 3.3), **kwargs: Any
) -> Axes:
    """Reliability diagram: accuracy of the answers in each bin of confidence, and above it how many there are.

    Lines lead from the end of each bar to the dashed diagonal, at the mean confidence of its answers; the expected
    calibration error is the mean length of these lines, weighted by the counts.

    Args:
        calibration: its ``ece`` and ``bins`` are read: a row per bin with low, high, count, confidence and accuracy.
        kwargs: of :meth:`matplotlib.axes.Axes.bar`.
    """
    ax = style.new_axes(ax, figsize)
    filled = calibration.bins[calibration.bins["count"] > 0]
    confidence, accuracy, counts = filled["confidence"], filled["accuracy"], filled["count"]
    centres, width = (filled["low"] + filled["high"]) / 2, 0.92 * (filled["high"] - filled["low"])
    ax.bar(centres, accuracy, **style.Look(width=width, color=style.LIGHT_BLUE, zorder=2) | kwargs)
    ax.plot([0, 1], [0, 1], **style.REFERENCE, zorder=3)
    ax.vlines(confidence, accuracy, confidence, color="C1", linewidth=1.2, zorder=4)
    ax.plot(confidence, accuracy, "o", color="C1", markersize=2.4, clip_on=False, zorder=5)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    ax.set(xlabel="confidence", ylabel="accuracy")
    style.show_percent(ax.xaxis, ax.yaxis)
    ax.set_title(f"ECE {calibration.ece:.3f}", loc="right", fontsize=8)

    strip = ax.inset_axes((0, 1.03, 1, 0.22))
    strip.bar(centres, counts, width=width, color="#b5b5b5")
    strip.set(xlim=(0, 1), ylim=(0, 1.6 * counts.max()), xticks=(), yticks=())
    strip.spines["left"].set_visible(False)
    centre = float(centres.iloc[int(counts.argmax())])
    strip.text(centre, 1.08 * counts.max(), f"{counts.max():,}", ha="center", size=style.SMALL)
    return ax


def plot_comparison(
    results: pd.DataFrame,
    *,
    chance: float | None = None,
    ax: Axes | None = None,
    figsize: style.Size | None = None,
    **kwargs: Any,
) -> Axes:
    """Accuracies as dots with their intervals, from top to bottom in groups: own models, baselines, what others state.

    Args:
        results: a row for each, in the order of the table, with the columns ``name``, ``group``, ``accuracy`` from 0 to
            1 and ``low`` and ``high``, its interval (NaN: none is known). Without accuracy a row is named as missing.
        chance: accuracy of guessing, drawn as a line.
        kwargs: of :meth:`matplotlib.axes.Axes.errorbar`.
    """
    results = results.astype({"accuracy": float, "low": float, "high": float})
    group, names = pd.factorize(results["group"])
    results["row"] = np.arange(len(results)) + 0.5 * group
    height = max(1.0, 0.45 + 0.15 * (len(results) + 0.5 * len(names)))  # a single row has a legend and ticks, too
    ax = style.new_axes(ax, figsize or (style.TEXT_WIDTH, height))
    for number, (name, shown) in enumerate(results.groupby("group", sort=False)):
        spread = shown[["low", "high"]].sub(shown["accuracy"], axis=0).abs().fillna(0).T
        look = style.Look(fmt="osD^"[number % 4], color=f"C{number}", elinewidth=1.4, markersize=4.5, capsize=0)
        look["markerfacecolor"] = "white" if shown["low"].isna().all() else f"C{number}"
        ax.errorbar(shown["accuracy"], shown["row"], xerr=spread, label=style.literal(str(name)), **look | kwargs)
    ends = results["high"].fillna(results["accuracy"]).fillna(chance or 0)
    for row, accuracy, end in zip(results["row"], results["accuracy"], ends, strict=True):
        text = "missing" if math.isnan(accuracy) else f"{100 * accuracy:.1f}"
        ax.annotate(text, (end, row), (5, 0), textcoords="offset points", va="center", size=style.SMALL)
    if chance:
        ax.axvline(chance, **style.REFERENCE, label="chance", zorder=1)
    ax.set_yticks(results["row"], [style.literal(name) for name in results["name"]])
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(0, 1.05), ylim=(results["row"].max() + 0.7, -0.7), xticks=np.linspace(0, 1, 6), xlabel="clip accuracy")
    ax.grid(False, axis="y")
    style.show_percent(ax.xaxis)
    if chance or len(names) > 1:
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(names) + 1, handletextpad=0.3)  # beside no dot
    return ax

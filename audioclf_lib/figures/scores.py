"""Figures of scores: confusion matrix, ROC curves, F1, reliability, comparison of experiments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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

NAMED_EXTREMES = 2  # of the ROC curves, best and worst each


def plot_confusion(
    matrix: pd.DataFrame | npt.ArrayLike,
    class_names: Sequence[str] | None = None,
    *,
    normalise: bool = False,
    ax: Axes | None = None,
    figsize: style.Size | None = None,
    **kwargs: Any,
) -> Axes:
    """Confusion matrix; an empty cell is zero. Columns are numbered as the rows.

    Of more than 20 classes, rows have numbers in place of names, and shades stand for counts.

    Args:
        matrix: (C, C) counts, rows true, columns predicted.
        class_names: C names; a data frame brings its own.
        normalise: write each row in per cent of its sum instead of counts; a row without counts stays empty.
        kwargs: of :func:`seaborn.heatmap`, such as ``cmap``.
    """
    counts = np.asarray(matrix)
    own = matrix.index if isinstance(matrix, pd.DataFrame) else range(len(counts))
    names = [style.on_axis(str(name)) for name in (own if class_names is None else class_names)]
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
    ax.grid(False)
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


def plot_roc(
    roc: Roc, auc: Mapping[str, float], *, ax: Axes | None = None, figsize: style.Size = (6.3, 3.4), **kwargs: Any
) -> Axes:
    """ROC curves: one per class, and the averages ``micro`` and ``macro``; the legend gives the areas.

    More than four classes are thin grey curves, apart from the two with the largest and the two with the smallest area.

    Args:
        roc: name -> (false positive rates, true positive rates); class names, ``"micro"``, ``"macro"``.
        auc: name -> area under the curve.
        kwargs: of :meth:`matplotlib.axes.Axes.plot`, for the named classes' curves.
    """
    ax = style.new_axes(ax, figsize)
    classes = [name for name in roc if name not in ("micro", "macro")]
    named = classes
    if len(classes) > 2 * NAMED_EXTREMES:
        ranked = sorted((name for name in classes if not math.isnan(auc[name])), key=lambda name: -auc[name])
        named = list(dict.fromkeys(ranked[:NAMED_EXTREMES] + ranked[-NAMED_EXTREMES:]))
    others = [name for name in classes if name not in named]
    for name, look in zip(named, style.line_looks(len(named)), strict=True):
        look |= {"label": f"{area(auc[name])}  {style.literal(name)}", "linewidth": 1.3}
        ax.plot(*roc[name], **look | kwargs)
    for number, name in enumerate(others):
        areas = [auc[name] for name in others]
        text = f"{area(np.nanmin(areas))} to {area(np.nanmax(areas))}  {len(others)} other classes"
        ax.plot(*roc[name], color=style.GREY, linewidth=0.5, alpha=0.5, zorder=1.5, label="" if number else text)
    for name, dashes in (("macro", "-"), ("micro", ":")):
        if name in roc:
            text = f"{area(auc[name])}  {name} average"
            ax.plot(*roc[name], color=style.INK, linewidth=2.2, linestyle=dashes, label=text)
    ax.plot([0, 1], [0, 1], **style.REFERENCE, label="0.50  chance", zorder=1)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    ax.set(xlabel="false positive rate", ylabel="true positive rate")
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), title="AUC", alignment="left", handlelength=3)
    return ax


def plot_roc_panels(
    roc: Roc, auc: Mapping[str, float], *, figsize: style.Size | None = None, **kwargs: Any
) -> style.Panels:
    """A small ROC curve for each class with its area, and the macro average in each for comparison.

    Args:
        roc, auc: see :func:`plot_roc`. Of more than 20 classes, the ten with the smallest areas are drawn.
        kwargs: of :meth:`matplotlib.axes.Axes.plot`, for the classes' curves.

    Returns:
        (classes,) axes.
    """
    names = [name for name in roc if name not in ("micro", "macro")]
    if len(names) > style.MANY_CLASSES:
        names = sorted(names, key=lambda name: np.nan_to_num(auc[name], nan=2.0))[:10]
    titles = [style.on_axis(name) for name in names]  # first, so that the panels' titles have the fonts for them
    columns = min(5, len(names))
    rows = math.ceil(len(names) / columns)
    size = figsize or (style.TEXT_WIDTH, 0.1 + 0.98 * rows)
    grid = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)[1]
    for number, (ax, name) in enumerate(zip(grid.flat, names, strict=False)):
        ax.plot([0, 1], [0, 1], **style.REFERENCE | {"linewidth": 0.6})
        if "macro" in roc:
            ax.plot(*roc["macro"], color=style.GREY, linewidth=0.8)
        ax.fill_between(*roc[name], color=style.LIGHT_BLUE, alpha=0.5, linewidth=0)
        ax.plot(*roc[name], **style.Look(color="C0", linewidth=1.4, label=style.literal(name)) | kwargs)
        ax.text(0.97, 0.06, area(auc[name]), transform=ax.transAxes, ha="right", size=9)
        ax.set_title(titles[number], fontsize=8)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 1), yticks=(0, 1))
        ax.set_xlabel("false positive rate" if number == (rows - 1) * columns else "")
        ax.set_ylabel("true positive rate" if number == 0 else "")
        ax.grid(False)
    for ax in grid.flat[len(names) :]:
        ax.remove()
    return grid.ravel()[: len(names)]


def area(value: float) -> str:
    return "  –  " if math.isnan(value) else f"{value:.2f}"


def plot_f1_bars(
    per_class: pd.DataFrame, *, ax: Axes | None = None, figsize: style.Size | None = None, **kwargs: Any
) -> Axes:
    """F1 of every class, and their mean (macro F1) as a line.

    Args:
        per_class: index class names, column ``f1``.
        kwargs: of :meth:`matplotlib.axes.Axes.barh`.
    """
    scores = per_class["f1"].to_numpy(dtype=float)
    names, labels = list(map(str, per_class.index)), [f"{score:.2f}" for score in scores]
    ax = style.draw_bars(names, scores, labels, ax=ax, figsize=figsize, **kwargs)
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
    groups = list(dict.fromkeys(results["group"]))
    rows = np.arange(len(results)) + 0.5 * results["group"].map(groups.index).to_numpy()
    ax = style.new_axes(ax, figsize or (style.TEXT_WIDTH, 0.45 + 0.15 * (len(results) + 0.5 * len(groups))))
    for number, group in enumerate(groups):
        inside = (results["group"] == group).to_numpy()
        shown = results[inside]
        spread = np.abs(shown[["low", "high"]].sub(shown["accuracy"], axis=0)).fillna(0).to_numpy().T
        look: style.Look = {
            "fmt": "osD^"[number % 4],
            "color": f"C{number}",
            "elinewidth": 1.4,
            "markersize": 4.5,
            "capsize": 0,
        }
        look |= {
            "markerfacecolor": "white" if shown["low"].isna().all() else f"C{number}",
            "label": style.literal(group),
        }
        ax.errorbar(shown["accuracy"], rows[inside], xerr=spread, **look | kwargs)
    for row, (accuracy, high) in zip(rows, results[["accuracy", "high"]].to_numpy(dtype=float), strict=True):
        end = accuracy if math.isnan(high) else high
        text = "missing" if math.isnan(accuracy) else f"{100 * accuracy:.1f}"
        ax.text(0.01 if math.isnan(accuracy) else end + 0.018, row, text, va="center", size=style.SMALL)
    if chance:
        ax.axvline(chance, **style.REFERENCE, zorder=1)
        ax.text(chance, -0.8, "chance", ha="center", va="bottom", size=style.SMALL, color=style.GREY)
    ax.set_yticks(rows, [style.literal(name) for name in results["name"]], fontsize=8)
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(0, 1.05), ylim=(rows[-1] + 0.7, -0.7), xticks=np.linspace(0, 1, 6), xlabel="clip accuracy")
    ax.grid(False, axis="y")
    style.show_percent(ax.xaxis)
    if len(groups) > 1:
        above: style.Look = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": len(groups)}  # beside no dot
        ax.legend(**above, fontsize=style.SMALL, handletextpad=0.3)
    return ax

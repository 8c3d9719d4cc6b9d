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
from matplotlib.container import BarContainer

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
    """Confusion matrix; an empty cell is zero.

    Args:
        matrix: (C, C) counts, rows true, columns predicted.
        class_names: C names; a data frame brings its own.
        normalise: write each row in per cent of its sum instead of counts; a row without counts stays empty.
        kwargs: of :func:`seaborn.heatmap`, such as ``cmap``.
    """
    counts = np.asarray(matrix)
    own = matrix.index if isinstance(matrix, pd.DataFrame) else range(len(counts))
    names = [style.literal(str(name)) for name in (own if class_names is None else class_names)]
    many = len(names) > style.MANY_CLASSES
    side = min(max(1.4 + 0.36 * len(names), 3.6), style.TEXT_WIDTH)
    ax = style.new_axes(ax, figsize or (side, side if many else 0.92 * side))
    values = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if normalise else counts
    full = 100 if normalise else max(counts.max(), 1)
    numbers = np.where(counts > 0, np.char.mod("%.0f", values), "")
    writing: style.Look = {"annot": numbers, "fmt": "", "annot_kws": {"fontsize": 3.4 if many else 8.5}}
    look: style.Look = {"cmap": "Blues", "vmin": 0, "vmax": full, "cbar": False, "square": True}
    lines: style.Look = {"linecolor": style.LIGHT_GREY, "linewidths": 0.25 if many else 0.8}
    sns.heatmap(values, xticklabels=names, yticklabels=names, ax=ax, **writing | look | lines | kwargs)
    for text in ax.texts:
        text.set_in_layout(False)  # none leaves its cell, and thousands of them would slow the layout down
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.tick_params(labelsize=4.5 if many else 7.5, length=0, pad=2)
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    plt.setp(ax.get_xticklabels(), **({"rotation": 90} if many else slanted))
    plt.setp(ax.get_yticklabels(), rotation=0)
    ax.grid(False)
    return ax


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
    ax.set_title(f"ECE {calibration.ece:.3f}", loc="right", fontsize=7.5)

    strip = ax.inset_axes((0, 1.03, 1, 0.22))
    strip.bar(centres, counts, width=width, color="#b5b5b5")
    strip.set(xlim=(0, 1), ylim=(0, 1.6 * counts.max()), xticks=(), yticks=())
    strip.spines["left"].set_visible(False)
    centre = float(centres.iloc[int(counts.argmax())])
    strip.text(centre, 1.08 * counts.max(), f"{counts.max():,}", ha="center", size="small")
    return ax


def plot_reliabilities(
    calibrations: Mapping[str, Calibration], *, figsize: style.Size | None = None, **kwargs: Any
) -> style.Panels:
    """Reliability diagrams side by side, up to four in a row: a panel for each name, which may have lines.

    Args:
        calibrations, kwargs: see :func:`plot_reliability`.

    Returns:
        (calibrations,) axes.
    """
    columns = min(4, len(calibrations))
    rows = math.ceil(len(calibrations) / columns)
    size = figsize or (0.4 + (style.TEXT_WIDTH - 0.4) * columns / 4, 2.05 * rows + 0.25)
    panels = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=True, layout="compressed")[1].ravel()
    for position, (ax, (name, calibration)) in enumerate(zip(panels, calibrations.items(), strict=False)):
        plot_reliability(calibration, ax=ax, **kwargs)
        ax.set_title(style.literal(name), fontsize=7.5)
        ax.set_ylabel("accuracy" if position % columns == 0 else "")
        ax.set_xlabel("confidence" if position + columns >= len(calibrations) else "")
        ax.set_xticks((0, 0.5, 1), ("0", "50", "100 %"))
    for ax in panels[len(calibrations) :]:
        ax.remove()
    return panels[: len(calibrations)]


def plot_comparison(
    results: pd.DataFrame,
    *,
    chance: float | None = None,
    ax: Axes | None = None,
    figsize: style.Size | None = None,
    **kwargs: Any,
) -> Axes:
    """All experiments side by side: a bar for the mean accuracy, a line for its standard deviation, a dot per fit.

    Args:
        results: a row for each experiment and level, with the columns ``experiment``, ``level`` (``"window"``,
            ``"clip"``) and ``fits`` (list of the fits' accuracies from 0 to 1). An experiment without fits is named as
            missing.
        chance: accuracy of guessing, drawn as a line.
        kwargs: of :func:`seaborn.barplot`.
    """
    experiments, levels = list(results["experiment"].unique()), list(results["level"].unique())
    ax = style.new_axes(ax, figsize or (style.TEXT_WIDTH, 0.9 + 0.36 * len(experiments)))
    fits = results.explode("fits", ignore_index=True).astype({"fits": float})
    what = {"data": fits, "x": "fits", "y": "experiment", "hue": "level", "ax": ax}
    shades = sns.light_palette("C0", len(levels) + 2)[1:-1]  # dark numbers can be read on all of them
    look = {"palette": shades, "saturation": 1, "errorbar": "sd", "capsize": 0.2}
    sns.barplot(**what, **look | {"err_kws": {"color": style.INK, "linewidth": 0.9}} | kwargs)
    dots = {"palette": ["white"] * len(levels), "edgecolor": style.INK, "linewidth": 0.7, "size": 3}
    sns.stripplot(**what, **dots, dodge=True, jitter=False, legend=False)
    for bars in ax.containers:
        assert isinstance(bars, BarContainer)
        ax.bar_label(bars, fmt=lambda share: f"{100 * share:.1f} %", label_type="center", size="small")
    for experiment in sorted(set(experiments) - set(fits.dropna(subset="fits")["experiment"])):
        ax.text(0.01, experiments.index(experiment), "missing", va="center", color=style.GREY, style="italic")
    ax.plot([], [], "o", color=style.INK, markerfacecolor="white", markersize=3, label="one fit")
    if chance:
        ax.axvline(chance, **style.REFERENCE, zorder=3, label="chance")
    ax.set_yticks(range(len(experiments)), [style.literal(name) for name in experiments])
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(0, 1), ylim=(len(experiments) - 0.45, -0.55), xlabel="test accuracy", ylabel="")
    ax.grid(False, axis="y")
    style.show_percent(ax.xaxis)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=5, handletextpad=0.4)
    return ax

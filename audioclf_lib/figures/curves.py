"""Figures over epochs and steps: learning curves, an ablation's curves, the inside of training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from audioclf_lib.figures import style

Metric = Literal["loss", "accuracy", "clip_accuracy"]
Split = Literal["train", "validation", "test"]

METRIC_LABELS: dict[Metric, str] = {"loss": "loss", "accuracy": "window accuracy", "clip_accuracy": "clip accuracy"}
SPLIT_LABELS: dict[Split, str] = {"train": "training", "validation": "validation", "test": "test"}


def plot_learning_curve(
    histories: Mapping[str, pd.DataFrame],
    metric: Metric = "loss",
    split: Split = "validation",
    *,
    chosen_epochs: Mapping[str, int] | None = None,
    chance: float | None = None,
    mean: bool = True,
    legend: bool = True,
    ax: Axes | None = None,
    figsize: style.Size = (4.7, 2.6),
    **kwargs: Any,
) -> Axes:
    """One curve per fit and, for several fits, their mean over the epochs that all of them have.

    Args:
        histories: label of each fit -> its history with the columns ``epoch`` and ``<split>_<metric>``.
        chosen_epochs: label of a fit -> the epoch whose weights were kept, marked by a dot.
        chance: accuracy of guessing, drawn as a line; for the loss, the line is at -ln(chance).
        mean: draw the mean.
        legend: name the curves.
        kwargs: of :meth:`matplotlib.axes.Axes.plot`, for the fits' curves.
    """
    ax = style.new_axes(ax, figsize)
    column = f"{split}_{metric}"
    curves: list[pd.Series] = []
    for (label, history), look in zip(histories.items(), style.line_looks(len(histories)), strict=True):
        if column not in history or history[column].isna().all():
            continue
        curve = history.set_index("epoch")[column].dropna()
        draw_curve(ax, curve, **({"label": style.literal(label), "alpha": 0.8} | look | kwargs))
        epoch = (chosen_epochs or {}).get(label, 0)  # 0: none, they count from 1
        if epoch in curve.index:
            ax.plot(epoch, curve[epoch], "o", color=look["color"], markersize=5, markeredgecolor="white", zorder=4)
        curves.append(curve)
    if mean and len(curves) > 1:
        average = pd.concat(curves, axis=1, join="inner").mean(axis=1)
        draw_curve(ax, average, label="mean", color=style.INK, linewidth=1.8)
    if chosen_epochs:
        ax.plot([], [], "o", color=style.GREY, markersize=5, label="chosen epoch")
    if not curves:
        ax.text(0.5, 0.5, "not scored", transform=ax.transAxes, ha="center", color=style.GREY)
    elif legend:
        ax.legend(ncols=2)

    ax.locator_params(axis="x", integer=True, nbins=6, min_n_ticks=1)
    ax.set(xlabel="epoch", ylabel=f"{SPLIT_LABELS[split]} {METRIC_LABELS[metric]}")
    if metric == "loss":
        ax.set_ylim(0, loss_limit(curves, chance))
    else:
        ax.set_ylim(0, 1)
        style.show_percent(ax.yaxis)
    if chance:
        level, text = (-math.log(chance), "{:.2f}") if metric == "loss" else (chance, "{:.0%}")
        style.draw_level(ax, level, "chance " + text.format(level).replace("%", " %"))
    return ax


def draw_curve(ax: Axes, curve: pd.Series, **kwargs: Any) -> None:
    """A line, or a dot where there is only one epoch."""
    ax.plot(curve.index, curve, **({"marker": "o" if len(curve) == 1 else None} | kwargs))


def loss_limit(curves: Iterable[pd.Series], chance: float | None) -> float:
    """Upper end of a loss axis: all curves, but no more than three times the loss of guessing.

    An early epoch may cost many times that; shown in full, it would flatten all that follows.
    """
    highest = 1.05 * max((float(curve.max()) for curve in curves), default=1.0)
    if not chance:
        return highest
    return min(max(highest, -1.12 * math.log(chance)), -3 * math.log(chance))


def plot_learning_curves(
    histories: Mapping[str, pd.DataFrame],
    *,
    accuracy: Literal["accuracy", "clip_accuracy"] = "accuracy",
    rows: Sequence[Literal["loss", "accuracy"]] = ("loss", "accuracy"),
    figsize: style.Size | None = None,
    **kwargs: Any,
) -> style.Panels:
    """The six curves: loss and accuracy (rows) on training, validation and test folds (columns), one legend for all.

    Args:
        histories: see :func:`plot_learning_curve`.
        accuracy: at window or at clip level.
        rows: one of both alone for a figure of three curves; that of the accuracies has the legend.
        kwargs: of :func:`plot_learning_curve`, such as ``chosen_epochs`` and ``chance``, or of its curves.

    Returns:
        (rows, 3) axes.
    """
    size = figsize or (style.TEXT_WIDTH, (0.25 if "accuracy" in rows else 0.1) + 1.32 * len(rows))
    figure, panels = plt.subplots(len(rows), 3, figsize=size, sharex=True, sharey="row", squeeze=False)
    for number, (row, what) in enumerate(zip(panels, rows, strict=True)):
        metric: Metric = "loss" if what == "loss" else accuracy
        limits = []
        for ax, split in zip(row, SPLIT_LABELS, strict=True):
            plot_learning_curve(histories, metric, split, legend=False, ax=ax, **kwargs)
            limits.append(ax.get_ylim()[1])
            ax.set(ylabel=METRIC_LABELS[metric], title="" if number else SPLIT_LABELS[split])
            ax.label_outer()
        row[0].set_ylim(0, max(limits))  # the row's axis is shared: the panel with the largest loss decides
    if rows[-1] == "accuracy":
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels) if len(labels) < 5 else 4)
    return panels


def plot_variants(
    histories: Mapping[str, Mapping[str, pd.DataFrame]],
    *,
    names: Sequence[str] | None = None,
    figsize: style.Size | None = None,
    **kwargs: Any,
) -> style.Panels:
    """Window accuracy over the epochs: a row per architecture, a column per split, a curve per variant of a recipe.

    Args:
        histories: title of each row -> variant -> history with ``epoch`` and ``<split>_accuracy``.
        names: all variants in the order of the legend; the first, with which the others are compared, is drawn thick
            and dark. A variant has the same look whether or not others are there.
        kwargs: of :func:`plot_learning_curve`, such as ``chance``, or of its curves.

    Returns:
        (architectures, 3) axes.
    """
    names = names or list(dict.fromkeys(name for variants in histories.values() for name in variants))
    size = figsize or (style.TEXT_WIDTH, 0.85 + 1.75 * len(histories))
    figure, panels = plt.subplots(len(histories), 3, figsize=size, sharex=True, sharey=True, squeeze=False)
    entries: dict[str, Line2D] = {}
    for row, (title, variants) in zip(panels, histories.items(), strict=True):
        drawn = {name: variants.get(name, pd.DataFrame()) for name in names}  # each keeps its look
        for ax, split in zip(row, SPLIT_LABELS, strict=True):
            plot_learning_curve(drawn, "accuracy", split, mean=False, legend=False, ax=ax, **kwargs)
            if names[0] in variants:
                ax.lines[0].set(color=style.INK, linewidth=1.8, alpha=1, zorder=3)
            entries |= {str(line.get_label()): line for line in ax.get_legend_handles_labels()[0]}
            ax.set_ylabel(f"{style.literal(title)}\nwindow accuracy")
            ax.label_outer()
    for ax, split in zip(panels[0], SPLIT_LABELS, strict=True):
        ax.set_title(SPLIT_LABELS[split])
    panels[0, 0].autoscale(axis="y")
    panels[0, 0].set_ylim(bottom=0)
    handles = [entries[label] for label in map(style.literal, names) if label in entries]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=3)
    return panels

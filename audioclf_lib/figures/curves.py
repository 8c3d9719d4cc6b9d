"""Figures over epochs and steps: learning curves, an ablation's curves, the inside of training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from audioclf_lib.figures import style

Metric = Literal["loss", "accuracy", "clip_accuracy"]

METRIC_LABELS: dict[Metric, str] = {"loss": "loss", "accuracy": "window accuracy", "clip_accuracy": "clip accuracy"}
SPLIT_LABELS = {"train": "training", "validation": "validation", "test": "test"}


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
        histories: label of each fit -> its history with the columns ``epoch`` and ``<split>_<metric>``.
        accuracy: at window or at clip level.
        rows: one of both alone for a figure of three curves; that of the accuracies has the legend.
        kwargs: of :func:`draw_curves`, such as ``chosen_epochs`` and ``chance``, or of its curves.

    Returns:
        (rows, 3) axes.
    """
    size = figsize or (style.TEXT_WIDTH, (0.25 if "accuracy" in rows else 0.1) + 1.32 * len(rows))
    metrics: list[Metric] = ["loss" if row == "loss" else accuracy for row in rows]
    drawn = [(METRIC_LABELS[metric], metric, histories) for metric in metrics]
    return draw_splits(drawn, size, legend=rows[-1] == "accuracy", **kwargs)


def plot_variants(
    histories: Mapping[str, Mapping[str, pd.DataFrame]],
    *,
    names: Sequence[str],
    figsize: style.Size | None = None,
    **kwargs: Any,
) -> style.Panels:
    """Window accuracy over the epochs: a row per architecture, a column per split, a curve per variant of a recipe.

    Args:
        histories: title of each row -> variant -> history with ``epoch`` and ``<split>_accuracy``.
        names: all variants in the order of the legend; the first, with which the others are compared, is drawn thick
            and dark. A variant has the same look whether or not others are there.
        kwargs: of :func:`draw_curves`, such as ``chance``, or of its curves.

    Returns:
        (architectures, 3) axes.
    """
    size = figsize or (style.TEXT_WIDTH, 0.85 + 1.75 * len(histories))
    rows: list[tuple[str, Metric, Mapping[str, pd.DataFrame]]] = []
    for title, variants in histories.items():
        drawn = {name: variants.get(name, pd.DataFrame()) for name in names}  # each keeps its look
        rows.append((f"{style.literal(title)}\nwindow accuracy", "accuracy", drawn))
    panels = draw_splits(rows, size, legend=True, mean=False, leading=names[0], **kwargs)
    plt.setp(panels.ravel().tolist(), ylim=(0, 1.05 * max(ax.dataLim.ymax for ax in panels.flat)))
    return panels


def draw_splits(
    rows: Sequence[tuple[str, Metric, Mapping[str, pd.DataFrame]]], size: style.Size, *, legend: bool, **kwargs: Any
) -> style.Panels:
    """Training, validation and test in a row for each (label of its axis, metric, histories), one legend for all."""
    figure, panels = plt.subplots(len(rows), 3, figsize=size, sharex=True, sharey="row", squeeze=False)
    entries: dict[str, Artist] = {}
    for axes, (label, metric, histories) in zip(panels, rows, strict=True):
        limits = []
        for ax, split in zip(axes, SPLIT_LABELS, strict=True):
            draw_curves(ax, histories, metric, split, **kwargs)
            limits.append(ax.get_ylim()[1])
            ax.label_outer()
            entries |= {name: line for line, name in zip(*ax.get_legend_handles_labels(), strict=True)}
        axes[0].set(ylabel=label, ylim=(0, max(limits)))  # shared: the panel with the largest loss decides
    for ax, title in zip(panels[0], SPLIT_LABELS.values(), strict=True):
        ax.set_title(title)
    if legend:
        columns = len(entries) if len(entries) < 5 else 4
        figure.legend(entries.values(), entries, loc="outside lower center", ncols=columns)
    return panels


def draw_curves(
    ax: Axes,
    histories: Mapping[str, pd.DataFrame],
    metric: Metric,
    split: str,
    *,
    chosen_epochs: Mapping[str, int] | None = None,
    chance: float | None = None,
    mean: bool = True,
    leading: str = "",
    **kwargs: Any,
) -> None:
    """One curve per fit and, for several fits, their mean over the epochs that all of them have.

    Args:
        histories: label of each fit -> its history with the columns ``epoch`` and ``<split>_<metric>``.
        chosen_epochs: label of a fit -> the epoch whose weights were kept, marked by a dot.
        chance: accuracy of guessing, drawn as a line; for the loss, the line is at -ln(chance).
        mean: draw the mean.
        leading: label of a curve that is drawn thick and dark.
        kwargs: of :meth:`matplotlib.axes.Axes.plot`, for the fits' curves.
    """
    column = f"{split}_{metric}"
    curves: list[pd.Series] = []
    for (label, history), look in zip(histories.items(), style.line_looks(len(histories)), strict=True):
        if column not in history or history[column].isna().all():
            continue
        curve = history.set_index("epoch")[column].dropna()
        look |= {"marker": "o" if len(curve) == 1 else None, "alpha": 0.8}  # one epoch is a dot
        if label == leading:
            look |= {"color": style.INK, "linewidth": 1.8, "alpha": 1, "zorder": 3}
        ax.plot(curve, **look | {"label": style.literal(label)} | kwargs)
        epoch = (chosen_epochs or {}).get(label, 0)  # 0: none, they count from 1
        if epoch in curve.index:
            ax.plot(epoch, curve[epoch], "o", color=look["color"], markersize=5, markeredgecolor="white", zorder=4)
        curves.append(curve)
    if mean and len(curves) > 1:
        average = pd.concat(curves, axis=1, join="inner").mean(axis=1)
        ax.plot(average, label="mean", color=style.INK, linewidth=1.8, marker="o" if len(average) == 1 else None)
    if chosen_epochs:
        ax.plot([], [], "o", color=style.GREY, markersize=5, label="chosen epoch")

    ax.locator_params(axis="x", integer=True, nbins=6, min_n_ticks=1)
    ax.set(xlabel="epoch", ylim=(0, loss_limit(curves, chance) if metric == "loss" else 1))
    if metric != "loss":
        style.show_percent(ax.yaxis)
    if chance:
        level, text = (-math.log(chance), "{:.2f}") if metric == "loss" else (chance, "{:.0%}")
        ax.axhline(level, **style.REFERENCE, zorder=1)
        background = style.BACKGROUND | {"alpha": 0.8}  # a curve that passes behind the label can still be followed
        look = style.Look(ha="right", va="bottom", size=style.SMALL, color=style.GREY, bbox=background)
        label = "chance " + text.format(level).replace("%", " %")
        ax.text(0.99, level, label, transform=ax.get_yaxis_transform(), **look)


def loss_limit(curves: Iterable[pd.Series], chance: float | None) -> float:
    """Upper end of a loss axis: all curves, but no more than three times the loss of guessing.

    An early epoch may cost many times that; shown in full, it would flatten all that follows.
    """
    highest = 1.05 * max((float(curve.max()) for curve in curves), default=1.0)
    if not chance:
        return highest
    return min(max(highest, -1.12 * math.log(chance)), -3 * math.log(chance))

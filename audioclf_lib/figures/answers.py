"""Figures of a model's answers to clips: over time, what they rest on, and which clips lie close to each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from audioclf_lib.data.windowing import HOP_SIZE, SAMPLE_RATE, WINDOW_SIZE
from audioclf_lib.figures import style


def plot_answers(
    probabilities: pd.DataFrame, *, ax: Axes | None = None, figsize: style.Size | None = None, **kwargs: Any
) -> Axes:
    """The answer over time: a row for each class, a column for each window, drawn at the window's middle.

    Args:
        probabilities: a row for each window, by the second at which it starts; a column for each class. A row of NaN,
            as for a silent window, stays blank.
        kwargs: of :meth:`matplotlib.axes.Axes.pcolormesh`, such as ``cmap``.
    """
    names = [style.literal(str(name)) for name in probabilities]
    ax = style.new_axes(ax, figsize or (style.TEXT_WIDTH, 0.6 + 0.15 * len(names)))
    starts, hop = probabilities.index.to_numpy(dtype=float), HOP_SIZE / SAMPLE_RATE
    edges = np.append(starts, starts[-1] + hop) + (WINDOW_SIZE / SAMPLE_RATE - hop) / 2
    look = style.Look(vmin=0, vmax=1) | kwargs
    values = probabilities.to_numpy(dtype=float).T
    style.draw_mesh(ax, edges, np.arange(len(names) + 1) - 0.5, values, "probability", **look)
    style.name_rows(ax, names)
    ax.set(xlim=(0, starts[-1] + WINDOW_SIZE / SAMPLE_RATE), xlabel="time (s)")
    return ax


def plot_occlusion(
    falls: pd.DataFrame, *, ax: Axes | None = None, figsize: style.Size = (style.TEXT_WIDTH, 1.8), **kwargs: Any
) -> Axes:
    """How far the probability of a class falls when a tile of time and frequency is silenced: red where it does.

    Args:
        falls: (bands, spans), by intervals in Hz and in seconds (:func:`audioclf_lib.metrics.attribution.occlude`).
        kwargs: of :meth:`matplotlib.axes.Axes.pcolormesh`, such as ``cmap``.
    """
    ax = style.new_axes(ax, figsize)
    axes: list[Any] = [falls.index.array, falls.columns.array]  # of intervals
    hertz, times = ([*each.left, each.right[-1]] for each in axes)
    most = max(float(falls.abs().max().max()), 0.01)
    look = style.Look(cmap="RdBu_r", vmin=-most, vmax=most) | kwargs
    style.draw_mesh(ax, times, range(len(hertz)), falls, "fall", **look)
    ax.set_yticks(range(len(hertz)), [f"{edge:,.0f}" for edge in hertz])
    ax.set(xlim=(0, times[-1]), xlabel="time (s)", ylabel="frequency (Hz)")
    return ax


def plot_clip_map(
    clips: pd.DataFrame, *, ax: Axes | None = None, figsize: style.Size = (style.TEXT_WIDTH, 4.2), **kwargs: Any
) -> Axes:
    """Clips as points in a plane: colour and marker by class, and a line through the clips of each recording.

    Args:
        clips: a row for each clip: ``x``, ``y``, ``class`` (the legend has the order of its categories), ``source``.
        kwargs: of :func:`seaborn.scatterplot`, for the points.
    """
    ax = style.new_axes(ax, figsize)
    names = [style.literal(str(name)) for name in pd.Categorical(clips["class"]).categories]
    clips = clips.assign(**{"class": [style.literal(str(name)) for name in clips["class"]]})
    what = {"data": clips, "x": "x", "y": "y", "hue": "class", "hue_order": names, "ax": ax}
    what["palette"] = [f"C{number}" for number in range(len(names))]  # they come again; the markers do not
    sns.lineplot(**what, units="source", estimator=None, sort=False, legend=False, linewidth=0.8, alpha=0.7)
    sns.scatterplot(**what, **style.Look(style="class", style_order=names, s=26) | kwargs)
    ax.set(xticks=(), yticks=(), xlabel="", ylabel="")
    ax.spines[:].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), ncols=1 + len(names) // 30, handletextpad=0.2)
    return ax

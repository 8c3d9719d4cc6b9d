"""Figures of what the fits get wrong: the clips that most of them miss, and each architecture's recall by class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from audioclf_lib.data import Dataset
from audioclf_lib.figures import style
from audioclf_lib.figures.sounds import plot_clips

COLUMNS = 3  # clips side by side

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_hard_clips(
    data: Dataset, hard: pd.DataFrame, *, figsize: style.Size | None = None, **kwargs: Any
) -> style.Panels:
    """Waveform and mel spectrogram of each clip, titled with its class, its commonest answer and its recording.

    Each waveform is scaled to its own peak, which the title gives, and each spectrogram to its own loudest cell.

    Args:
        data: the data set that the fits were trained on; its ``clip_ids`` and ``waveforms`` are read.
        hard: the clips to draw, three in a row: index clip_id, columns ``source``, ``class``, ``wrong_answer``,
            ``fits`` and ``right`` (:func:`audioclf_lib.metrics.errors.hard_clips`). ``hard.drop_duplicates("source")``
            leaves one clip of each recording.
        kwargs: of :func:`audioclf_lib.figures.plot_mel_spectrogram`, such as ``n_mels`` and ``cmap``.

    Returns:
        (clips, 2) axes, of the waveform and of the spectrogram.
    """
    clips, titles = [data.clip_ids.index(clip) for clip in hard.index], []
    for clip, what in zip(clips, hard.to_dict("records"), strict=True):
        counts = f"{round(what['right'] * what['fits'])} of {what['fits']} fits right"
        names = f"{style.on_axis(what['class'])}\n→ {style.on_axis(what['wrong_answer'])}"
        peak = f"peak {np.abs(data.waveforms[clip]).max():.2g}"
        titles.append(f"{names}\n{counts}, {peak}\nrecording {style.on_axis(what['source'])}")
    return plot_clips(data, clips, titles, columns=COLUMNS, figsize=figsize, **kwargs)


def plot_recall_by_class(
    recalls: pd.DataFrame, *, ax: Axes | None = None, figsize: style.Size | None = None, **kwargs: Any
) -> Axes:
    """Recall of every class: a mark per architecture, and a line from the worst to the best of them.

    Args:
        recalls: index class names, a column per architecture (NaN: no clip of the class), as of
            :func:`audioclf_lib.metrics.errors.recall_by_class`; the classes are drawn in its order.
        kwargs: of :meth:`matplotlib.axes.Axes.plot`, for the marks.
    """
    many, rows, n = len(recalls) > style.MANY_CLASSES, np.arange(len(recalls)), recalls.shape[1]
    ax = style.new_axes(ax, figsize or (style.TEXT_WIDTH, 0.9 + (0.14 if many else 0.1 + 0.06 * n) * len(recalls)))
    ax.hlines(rows, recalls.min(axis=1), recalls.max(axis=1), color=style.GREY, linewidth=0.8, zorder=1.5)
    for number, (name, values) in enumerate(recalls.items()):
        marker = _MARKERS[(number + number // len(_MARKERS)) % len(_MARKERS)]  # seven colours: all differ up to 49
        look = style.Look(marker=marker, linestyle="", color=f"C{number}", markersize=2.6 if many else 3.8)
        look |= {"markeredgecolor": style.INK, "markeredgewidth": 0.6, "clip_on": False}
        ax.plot(values, rows + 0.7 * ((number + 0.5) / n - 0.5), label=style.literal(str(name)), **look | kwargs)
    style.name_rows(ax, [style.on_axis(name) for name in recalls.index])
    ax.set(xlim=(0, 1), xlabel="recall (clips)")
    style.show_percent(ax.xaxis)
    longest = max(map(len, map(str, recalls)), default=0)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=max(1, 120 // (longest + 8)), handletextpad=0.2)
    return ax

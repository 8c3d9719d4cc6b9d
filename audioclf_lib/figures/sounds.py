"""Figures of the data: waveforms, mel spectrograms, windows, silence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from audioclf_lib._support.extras import load_torchaudio
from audioclf_lib.data import Dataset
from audioclf_lib.data.windowing import HOP_SIZE, WINDOW_SIZE
from audioclf_lib.figures import style


def plot_waveform(
    waveform: npt.ArrayLike,
    sample_rate: int = 16_000,
    *,
    ax: Axes | None = None,
    figsize: style.Size = (6.3, 1.5),
    **kwargs: Any,
) -> Axes:
    """Amplitude over time, as the band between the smallest and largest sample of each of up to 800 short spans.

    Args:
        waveform: (n_samples,) amplitudes, full scale = 1.
        sample_rate: samples per second.
        kwargs: of :meth:`matplotlib.axes.Axes.fill_between`.
    """
    ax = style.new_axes(ax, figsize)
    samples = np.asarray(waveform).ravel()
    edges = np.unique(np.linspace(0, len(samples), min(800, len(samples)) + 1).astype(int))
    lowest = np.minimum.reduceat(samples, edges[:-1])
    highest = np.maximum.reduceat(samples, edges[:-1])
    times = (edges[:-1] + edges[1:]) / 2 / sample_rate
    ax.fill_between(times, lowest, highest, **style.Look(color="C0", linewidth=0.5) | kwargs)
    ax.set(xlim=(0, len(samples) / sample_rate), xlabel="time (s)", ylabel="amplitude")
    ax.grid(False, axis="y")
    return ax


def plot_mel_spectrogram(
    waveform: npt.ArrayLike,
    sample_rate: int = 16_000,
    *,
    n_mels: int = 64,
    max_frames: int = 100,
    bar: bool = True,
    ax: Axes | None = None,
    figsize: style.Size = (6.3, 2.2),
    **kwargs: Any,
) -> Axes:
    """Energy over time and mel frequency, in dB below the loudest cell, over a range of 80 dB.

    Args:
        waveform: (n_samples,) amplitudes.
        n_mels, max_frames: bands and (about) frames between which areas of equal level are drawn, few so that a vector
            file stays small: 64 by 100 are up to 0.4 MB of SVG.
        bar: draw a colour bar.
        kwargs: of :meth:`matplotlib.axes.Axes.contourf`, such as ``cmap``.
    """
    ax = style.new_axes(ax, figsize)
    import torch  # here, since other figures are drawn without it

    torchaudio = load_torchaudio()
    samples = torch.as_tensor(np.array(waveform, dtype=np.float32)).ravel()
    hop = max(math.ceil(len(samples) / max_frames), 64)
    n_fft = max(1024, 2 ** math.ceil(math.log2(hop)))  # no sample between two frames is skipped
    spectrogram = torchaudio.transforms.MelSpectrogram(sample_rate, n_fft=n_fft, hop_length=hop, n_mels=n_mels)
    decibels = torchaudio.transforms.AmplitudeToDB(top_db=80)(spectrogram(samples)).numpy()
    decibels -= decibels.max()

    times = np.arange(decibels.shape[1]) * hop / sample_rate
    highest = hertz_to_mel(sample_rate / 2)
    mels = np.arange(1, n_mels + 1) * highest / (n_mels + 1)  # the bands' centres
    areas = ax.contourf(times, mels, decibels, **style.Look(levels=np.arange(-80, 1, 5), cmap="magma") | kwargs)
    style.draw_colour_bar(ax, areas, "dB" if bar else "")
    ticks = [f for f in (500, 1000, 2000, 4000, 8000, 16000) if f <= sample_rate / 2]
    ax.set_yticks([hertz_to_mel(f) for f in ticks], [f"{f:,}" for f in ticks])
    ax.set(xlim=(0, len(samples) / sample_rate), xlabel="time (s)", ylabel="frequency (Hz)", ylim=mels[[0, -1]])
    ax.grid(False)
    return ax


def plot_clips(
    data: Dataset,
    clips: Sequence[int],
    titles: Sequence[str],
    *,
    columns: int = 5,
    figsize: style.Size | None = None,
    **kwargs: Any,
) -> style.Panels:
    """Waveform above mel spectrogram of several clips; each waveform has its own scale, and each spectrogram too.

    Args:
        clips: indices into the data set, at least one.
        titles: of the clips, of one or more lines.
        columns: clips side by side.
        kwargs: of :func:`plot_mel_spectrogram`, such as ``n_mels`` and ``cmap``.

    Returns:
        (clips, 2) axes, of the waveform and of the spectrogram.
    """
    columns = min(columns, len(clips))
    height = 0.35 + 2.6 / columns**0.6 + 0.13 * (1 + max(title.count("\n") for title in titles))
    panels = style.small_multiples(len(clips), columns, height, figsize, shares=(1, 2.4))
    for (above, below), clip, title in zip(panels, clips, titles, strict=True):
        plot_waveform(data.waveforms[clip], data.sample_rate, ax=above)
        above.set(yticks=(), xlabel="", ylabel="")
        above.set_title(title, fontsize=8)
        look = style.Look(n_mels=32, max_frames=40, bar=False) | kwargs
        plot_mel_spectrogram(data.waveforms[clip], data.sample_rate, ax=below, **look)
        below.set(xlabel="", ylabel="")
    below.figure.supxlabel("time (s)", size=9)
    below.figure.supylabel("frequency (Hz)", size=9)
    return panels


def plot_classes(data: Dataset, **kwargs: Any) -> style.Panels:
    """One clip of each class, the first with the fewest silent windows; see :func:`plot_clips`."""
    of_class = [np.flatnonzero(data.labels == label) for label in np.unique(data.labels)]
    first = [int(clips[data.silent[clips].sum(axis=1).argmin()]) for clips in of_class]
    return plot_clips(data, first, [style.on_axis(data.class_names[data.labels[clip]]) for clip in first], **kwargs)


def hertz_to_mel(frequency: float) -> float:
    """The HTK formula that torchaudio uses by default."""
    return 2595 * math.log10(1 + frequency / 700)


def plot_windows(
    waveform: npt.ArrayLike,
    silent: npt.ArrayLike,
    sample_rate: int = 16_000,
    *,
    ax: Axes | None = None,
    figsize: style.Size = (6.3, 2.0),
    **kwargs: Any,
) -> Axes:
    """A clip with its overlapping windows beneath, the silent ones grey.

    Args:
        waveform: (n_samples,) amplitudes.
        silent: (n_windows,) bool.
        kwargs: of the waveform, see :func:`plot_waveform`.
    """
    ax = plot_waveform(waveform, sample_rate, ax=ax, figsize=figsize, **kwargs)
    peak = max(float(np.abs(waveform).max()), 1e-6)
    is_silent = np.asarray(silent, dtype=bool)
    numbers = np.arange(len(is_silent))
    bars = ax.barh(
        -peak * (1.32 + 0.42 * (numbers % 2)),
        WINDOW_SIZE / sample_rate,
        height=0.36 * peak,
        left=numbers * HOP_SIZE / sample_rate,
        color=np.where(is_silent, style.LIGHT_GREY, style.LIGHT_BLUE),
        edgecolor="white",
    )
    labels = [f"{number + 1} silent" if is_silent[number] else f"{number + 1}" for number in numbers]
    ax.bar_label(bars, labels, label_type="center", size=style.SMALL)
    ax.set(ylim=(-2.0 * peak, 1.1 * peak), yticks=[-peak, 0, peak])
    ax.yaxis.set_major_formatter("{x:.1g}")
    ax.yaxis.set_label_coords(-0.06, 0.65)
    return ax


def plot_silence_per_class(
    table: pd.DataFrame, *, ax: Axes | None = None, figsize: style.Size | None = None, **kwargs: Any
) -> Axes:
    """Share of each class's windows that are silent, most silent class first, with the counts behind the bars.

    Args:
        table: a row per class: ``Class``, ``Windows``, ``Silent windows`` (``class_table()`` of a data set).
        kwargs: of :meth:`matplotlib.axes.Axes.barh`.
    """
    table = table.assign(share=table["Silent windows"] / table["Windows"])
    table = table.sort_values("share", ascending=False, kind="stable")
    labels = [f"{silent} of {windows}" for silent, windows in table[["Silent windows", "Windows"]].to_numpy()]
    ax = style.draw_bars(table["Class"].tolist(), table["share"].to_numpy(), labels, ax=ax, figsize=figsize, **kwargs)
    ax.set(xlim=(0, max(table["share"].max() * 1.15, 0.01)), xlabel="silent windows")
    style.show_percent(ax.xaxis)
    return ax

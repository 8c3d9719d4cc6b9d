"""Every figure of the notebooks and the report: functions ``(data, *, ax=None) -> Axes``.

Each draws on the axes it is given, or on a new figure sized for the text width of an A4 page at 10 pt. Figures are
made without pyplot: nothing is global, nothing stays open, nothing is shown. All are vector graphics throughout (heat
maps are meshes, not images), so that PDF and SVG stay sharp. The colours are distinguishable with every colour vision
(seaborn's "colorblind" palette, after Wong 2011, "Points of view: Color blindness").
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
import torch
import torchaudio
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from audioclf_lib.data.windowing import HOP_SIZE, WINDOW_SIZE

Metric = Literal["loss", "accuracy", "clip_accuracy"]
Split = Literal["train", "validation", "test"]
Roc = Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]

TEXT_WIDTH = 6.3  # inches: A4 less two margins of 2.5 cm
LABEL_SIZE, TICK_SIZE, SMALL_SIZE, TINY_SIZE = 8.5, 7.5, 6.5, 4.5  # points

BLUE, ORANGE, GREEN, RED, PINK = sns.color_palette("colorblind").as_hex()[:5]
FIT_COLOURS = (BLUE, ORANGE, GREEN, PINK, RED)
INK, GREY, LIGHT_GREY = "#222222", "#767676", "#e4e4e4"

MANY_CLASSES = 20  # above this, names and numbers shrink, and only the extremes are labelled
METRIC_LABELS = {"loss": "loss", "accuracy": "window accuracy", "clip_accuracy": "clip accuracy"}
SPLIT_LABELS = {"train": "training", "validation": "validation", "test": "test"}


class LabelledClips(Protocol):
    """What :func:`plot_silence_per_class` reads of a data set."""

    @property
    def labels(self) -> np.ndarray: ...
    @property
    def silent(self) -> np.ndarray: ...
    @property
    def class_names(self) -> Sequence[str]: ...


class TensorStep(Protocol):
    """What :func:`plot_architecture` reads of a :class:`~audioclf_lib.models.derivation.LayerDerivation`."""

    @property
    def name(self) -> str: ...
    @property
    def block(self) -> str: ...
    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def output_shape(self) -> tuple[int, ...]: ...


class ReliabilityTable(Protocol):
    """What :func:`plot_reliability` reads of a :class:`~audioclf_lib.metrics.uncertainty.Calibration`.

    ``bins`` has a row per bin with the columns low, high, count, confidence and accuracy (NaN where empty).
    """

    @property
    def ece(self) -> float: ...
    @property
    def bins(self) -> pd.DataFrame: ...


class SearchedValues(Protocol):
    """What :func:`plot_parallel_settings` reads of a :class:`~audioclf_lib.suite.search.SearchedSetting`."""

    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def log(self) -> bool: ...
    @property
    def choices(self) -> Sequence[Any] | None: ...


# ---------------------------------------------------------------------------------------------------------- the style


def new_axes(height: float, width: float = TEXT_WIDTH) -> Axes:
    """Axes on a figure of their own, in inches; pyplot does not know of it."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def style_axes(ax: Axes, xlabel: str = "", ylabel: str = "", grid: Literal["x", "y", "both", "none"] = "both") -> None:
    """Small type, light grid behind the data, no frame at the top and right."""
    ax.set_xlabel(xlabel, fontsize=LABEL_SIZE, color=INK)
    ax.set_ylabel(ylabel, fontsize=LABEL_SIZE, color=INK)
    ax.tick_params(labelsize=TICK_SIZE, length=2.5, width=0.6, color=GREY, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(color=GREY, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.grid(False)
    if grid != "none":
        ax.grid(True, axis=grid, color=LIGHT_GREY, linewidth=0.6)


def set_panel_title(ax: Axes, title: str) -> None:
    """Name one panel of several; a figure as a whole has its caption instead."""
    ax.set_title(title, fontsize=LABEL_SIZE, color=INK, loc="left", pad=4)


def literal(name: str) -> str:
    """A name as it is: matplotlib would read what stands between dollar signs as mathematics."""
    return name.replace("$", r"\$")


def class_font_size(n_classes: int) -> float:
    return TINY_SIZE if n_classes > MANY_CLASSES else TICK_SIZE


def bar_font_size(n_bars: int) -> float:
    return 5.5 if n_bars > MANY_CLASSES else TICK_SIZE


def percent_axis(ax: Axes, axis: Literal["x", "y"]) -> None:
    formatter = PercentFormatter(xmax=1, decimals=0, symbol=" %")
    (ax.xaxis if axis == "x" else ax.yaxis).set_major_formatter(formatter)


# --------------------------------------------------------------------------------------------------------------- data


def plot_waveform(waveform: npt.ArrayLike, sample_rate: int = 16_000, *, ax: Axes | None = None) -> Axes:
    """Amplitude over time, as the band between the smallest and largest sample of each of up to 800 short spans.

    Args:
        waveform: (n_samples,) amplitudes, full scale = 1.
        sample_rate: samples per second.
    """
    ax = ax or new_axes(1.5)
    samples = np.asarray(waveform).ravel()
    draw_envelope(ax, samples, sample_rate)
    ax.set_xlim(0, len(samples) / sample_rate)
    style_axes(ax, "time (s)", "amplitude", grid="x")
    return ax


def draw_envelope(ax: Axes, samples: np.ndarray, sample_rate: int, spans: int = 800) -> None:
    edges = np.unique(np.linspace(0, len(samples), min(spans, len(samples)) + 1).astype(int))
    lowest = np.minimum.reduceat(samples, edges[:-1])
    highest = np.maximum.reduceat(samples, edges[:-1])
    ax.fill_between((edges[:-1] + edges[1:]) / 2 / sample_rate, lowest, highest, color=BLUE, linewidth=0.5)


def plot_mel_spectrogram(
    waveform: npt.ArrayLike,
    sample_rate: int = 16_000,
    *,
    n_mels: int = 64,
    max_frames: int = 100,
    ax: Axes | None = None,
) -> Axes:
    """Energy over time and mel frequency, in dB below the loudest cell, over a range of 80 dB.

    Args:
        waveform: (n_samples,) amplitudes.
        n_mels, max_frames: rows and (about) columns of the mesh, few so that a vector file stays small: 100 by 64 cells
            are 1.4 MB of SVG.
    """
    ax = ax or new_axes(2.2)
    samples = torch.as_tensor(np.array(waveform, dtype=np.float32)).ravel()
    hop = max(math.ceil(len(samples) / max_frames), 64)
    n_fft = max(1024, 2 ** math.ceil(math.log2(hop)))  # no sample between two frames is skipped
    spectrogram = torchaudio.transforms.MelSpectrogram(sample_rate, n_fft=n_fft, hop_length=hop, n_mels=n_mels)
    decibels = torchaudio.transforms.AmplitudeToDB(top_db=80)(spectrogram(samples))
    decibels = (decibels - decibels.max()).numpy()

    times = (np.arange(decibels.shape[1] + 1) - 0.5) * hop / sample_rate
    highest = hertz_to_mel(sample_rate / 2)
    mels = (np.arange(n_mels + 1) + 0.5) * highest / (n_mels + 1)
    mels[0], mels[-1] = 0, highest
    mesh = ax.pcolormesh(times, mels, decibels, cmap="magma", vmin=-80, vmax=0)
    close_seams(mesh)
    ax.set_xlim(0, len(samples) / sample_rate)
    ticks = [f for f in (250, 500, 1000, 2000, 4000, 8000, 16000) if f <= sample_rate / 2]
    ax.set_yticks([hertz_to_mel(f) for f in ticks], [f"{f:,}" for f in ticks])
    style_axes(ax, "time (s)", "frequency (Hz)", grid="none")
    return ax


def hertz_to_mel(frequency: float) -> float:
    """The HTK formula that torchaudio uses by default."""
    return 2595 * math.log10(1 + frequency / 700)


def close_seams(mesh: QuadMesh) -> None:
    """Let neighbouring cells overlap by a hair, or viewers show the page through the joints."""
    mesh.set_rasterized(False)
    mesh.set_edgecolor("face")
    mesh.set_linewidth(0.2)


def plot_windows(
    waveform: npt.ArrayLike, silent: npt.ArrayLike, sample_rate: int = 16_000, *, ax: Axes | None = None
) -> Axes:
    """A clip with its overlapping windows beneath, the silent ones hatched.

    Args:
        waveform: (n_samples,) amplitudes.
        silent: (n_windows,) bool.
    """
    ax = ax or new_axes(2.0)
    samples = np.asarray(waveform).ravel()
    draw_envelope(ax, samples, sample_rate)
    peak = max(float(np.abs(samples).max()), 1e-6)
    length = WINDOW_SIZE / sample_rate
    for index, is_silent in enumerate(np.asarray(silent, dtype=bool)):
        start, bottom = index * HOP_SIZE / sample_rate, -peak * (1.5 + 0.42 * (index % 2))
        look = (
            {"facecolor": "white", "edgecolor": GREY, "hatch": "/////"}
            if is_silent
            else {"facecolor": BLUE, "edgecolor": "white"}
        )
        ax.add_patch(Rectangle((start, bottom), length, 0.36 * peak, linewidth=0.6, **look))
        ax.text(
            start + length / 2,
            bottom + 0.17 * peak,
            f"{index + 1} silent" if is_silent else f"{index + 1}",
            ha="center",
            va="center",
            fontsize=SMALL_SIZE,
            color=INK if is_silent else "white",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1} if is_silent else None,
        )
    ax.set(xlim=(0, len(samples) / sample_rate), ylim=(-2.0 * peak, 1.1 * peak))
    ax.set_yticks([-peak, 0, peak], [f"{-peak:.1g}".replace("-", "−"), "0", f"{peak:.1g}"])
    style_axes(ax, "time (s)", "amplitude", grid="x")
    ax.yaxis.set_label_coords(-0.06, 0.65)
    return ax


def plot_silence_per_class(dataset: LabelledClips, *, ax: Axes | None = None) -> Axes:
    """Share of each class's windows that are silent, most silent class first, with the counts behind the bars."""
    n_classes = len(dataset.class_names)
    ax = ax or new_axes(bar_chart_height(n_classes))
    counts = np.array([dataset.silent[dataset.labels == label].sum() for label in range(n_classes)])
    totals = np.array([dataset.silent[dataset.labels == label].size for label in range(n_classes)])
    order = np.argsort(-counts / np.maximum(totals, 1), kind="stable")
    shares = counts[order] / np.maximum(totals[order], 1)
    labels = [f"{count} of {total}" for count, total in zip(counts[order], totals[order], strict=True)]
    draw_bars(ax, [dataset.class_names[i] for i in order], shares, labels)
    percent_axis(ax, "x")
    ax.set_xlim(0, max(shares.max() * 1.15, 0.01))
    style_axes(ax, "silent windows", "", grid="x")
    ax.tick_params(axis="y", labelsize=bar_font_size(n_classes), length=0)
    return ax


def bar_chart_height(n_bars: int) -> float:
    return 0.7 + n_bars * (0.13 if n_bars > MANY_CLASSES else 0.2)


def draw_bars(ax: Axes, names: Sequence[str], values: npt.ArrayLike, labels: Sequence[str]) -> None:
    """Horizontal bars from top to bottom, each with a label at its end."""
    bars = ax.barh(np.arange(len(names)), values, height=0.72, color=BLUE)
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # hides a line that would cross the label
    ax.bar_label(bars, labels, padding=3, fontsize=bar_font_size(len(names)), color=INK, bbox=background, zorder=3)
    ax.set_yticks(np.arange(len(names)), [literal(name) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)


# ----------------------------------------------------------------------------------------------------- learning curves


def plot_learning_curve(
    histories: Mapping[str, pd.DataFrame],
    metric: Metric = "loss",
    split: Split = "validation",
    *,
    chosen_epochs: Mapping[str, int] | None = None,
    num_classes: int | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """One curve per fit and, for several fits, their mean over the epochs that all of them have.

    Args:
        histories: label of each fit -> its history with the columns ``epoch`` and ``<split>_<metric>``.
        chosen_epochs: label of a fit -> the epoch whose weights were kept, marked by a dot.
        num_classes: draws what guessing gives: 1/C for an accuracy, ln C for a loss.
        legend: name the curves.
    """
    ax = ax or new_axes(2.6, width=0.75 * TEXT_WIDTH)
    column = f"{split}_{metric}"
    curves = {
        label: history.set_index("epoch")[column].dropna()
        for label, history in histories.items()
        if column in history and history[column].notna().any()
    }
    for (label, curve), colour in zip(curves.items(), fit_colours(len(curves)), strict=True):
        draw_curve(ax, curve, label=label, color=colour, linewidth=1.0, alpha=0.9 if len(curves) == 1 else 0.65)
        if chosen_epochs and chosen_epochs.get(label) in curve.index:
            epoch = chosen_epochs[label]
            ax.plot(
                epoch,
                curve[epoch],
                "o",
                color=colour,
                markersize=5,
                markeredgecolor="white",
                markeredgewidth=0.7,
                zorder=4,
            )
    if len(curves) > 1:
        mean = pd.concat(list(curves.values()), axis=1, join="inner").mean(axis=1)
        draw_curve(ax, mean, label="mean", color=INK, linewidth=1.4)
    if not curves:
        ax.text(0.5, 0.5, "not scored", transform=ax.transAxes, ha="center", color=GREY, fontsize=LABEL_SIZE)

    style_axes(ax, "epoch", f"{SPLIT_LABELS[split]} {METRIC_LABELS[metric]}")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    if all(len(curve) == 1 for curve in curves.values()):
        ax.set_xlim(0, 2)
    if metric == "loss":
        ax.set_ylim(0, loss_limit(curves.values(), num_classes))
    else:
        ax.set_ylim(0, 1)
        percent_axis(ax, "y")
    if num_classes:
        draw_chance_line(ax, metric, num_classes)
    if legend and curves:
        ax.legend(handles=curve_handles(curves, bool(chosen_epochs)), fontsize=SMALL_SIZE, frameon=False, ncols=2)
    return ax


def draw_curve(ax: Axes, curve: pd.Series, *, label: str, color: str, linewidth: float, alpha: float = 1.0) -> None:
    marker = "o" if len(curve) == 1 else None  # one epoch makes no line
    ax.plot(curve.index, curve, label=label, color=color, linewidth=linewidth, alpha=alpha, marker=marker, markersize=3)


def fit_colours(n_fits: int) -> list[str]:
    if n_fits <= len(FIT_COLOURS):
        return list(FIT_COLOURS[:n_fits])
    return list(sns.color_palette("husl", n_fits).as_hex())


def draw_chance_line(ax: Axes, metric: Metric, num_classes: int) -> None:
    level = math.log(num_classes) if metric == "loss" else 1 / num_classes
    text = f"ln {num_classes} = {level:.2f}" if metric == "loss" else f"chance {level:.0%}".replace("%", " %")
    draw_level(ax, level, text)


def draw_level(ax: Axes, level: float, text: str) -> None:
    """A dashed line with its meaning above it."""
    ax.axhline(level, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    ax.annotate(
        text,
        (1, level),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        fontsize=SMALL_SIZE,
        color=GREY,
    )


def loss_limit(curves: Iterable[pd.Series], num_classes: int | None) -> float:
    """Upper end of a loss axis: all curves, but no more than three times what guessing costs.

    An early epoch may cost many times that; shown in full, it would flatten all that follows.
    """
    highest = 1.05 * max((float(curve.max()) for curve in curves), default=1.0)
    if not num_classes:
        return highest
    guessing = math.log(num_classes)
    return min(max(highest, 1.12 * guessing), 3 * guessing)


def curve_handles(curves: Mapping[str, object], with_chosen: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, linewidth=1.2, label=label)
        for label, colour in zip(curves, fit_colours(len(curves)), strict=True)
    ]
    if len(curves) > 1:
        handles.append(Line2D([], [], color=INK, linewidth=1.8, label="mean"))
    if with_chosen:
        handles.append(Line2D([], [], color=GREY, marker="o", linestyle="none", markersize=5, label="chosen epoch"))
    return handles


def plot_learning_curves(
    histories: Mapping[str, pd.DataFrame],
    *,
    accuracy: Literal["accuracy", "clip_accuracy"] = "accuracy",
    chosen_epochs: Mapping[str, int] | None = None,
    num_classes: int | None = None,
) -> Figure:
    """The six curves: loss and accuracy (rows) on training, validation and test folds (columns), one legend for all.

    Args:
        histories, chosen_epochs, num_classes: see :func:`plot_learning_curve`.
        accuracy: at window or at clip level.
    """
    figure = Figure(figsize=(TEXT_WIDTH, 3.35), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, sharey="row")
    metrics: tuple[Metric, ...] = ("loss", accuracy)
    splits: tuple[Split, ...] = ("train", "validation", "test")
    highest = 0.0
    for row, metric in enumerate(metrics):
        for column, split in enumerate(splits):
            ax = panels[row, column]
            plot_learning_curve(
                histories,
                metric,
                split,
                chosen_epochs=chosen_epochs,
                num_classes=num_classes,
                legend=False,
                ax=ax,
            )
            highest = max(highest, ax.get_ylim()[1])
            set_panel_title(ax, SPLIT_LABELS[split] if row == 0 else "")
            ax.set_ylabel(METRIC_LABELS[metric] if column == 0 else "")
            ax.set_xlabel("epoch" if row == 1 else "")
    panels[0, 0].set_ylim(0, highest)  # the row's axis is shared: the panel with the largest loss decides
    handles = curve_handles(histories, bool(chosen_epochs))
    columns = len(handles) if len(handles) < 5 else 3
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=TICK_SIZE, frameon=False)
    return figure


# -------------------------------------------------------------------------------------------------------------- scores


def plot_confusion(
    matrix: npt.ArrayLike, class_names: Sequence[str], *, normalise: bool = False, ax: Axes | None = None
) -> Axes:
    """Confusion matrix; an empty cell is zero.

    Args:
        matrix: (C, C) counts, rows true, columns predicted.
        class_names: C names.
        normalise: write each row in per cent of its sum instead of counts.
    """
    counts = np.asarray(matrix)
    n_classes = len(class_names)
    many = n_classes > MANY_CLASSES
    side = min(max(1.4 + 0.36 * n_classes, 3.6), TEXT_WIDTH)
    ax = ax or new_axes(side if many else 0.92 * side, width=side)
    values = row_percent(counts) if normalise else counts
    full = 100 if normalise else max(counts.max(), 1)
    names = [literal(name) for name in class_names]
    sns.heatmap(
        values,
        cmap="Blues",
        vmin=0,
        vmax=full,
        cbar=False,
        square=True,
        linewidths=0.25 if many else 0.8,
        linecolor=LIGHT_GREY,
        xticklabels=names,
        yticklabels=names,
        ax=ax,
    )
    for row, column in np.argwhere(counts):
        value = values[row, column]
        ax.text(
            column + 0.5,
            row + 0.5,
            f"{value:.0f}",
            ha="center",
            va="center",
            fontsize=3.4 if many else LABEL_SIZE,
            color="white" if value > 0.55 * full else INK,
        ).set_in_layout(False)  # none leaves its cell, and thousands of them would slow the layout down
    style_axes(ax, "predicted class", "true class", grid="none")
    ax.spines[:].set_visible(False)
    ax.tick_params(labelsize=class_font_size(n_classes), length=0, pad=2)
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(ax.get_xticks(), names, **({"rotation": 90} if many else slanted))
    ax.set_yticks(ax.get_yticks(), names, rotation=0)
    return ax


def row_percent(counts: np.ndarray) -> np.ndarray:
    """Each row in per cent of its sum; a row without counts stays zero."""
    percent: np.ndarray = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return percent


def plot_roc(roc: Roc, auc: Mapping[str, float], *, ax: Axes | None = None) -> Axes:
    """ROC curves: one per class, and the averages ``micro`` and ``macro``; the legend gives each area.

    Args:
        roc: name -> (false positive rates, true positive rates); class names, ``"micro"``, ``"macro"``.
        auc: name -> area under the curve. With many classes only the best and worst three are named.
    """
    ax = ax or new_axes(3.7)
    classes = [name for name in roc if name not in ("micro", "macro")]
    named = classes if len(classes) <= MANY_CLASSES else best_and_worst(classes, auc)
    looks = iter([(colour, style) for style in ("-", "--", ":", "-.") for colour in FIT_COLOURS])
    for name in classes:
        if name in named:
            colour, style = next(looks)
            ax.plot(*roc[name], color=colour, linestyle=style, linewidth=1.1, alpha=0.85, label=area_label(name, auc))
        else:
            ax.plot(*roc[name], color=GREY, linewidth=0.5, alpha=0.35)
    for name in ("micro", "macro"):
        if name in roc:
            style = ":" if name == "micro" else "-"
            ax.plot(
                *roc[name], color=INK, linewidth=2.2, linestyle=style, label=area_label(f"{name} average", auc, name)
            )
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), label="0.50  chance", zorder=1)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    style_axes(ax, "false positive rate", "true positive rate")
    legend = ax.legend(
        loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=TICK_SIZE, frameon=False, title="AUC", handlelength=2.4
    )
    legend.get_title().set_fontsize(TICK_SIZE)
    legend.set_alignment("left")
    return ax


def best_and_worst(names: Sequence[str], auc: Mapping[str, float], n: int = 3) -> list[str]:
    ranked = sorted((name for name in names if not math.isnan(auc[name])), key=lambda name: -auc[name])
    return ranked[:n] + ranked[-n:]


def area_label(text: str, auc: Mapping[str, float], name: str | None = None) -> str:
    area = auc[name or text]
    return f"{'  –  ' if math.isnan(area) else f'{area:.2f}'}  {literal(text)}"


def plot_f1_bars(per_class: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """F1 of every class, and their mean (macro F1) as a line.

    Args:
        per_class: index class names, column ``f1``.
    """
    ax = ax or new_axes(bar_chart_height(len(per_class)))
    scores = per_class["f1"].to_numpy(dtype=float)
    draw_bars(ax, list(map(str, per_class.index)), scores, [f"{score:.2f}" for score in scores])
    macro = float(np.nanmean(scores))
    ax.axvline(macro, color=RED, linewidth=1.2, linestyle=(0, (4, 3)))
    ax.annotate(
        f"macro F1 {macro:.2f}",
        (macro, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=TICK_SIZE,
        color=RED,
    )
    ax.set_xlim(0, 1.05)
    ax.set_xticks(np.linspace(0, 1, 6))
    style_axes(ax, "F1", "", grid="x")
    ax.tick_params(axis="y", labelsize=bar_font_size(len(per_class)), length=0)
    return ax


def plot_reliability(calibration: ReliabilityTable, *, ax: Axes | None = None) -> Axes:
    """Reliability diagram: accuracy of the answers in each bin of confidence, and above it how many there are.

    Lines lead from the end of each bar to the dashed diagonal, at the mean confidence of its answers; the expected
    calibration error is the mean length of these lines, weighted by the counts.
    """
    ax = ax or new_axes(3.3, width=3.0)
    filled = calibration.bins[calibration.bins["count"] > 0]
    confidence, accuracy = filled["confidence"], filled["accuracy"]
    centres, width = (filled["low"] + filled["high"]) / 2, 0.92 * (filled["high"] - filled["low"])
    ax.bar(centres, accuracy, width=width, color="#9cc3de", zorder=2)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=3)
    ax.vlines(confidence, accuracy, confidence, color=ORANGE, linewidth=1.2, zorder=4)
    ax.plot(confidence, accuracy, "o", color=ORANGE, markersize=2.4, clip_on=False, zorder=5)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    percent_axis(ax, "x")
    percent_axis(ax, "y")
    style_axes(ax, "confidence", "accuracy")
    draw_counts(ax, centres, width, filled["count"])
    ax.set_title(f"ECE {calibration.ece:.3f}", fontsize=TICK_SIZE, color=INK, loc="right", pad=4)
    return ax


def draw_counts(ax: Axes, centres: pd.Series, width: pd.Series, counts: pd.Series) -> None:
    """A strip above the axes with a bar for the number of answers in each bin; the largest number is written."""
    strip = ax.inset_axes((0, 1.03, 1, 0.22))
    strip.bar(centres, counts, width=width, color="#b5b5b5")
    largest = int(counts.max())
    strip.set(xlim=(0, 1), ylim=(0, 1.6 * largest), xticks=(), yticks=())
    style_axes(strip, grid="none")
    strip.spines["left"].set_visible(False)
    place = float(centres.iloc[int(counts.argmax())])
    strip.text(place, 1.08 * largest, f"{largest:,}", ha="center", fontsize=SMALL_SIZE, color=INK)


def plot_reliabilities(calibrations: Mapping[str, ReliabilityTable]) -> Figure:
    """Reliability diagrams side by side, up to four in a row: a panel for each name, which may have lines."""
    columns = min(4, len(calibrations))
    rows = math.ceil(len(calibrations) / columns)
    figure = Figure(figsize=(0.4 + (TEXT_WIDTH - 0.4) * columns / 4, 2.05 * rows + 0.25), layout="compressed")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for position, (ax, (name, calibration)) in enumerate(zip(panels, calibrations.items(), strict=False)):
        plot_reliability(calibration, ax=ax)
        ax.set_title(literal(name), fontsize=TICK_SIZE, color=INK, loc="left", pad=4)
        ax.set_ylabel("accuracy" if position % columns == 0 else "")
        ax.set_xlabel("confidence" if position + columns >= len(calibrations) else "")
        ax.set_xticks((0, 0.5, 1), ("0", "50", "100 %"))
    for ax in panels[len(calibrations) :]:
        ax.remove()
    return figure


def plot_comparison(
    results: pd.DataFrame,
    *,
    num_classes: int | None = None,
    reference: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """All experiments side by side: a bar for the mean accuracy, a line for its standard deviation, a dot per fit.

    Args:
        results: a row for each experiment and level, with the columns ``experiment``, ``level`` (``"window"``,
            ``"clip"``), ``mean``, ``std`` and ``fits`` (list of the fits' values), accuracies from 0 to 1. An
            experiment without a mean is named as missing.
        num_classes: draws the chance level.
        reference: experiment -> accuracy in the original report, drawn as a diamond.
    """
    experiments = list(dict.fromkeys(results["experiment"]))
    levels = list(dict.fromkeys(results["level"]))
    ax = ax or new_axes(0.9 + 0.36 * len(experiments))
    height = 0.8 / len(levels)
    colours = dict(zip(levels, ("#9cc3de", BLUE), strict=False))
    for row in results.to_dict("records"):
        offset = (levels.index(row["level"]) - (len(levels) - 1) / 2) * height
        draw_result(ax, experiments.index(row["experiment"]) + offset, height, row, colours[row["level"]])
    for experiment, value in (reference or {}).items():
        ax.plot(
            value, experiments.index(experiment), "D", color=ORANGE, markeredgecolor="white", markersize=6, zorder=5
        )
    if num_classes:
        ax.axvline(1 / num_classes, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=3)
    ax.set_yticks(range(len(experiments)), experiments)
    ax.set(ylim=(len(experiments) - 0.45, -0.55), xlim=(0, 1))
    percent_axis(ax, "x")
    style_axes(ax, "test accuracy", "", grid="x")
    ax.tick_params(axis="y", length=0)
    handles = comparison_handles(colours, bool(num_classes), bool(reference))
    ax.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=len(handles),
        fontsize=SMALL_SIZE,
        frameon=False,
        columnspacing=1.4,
        handletextpad=0.4,
    )
    return ax


def draw_result(ax: Axes, place: float, height: float, row: Mapping[Hashable, Any], colour: str) -> None:
    """One experiment at one level: bar, fits, standard deviation and the mean in figures."""
    mean, std, fits = row["mean"], row["std"], row["fits"]
    if pd.isna(mean):
        ax.text(0.01, place, "missing", va="center", fontsize=SMALL_SIZE, color=GREY, style="italic")
        return
    ax.barh(place, mean, height=0.9 * height, color=colour)
    right = mean
    if len(fits) > 1:
        ax.errorbar(mean, place, xerr=std, color=INK, linewidth=0.9, capsize=2, zorder=3)
        right = max(mean + std, *fits)
    ax.plot(
        fits, [place] * len(fits), "o", color=INK, markerfacecolor="white", markersize=3, markeredgewidth=0.7, zorder=4
    )
    ax.annotate(
        f"{100 * mean:.1f}",
        (right, place),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=SMALL_SIZE,
        color=INK,
    )


def comparison_handles(colours: Mapping[str, str], with_chance: bool, with_reference: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, marker="s", linestyle="none", markersize=6, label=f"{level} mean, %")
        for level, colour in colours.items()
    ]
    handles.append(
        Line2D(
            [], [], color=INK, marker="o", linestyle="none", markerfacecolor="white", markersize=3.5, label="one fit"
        )
    )
    if with_chance:
        handles.append(Line2D([], [], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), label="chance"))
    if with_reference:
        handles.append(
            Line2D([], [], color=ORANGE, marker="D", linestyle="none", markersize=5, label="original report")
        )
    return handles


# -------------------------------------------------------------------------------------------------------------- models


def plot_attention(weights: npt.ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Attention weights as a heat map, the CLS token first.

    Args:
        weights: (T, T) of one head, rows asking, columns answering; or (heads, T), what CLS asks in each head.
    """
    values = np.asarray(weights)
    rows, tokens = values.shape
    of_one_head = rows == tokens
    ax = ax or new_axes(3.4 if of_one_head else 0.9 + 0.25 * rows, width=3.4 if of_one_head else TEXT_WIDTH)
    edges = np.arange(tokens + 1) - 0.5
    mesh = ax.pcolormesh(edges, np.arange(rows + 1) - 0.5, values, cmap="Blues", vmin=0)
    close_seams(mesh)
    ax.invert_yaxis()
    ticks = [0, *range(8, tokens, 8)]
    names = ["CLS", *map(str, ticks[1:])]
    ax.set_xticks(ticks, names)
    if of_one_head:
        ax.set_yticks(ticks, names)
        ax.set_aspect("equal")
    else:
        ax.set_yticks(range(rows), [str(head + 1) for head in range(rows)])
    style_axes(ax, "attends to token", "token" if of_one_head else "head", grid="none")
    return ax


def plot_attention_heads(weights: npt.ArrayLike) -> Figure:
    """One heat map per head, side by side: ``weights`` (heads, T, T)."""
    values = np.asarray(weights)
    width = min(TEXT_WIDTH, 3.2 * len(values))
    figure = Figure(figsize=(width, 0.4 + width / len(values)), layout="constrained")
    panels = figure.subplots(1, len(values), squeeze=False, sharey=True)[0]
    for index, (ax, head) in enumerate(zip(panels, values, strict=True)):
        plot_attention(head, ax=ax)
        set_panel_title(ax, f"head {index + 1}")
        if index:
            ax.set_ylabel("")
    panels[0].set_ylim(values.shape[1] - 0.5, -0.5)
    return figure


def plot_architecture(layers: Sequence[TensorStep], *, ax: Axes | None = None) -> Axes:
    """The tensors on their way through a model: one box for each new shape, an encoder layer as one step.

    A box is as tall as the logarithm of its number of channels or tokens, and as wide as that of its length.
    """
    ax = ax or new_axes(1.5)
    steps = architecture_steps(layers)
    shapes = [layers[0].input_shape, *(shape for _, shape in steps)]
    widths = [0.35 + 0.12 * math.log2(shape[-1]) for shape in shapes]
    heights = [0.3 + 0.22 * math.log2(shape[0]) if len(shape) > 1 else 0.3 for shape in shapes]
    gap = 1.2
    lefts = np.cumsum([0.0, *(width + gap for width in widths[:-1])])
    below, above = -max(heights) / 2 - 0.12, max(heights) / 2 + 0.12
    for left, width, height, shape in zip(lefts, widths, heights, shapes, strict=True):
        look = {"facecolor": BLUE if len(shape) > 1 else RED, "edgecolor": "none"}
        corners = "round,pad=0,rounding_size=0.08"
        ax.add_patch(FancyBboxPatch((left, -height / 2), width, height, boxstyle=corners, **look))
        text = "\n× ".join(f"{size:,}" for size in shape)
        ax.text(left + width / 2, below, text, ha="center", va="top", fontsize=SMALL_SIZE - 0.5, color=INK)
    for index, (name, _) in enumerate(steps):
        start = lefts[index] + widths[index]
        middle = start + gap / 2
        ax.annotate("", (start + gap, 0), (start, 0), arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 0.9})
        ax.plot([middle, middle], [0.1, above - 0.05], color=GREY, linewidth=0.6, linestyle=":")
        ax.text(middle, above, "\n".join(name.split(maxsplit=1)), ha="center", va="bottom", fontsize=SMALL_SIZE - 0.5)
    ax.set(xlim=(-0.2, lefts[-1] + widths[-1] + 0.2), ylim=(below - 0.8, above + 0.8))
    ax.set_axis_off()
    return ax


def architecture_steps(layers: Sequence[TensorStep]) -> list[tuple[str, tuple[int, ...]]]:
    """(name, shape that comes out) of every step that changes the shape, and of every encoder layer as a whole."""
    steps: list[tuple[str, tuple[int, ...]]] = []
    for layer in layers:
        if layer.block.startswith("Encoder"):
            if not (steps and steps[-1][0] == layer.block.lower()):
                steps.append((layer.block.lower(), layer.input_shape))
        elif layer.output_shape != layer.input_shape:
            steps.append((layer.name.replace("_", " "), layer.output_shape))
    return steps


# ---------------------------------------------------------------------------------------------------------- diagnosis

VARIANT_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": INK, "linewidth": 1.8},  # what all others are compared with
    *({"color": colour, "linewidth": 1.1} for colour in FIT_COLOURS),
    {"color": "#56b4e9", "linewidth": 1.8},
    {"color": GREY, "linewidth": 1.2, "linestyle": (0, (5, 1.5, 1, 1.5))},
)
PART_LABELS = {
    "gradient_base": "convolutions",
    "gradient_layer1": "encoder layer 1",
    "gradient_layer2": "encoder layer 2",
    "gradient_classifier": "classifier",
}
PART_COLOURS = dict(zip(PART_LABELS, (BLUE, ORANGE, GREEN, PINK), strict=True))


def plot_variants(
    histories: Mapping[str, Mapping[str, pd.DataFrame]], *, num_classes: int, names: Sequence[str]
) -> Figure:
    """Window accuracy over the epochs: a row per architecture, a column per split, a curve per variant of a recipe.

    Args:
        histories: title of each row -> variant -> history with ``epoch`` and ``<split>_accuracy``.
        num_classes: draws the chance level.
        names: all variants in the order of the legend; the first is the one that the others are compared with.
    """
    looks = dict(zip(names, VARIANT_LOOKS, strict=False))
    figure = Figure(figsize=(TEXT_WIDTH, 0.85 + 1.75 * len(histories)), layout="constrained")
    panels = figure.subplots(len(histories), 3, sharex=True, sharey=True, squeeze=False)
    splits: tuple[Split, ...] = ("train", "validation", "test")
    for row, (title, variants) in enumerate(histories.items()):
        for column, split in enumerate(splits):
            ax = panels[row, column]
            for name in reversed(list(variants)):  # the first lies on top
                curve = variants[name].set_index("epoch")[f"{split}_accuracy"]
                marker = "o" if len(curve) == 1 else None  # one epoch makes no line
                ax.plot(curve.index, curve, marker=marker, markersize=3.5, **looks[name])
            draw_level(ax, 1 / num_classes, "chance" if column == 0 else "")
            last_row = row == len(histories) - 1
            style_axes(ax, "epoch" if last_row else "", f"{title}\nwindow accuracy" if column == 0 else "")
            set_panel_title(ax, SPLIT_LABELS[split] if row == 0 else "")
            ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
            percent_axis(ax, "y")
    panels[0, 0].set_ylim(bottom=0)
    shown = [name for name in names if any(name in variants for variants in histories.values())]
    handles = [Line2D([], [], label=name, **looks[name]) for name in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=TICK_SIZE, frameon=False)
    return figure


def plot_inside_training(traces: Mapping[str, pd.DataFrame], *, tokens: int = 33) -> Figure:
    """What happens inside a Transformer in its first steps: a column per variant of a recipe.

    Rows: norm of the gradient of each part of the model; entropy of CLS's attention in both layers, beside that of
    uniform attention; mean cosine of the CLS outputs of two windows.

    Args:
        traces: title of each column -> a row per step, as ``audioclf_lib.suite.diagnosis.trace_fit`` gives.
        tokens: how many CLS can attend to, itself included.
    """
    figure = Figure(figsize=(TEXT_WIDTH, 4.6), layout="constrained")
    panels = figure.subplots(3, len(traces), sharex=True, sharey="row", squeeze=False)
    for column, (title, trace) in enumerate(traces.items()):
        gradients, entropies, similarity = panels[:, column]
        for name, colour in PART_COLOURS.items():
            gradients.plot(trace["step"], trace[name].clip(lower=1e-12), color=colour, linewidth=0.9)
        probes = trace.dropna(subset=["similarity"])
        for layer, colour in (("entropy_layer1", ORANGE), ("entropy_layer2", GREEN)):
            entropies.plot(probes["step"], probes[layer], color=colour, linewidth=1.2, marker="o", markersize=2)
        similarity.plot(probes["step"], probes["similarity"], color=INK, linewidth=1.2, marker="o", markersize=2)
        gradients.set_yscale("log")
        first = column == 0
        draw_level(entropies, math.log(tokens), f"uniform: ln {tokens} = {math.log(tokens):.2f}" if first else "")
        draw_level(similarity, 1, "all windows alike" if first else "")
        set_panel_title(gradients, title)
        style_axes(gradients, "", "gradient norm" if first else "")
        style_axes(entropies, "", "CLS entropy (nats)" if first else "")
        style_axes(similarity, "step", "CLS similarity" if first else "")
        for ax in (gradients, entropies, similarity):
            for step in trace["step"][trace["epoch"].diff() > 0]:
                ax.axvline(step - 0.5, color=LIGHT_GREY, linewidth=1.2, zorder=0)
            ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    figure.align_ylabels(panels[:, 0])
    panels[1, 0].set_ylim(0, 1.15 * math.log(tokens))
    panels[2, 0].set_ylim(min(0, panels[2, 0].get_ylim()[0]), 1.15)
    handles = [
        Line2D([], [], color=PART_COLOURS[name], linewidth=1.5, label=text) for name, text in PART_LABELS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=TICK_SIZE, frameon=False)
    return figure


# ------------------------------------------------------------------------------------------------------------- studies


def plot_search_history(trials: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Validation accuracy of every trial in order of its number, and the best so far.

    Args:
        trials: a row per trial with ``trial``, ``state`` and ``accuracy``; those that are ``done`` are dots, those that
            ended before crosses at the accuracy of their last epoch, and others are left out.
    """
    ax = ax or new_axes(2.4, width=0.85 * TEXT_WIDTH)
    scored = trials.dropna(subset=["accuracy"])
    done, ended = scored[scored["state"] == "done"], scored[scored["state"].isin(["pruned", "diverged"])]
    if not done.empty:
        best = done.set_index("trial")["accuracy"].sort_index().cummax()
        last = int(trials["trial"].max())
        ax.step([*best.index, last], [*best, best.iloc[-1]], where="post", color=ORANGE, linewidth=1.2)
        ax.plot(done["trial"], done["accuracy"], "o", color=BLUE, markersize=4)
    ax.plot(ended["trial"], ended["accuracy"], "x", color=GREY, markersize=4)
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=4, color=BLUE, label="trained to the end"),
        Line2D([], [], linestyle="", marker="x", markersize=4, color=GREY, label="pruned or diverged"),
        Line2D([], [], color=ORANGE, linewidth=1.2, label="best so far"),
    ]
    style_axes(ax, "trial", "validation window accuracy")
    ax.set_xlim(-0.6, max(1, len(trials)) - 0.4)
    ax.set_ylim(0, 1)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    percent_axis(ax, "y")
    ax.legend(handles=handles, fontsize=SMALL_SIZE, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return ax


def plot_importances(importances: Mapping[str, float], *, ax: Axes | None = None) -> Axes:
    """A bar per setting, the most important on top.

    Args:
        importances: setting -> its share of the variance of the accuracy that single settings explain.
    """
    ax = ax or new_axes(bar_chart_height(len(importances)), width=0.75 * TEXT_WIDTH)
    ranked = sorted(importances.items(), key=lambda item: -item[1])
    names, shares = [name for name, _ in ranked], [share for _, share in ranked]
    draw_bars(ax, names, shares, [f"{100 * share:.0f} %" for share in shares])
    style_axes(ax, "importance", grid="x")
    ax.set_xlim(0, 1)
    percent_axis(ax, "x")
    return ax


def plot_parallel_settings(
    trials: pd.DataFrame, search: Mapping[str, SearchedValues], *, ax: Axes | None = None
) -> Axes:
    """A line per trial through its settings to its accuracy, the better the darker, the best in orange.

    Parallel coordinates (Inselberg 1985): each setting is an axis over the values that were searched.

    Args:
        trials: a row per trial with ``accuracy`` and a column per setting, the best first.
        search: the values that each setting might take, in the order of the axes.
    """
    ax = ax or new_axes(2.9)
    names, last = list(search), len(search)
    low, high = (trials["accuracy"].min(), trials["accuracy"].max()) if len(trials) else (0.0, 1.0)
    spread = (high - low) or 1.0
    shade = sns.light_palette(BLUE, as_cmap=True)
    for place, (_, row) in reversed(list(enumerate(trials.iterrows()))):  # the best lies on top
        heights = [height_on_axis(row[name], search[name]) for name in names]
        level = (row["accuracy"] - low) / spread if high > low else 0.5
        look: dict[str, Any] = {"color": shade(0.25 + 0.75 * level), "linewidth": 0.9}
        ax.plot(
            range(last + 1),
            [*heights, level],
            **(look | ({"color": ORANGE, "linewidth": 1.8} if place == 0 else {})),
            zorder=2 + level,
        )
    for x, name in enumerate(names):
        ax.axvline(x, color=GREY, linewidth=0.6, zorder=1)
        for height, text in axis_marks(search[name]):
            draw_mark(ax, x, height, text)
    ax.axvline(last, color=INK, linewidth=0.9, zorder=1)
    if len(trials):
        for height, value in [(0.0, low), (1.0, high)] if high > low else [(0.5, high)]:
            draw_mark(ax, last, height, f"{100 * value:.1f} %")
    style_axes(ax, grid="none")
    labels = [literal(name).replace("_", "_\n", 1) for name in names] + ["window\naccuracy"]
    ax.set_xticks(range(last + 1), labels)
    ax.tick_params(axis="x", length=0, pad=10)
    ax.set_yticks([])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_xlim(-0.4, last + 0.45)
    ax.set_ylim(-0.06, 1.06)
    return ax


def height_on_axis(value: Any, searched: SearchedValues) -> float:
    """Where a value stands between the ends of its axis, 0 at the foot."""
    if searched.choices is not None:
        return list(searched.choices).index(value) / (len(searched.choices) - 1)
    low, high = float(searched.low or 0), float(searched.high or 0)
    if searched.log:
        return math.log(value / low) / math.log(high / low)
    return (float(value) - low) / (high - low)


def axis_marks(searched: SearchedValues) -> list[tuple[float, str]]:
    """Height and text of what is written at a setting's axis: both ends, or every choice."""
    if searched.choices is not None:
        return [(height_on_axis(choice, searched), str(choice)) for choice in searched.choices]
    return [(0.0, f"{searched.low:g}"), (1.0, f"{searched.high:g}")]


def draw_mark(ax: Axes, x: float, height: float, text: str) -> None:
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}  # lines pass behind it
    ax.text(
        x + 0.04,
        height,
        literal(text),
        fontsize=SMALL_SIZE,
        color=INK,
        ha="left",
        va={0.0: "top", 1.0: "bottom"}.get(height, "center"),
        bbox=background,
        zorder=5,
    )

"""Figures of models and of what they are trained on: architecture, attention, filters, folds."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import FancyBboxPatch

from audioclf_lib.figures import style

if TYPE_CHECKING:
    from audioclf_lib.models.derivation import LayerDerivation

BOXES_PER_ROW = 10  # of an architecture
GAP, ROW_HEIGHT = 1.2, 5.0  # between boxes and rows, in the units of the drawing


def plot_attention(
    weights: npt.ArrayLike, *, ax: Axes | None = None, figsize: style.Size | None = None, **kwargs: Any
) -> Axes:
    """Attention weights as a heat map with a strip per head, the CLS token first.

    Args:
        weights: what CLS attends to: (heads, T), or (T,) for one head, or (layers, heads, T) for all layers.
        kwargs: of :func:`seaborn.heatmap`, such as ``cmap``.
    """
    values = np.atleast_2d(weights)
    *layers, heads, tokens = values.shape
    names = [str(head + 1) for head in range(heads)]
    if layers:
        names = [f"layer {layer + 1}, head {name}" for layer in range(layers[0]) for name in names]
    ax = style.new_axes(ax, figsize or (style.TEXT_WIDTH, 1.0 + 0.25 * len(names)))
    table = pd.DataFrame(values.reshape(-1, tokens), names, ["CLS", *map(str, range(1, tokens))])
    sns.heatmap(table, xticklabels=8, ax=ax, **style.Look(cbar=False, cmap="Blues", vmin=0) | kwargs)
    style.draw_colour_bar(ax, ax.collections[0], "weight")
    ax.set(xlabel="attends to token", ylabel="" if layers else "head")
    ax.tick_params(rotation=0)
    return ax


def plot_filters(
    weight: npt.ArrayLike, *, ax: Axes | None = None, figsize: style.Size = (style.TEXT_WIDTH, 2.6), **kwargs: Any
) -> Axes:
    """What each filter of a first convolution lets pass: a column for each, sorted by the centre of its response.

    Args:
        weight: (filters, 1, taps), as ``conv1.weight`` of the CNN, for sounds at 16 kHz.
        kwargs: of :meth:`matplotlib.axes.Axes.pcolormesh`, such as ``cmap``.
    """
    ax = style.new_axes(ax, figsize)
    response = np.abs(np.fft.rfft(np.asarray(weight)[:, 0], n=64, axis=1))  # (filters, 33)
    response /= np.maximum(response.max(axis=1, keepdims=True), 1e-12)
    kilohertz, numbers = np.linspace(0, 8, response.shape[1]), np.arange(len(response)) + 1
    centres = (response**2 @ kilohertz) / np.maximum((response**2).sum(axis=1), 1e-12)
    look = style.Look(vmin=0, vmax=1) | kwargs
    style.draw_mesh(ax, numbers, kilohertz, response[np.argsort(centres)].T, "gain, of its largest", **look)
    ax.plot(numbers, np.sort(centres), color="C4", label="centre")
    ax.set(xlabel="filter, sorted by its centre", ylabel="frequency (kHz)", ylim=(0, 8))
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1))
    return ax


def plot_folds(protocols: Mapping[str, Sequence[tuple[int, int]]], folds: Sequence[int], **kwargs: Any) -> style.Panels:
    """Which fold each fit trains, validates and tests on: a panel for each protocol, a row for each fit.

    Args:
        protocols: title -> (validation fold, test fold) of its fits.
        folds: of the data set.
        kwargs: of :meth:`matplotlib.axes.Axes.text`, for the letters.

    Returns:
        (protocols,) axes.
    """
    most = max(map(len, protocols.values()))
    size = (style.TEXT_WIDTH, 0.55 + 0.2 * most)
    panels = plt.subplots(1, len(protocols), figsize=size, squeeze=False)[1].ravel()
    for ax, (title, pairs) in zip(panels, protocols.items(), strict=True):
        validated, tested = (np.equal.outer(numbers, folds) for numbers in zip(*pairs, strict=True))
        letters = np.select([tested, validated], ["T", "V"], "")
        look = style.Look(cmap=ListedColormap([style.LIGHT_GREY, "C1", "C4"]), vmin=0, vmax=2, cbar=False, linewidths=2)
        text = style.Look(color=style.INK, weight="bold") | kwargs
        sns.heatmap(validated + 2 * tested, annot=letters, fmt="", annot_kws=text, ax=ax, xticklabels=folds, **look)
        ax.set(title=title, xlabel="fold", yticks=(), ylim=(most, 0))
        ax.tick_params(length=0)
        ax.grid(False)
    panels[0].set_ylabel("fit")
    return panels


def plot_architecture(
    layers: Sequence[LayerDerivation], *, ax: Axes | None = None, figsize: style.Size | None = None, **kwargs: Any
) -> Axes:
    """The tensors on their way through a model: one box for each new shape, as in :func:`architecture_steps`.

    A box is as wide as the logarithm of its last size and as tall as that of the size before; a stack of boxes is a
    feature map with several channels. Vectors are red.

    Args:
        layers: steps with ``name``, ``block``, ``input_shape`` and ``output_shape``, without the batch axis.
        kwargs: of :class:`matplotlib.patches.FancyBboxPatch`.
    """
    steps = [("", layers[0].input_shape), *architecture_steps(layers)]
    n_rows = math.ceil(len(steps) / BOXES_PER_ROW)
    per_row = math.ceil(len(steps) / n_rows)  # rows of about the same length
    ax = style.new_axes(ax, figsize or (style.TEXT_WIDTH, 1.75 * n_rows - 0.25))
    right, widest = 0.0, 0.0
    for number, (name, shape) in enumerate(steps):
        row, column = divmod(number, per_row)
        right = right if column else 0.0 if row else -GAP
        if number:
            draw_step(ax, right, -row * ROW_HEIGHT, name)
        right = draw_tensor(ax, right + GAP, -row * ROW_HEIGHT, shape, **kwargs)
        widest = max(widest, right)
    ax.set(xlim=(-0.2, widest + 0.3), ylim=(-(n_rows - 1) * ROW_HEIGHT - 2.2, 2.2))
    ax.set_axis_off()
    return ax


def draw_tensor(ax: Axes, left: float, middle: float, shape: tuple[int, ...], **kwargs: Any) -> float:
    """A box, or a stack of boxes, with the shape below; returns the right end."""
    width = 0.35 + 0.12 * math.log2(shape[-1])
    height = 0.3 + 0.22 * math.log2(shape[-2]) if len(shape) > 1 else 0.3
    stack = 3 if len(shape) > 2 and shape[0] > 1 else 1
    corners = "round,pad=0,rounding_size=0.08"
    look = {"facecolor": "C4" if len(shape) == 1 else "C0", "edgecolor": "white", "linewidth": 0.5} | kwargs
    for shift in np.arange(stack)[::-1] * 0.12:
        ax.add_patch(FancyBboxPatch((left + shift, middle - height / 2 + shift), width, height, corners, **look))
    text = "\n× ".join(f"{size:,}" for size in shape)
    ax.text(left + width / 2, middle - 1.1, text, ha="center", va="top", fontsize=style.SMALL)
    return left + width + 0.12 * (stack - 1)


def draw_step(ax: Axes, left: float, middle: float, name: str) -> None:
    """An arrow to the next tensor with the step's name above."""
    arrow = {"arrowstyle": "-|>", "color": style.GREY, "linewidth": 0.9}
    ax.annotate("", (left + GAP, middle), (left, middle), arrowprops=arrow)
    centre = left + GAP / 2
    ax.plot([centre, centre], [middle + 0.1, middle + 1.1], color=style.GREY, linewidth=0.6, linestyle=":")
    lines = textwrap.fill(name, 8, break_long_words=False)
    ax.text(centre, middle + 1.15, lines, ha="center", va="bottom", fontsize=style.SMALL)


def architecture_steps(layers: Sequence[LayerDerivation]) -> list[tuple[str, tuple[int, ...]]]:
    """(name, output shape) of every step that changes the shape.

    A block of several steps that ends with the shape it began with, such as an encoder layer, is one step.
    """
    steps: list[tuple[str, tuple[int, ...]]] = []
    for block, members in groupby(layers, key=lambda layer: layer.block):
        inside = list(members)
        changes = [layer for layer in inside if layer.output_shape != layer.input_shape]
        if changes and inside[0].input_shape == inside[-1].output_shape:
            steps.append((block.lower(), inside[-1].output_shape))
        else:
            steps += [(layer.name.replace("_", " ").replace(".", " "), layer.output_shape) for layer in changes]
    return steps

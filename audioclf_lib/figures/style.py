"""What all figures share: the style sheet, axes of the right size, line looks, bars, reference lines, colour bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import Collection
from matplotlib.ticker import PercentFormatter

STYLE = Path(__file__).with_name("audioclf.mplstyle")
plt.style.use(STYLE)

Size = tuple[float, float]  # of a figure: width and height in inches
Look = dict[str, Any]  # keywords of seaborn or matplotlib
Panels = npt.NDArray[Any]  # of Axes

TEXT_WIDTH = 6.3  # inches: A4 less two margins of 2.5 cm
INK, GREY, LIGHT_GREY, LIGHT_BLUE = "#222222", "#767676", "#e4e4e4", "#9cc3de"
REFERENCE: Look = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (4, 3))}  # what data are compared with
MANY_CLASSES = 20  # above this, names and numbers shrink

_LINE_STYLES = ("-", (0, (5, 1.2)), (0, (1.5, 1)), (0, (6, 1.2, 1.5, 1.2)), (0, (6, 1, 1, 1, 1, 1)))


def new_axes(ax: Axes | None, figsize: Size) -> Axes:
    """The axes that are given, or axes on a pyplot figure of their own, which a notebook shows below its cell."""
    return ax if ax is not None else plt.subplots(figsize=figsize)[1]


def line_looks(n: int) -> list[Look]:
    """n combinations of colour and line style, which tell lines apart in grey print too; all differ up to 35."""
    return [{"color": f"C{i}", "linestyle": _LINE_STYLES[i % len(_LINE_STYLES)]} for i in range(n)]


def literal(name: str) -> str:
    """A name as it is: matplotlib would read text between dollar signs as mathematics."""
    return name.replace("$", r"\$")


def show_percent(*axes: Axis) -> None:
    for axis in axes:
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0, symbol=" %"))


def draw_level(ax: Axes, level: float, text: str) -> None:
    """A dashed horizontal line with its meaning above it."""
    ax.axhline(level, **REFERENCE, zorder=1)
    ax.text(0.99, level, text, transform=ax.get_yaxis_transform(), ha="right", va="bottom", size="small", color=GREY)


def draw_bars(
    names: list[str], values: np.ndarray, labels: list[str], ax: Axes | None, figsize: Size | None, **kwargs: Any
) -> Axes:
    """Horizontal bars from top to bottom, each with a label at its end."""
    size, pitch = (5.5, 0.13) if len(names) > MANY_CLASSES else (7.5, 0.2)
    ax = new_axes(ax, figsize or (TEXT_WIDTH, 0.7 + pitch * len(names)))
    rows = np.arange(len(names))
    bars = ax.barh(rows, values, **Look(height=0.72, color="C0") | kwargs)
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # hides a line that would cross the label
    ax.bar_label(bars, labels, padding=3, fontsize=size, bbox=background, zorder=3)
    ax.set_yticks(rows, [literal(name) for name in names], fontsize=size)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(False, axis="y")
    return ax


def draw_colour_bar(ax: Axes, mesh: Collection, label: str) -> None:
    """A colour bar beside the axes; it and the mesh stay vector graphics without seams."""
    bar = ax.figure.colorbar(mesh, cax=ax.inset_axes((1.02, 0, 0.02, 1)), label=label)
    plt.setp(bar.outline, visible=False)
    for drawn in (mesh, bar.solids):  # cells overlap by a hair, or viewers show the page through the joints
        plt.setp(drawn, rasterized=False, edgecolor="face", linewidth=0.6)

"""What all figures share: the style sheet, axes of the right size, small multiples, rows with names, heat maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import Collection
from matplotlib.ticker import PercentFormatter

from audioclf_lib.figures.fonts import FACE, use_letters

STYLE = Path(__file__).with_name("audioclf.mplstyle")
plt.style.use(STYLE)
plt.rcParams["font.family"] = FACE

Size = tuple[float, float]  # of a figure: width and height in inches
Look = dict[str, Any]  # keywords of seaborn or matplotlib
Panels = npt.NDArray[Any]  # of Axes

TEXT_WIDTH = 6.3  # inches: A4 less two margins of 2.5 cm
INK, GREY, LIGHT_GREY, LIGHT_BLUE = "#222222", "#767676", "#e4e4e4", "#9cc3de"
REFERENCE: Look = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (4, 3))}  # what data are compared with
BACKGROUND: Look = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # hides lines that would cross a label
SMALL = 7.2  # points: the smallest type
MANY_CLASSES = 20  # above this, classes have numbers, or every few of them a name
LONGEST_NAME = 22  # letters of a class name on an axis

_LINE_STYLES = ("-", (0, (5, 1.2)), (0, (1.5, 1)), (0, (6, 1.2, 1.5, 1.2)), (0, (6, 1, 1, 1, 1, 1)))


def new_axes(ax: Axes | None, figsize: Size) -> Axes:
    """The axes that are given, or axes on a pyplot figure of their own, which a notebook shows below its cell."""
    return ax if ax is not None else plt.subplots(figsize=figsize)[1]


def small_multiples(
    n: int, columns: int, height: float, figsize: Size | None, shares: Sequence[float] = (1,)
) -> Panels:
    """(n, panels) axes: n drawings in rows of so many columns, each of one panel or of several above one another.

    Of the lowest panels, those of the first column and of the last row have labels at their ticks.

    Args:
        height: of a row, in inches.
        shares: of the panels of a drawing in its height.
    """
    rows = math.ceil(n / columns)
    figure = plt.figure(figsize=figsize or (TEXT_WIDTH, rows * height + 0.2))
    shape = {"height_ratios": [*shares] * rows}
    grid = figure.subplots(len(shares) * rows, columns, squeeze=False, sharex=True, gridspec_kw=shape)
    panels: Panels = grid.reshape(rows, len(shares), columns).swapaxes(1, 2).reshape(-1, len(shares))
    for ax in panels[n:].ravel():
        ax.remove()
    for number, drawing in enumerate(panels[:n]):
        drawing[-1].tick_params(labelleft=number % columns == 0, labelbottom=number + columns >= n)
    return panels[:n]


def line_looks(n: int) -> list[Look]:
    """n combinations of colour and line style, which tell lines apart in grey print too; all differ up to 35."""
    return [{"color": f"C{i}", "linestyle": _LINE_STYLES[i % len(_LINE_STYLES)]} for i in range(n)]


def literal(name: str) -> str:
    """A name as it is, in a font that has its letters: matplotlib reads text between dollar signs as mathematics."""
    use_letters(name)
    return name.replace("$", r"\$")


def on_axis(name: object, longest: int = LONGEST_NAME) -> str:
    """A class name as it is, or its beginning and its end if it would take the room of the drawing."""
    text, half = str(name), longest // 2
    return literal(text if len(text) <= longest else f"{text[:half].rstrip()}…{text[1 - half :].lstrip()}")


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Names beside rows at 0, 1, 2, ..., the first on top."""
    ax.set_yticks(range(len(names)), names, fontsize=SMALL)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.4, -0.6)


def show_percent(*axes: Axis) -> None:
    for axis in axes:
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0, symbol=" %"))


def draw_bars(
    names: list[str], values: np.ndarray, labels: list[str], ax: Axes | None, figsize: Size | None, **kwargs: Any
) -> Axes:
    """Horizontal bars from top to bottom, each with a label at its end."""
    pitch = 0.135 if len(names) > MANY_CLASSES else 0.19
    ax = new_axes(ax, figsize or (TEXT_WIDTH, 0.7 + pitch * len(names)))
    bars = ax.barh(range(len(names)), values, **Look(height=0.72, color="C0") | kwargs)
    ax.bar_label(bars, labels, padding=3, fontsize=SMALL, bbox=BACKGROUND, zorder=3)
    name_rows(ax, [on_axis(name) for name in names])
    ax.grid(False, axis="y")
    return ax


def draw_mesh(ax: Axes, x: npt.ArrayLike, y: npt.ArrayLike, values: npt.ArrayLike, label: str, **kwargs: Any) -> None:
    """A heat map (len(y), len(x)) of cells, or of one less each where x and y are their edges, with a colour bar."""
    draw_colour_bar(ax, ax.pcolormesh(x, y, values, **kwargs), label)
    ax.grid(False)


def draw_colour_bar(ax: Axes, mesh: Collection, label: str) -> None:
    """A colour bar beside the axes, unless it has no label; it and the mesh stay vector graphics without seams."""
    drawn: list[Any] = [mesh]
    if label:
        bar = ax.figure.colorbar(mesh, cax=ax.inset_axes((1.02, 0, 0.02, 1)), label=label)
        plt.setp(bar.outline, visible=False)
        drawn.append(bar.solids)
    plt.setp(drawn, rasterized=False, edgecolor="face", linewidth=0.6)  # else viewers show the page through the joints

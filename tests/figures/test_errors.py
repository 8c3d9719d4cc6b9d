"""Figures of errors show the clips, recalls and names of their tables."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_data import FIFTY, TEN, waveform
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from audioclf_lib import figures
from audioclf_lib.figures.style import on_axis

LOUDNESS = (1.0, 0.5, 0.25, 0.125, 0.0625)
DATA = SimpleNamespace(
    name="sounds",
    clip_ids=tuple("abcde"),
    waveforms=np.stack([factor * np.clip(waveform(2.0), -1, 1) for factor in LOUDNESS]),
    sample_rate=16_000,
)


def hard(n: int, name: str = "dog") -> pd.DataFrame:
    """The last n clips, the last one first."""
    clips = list(reversed(DATA.clip_ids))[:n]
    table = {"source": "4711", "class": name, "wrong_answer": "rain", "fits": 16, "right": np.arange(n) / 16}
    return pd.DataFrame(table, index=pd.Index(clips, name="clip_id"))


def width(ax: Axes) -> float:
    return ax.get_position().width


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_every_hard_clip_is_drawn_and_titled_in_the_order_of_the_table(n):
    panels = figures.plot_hard_clips(DATA, hard(n))
    assert panels.shape == (n, 2)
    for number, (above, below) in enumerate(panels):
        samples = DATA.waveforms[-1 - number]
        (band,) = above.collections
        assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(samples.max())
        peak = f"{np.abs(samples).max():.2g}"
        assert above.get_title(loc="left") == f"dog\n→ rain\n{number} of 16 fits right, peak {peak}\nrecording 4711"
        reference = figures.plot_mel_spectrogram(samples, n_mels=32, max_frames=40)
        np.testing.assert_array_equal(below.collections[0].get_array(), reference.collections[0].get_array())


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_panels_are_equally_wide_and_the_outer_ones_bear_the_axes(n):
    panels = figures.plot_hard_clips(DATA, hard(n))
    figure = panels[0, 0].figure
    figure.canvas.draw()
    assert np.ptp([width(ax) for ax in panels.ravel()]) < 1e-3
    spectrograms = list(panels[:, 1])
    assert [ax for ax in spectrograms if ax.xaxis.get_tick_params()["labelbottom"]] == spectrograms[-3:]
    assert [ax for ax in spectrograms if ax.yaxis.get_tick_params()["labelleft"]] == spectrograms[::3]
    assert len(figure.axes) == 2 * n


def test_a_long_class_name_is_shortened_above_its_clip():
    title = figures.plot_hard_clips(DATA, hard(1, "an uncommonly long name " * 4))[0, 0].get_title(loc="left")
    assert max(map(len, title.split("\n"))) <= 32


def recalls(names: list[str], architectures: int) -> pd.DataFrame:
    """Multiples of one eighth, some equal; the first architecture lacks the first class."""
    values = np.random.default_rng(0).integers(0, 9, (len(names), architectures)) / 8
    table = pd.DataFrame(values, names, [f"Net {number}" for number in range(architectures)])
    table.iloc[0, 0] = np.nan
    return table


@pytest.mark.parametrize("architectures", [1, 4, 7])
@pytest.mark.parametrize("names", [["dog", "cat"], TEN, FIFTY], ids=len)
def test_every_recall_is_a_mark_in_the_row_of_its_class(names, architectures):
    table = recalls(names, architectures)
    ax = figures.plot_recall_by_class(table)
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert shown == [on_axis(name) for name in names]
    assert len(set(shown)) == len(names), "long names are shortened, and stay different"
    assert ax.yaxis_inverted()
    marks = {line.get_label(): line for line in ax.lines}
    assert list(marks) == list(table.columns)
    for name, line in marks.items():
        np.testing.assert_array_equal(line.get_xdata(), table[name])
        np.testing.assert_array_equal(np.round(line.get_ydata()), range(len(names)))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(table.columns)


def test_marks_differ_in_shape_and_height_so_that_equal_recalls_can_be_read_in_grey():
    ax = figures.plot_recall_by_class(pd.DataFrame(0.5, TEN, [f"Net {number}" for number in range(7)]))
    assert len({line.get_marker() for line in ax.lines}) == 7
    ten = figures.plot_recall_by_class(pd.DataFrame(0.5, TEN, [f"Net {number}" for number in range(10)]))
    assert len({(line.get_marker(), to_hex(line.get_color())) for line in ten.lines}) == 10
    ax.figure.canvas.draw()
    heights = [ax.transData.transform((0.5, line.get_ydata()[0]))[1] for line in ax.lines]
    size = ax.lines[0].get_markersize() * ax.figure.dpi / 72
    assert np.abs(np.diff(heights)).min() > 0.75 * size, "marks may touch, not hide each other"


def test_a_line_leads_from_the_worst_to_the_best_architecture():
    table = recalls(TEN, 3)
    (lines,) = figures.plot_recall_by_class(table).collections
    ends = [segment[:, 0].tolist() for segment in lines.get_segments()]
    np.testing.assert_array_equal(ends, np.column_stack([table.min(axis=1), table.max(axis=1)]))


def test_recalls_are_drawn_on_the_axes_that_are_given():
    ax = plt.subplots()[1]
    assert figures.plot_recall_by_class(recalls(TEN, 2), ax=ax) is ax

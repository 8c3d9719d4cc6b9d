"""Figures of answers draw every window, tile and clip in its place."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from figure_data import TEN
from matplotlib.colors import to_hex

from audioclf_lib import figures


def test_the_answer_over_time_has_a_cell_for_each_window_and_class_and_none_for_silence() -> None:
    values = np.random.default_rng(0).dirichlet(np.ones(10), 9)
    values[7:] = np.nan
    ax = figures.plot_answers(pd.DataFrame(values, np.arange(9) / 2, TEN))
    (mesh,) = ax.collections
    drawn = mesh.get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(drawn), np.isnan(values.T))
    np.testing.assert_array_equal(drawn[:, :7], values.T[:, :7])
    middles = mesh.get_coordinates()[0, :, 0]
    assert middles[:2].mean() == 0.5, "the first window lasts from 0 to 1 s"
    assert ax.get_xlim() == (0, 5)
    assert [label.get_text() for label in ax.get_yticklabels()] == TEN
    assert mesh.get_clim() == (0, 1)


def test_occlusion_is_drawn_by_time_and_frequency_around_zero() -> None:
    bands, spans = (pd.IntervalIndex.from_breaks(edges) for edges in ([0, 1000, 8000], [0, 0.5, 1.0, 1.5]))
    falls = pd.DataFrame([[0.0, -0.1, 0.4], [0.1, 0.2, 0.0]], bands, spans)
    ax = figures.plot_occlusion(falls)
    (mesh,) = ax.collections
    np.testing.assert_array_equal(mesh.get_array(), falls)
    assert mesh.get_clim() == pytest.approx((-0.4, 0.4))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1,000", "8,000"]
    assert ax.get_xlim() == (0, 1.5)


def test_the_map_has_a_point_for_each_clip_and_a_line_through_each_recording() -> None:
    generator = np.random.default_rng(0)
    clips = pd.DataFrame(generator.random((20, 2)), columns=["x", "y"])
    clips = clips.assign(**{"class": np.repeat(TEN, 2), "source": np.repeat(np.arange(10), 2).astype(str)})
    clips.loc[1, "source"] = "alone"
    clips["class"] = pd.Categorical(clips["class"], list(reversed(TEN)))
    ax = figures.plot_clip_map(clips)
    (points,) = ax.collections
    np.testing.assert_array_equal(points.get_offsets(), clips[["x", "y"]])
    lengths = sorted(len(line.get_xdata()) for line in ax.lines if len(line.get_xdata()))
    assert lengths == [1, 1] + [2] * 9
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(reversed(TEN)), "in the order of the categories"
    looks = {(to_hex(handle.get_markerfacecolor()), handle.get_marker()) for handle in legend.legend_handles}
    assert len(looks) == 10, "no two classes look alike"


def test_names_between_dollars_are_no_mathematics() -> None:
    table = pd.DataFrame({"x": [0.0, 1], "y": [0.0, 1], "class": ["$a$", "b"], "source": ["1", "2"]})
    figures.plot_clip_map(table).figure.canvas.draw()
    ax = figures.plot_answers(pd.DataFrame([[0.5, 0.5]], [0.0], ["$a$", "b"]))
    assert ax.get_yticklabels()[0].get_text() == r"\$a\$"

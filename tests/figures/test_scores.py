"""Figures of scores show the numbers they are given."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pandas as pd
import pytest
from figure_data import BINS, FIFTY, TEN, confusion, per_class, reliability, roc, texts
from matplotlib.axes import Axes

from audioclf_lib import figures


def cell_texts(ax: Axes, n_classes: int) -> np.ndarray:
    cells = np.full((n_classes, n_classes), "", dtype=object)
    for text in ax.texts:
        x, y = text.get_position()
        cells[int(y), int(x)] = text.get_text()
    return cells


@pytest.mark.parametrize("n_classes", [2, 10])
def test_confusion_cells_hold_the_matrix_true_classes_down_and_columns_have_the_numbers_of_rows(n_classes):
    matrix = confusion(n_classes)
    names = [f"name_{i}" for i in range(n_classes)]
    ax = figures.plot_confusion(pd.DataFrame(matrix, names, names))
    np.testing.assert_array_equal(cell_texts(ax, n_classes), np.where(matrix > 0, matrix.astype(str), ""))
    numbers = [str(number + 1) for number in range(n_classes)]
    assert [label.get_text() for label in ax.get_xticklabels()] == numbers
    rows = [f"{name}  {number}" for name, number in zip(names, numbers, strict=True)]
    assert [label.get_text() for label in ax.get_yticklabels()] == rows
    assert ax.yaxis_inverted()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")


def test_many_classes_are_shades_and_numbers_that_can_be_read():
    matrix = confusion(50)
    ax = figures.plot_confusion(pd.DataFrame(matrix, FIFTY, FIFTY))
    np.testing.assert_array_equal(ax.collections[0].get_array().reshape(50, 50), matrix)
    assert texts(ax) == []
    assert [label.get_text() for label in ax.get_yticklabels()][:3] == ["1", "6", "11"]
    assert ax.figure.get_figheight() < 6


def test_a_name_of_sixty_characters_takes_no_room_from_the_matrix():
    def width(name: str) -> float:
        names = [name, *TEN[1:]]
        ax = figures.plot_confusion(pd.DataFrame(confusion(10), names, names))
        ax.figure.canvas.draw()
        return ax.get_position().width

    assert width("an uncommonly long name of a sound " * 2) > 0.6 * width("dog")


def test_the_f1_of_a_class_stands_in_its_row_of_the_matrix():
    frame = per_class(TEN)
    matrix, bars = figures.plot_confusion_with_f1(pd.DataFrame(confusion(10), TEN, TEN), frame)
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(frame["f1"].tolist())
    for ax in (matrix, bars):
        ax.figure.canvas.draw()
    rows = [matrix.transData.transform((0, row + 0.5))[1] for row in range(10)]
    middles = [bars.transData.transform((0, bar.get_y() + bar.get_height() / 2))[1] for bar in bars.patches]
    assert middles == pytest.approx(rows)


def test_confusion_in_per_cent_is_by_row_and_survives_an_empty_row():
    counts = pd.DataFrame([[0, 0, 0], [1, 1, 2], [0, 3, 0]], list("abc"), list("abc"))
    ax = figures.plot_confusion(counts, normalise=True)
    assert cell_texts(ax, 3).tolist() == [["", "", ""], ["25", "25", "50"], ["", "100", ""]]


def test_a_class_without_an_area_gets_a_dash():
    curves, auc = roc(["dog", "cat"])
    assert texts(figures.plot_roc_panels(curves, auc | {"dog": float("nan")})[0]) == ["–"]


def test_f1_bars_are_the_scores_and_the_line_their_mean():
    frame = per_class(TEN)
    ax = figures.plot_f1_bars(frame)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(frame["f1"].tolist())
    assert texts(ax) == [*(f"{score:.2f}" for score in frame["f1"]), f"macro F1 {frame['f1'].mean():.2f}"]
    assert ax.lines[0].get_xdata()[0] == pytest.approx(frame["f1"].mean())


def test_dollar_signs_in_class_names_are_letters():
    names = ["cost $x$", r"$\foo$"]
    ax = figures.plot_f1_bars(pd.DataFrame({"f1": [0.5, 0.2]}, index=names))
    ax.figure.savefig(io.BytesIO(), format="svg")  # mathematics that is none would stop here
    assert [label.get_text().replace("\\$", "$") for label in ax.get_yticklabels()] == names


def test_reliability_bars_are_the_accuracies_in_their_bins_and_empty_bins_have_none():
    ax = figures.plot_reliability(reliability(*BINS))
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in ax.patches]
    assert len(bars) == len(BINS)
    for (centre, height), (_, confidence, accuracy) in zip(bars, BINS, strict=True):
        assert height == accuracy
        assert abs(centre - confidence) <= 0.5 / 15


def test_reliability_lines_lead_from_accuracy_to_confidence_and_add_up_to_the_error():
    table = reliability(*BINS)
    ax = figures.plot_reliability(table)
    (lines,) = ax.collections
    ends = [segment[:, 1] for segment in lines.get_segments()]
    assert [sorted(pair) for pair in ends] == [sorted((a, c)) for _, c, a in BINS]
    lengths = [abs(a - b) for a, b in ends]
    counts = [count for count, *_ in BINS]
    assert np.average(lengths, weights=counts) == pytest.approx(table.ece)
    assert ax.get_title(loc="right") == f"ECE {table.ece:.3f}"
    diagonal = next(line for line in ax.lines if len(line.get_xdata()) == 2)
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())


def test_reliability_counts_stand_above_and_the_largest_is_written():
    ax = figures.plot_reliability(reliability(*BINS))
    (strip,) = ax.child_axes
    assert [bar.get_height() for bar in strip.patches] == [count for count, *_ in BINS]
    assert strip.get_xlim() == ax.get_xlim()
    assert texts(strip) == ["1,234"]


@pytest.mark.parametrize("names", [["dog", "cat"], TEN, FIFTY], ids=len)
def test_each_class_has_a_panel_with_its_curve_and_area_and_of_many_the_hardest(names):
    curves, auc = roc(names)
    panels = figures.plot_roc_panels(curves, auc)
    shown = names if len(names) <= 20 else sorted(names, key=auc.__getitem__)[:10]
    assert [ax.lines[-1].get_label() for ax in panels] == shown
    for ax, name in zip(panels, shown, strict=True):
        np.testing.assert_array_equal(ax.lines[-1].get_xydata(), np.column_stack(curves[name]))
        assert texts(ax) == [f"{auc[name]:.2f}"]


COMPARED = pd.DataFrame(
    [
        ("CNN", "ours", 0.7, 0.65, 0.75),
        ("Transformer", "ours", None, None, None),
        ("forest", "baselines", 0.72, 0.68, 0.77),
        ("EnvNet", "others", 0.87, None, None),
    ],
    columns=["name", "group", "accuracy", "low", "high"],
)


def test_the_comparison_has_a_dot_with_its_interval_in_the_row_of_its_name():
    ax = figures.plot_comparison(COMPARED, chance=0.1)
    assert [label.get_text() for label in ax.get_yticklabels()] == COMPARED["name"].tolist()
    dots = np.concatenate([bars[0].get_xdata() for bars in ax.containers])
    np.testing.assert_array_equal(dots.astype(float), COMPARED["accuracy"])
    segments = [segment for bars in ax.containers for segment in bars[2][0].get_segments() if np.ndim(segment) == 2]
    ends = [segment[:, 0].tolist() for segment in segments]
    assert pytest.approx([0.65, 0.75]) in ends and pytest.approx([0.68, 0.77]) in ends
    assert texts(ax) == ["70.0", "missing", "72.0", "87.0"]
    assert "chance" in [text.get_text() for text in ax.get_legend().get_texts()]
    hollow = [bars[0].get_markerfacecolor() == "white" for bars in ax.containers]
    assert hollow == [False, False, True], "what is stated without an interval is told apart"


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_comparison_of_few_rows_has_room_for_its_legend(n):
    ax = figures.plot_comparison(COMPARED[:n], chance=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a layout that collapses
        ax.figure.draw_without_rendering()
    assert ax.get_window_extent().height / ax.figure.dpi > 0.2


def test_a_part_of_the_confusion_table_is_drawn_by_its_own_names():
    table = pd.DataFrame([[3, 1], [0, 4]], index=["dog", "rain"], columns=["dog", "rain"])
    part = figures.plot_confusion(table.loc[["rain"], ["rain"]])
    assert [label.get_text() for label in part.get_yticklabels()] == ["rain  1"]
    assert texts(part) == ["4"]

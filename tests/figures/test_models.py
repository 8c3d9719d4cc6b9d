"""Figures of models show every shape and every weight, whatever the architecture."""

from __future__ import annotations

import warnings
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from figure_data import MEL_NET, attention, steps, texts

from audioclf_lib import figures
from audioclf_lib.figures.models import architecture_steps
from audioclf_lib.models import create_model
from audioclf_lib.models.derivation import derive_layers


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_attention_of_cls_has_a_strip_per_head_and_a_colour_bar(heads):
    weights = attention(heads)[:, 0]
    ax = figures.plot_attention(weights)
    np.testing.assert_array_equal(ax.collections[0].get_array(), weights)
    assert ax.get_xticklabels()[0].get_text() == "CLS"
    assert [label.get_text() for label in ax.get_yticklabels()] == [str(head + 1) for head in range(heads)]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("attends to token", "head")
    (bar,) = ax.child_axes
    assert bar.get_ylabel() == "weight"
    assert bar.get_ylim() == pytest.approx((0, weights.max()))


def test_all_layers_have_a_strip_for_each_of_their_heads():
    weights = np.stack([attention(2)[:, 0], attention(2)[:, 0]])
    ax = figures.plot_attention(weights)
    np.testing.assert_array_equal(ax.collections[0].get_array(), weights.reshape(4, 33))
    names = ["layer 1, head 1", "layer 1, head 2", "layer 2, head 1", "layer 2, head 2"]
    assert [label.get_text() for label in ax.get_yticklabels()] == names


def test_filters_are_sorted_by_the_centre_of_their_response():
    taps = np.arange(33)
    tones = [np.cos(2 * np.pi * kilohertz * taps / 16) * np.hanning(33) for kilohertz in (6, 1, 3)]
    ax = figures.plot_filters(np.stack(tones)[:, None])
    response = ax.collections[0].get_array()  # (frequencies, filters)
    loudest = np.linspace(0, 8, 33)[response.argmax(axis=0)]
    np.testing.assert_allclose(loudest, [1, 3, 6], atol=0.25)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1, 3, 6], atol=0.1)
    np.testing.assert_allclose(response.max(axis=0), 1)


def test_one_row_of_weights_is_one_strip():
    weights = attention(1)[0, 0]
    assert figures.plot_attention(weights).collections[0].get_array().tolist() == [weights.tolist()]


def test_the_architecture_shows_every_new_shape_and_each_encoder_layer():
    layers = derive_layers(create_model("transformer"))
    found = architecture_steps(layers)
    names = ["cls token", "encoder layer 1", "encoder layer 2", "cls output", "classifier"]
    assert [name for name, _ in found][-5:] == names
    assert [shape for _, shape in found][-5:] == [(33, 250), (33, 250), (33, 250), (250,), (10,)]
    assert "33\n× 250" in texts(figures.plot_architecture(layers))


def test_an_architecture_with_feature_maps_shows_all_their_sizes():
    drawn = texts(figures.plot_architecture(MEL_NET))
    shapes = ["1\n× 16,000", "1\n× 40\n× 51", "32\n× 40\n× 51", "32\n× 20\n× 25", "32", "10"]
    assert [text for text in drawn if text in shapes] == shapes
    assert {"log mel", "conv1", "pool1", "mean", "linear"} <= set(drawn)


def test_a_deep_architecture_goes_on_in_further_rows():
    deep = steps(*(("body", f"conv{i}", (i, 100), (i + 1, 100)) for i in range(1, 40)))
    ax = figures.plot_architecture(deep)
    assert texts(ax).count("40\n× 100") == 1
    assert rows_of_boxes(ax) == [10, 10, 10, 10]
    assert ax.figure.get_figheight() == pytest.approx(6.75)


def test_rows_of_an_architecture_are_of_about_the_same_length():
    layers = derive_layers(create_model("transformer"))
    assert rows_of_boxes(figures.plot_architecture(layers)) == [6, 6]


def rows_of_boxes(ax):
    boxes = [box for box in ax.patches if hasattr(box, "get_boxstyle")]
    heights = Counter(round(box.get_y() + box.get_height() / 2, 3) for box in boxes)
    return [heights[height] for height in sorted(heights, reverse=True)]


@pytest.mark.parametrize("titles", [*permutations(["rotation", "k-fold", "split"])])
def test_folds_of_protocols_in_any_order_have_rows_of_one_height(titles):
    protocols = {"rotation": [(2, 1), (3, 2), (1, 3)], "k-fold": [(2, 1), (3, 1)], "split": [(2, 1)]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a layout that collapses
        panels = figures.plot_folds({title: protocols[title] for title in titles}, (1, 2, 3))
        panels[0].figure.draw_without_rendering()
    assert {ax.get_ylim() for ax in panels} == {(3, 0)}


def test_folds_are_lettered_by_what_each_fit_does_with_them():
    panels = figures.plot_folds({"split": [(2, 1)], "rotation": [(2, 1), (3, 2), (1, 3)]}, (1, 2, 3))
    assert [ax.get_title(loc="left") for ax in panels] == ["split", "rotation"]
    rows = np.reshape(texts(panels[1]), (3, 3)).tolist()
    assert rows == [["T", "V", ""], ["", "T", "V"], ["V", "", "T"]]
    assert texts(panels[0]) == ["T", "V", ""]

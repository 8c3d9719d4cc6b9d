"""Curves over epochs and steps are the histories and traces."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_data import SPLITS, VARIANTS, histories, history, texts
from matplotlib.axes import Axes

from audioclf_lib import figures
from audioclf_lib.figures.curves import draw_curves
from audioclf_lib.figures.style import INK


def curves(*given: object, **options: object) -> Axes:
    ax = plt.subplots()[1]
    draw_curves(ax, *given, **options)
    return ax


def lines_by_label(ax: Axes) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in ax.lines if not line.get_label().startswith("_")}


def test_learning_curves_are_the_histories_and_their_mean():
    data = histories(3)
    lines = lines_by_label(curves(data, "accuracy", "test"))
    for label, frame in data.items():
        np.testing.assert_array_equal(lines[label], frame[["epoch", "test_accuracy"]])
    mean = np.mean([frame["test_accuracy"] for frame in data.values()], axis=0)
    np.testing.assert_allclose(lines["mean"][:, 1], mean)


def test_the_mean_covers_the_epochs_that_all_fits_have():
    data = {"long": history(8), "short": history(5)}
    assert len(lines_by_label(curves(data, "loss", "validation"))["mean"]) == 5


def test_one_fit_has_no_mean():
    assert list(lines_by_label(curves(histories(1), "loss", "validation"))) == ["validation fold 2"]


def test_the_chosen_epoch_is_marked_on_its_curve():
    data = histories(2)
    ax = curves(data, "loss", "train", chosen_epochs={"validation fold 3": 4})
    marks = [line.get_xydata() for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata())]
    np.testing.assert_array_equal(marks, [[[4, data["validation fold 3"]["train_loss"][3]]]])


@pytest.mark.parametrize(
    ("metric", "level", "text"), [("loss", np.log(10), "chance 2.30"), ("accuracy", 0.1, "chance 10 %")]
)
def test_the_level_of_guessing_is_drawn(metric, level, text):
    ax = curves(histories(), metric, "validation", chance=0.1)
    assert any(line.get_ydata() == pytest.approx([level, level]) for line in ax.lines if len(line.get_ydata()) == 2)
    assert texts(ax) == [text]
    assert ax.get_ylim()[0] <= level <= ax.get_ylim()[1]


@pytest.mark.parametrize(("fits", "epochs"), [(4, 6), (1, 6), (4, 1), (1, 1)])
def test_six_curves_share_one_legend(fits, epochs):
    data = histories(fits, epochs)
    chosen = dict.fromkeys(data, 1)
    panels = figures.plot_learning_curves(data, chosen_epochs=chosen, chance=0.1, accuracy="clip_accuracy")
    assert panels.shape == (2, 3)
    assert all(ax.get_legend() is None for ax in panels.flat)
    (legend,) = panels[0, 0].figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [*data, *(["mean"] if fits > 1 else []), "chosen epoch"]
    label, frame = next(iter(data.items()))
    drawn = [lines_by_label(ax)[label][:, 1] for ax in panels.flat]
    columns = [f"{split}_{m}" for m in ("loss", "clip_accuracy") for split in SPLITS]
    np.testing.assert_array_equal(drawn, [frame[column] for column in columns])
    assert [ax.get_title(loc="left") for ax in panels[0]] == ["training", "validation", "test"]


def test_the_largest_loss_of_any_panel_is_within_the_shared_axis():
    history = pd.DataFrame({"epoch": [1, 2], **{f"{split}_accuracy": [0.5, 0.6] for split in SPLITS}})
    for split, loss in zip(SPLITS, (0.4, 1.5, 2.9), strict=True):
        history[f"{split}_loss"] = [loss, loss / 2]
    panels = figures.plot_learning_curves({"fit": history}, chance=1 / 3)[0]
    assert all(ax.get_ylim() == panels[0].get_ylim() for ax in panels)
    assert panels[0].get_ylim()[1] > 2.9
    without_a_reference = figures.plot_learning_curves({"fit": history * 100})[0, 0]
    assert without_a_reference.get_ylim()[1] > 290


def test_an_early_loss_of_many_times_guessing_does_not_flatten_the_rest():
    frame = history(5)
    frame.loc[0, "train_loss"] = 1000
    ax = curves({"fit": frame}, "loss", "train", chance=0.1)
    assert ax.get_ylim()[1] == pytest.approx(3 * np.log(10))


@pytest.mark.parametrize("epochs", [1, 6])
def test_variants_are_drawn_as_their_histories_say_with_a_row_per_architecture(epochs):
    data = {
        "CNN": {name: history(epochs) for name in VARIANTS[:-1]},
        "Other": {name: history(epochs) for name in VARIANTS},
    }
    panels = figures.plot_variants(data, chance=0.25, names=VARIANTS)
    assert panels.shape == (2, 3)
    for row, variants in zip(panels, data.values(), strict=True):
        for ax, split in zip(row, SPLITS, strict=True):
            drawn = lines_by_label(ax)
            assert list(drawn) == list(variants)
            for name, frame in variants.items():
                np.testing.assert_array_equal(drawn[name], frame[["epoch", f"{split}_accuracy"]])
            assert any(list(line.get_ydata()) == [0.25, 0.25] for line in ax.lines), "chance"
    assert [text.get_text() for text in panels[0, 0].figure.legends[0].get_texts()] == VARIANTS


def test_a_variant_keeps_its_look_whether_or_not_others_are_there():
    whole = figures.plot_variants({"CNN": {name: history(3) for name in VARIANTS}}, names=VARIANTS)[0, 0]
    part = figures.plot_variants({"CNN": {"all": history(3)}}, names=VARIANTS)[0, 0]
    before, after = (next(line for line in ax.lines if line.get_label() == "all") for ax in (whole, part))
    assert (before.get_color(), before.get_linestyle()) == (after.get_color(), after.get_linestyle())
    assert [text.get_text() for text in part.figure.legends[0].get_texts()] == ["all"]


def test_the_first_variant_is_dark_and_thick_in_the_panels_and_in_the_legend():
    panels = figures.plot_variants({"CNN": {name: history(3) for name in VARIANTS}}, names=VARIANTS)
    (legend,) = panels[0, 0].figure.legends
    for line in (*(ax.lines[0] for ax in panels.flat), legend.get_lines()[0]):
        assert (line.get_color(), line.get_linewidth()) == (INK, 1.8)

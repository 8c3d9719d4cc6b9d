"""Each figure draws all of its data on the axes it is given, changes nothing global and stays a vector graphic."""

from __future__ import annotations

import ast
import inspect
import io
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from audioclf_lib import figures
from audioclf_lib.models import create_model
from audioclf_lib.models.derivation import derive_layers

RNG = np.random.default_rng(0)
SPLITS = ("train", "validation", "test")
TEN = [f"class_{i}" for i in range(10)]
FIFTY = [f"quite_long_class_name_{i}" for i in range(50)]


def waveform(seconds: float = 5.0) -> np.ndarray:
    samples = RNG.normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)
    samples[len(samples) // 2 :] = 0
    return samples


def silent_dataset(names: list[str]) -> SimpleNamespace:
    labels = np.repeat(np.arange(len(names)), 3)
    silent = np.zeros((len(labels), 9), dtype=bool)
    silent[labels == 1, :4] = True  # 12 of 27
    return SimpleNamespace(labels=labels, silent=silent, class_names=tuple(names))


def history(epochs: int) -> pd.DataFrame:
    columns = {"epoch": np.arange(1, epochs + 1)}
    for split in ("train", "validation", "test"):
        for metric in ("loss", "accuracy", "clip_accuracy"):
            columns[f"{split}_{metric}"] = RNG.random(epochs)
    return pd.DataFrame(columns)


def histories(fits: int = 4, epochs: int = 5) -> dict[str, pd.DataFrame]:
    return {f"validation fold {i + 2}": history(epochs) for i in range(fits)}


def confusion(n_classes: int) -> np.ndarray:
    matrix = RNG.poisson(3 / n_classes, (n_classes, n_classes)) + 12 * np.eye(n_classes, dtype=int)
    matrix[0] = 0  # a class without test clips
    return matrix


def roc(names: list[str]) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, float]]:
    rates = np.linspace(0, 1, 9)
    curves = {name: (rates, rates ** RNG.uniform(0.2, 1)) for name in [*names, "micro", "macro"]}
    return curves, {name: float(np.trapezoid(y, x)) for name, (x, y) in curves.items()}


def per_class(names: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"f1": RNG.random(len(names))}, index=names)


def results() -> pd.DataFrame:
    rows = []
    for experiment, fits in (("CNN, k-fold", [0.4, 0.5, 0.6, 0.7]), ("CNN, split", [0.5]), ("Transformer, split", [])):
        for level in ("window", "clip"):
            mean = np.mean(fits) if fits else np.nan
            rows.append(
                {"experiment": experiment, "level": level, "mean": mean, "std": np.std(fits or [0]), "fits": fits}
            )
    return pd.DataFrame(rows)


def reliability(*bins: tuple[int, float, float], n_bins: int = 15) -> SimpleNamespace:
    """A table with (count, confidence, accuracy) in the bins where the confidences fall; the other bins are empty."""
    edges = np.linspace(0, 1, n_bins + 1)
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": 0, "confidence": np.nan, "accuracy": np.nan})
    for number, confidence, accuracy in bins:
        row = int(np.ceil(confidence * n_bins)) - 1
        table.loc[row, ["count", "confidence", "accuracy"]] = number, confidence, accuracy
    table["count"] = table["count"].astype(int)
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return SimpleNamespace(ece=float((gaps * table["count"]).sum() / table["count"].sum()), bins=table)


BINS = [(20, 0.31, 0.25), (1234, 0.55, 0.70), (7, 0.9, 0.0), (300, 0.99, 1.0)]


def attention(heads: int) -> np.ndarray:
    weights = RNG.random((heads, 33, 33))
    return weights / weights.sum(axis=2, keepdims=True)


def layers(name: str) -> list:
    return derive_layers(create_model(name))


SEARCH = {
    "learning_rate": SimpleNamespace(low=1e-4, high=1e-2, log=True, choices=None),
    "dropout": SimpleNamespace(low=0.0, high=0.5, log=False, choices=None),
    "activation": SimpleNamespace(low=None, high=None, log=False, choices=("none", "relu", "$x$")),
}


def study_trials(n: int) -> pd.DataFrame:
    """The best first; every third one is pruned."""
    columns = {"trial": range(n), "state": ["done", "done", "pruned"] * (n // 3) + ["done"] * (n % 3)}
    columns |= {"accuracy": np.linspace(0.9, 0.1, n), "learning_rate": np.geomspace(1e-4, 1e-2, n)}
    columns |= {
        "dropout": np.linspace(0, 0.5, n),
        "activation": ["none", "relu", "$x$", "relu"] * (n // 4) + ["none"] * (n % 4),
    }
    return pd.DataFrame(columns)


DRAWINGS: dict[str, Callable[[Axes | None], Axes]] = {
    "waveform": lambda ax: figures.plot_waveform(waveform(), ax=ax),
    "short waveform": lambda ax: figures.plot_waveform(waveform(0.01), ax=ax),
    "mel": lambda ax: figures.plot_mel_spectrogram(waveform(), n_mels=16, max_frames=20, ax=ax),
    "mel of silence": lambda ax: figures.plot_mel_spectrogram(np.zeros(80_000), n_mels=8, max_frames=10, ax=ax),
    "windows": lambda ax: figures.plot_windows(waveform(), [False] * 6 + [True] * 3, ax=ax),
    "silence 10": lambda ax: figures.plot_silence_per_class(silent_dataset(TEN), ax=ax),
    "silence 50": lambda ax: figures.plot_silence_per_class(silent_dataset(FIFTY), ax=ax),
    "four fits": lambda ax: figures.plot_learning_curve(histories(), num_classes=10, ax=ax),
    "one epoch": lambda ax: figures.plot_learning_curve(histories(4, 1), "accuracy", num_classes=10, ax=ax),
    "one fit": lambda ax: figures.plot_learning_curve(histories(1), "clip_accuracy", "test", ax=ax),
    "ten fits": lambda ax: figures.plot_learning_curve(histories(10), ax=ax),
    "confusion 2": lambda ax: figures.plot_confusion(confusion(2), ["dog", "cat"], ax=ax),
    "confusion 10": lambda ax: figures.plot_confusion(confusion(10), TEN, normalise=True, ax=ax),
    "confusion 50": lambda ax: figures.plot_confusion(confusion(50), FIFTY, ax=ax),
    "roc 2": lambda ax: figures.plot_roc(*roc(["dog", "cat"]), ax=ax),
    "roc 50": lambda ax: figures.plot_roc(*roc(FIFTY), ax=ax),
    "f1 2": lambda ax: figures.plot_f1_bars(per_class(["dog", "cat"]), ax=ax),
    "f1 50": lambda ax: figures.plot_f1_bars(per_class(FIFTY), ax=ax),
    "comparison": lambda ax: figures.plot_comparison(results(), num_classes=10, reference={"CNN, split": 0.09}, ax=ax),
    "reliability": lambda ax: figures.plot_reliability(reliability(*BINS), ax=ax),
    "reliability of one answer": lambda ax: figures.plot_reliability(reliability((1, 0.2, 1.0)), ax=ax),
    "attention": lambda ax: figures.plot_attention(attention(1)[0], ax=ax),
    "attention of CLS": lambda ax: figures.plot_attention(attention(4)[:, 0], ax=ax),
    "search history": lambda ax: figures.plot_search_history(study_trials(12), ax=ax),
    "importances": lambda ax: figures.plot_importances({"dropout": 0.2, "learning_rate": 0.8}, ax=ax),
    "parallel settings": lambda ax: figures.plot_parallel_settings(study_trials(12), SEARCH, ax=ax),
    "parallel settings of one trial": lambda ax: figures.plot_parallel_settings(study_trials(1), SEARCH, ax=ax),
    "architecture cnn": lambda ax: figures.plot_architecture(layers("cnn"), ax=ax),
    "architecture transformer": lambda ax: figures.plot_architecture(layers("transformer"), ax=ax),
}
every_drawing = pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)


def svg_of(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


# ------------------------------------------------------------------------------------------------------ every figure


@every_drawing
def test_a_figure_draws_on_the_given_axes_and_touches_nothing_else(draw):
    figure = Figure()
    given, other = figure.subplots(1, 2)
    before = dict(mpl.rcParams)
    assert draw(given) is given
    assert given.has_data() or given.patches
    assert not other.has_data() and not other.texts
    assert figure.axes == [given, other]
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


@every_drawing
def test_a_figure_of_its_own_is_vector_only_and_fits_the_page(draw, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("plt.show was called"))
    ax = draw(None)
    assert ax.figure.get_figwidth() <= figures.TEXT_WIDTH
    assert ax.figure.get_figheight() <= 9.7  # A4 less margins
    assert "<image" not in svg_of(ax.figure)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", ["silence 10", "silence 50", "comparison", "f1 50", "confusion 10", "confusion 50"])
def test_class_names_do_not_overlap_and_stay_on_the_page(name):
    ax = DRAWINGS[name](None)
    figure = ax.figure
    figure.savefig(io.BytesIO(), format="png", dpi=72)
    page = figure.bbox
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in boxes)
    lows_and_highs = sorted((box.y0, box.y1) for box in boxes)
    gaps = [low - high for (_, high), (low, _) in pairwise(lows_and_highs)]
    assert min(gaps) > -0.5


def test_figures_know_nothing_of_training_data_sets_or_pyplot():
    imports = [node for node in ast.walk(ast.parse(inspect.getsource(figures))) if isinstance(node, ast.ImportFrom)]
    ours = {node.module for node in imports if node.module.startswith("audioclf_lib")}
    assert ours == {"audioclf_lib.data.windowing"}
    assert not hasattr(figures, "plt")


# --------------------------------------------------------------------------------------------------------------- data


def test_the_waveform_band_reaches_the_extremes_at_their_time():
    samples = np.zeros(80_000, dtype=np.float32)
    samples[40_000], samples[64_000] = 0.7, -0.4
    (band,) = figures.plot_waveform(samples).collections
    points = band.get_paths()[0].vertices
    assert points[:, 1].max() == pytest.approx(0.7)
    assert points[:, 1].min() == pytest.approx(-0.4)
    assert points[points[:, 1].argmax(), 0] == pytest.approx(2.5, abs=0.01)
    assert points[points[:, 1].argmin(), 0] == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("frequency", [500, 1000, 4000])
def test_a_tone_is_loudest_at_its_frequency_in_the_spectrogram(frequency):
    time = np.arange(80_000) / 16_000
    ax = figures.plot_mel_spectrogram(np.sin(2 * np.pi * frequency * time))
    (mesh,) = ax.collections
    decibels = mesh.get_array()
    edges = mesh.get_coordinates()[:, 0, 1]
    row = int(decibels.mean(axis=1).argmax())
    assert edges[row - 1] <= figures.hertz_to_mel(frequency) <= edges[row + 2]
    assert decibels.max() == 0
    assert decibels.min() >= -80
    assert decibels.shape[0] == 64
    assert decibels.shape[1] <= 101


def test_a_long_clip_gives_a_mesh_of_the_same_size():
    (mesh,) = figures.plot_mel_spectrogram(waveform(30), n_mels=32, max_frames=50).collections
    assert mesh.get_array().shape[0] == 32
    assert mesh.get_array().shape[1] <= 51


def test_windows_lie_where_they_are_cut_and_silent_ones_are_named():
    ax = figures.plot_windows(waveform(), [False] * 7 + [True] * 2)
    boxes = list(ax.patches)
    assert [box.get_x() for box in boxes] == [0.5 * i for i in range(9)]
    assert {box.get_width() for box in boxes} == {1.0}
    assert [bool(box.get_hatch()) for box in boxes] == [False] * 7 + [True] * 2
    assert texts(ax) == ["1", "2", "3", "4", "5", "6", "7", "8 silent", "9 silent"]


def test_silence_is_counted_per_class_and_sorted():
    ax = figures.plot_silence_per_class(silent_dataset(TEN))
    assert ax.get_yticklabels()[0].get_text() == "class_1"
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([12 / 27] + [0] * 9)
    assert texts(ax) == ["12 of 27"] + ["0 of 27"] * 9


# ----------------------------------------------------------------------------------------------------- learning curves


def lines_by_label(ax: Axes) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in ax.lines if not line.get_label().startswith("_")}


def test_learning_curves_are_the_histories_and_their_mean():
    data = histories(3)
    lines = lines_by_label(figures.plot_learning_curve(data, "accuracy", "test"))
    for label, frame in data.items():
        np.testing.assert_array_equal(lines[label], frame[["epoch", "test_accuracy"]])
    mean = np.mean([frame["test_accuracy"] for frame in data.values()], axis=0)
    np.testing.assert_allclose(lines["mean"][:, 1], mean)


def test_the_mean_covers_the_epochs_that_all_fits_have():
    data = {"long": history(8), "short": history(5)}
    assert len(lines_by_label(figures.plot_learning_curve(data))["mean"]) == 5


def test_one_fit_has_no_mean():
    assert list(lines_by_label(figures.plot_learning_curve(histories(1)))) == ["validation fold 2"]


def test_the_chosen_epoch_is_marked_on_its_curve():
    data = histories(2)
    ax = figures.plot_learning_curve(data, "loss", "train", chosen_epochs={"validation fold 3": 4})
    marks = [line.get_xydata() for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(marks, [[[4, data["validation fold 3"]["train_loss"][3]]]])


@pytest.mark.parametrize(
    ("metric", "level", "text"), [("loss", np.log(10), "ln 10 = 2.30"), ("accuracy", 0.1, "chance 10 %")]
)
def test_what_guessing_gives_is_drawn(metric, level, text):
    ax = figures.plot_learning_curve(histories(), metric, num_classes=10)
    assert any(set(line.get_ydata()) == {level} for line in ax.lines)
    assert texts(ax) == [text]
    assert ax.get_ylim()[0] <= level <= ax.get_ylim()[1]


def test_a_split_that_was_never_scored_says_so():
    frame = history(3)
    frame["test_loss"] = np.nan
    assert texts(figures.plot_learning_curve({"fit": frame}, "loss", "test")) == ["not scored"]


@pytest.mark.parametrize(("fits", "epochs"), [(4, 6), (1, 6), (4, 1), (1, 1)])
def test_six_curves_share_one_legend(fits, epochs):
    data = histories(fits, epochs)
    chosen = dict.fromkeys(data, 1)
    figure = figures.plot_learning_curves(data, chosen_epochs=chosen, num_classes=10, accuracy="clip_accuracy")
    assert len(figure.axes) == 6
    assert all(ax.get_legend() is None for ax in figure.axes)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [*data, *(["mean"] if fits > 1 else []), "chosen epoch"]
    label, frame = next(iter(data.items()))
    drawn = [lines_by_label(ax)[label][:, 1] for ax in figure.axes]
    columns = [f"{split}_{m}" for m in ("loss", "clip_accuracy") for split in ("train", "validation", "test")]
    np.testing.assert_array_equal(drawn, [frame[column] for column in columns])
    assert "<image" not in svg_of(figure)


# -------------------------------------------------------------------------------------------------------------- scores


def cell_texts(ax: Axes, n_classes: int) -> np.ndarray:
    cells = np.full((n_classes, n_classes), "", dtype=object)
    for text in ax.texts:
        x, y = text.get_position()
        cells[int(y), int(x)] = text.get_text()
    return cells


@pytest.mark.parametrize("n_classes", [2, 10, 50])
def test_confusion_cells_hold_the_matrix_true_classes_down(n_classes):
    matrix = confusion(n_classes)
    names = [f"name_{i}" for i in range(n_classes)]
    ax = figures.plot_confusion(matrix, names)
    np.testing.assert_array_equal(cell_texts(ax, n_classes), np.where(matrix > 0, matrix.astype(str), ""))
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert [label.get_text() for label in labels] == names
    assert ax.yaxis_inverted()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")


def test_confusion_in_per_cent_is_by_row_and_survives_an_empty_row():
    ax = figures.plot_confusion([[0, 0, 0], [1, 1, 2], [0, 3, 0]], ["a", "b", "c"], normalise=True)
    assert cell_texts(ax, 3).tolist() == [["", "", ""], ["25", "25", "50"], ["", "100", ""]]


@pytest.mark.parametrize("names", [["dog", "cat"], TEN, FIFTY], ids=len)
def test_roc_lines_are_the_input(names):
    curves, auc = roc(names)
    ax = figures.plot_roc(curves, auc)
    drawn = [line.get_xydata() for line in ax.lines][: len(curves)]
    np.testing.assert_array_equal(drawn, [np.column_stack(curve) for curve in curves.values()])


def test_the_roc_legend_gives_every_area():
    curves, auc = roc(TEN)
    entries = [text.get_text() for text in figures.plot_roc(curves, auc).get_legend().get_texts()]
    assert entries[:10] == [f"{auc[name]:.2f}  {name}" for name in TEN]
    assert entries[10:12] == [f"{auc['micro']:.2f}  micro average", f"{auc['macro']:.2f}  macro average"]


def test_the_roc_legend_names_the_extremes_of_many_classes():
    curves, auc = roc(FIFTY)
    entries = [text.get_text() for text in figures.plot_roc(curves, auc).get_legend().get_texts()]
    ranked = sorted(FIFTY, key=auc.__getitem__)
    named = {name for name in FIFTY for entry in entries if entry.endswith(f"  {name}")}
    assert named == {*ranked[:3], *ranked[-3:]}


def test_a_class_without_an_area_gets_a_dash():
    curves, auc = roc(["dog", "cat"])
    entries = [t.get_text() for t in figures.plot_roc(curves, auc | {"dog": float("nan")}).get_legend().get_texts()]
    assert "–" in entries[0] and "nan" not in " ".join(entries)


def test_f1_bars_are_the_scores_and_the_line_their_mean():
    frame = per_class(TEN)
    ax = figures.plot_f1_bars(frame)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(frame["f1"].tolist())
    assert texts(ax) == [*(f"{score:.2f}" for score in frame["f1"]), f"macro F1 {frame['f1'].mean():.2f}"]
    assert ax.lines[0].get_xdata()[0] == pytest.approx(frame["f1"].mean())


def test_the_comparison_shows_means_fits_and_what_is_missing():
    ax = figures.plot_comparison(results(), num_classes=4, reference={"CNN, split": 0.0916})
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.55, 0.55, 0.5, 0.5])
    dots = [list(line.get_xdata()) for line in ax.lines if line.get_marker() == "o"]
    assert dots == [[0.4, 0.5, 0.6, 0.7]] * 2 + [[0.5]] * 2
    assert texts(ax).count("missing") == 2
    assert [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "D"] == [0.0916]
    assert any(list(line.get_xdata()) == [0.25, 0.25] for line in ax.lines)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["CNN, k-fold", "CNN, split", "Transformer, split"]


# -------------------------------------------------------------------------------------------------------------- models


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


@pytest.mark.parametrize("panels", [2, 4, 5, 8, 16])
def test_reliability_panels_are_named_and_fit_the_page(panels):
    tables = {f"Transformer, {panel} heads\nk-fold": reliability(*BINS) for panel in range(panels)}
    figure = figures.plot_reliabilities(tables)
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(tables)
    assert all(ax.get_title(loc="right").startswith("ECE") for ax in figure.axes)
    assert figure.get_figwidth() <= figures.TEXT_WIDTH
    assert figure.get_figheight() <= 9
    assert "<image" not in svg_of(figure)
    bottom_of_column = figure.axes[-min(4, panels) :]
    assert all(ax.get_xlabel() == "confidence" for ax in bottom_of_column)


def test_attention_is_drawn_as_it_is_with_cls_first():
    weights = attention(2)[1]
    ax = figures.plot_attention(weights)
    np.testing.assert_array_equal(ax.collections[0].get_array(), weights)
    assert ax.get_xticklabels()[0].get_text() == "CLS"
    assert ax.yaxis_inverted()


def test_what_cls_asks_has_a_row_per_head():
    weights = attention(4)[:, 0]
    ax = figures.plot_attention(weights)
    np.testing.assert_array_equal(ax.collections[0].get_array(), weights)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_each_head_has_a_panel(heads):
    weights = attention(heads)
    figure = figures.plot_attention_heads(weights)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [f"head {i + 1}" for i in range(heads)]
    for ax, head in zip(figure.axes, weights, strict=True):
        np.testing.assert_array_equal(ax.collections[0].get_array(), head)
        assert ax.yaxis_inverted()
    assert "<image" not in svg_of(figure)


def test_the_architecture_shows_every_new_shape_and_each_encoder_layer():
    steps = figures.architecture_steps(layers("transformer"))
    assert [name for name, _ in steps][-5:] == [
        "cls token",
        "encoder layer 1",
        "encoder layer 2",
        "cls output",
        "classifier",
    ]
    assert [shape for _, shape in steps][-5:] == [(33, 250), (33, 250), (33, 250), (250,), (10,)]
    assert "33\n× 250" in texts(figures.plot_architecture(layers("transformer")))


def test_dollar_signs_in_class_names_are_letters():
    names = ["cost $x$", r"$\foo$"]
    ax = figures.plot_f1_bars(pd.DataFrame({"f1": [0.5, 0.2]}, index=names))
    ax.figure.savefig(io.BytesIO(), format="svg")  # mathematics that is none would stop here
    assert [label.get_text().replace("\\$", "$") for label in ax.get_yticklabels()] == names


def test_the_largest_loss_of_any_panel_is_within_the_shared_axis():
    history = pd.DataFrame({"epoch": [1, 2], **{f"{split}_accuracy": [0.5, 0.6] for split in SPLITS}})
    for split, loss in zip(SPLITS, (0.4, 1.5, 2.9), strict=True):
        history[f"{split}_loss"] = [loss, loss / 2]
    panels = figures.plot_learning_curves({"fit": history}, num_classes=3).axes[:3]
    assert all(ax.get_ylim() == panels[0].get_ylim() for ax in panels)
    assert panels[0].get_ylim()[1] > 2.9
    without_a_reference = figures.plot_learning_curves({"fit": history * 100}).axes[0]
    assert without_a_reference.get_ylim()[1] > 290


# ---------------------------------------------------------------------------------------------------------- diagnosis

VARIANTS = ["as written", "one", "two", "three", "four", "five", "all", "too fast"]


def trace(steps: int = 8, probe_every: int = 2) -> pd.DataFrame:
    """Two epochs of steps; a probe in some of them."""
    columns = {"epoch": np.arange(steps) * 2 // steps + 1, "step": np.arange(1, steps + 1)}
    columns |= {name: RNG.uniform(1e-9, 9, steps) for name in figures.PART_LABELS}
    probed = np.arange(steps) % probe_every == 0
    for name, most in (("entropy_layer1", np.log(33)), ("entropy_layer2", np.log(33)), ("similarity", 1)):
        columns[name] = np.where(probed, RNG.uniform(0, most, steps), np.nan)
    return pd.DataFrame(columns)


@pytest.mark.parametrize("epochs", [1, 6])
def test_variants_are_drawn_as_their_histories_say_with_a_row_per_architecture(epochs):
    data = {
        "CNN": {name: history(epochs) for name in VARIANTS[:-1]},
        "Other": {name: history(epochs) for name in VARIANTS},
    }
    figure = figures.plot_variants(data, num_classes=4, names=VARIANTS)
    assert len(figure.axes) == 6
    for row, variants in enumerate(data.values()):
        for column, split in enumerate(SPLITS):
            drawn = [line.get_xydata() for line in figure.axes[3 * row + column].lines]
            for frame in variants.values():
                expected = frame[["epoch", f"{split}_accuracy"]].to_numpy()
                assert any(np.array_equal(line, expected) for line in drawn)
            assert any(line[:, 1].tolist() == [0.25, 0.25] for line in drawn), "chance"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == VARIANTS
    assert "<image" not in svg_of(figure)
    assert plt.get_fignums() == []


def test_a_variant_keeps_its_look_whether_or_not_others_are_there():
    whole = figures.plot_variants({"CNN": {name: history(3) for name in VARIANTS}}, num_classes=4, names=VARIANTS)
    part = figures.plot_variants({"CNN": {"all": history(3)}}, num_classes=4, names=VARIANTS)
    (entry,) = part.legends[0].get_lines()
    assert entry.get_color() == whole.legends[0].get_lines()[VARIANTS.index("all")].get_color()


def test_the_inside_of_training_is_drawn_as_the_traces_say():
    data = {"one": trace(), "two": trace(6, 3)}
    figure = figures.plot_inside_training(data)
    assert len(figure.axes) == 6
    for column, (title, frame) in enumerate(data.items()):
        gradients, entropies, similarity = (figure.axes[2 * row + column] for row in range(3))
        assert gradients.get_title(loc="left") == title
        assert gradients.get_yscale() == "log"
        probes = frame.dropna()
        for ax, names, rows in (
            (gradients, figures.PART_LABELS, frame),
            (entropies, ("entropy_layer1", "entropy_layer2"), probes),
            (similarity, ("similarity",), probes),
        ):
            drawn = [line.get_xydata() for line in ax.lines]
            for name in names:
                assert any(np.array_equal(line, rows[["step", name]]) for line in drawn)
        assert any(line.get_ydata()[0] == pytest.approx(np.log(33)) for line in entropies.lines), "uniform"
    assert "<image" not in svg_of(figure)


def test_a_gradient_of_nothing_does_not_break_the_logarithmic_axis():
    frame = trace()
    frame["gradient_base"] = 0.0
    svg_of(figures.plot_inside_training({"one": frame}))


# ------------------------------------------------------------------------------------------------------------- studies


def test_the_best_so_far_never_falls_and_regards_only_trials_trained_to_the_end():
    trials = pd.DataFrame({"trial": range(5), "state": ["done", "pruned", "done", "done", "running"]})
    trials["accuracy"] = [0.4, 0.9, 0.3, 0.6, np.nan]
    best, done, pruned = figures.plot_search_history(trials).lines
    assert best.get_ydata().tolist() == [0.4, 0.4, 0.6, 0.6]
    assert best.get_xdata().tolist() == [0, 2, 3, 4]
    assert done.get_xydata().tolist() == [[0, 0.4], [2, 0.3], [3, 0.6]]
    assert pruned.get_xydata().tolist() == [[1, 0.9]]


@pytest.mark.parametrize("state", ["pruned", "running"])
def test_a_history_without_a_trained_trial_can_be_drawn(state):
    trials = pd.DataFrame({"trial": [0], "state": [state], "accuracy": [0.2]})
    svg_of(figures.plot_search_history(trials).figure)


def test_the_most_important_setting_is_on_top():
    ax = figures.plot_importances({"dropout": 0.2, "learning_rate": 0.5, "mixup_alpha": 0.3})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["learning_rate", "mixup_alpha", "dropout"]
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.3, 0.2]


def test_a_trial_crosses_each_axis_at_its_value_and_the_best_is_orange():
    trials = study_trials(12)
    lines = [line for line in figures.plot_parallel_settings(trials, SEARCH).lines if len(line.get_xdata()) == 4]
    assert len(lines) == 12
    best, middle = lines[-1], lines[-2]
    assert best.get_color() == figures.ORANGE
    assert best.get_ydata().tolist() == [0, 0, 0, 1]
    assert middle.get_ydata() == pytest.approx([1 / 11, 1 / 11, 1 / 2, 10 / 11])

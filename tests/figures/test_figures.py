"""Every figure draws all of its data on the axes it is given or shows below a cell, and stays a vector graphic."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from itertools import pairwise

import figure_data as made
import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from figure_data import FIFTY, TEN, VARIANTS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nbclient import NotebookClient

from audioclf_lib import figures
from audioclf_lib.models import create_model
from audioclf_lib.models.derivation import derive_layers


def layers(name: str) -> list:
    return derive_layers(create_model(name))


DRAWINGS: dict[str, Callable[..., Axes]] = {
    "waveform": lambda **kw: figures.plot_waveform(made.waveform(), **kw),
    "short waveform": lambda **kw: figures.plot_waveform(made.waveform(0.01), **kw),
    "mel": lambda **kw: figures.plot_mel_spectrogram(made.waveform(), n_mels=16, max_frames=20, **kw),
    "mel of silence": lambda **kw: figures.plot_mel_spectrogram(np.zeros(80_000), n_mels=8, max_frames=10, **kw),
    "windows": lambda **kw: figures.plot_windows(made.waveform(), [False] * 6 + [True] * 3, **kw),
    "silence 10": lambda **kw: figures.plot_silence_per_class(made.silent_dataset(TEN), **kw),
    "silence 50": lambda **kw: figures.plot_silence_per_class(made.silent_dataset(FIFTY), **kw),
    "four fits": lambda **kw: figures.plot_learning_curve(made.histories(), chance=0.1, **kw),
    "one epoch": lambda **kw: figures.plot_learning_curve(made.histories(4, 1), "accuracy", chance=0.1, **kw),
    "one fit": lambda **kw: figures.plot_learning_curve(made.histories(1), "clip_accuracy", "test", **kw),
    "ten fits": lambda **kw: figures.plot_learning_curve(made.histories(10), **kw),
    "confusion 2": lambda **kw: figures.plot_confusion(made.confusion(2), ["dog", "cat"], **kw),
    "confusion 10": lambda **kw: figures.plot_confusion(made.confusion(10), TEN, normalise=True, **kw),
    "confusion 50": lambda **kw: figures.plot_confusion(made.confusion(50), FIFTY, **kw),
    "roc 2": lambda **kw: figures.plot_roc(*made.roc(["dog", "cat"]), **kw),
    "roc 50": lambda **kw: figures.plot_roc(*made.roc(FIFTY), **kw),
    "f1 2": lambda **kw: figures.plot_f1_bars(made.per_class(["dog", "cat"]), **kw),
    "f1 50": lambda **kw: figures.plot_f1_bars(made.per_class(FIFTY), **kw),
    "comparison": lambda **kw: figures.plot_comparison(
        made.results(), chance=0.1, reference={"CNN, split": 0.09}, **kw
    ),
    "reliability": lambda **kw: figures.plot_reliability(made.reliability(*made.BINS), **kw),
    "reliability of one answer": lambda **kw: figures.plot_reliability(made.reliability((1, 0.2, 1.0)), **kw),
    "attention of one head": lambda **kw: figures.plot_attention(made.attention(1)[0], **kw),
    "attention of CLS": lambda **kw: figures.plot_attention(made.attention(4)[:, 0], **kw),
    "architecture cnn": lambda **kw: figures.plot_architecture(layers("cnn"), **kw),
    "architecture transformer": lambda **kw: figures.plot_architecture(layers("transformer"), **kw),
    "architecture with feature maps": lambda **kw: figures.plot_architecture(made.MEL_NET, **kw),
}
PANELS: dict[str, Callable[..., np.ndarray]] = {
    "learning curves": lambda **kw: figures.plot_learning_curves(made.histories(), chance=0.1, **kw),
    "variants": lambda **kw: figures.plot_variants({"CNN": {name: made.history(3) for name in VARIANTS}}, **kw),
    "inside training": lambda **kw: figures.plot_inside_training({"one": made.trace(), "two": made.trace()}, **kw),
    "reliabilities": lambda **kw: figures.plot_reliabilities(
        {str(i): made.reliability(*made.BINS) for i in range(5)}, **kw
    ),
}
every_drawing = pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
every_figure = pytest.mark.parametrize("draw", (DRAWINGS | PANELS).values(), ids=DRAWINGS | PANELS)


def figure_of(drawn: Axes | np.ndarray) -> Figure:
    return (drawn if isinstance(drawn, Axes) else drawn.flat[0]).figure


def saved(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "fixed"}):
        figure.savefig(buffer, format=kind, metadata={"Date" if kind == "svg" else "CreationDate": None})
    return buffer.getvalue()


@every_drawing
def test_a_figure_draws_on_the_given_axes_and_touches_nothing_else(draw):
    figure = Figure()
    given, other = figure.subplots(1, 2)
    before = dict(mpl.rcParams)
    assert draw(ax=given) is given
    assert given.has_data() or given.patches
    assert not other.has_data() and not other.texts
    assert figure.axes == [given, other]
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


@every_figure
def test_a_figure_of_its_own_is_vector_only_and_fits_the_page(draw, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("plt.show was called"))
    figure = figure_of(draw())
    assert plt.get_fignums() == [figure.number]
    assert figure.get_figwidth() <= figures.TEXT_WIDTH
    assert figure.get_figheight() <= 9.7  # A4 less margins
    assert b"<image" not in saved(figure, "svg")
    assert b"/Subtype /Image" not in saved(figure, "pdf")


@every_figure
def test_a_figure_has_the_size_it_is_asked_for(draw):
    assert figure_of(draw(figsize=(5, 4))).get_size_inches().tolist() == [5, 4]


@pytest.mark.parametrize("name", ["mel", "confusion 10", "comparison", "attention of CLS", "roc 2"])
def test_the_same_data_give_the_same_bytes(name, monkeypatch):
    drawn = []
    for _ in range(2):
        monkeypatch.setattr(made, "RNG", np.random.default_rng(1))
        drawn.append(saved(figure_of(DRAWINGS[name]()), "svg"))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("name", ["silence 10", "silence 50", "comparison", "f1 50", "confusion 10", "confusion 50"])
def test_class_names_do_not_overlap_and_stay_on_the_page(name):
    ax = DRAWINGS[name]()
    figure = ax.figure
    figure.savefig(io.BytesIO(), format="png", dpi=figure.dpi)
    page = figure.bbox
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in boxes)
    lows_and_highs = sorted((box.y0, box.y1) for box in boxes)
    gaps = [low - high for (_, high), (low, _) in pairwise(lows_and_highs)]
    assert min(gaps) > -0.5


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("waveform", {"color": "red"}),
        ("windows", {"alpha": 0.5}),
        ("mel", {"cmap": "viridis", "vmin": -60}),
        ("silence 10", {"color": "red", "height": 0.5}),
        ("four fits", {"linewidth": 3, "alpha": 1}),
        ("confusion 10", {"cmap": "Greens", "cbar": True, "annot": False}),
        ("roc 2", {"color": "red"}),
        ("f1 2", {"color": "red"}),
        ("comparison", {"palette": ["red", "blue"], "errorbar": None}),
        ("reliability", {"color": "red"}),
        ("attention of CLS", {"cmap": "Greens", "vmax": 1}),
        ("architecture cnn", {"facecolor": "red"}),
        ("learning curves", {"color": "red", "chosen_epochs": {"validation fold 2": 1}}),
        ("variants", {"color": "red", "chance": 0.1}),
        ("inside training", {"linewidth": 3}),
        ("reliabilities", {"color": "red"}),
    ],
)
def test_further_keywords_reach_seaborn_and_matplotlib(name, keywords):
    saved(figure_of((DRAWINGS | PANELS)[name](**keywords)), "svg")


def test_a_colour_map_reaches_the_confusion_matrix():
    ax = figures.plot_confusion([[3, 1], [0, 4]], ["dog", "cat"], cmap="Greens")
    assert ax.collections[0].get_cmap().name == "Greens"


def test_importing_the_figures_gives_a_notebooks_own_plots_the_same_look():
    with plt.style.context(figures.STYLE):
        expected = dict(mpl.rcParams)
    assert dict(mpl.rcParams) == expected
    assert mpl.rcParams["figure.constrained_layout.use"]


CELLS = {
    "from audioclf_lib import figures": 0,
    "figures.plot_confusion([[3, 1], [0, 4]], ['dog', 'cat'], cmap='Greens')": 1,
    "import pandas as pd\nhistory = pd.DataFrame({'epoch': [1, 2], 'train_loss': [2, 1], 'train_accuracy': [0, 1]})\n"
    "figures.plot_learning_curves({'fit': history})": 1,
    "from matplotlib import pyplot as plt\nfigure, axes = plt.subplots(1, 2)\n"
    "figures.plot_waveform([0, 1, 0], ax=axes[0])": 1,
}


def test_a_plot_at_the_end_of_a_cell_shows_as_one_picture():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(env=environment)
    pictures = [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in notebook.cells]
    assert pictures == list(CELLS.values())

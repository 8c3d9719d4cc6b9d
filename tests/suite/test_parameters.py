"""Unknown papermill parameters are found in the cells executed so far; training is shown in lines and bars."""

from __future__ import annotations

from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from standins import write_notebook
from synthetic import DEMO

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Experiment, FitConfig
from audioclf_lib.suite.parameters import (
    PROGRESS_FILE,
    TrainingProgress,
    assigned_names,
    check_parameters,
    compare_parameters,
    describe_epoch,
    known_parameters,
)

KNOWN = '# Parameters of this notebook: change them here\ndataset = "demo"  # data\nepochs: int = 3  # of every fit'
GOOD = "# Parameters\nepochs = 5\n"
BAD = "# Parameters\nepoch = 5\n"


@pytest.mark.parametrize(
    "cells",
    [
        [],
        ["", KNOWN],
        ["", KNOWN, GOOD],
        ["", KNOWN, "epoch = 5", "# Parameters of my own\nlimit = 3"],
        ["", BAD],
        ["", KNOWN, BAD, KNOWN],
        ["", KNOWN, BAD, GOOD],
        ["", f"{KNOWN}\noops = = 1", KNOWN, GOOD],
    ],
    ids=[
        "nothing executed",
        "nothing injected",
        "a known parameter",
        "the user's own variables",
        "a notebook without our parameters",
        "parameters executed anew after the mistake was taken out",
        "mistake corrected",
        "slip in an earlier attempt",
    ],
)
def test_these_are_accepted(cells: list[str]) -> None:
    compare_parameters(cells)


def test_an_unknown_parameter_is_told_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"^unknown parameter 'epoch': this notebook knows dataset, epochs; correct"):
        compare_parameters(["", KNOWN, GOOD, BAD])


def test_the_running_notebook_is_what_is_checked() -> None:
    shell = InteractiveShell.instance()
    before = shell.user_ns.get("In")
    try:
        shell.user_ns["In"] = ["", KNOWN, BAD]
        with pytest.raises(InputError, match="'epoch'"):
            check_parameters()
    finally:
        shell.user_ns["In"] = before


def test_only_names_assigned_at_the_top_level_count() -> None:
    assert assigned_names("a = b = 1\nc: int = 2\nx.y = 3\nd[0] = 4\nif a:\n    e = 5") == ["a", "b", "c"]
    assert assigned_names("a = = 1") == []


def test_the_parameters_of_a_notebook_are_the_names_that_its_tagged_cell_assigns(tmp_path: Path) -> None:
    """papermill's own reader overlooks those with an equals sign in their value or comment."""
    cell = 'title = "a = b"\nepochs: int = 3  # c = d\nnothing = None'
    notebook = write_notebook(tmp_path / "mine.ipynb", cell, "other = 1")
    assert known_parameters(notebook) == ["title", "epochs", "nothing"]


@pytest.fixture
def config() -> FitConfig:
    return Experiment(model="transformer", num_heads=2, protocol="split", epochs=40).fits(DEMO)[0]


def history(epochs: int, seconds: float = 3.0) -> list[dict[str, float]]:
    row = {"seconds": seconds, "train_loss": 2.0, "validation_loss": 1.5, "validation_accuracy": 0.456}
    return [row for _ in range(epochs)]


def test_a_line_says_which_fit_how_far_how_long_still_and_how_good(config: FitConfig) -> None:
    line = describe_epoch(config, history(10))
    for fact in ("transformer-h2", "validation fold 2", "epoch 10 of 40", "2.00", "1.50", "45.6", "1 min 30 s left"):
        assert fact in line
    assert describe_epoch(config, history(40)).endswith("done")
    assert "epoch 11 (50 %) of 40" in describe_epoch(config, history(10), 0.5)
    assert describe_epoch(config, [], 0.5) == "transformer-h2, validation fold 2: epoch 1 (50 %) of 40"
    changed = Experiment(model="cnn", protocol="split", seed=1, epochs=40, recipe_changes={"learning_rate": 0.01})
    line = describe_epoch(changed.fits(DEMO)[0], [], 0.5)
    assert line == "cnn, seed 1, learning rate 0.01, validation fold 2: epoch 1 (50 %) of 40"


def test_batch_prints_about_ten_lines_a_fit_and_always_the_last(
    config: FitConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    progress = TrainingProgress()
    for epoch in range(1, 41):
        progress(config, history(epoch))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert "epoch 40 of 40" in lines[-1]


def test_jupyterlab_gets_one_bar_for_each_fit(config: FitConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    InteractiveShell.instance()
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    progress = TrainingProgress()
    other = config.model_copy(update={"val_fold": 3})
    with capture_output() as captured:
        for epoch in (1, 2):
            progress(config, history(epoch))
        progress(other, history(1))
    shown = [(output.transient["display_id"], output.data["text/html"]) for output in captured.outputs]
    identities = [identity for identity, _ in shown]
    assert identities[0] == identities[1] != identities[2]
    assert [output.update for output in captured.outputs] == [False, True, False]
    assert 'value="2" max="40"' in shown[1][1]


def test_a_file_that_the_suite_names_holds_a_line_for_each_fit_that_is_trained_now(
    config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROGRESS_FILE, str(tmp_path / "progress.txt"))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    progress = TrainingProgress()
    other = config.model_copy(update={"val_fold": 3})
    progress.step(config, [], 0.25)
    progress(other, history(1))
    lines = (tmp_path / "progress.txt").read_text().splitlines()
    assert lines == [describe_epoch(config, [], 0.25), describe_epoch(other, history(1))]
    progress(other, history(40))
    assert (tmp_path / "progress.txt").read_text() == lines[0]


def test_a_full_disk_under_that_file_ends_no_fit(config: FitConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRESS_FILE, "/no/such/folder/progress.txt")
    TrainingProgress()(config, history(1))

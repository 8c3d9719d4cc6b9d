"""The command: answers at once, with exit codes that scripts can trust; for bad input see ``test_bad_input.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from commands import call
from standins import Scene, write_notebook
from typer.testing import CliRunner

from audioclf_lib import cli
from audioclf_lib.data import load_dataset
from audioclf_lib.suite.plan import Plan, save_plan

COMMANDS = ["data", "run", "suite", "report", "publish", "trials", "tune"]


def test_help_names_every_command_and_every_option_is_explained() -> None:
    overview = CliRunner().invoke(cli.app, ["--help"]).output
    for command in COMMANDS:
        assert command in overview
        result = CliRunner().invoke(cli.app, [command, "--help"])
        assert result.exit_code == 0
        assert "Usage" in result.output
    for command in cli.app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, audioclf_lib.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pandas", "papermill", "matplotlib", "sklearn", "nbconvert", "numpy", "optuna"} & set(loaded)


def test_data_says_what_a_data_set_holds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "data", "demo") == 0
    shown = capsys.readouterr().out
    dataset = load_dataset("demo")
    for fact in ("50 of 5 s", "10: ", "1: 10, 2: 10", "9 per clip, 450 in all", dataset.fingerprint):
        assert fact in shown


def test_run_executes_a_notebook_with_the_given_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = write_notebook(
        tmp_path / "mine.ipynb", 'epochs = 1\nname = ""\nfolds = []', "print(epochs, repr(name), folds)", "1 / epochs"
    )
    arguments = ["run", notebook, "--epochs", "5", "-p", "name=a b=c", "-p", "folds=[1, 2]"]
    assert call(monkeypatch, *arguments) == 0
    assert "executed notebook: mine-executed.ipynb" in capsys.readouterr().out
    cells = nbformat.read(tmp_path / "mine-executed.ipynb", as_version=4).cells
    assert cells[2].outputs[0].text == "5 'a b=c' [1, 2]\n"

    assert call(monkeypatch, "run", "mine.ipynb", "-p", "epochs=0", "-o", "other.ipynb") == 1
    assert "cell [4] failed with ZeroDivisionError" in capsys.readouterr().err


def test_suite_shows_a_table_and_the_failing_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)
    split = {"model": "transformer", "protocol": "split"}
    plan = Plan(name="small", epochs=2, experiments=({"model": "cnn", "protocol": "split"}, split))
    save_plan(plan, tmp_path / "small.yaml")
    scene.train(plan, load_dataset("demo"))
    scene.wish({"transformer-split": "fail"})
    arguments = ["suite", "--plan", tmp_path / "small.yaml", "--runs-dir", scene.runs_dir]
    arguments += ["--notebooks-dir", scene.notebooks, "--jobs", "2"]
    assert call(monkeypatch, *arguments, "--dry-run") == 0
    assert scene.calls() == []
    capsys.readouterr()

    assert call(monkeypatch, *arguments) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "cnn-split done" in shown
    assert "1/1 20.0 % 20.0 %" in shown
    assert "transformer-h1-split failed" in shown
    assert "[4] ValueError: asked to fail" in shown
    assert "suite.log" in shown

"""The command: answers at once, with exit codes that scripts can trust; for bad input see ``test_bad_input.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from commands import call
from standins import Scene, write_notebook
from synthetic import write_run, write_runs
from typer.testing import CliRunner

from audioclf_lib import cli
from audioclf_lib.config import Experiment
from audioclf_lib.data import dataset_facts, load_dataset
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.plan import Plan, save_plan

COMMANDS = ["init", "data", "run", "suite", "report", "tune", "predict", "export", "card"]


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
    code = """
import sys
from audioclf_lib import cli
sys.argv = ["audioclf", "--help"]
try:
    cli.main()
except SystemExit:
    print("LOADED", *sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {
        "torch",
        "pandas",
        "papermill",
        "matplotlib",
        "sklearn",
        "nbconvert",
        "numpy",
        "optuna",
        "pydantic",
        "yaml",
    }
    assert not heavy & set(printed.partition("LOADED")[2].split())


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
    name = "mine-epochs5-namea-b-c-folds-1-2-executed.ipynb"
    assert f"executed notebook: {name}" in capsys.readouterr().out
    cells = nbformat.read(tmp_path / name, as_version=4).cells
    assert cells[2].outputs[0].text == "5 'a b=c' [1, 2]\n"

    assert call(monkeypatch, "run", "mine.ipynb", "-p", "epochs=0", "-o", "other.ipynb") == 1
    assert "cell [4] failed with ZeroDivisionError" in capsys.readouterr().err


def test_two_runs_of_one_notebook_with_other_parameters_have_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "mine.ipynb", "seed = 0", "print(seed)")
    for seed in ("5", "6"):
        assert call(monkeypatch, "run", "mine.ipynb", "--seed", seed) == 0
    for seed in (5, 6):
        (cell,) = nbformat.read(tmp_path / f"mine-seed{seed}-executed.ipynb", as_version=4).cells[2:]
        assert cell.outputs[0].text == f"{seed}\n"


OWN = """
from torch import nn
from audioclf_lib.models import register_model

@register_model("my-net", title="My net")
class MyNet(nn.Module):
    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
"""


@pytest.mark.parametrize(
    ("arguments", "title", "notebook"),
    [
        (["transformer-h4-split"], "transformer-h4-split", "21_transformer_split.ipynb"),
        (["cnn-rotation"], "cnn-rotation", "11_cnn_split.ipynb"),
        (["mel-cnn-split"], "mel-cnn-split", "30_own_model.ipynb"),
        (["net.py", "--protocol", "split", "-p", "width=32"], "my-net-width32-split", "30_own_model.ipynb"),
        (["net.py:my-net", "--protocol", "split"], "my-net-split", "30_own_model.ipynb"),
    ],
)
def test_run_takes_the_name_of_an_experiment_or_the_file_of_a_model_and_prints_the_scores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    title: str,
    notebook: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(OWN)
    ran: list[str] = []

    def train(notebook: Path, output: Path, parameters: dict[str, Any], **options: object) -> Path:
        settings = {name: parameters[name] for name in ("model", "model_settings", "num_heads") if name in parameters}
        model = {"model": "cnn" if notebook.name == "11_cnn_split.ipynb" else "transformer"} | settings
        tested = parameters.get("test_folds")
        for each in Experiment(**model, protocol="split", test_folds=tested, epochs=2).fits(dataset_facts("demo")):
            write_run(RunStore(parameters["runs_dir"]), each, n_windows=1, silent_windows=0)
        ran.append(notebook.name)
        return output

    monkeypatch.setattr("audioclf_lib.suite.notebooks.run_notebook", train)
    assert call(monkeypatch, "run", *arguments, "--epochs", "2", "--runs-dir", "runs") == 0
    assert ran == [notebook]
    assert f"{title}: right on the test fold: " in capsys.readouterr().out


def test_a_terminal_of_few_characters_shows_the_tables_all_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "audioclf_lib.cli", "suite", "--dry-run", "--runs-dir", str(tmp_path / "runs")]
    done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"transformer-h4-split" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_suite_shows_a_table_and_the_failing_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)
    split = {"model": "transformer", "protocol": "split"}
    plan = Plan(name="small", epochs=2, experiments=({"model": "cnn", "protocol": "split"}, split))
    save_plan(plan, tmp_path / "small.yaml")
    scene.train(plan, load_dataset("demo"))
    scene.look(plan, load_dataset("demo"))
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


def test_the_values_that_texts_may_name_are_listed_and_nothing_is_made(tmp_path: Path) -> None:
    plan = Plan(name="part", epochs=2, experiments=({"model": "cnn", "protocol": "split"},))
    write_runs(RunStore(tmp_path / "runs"), plan)
    save_plan(plan, tmp_path / "runs" / "plan.yaml")
    arguments = ["report", "--list-values", "--runs-dir", str(tmp_path / "runs"), "--output-dir", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert '{{ accuracy("cnn", "split", "clip") }}  ' in result.output
    assert '{{ parameters("cnn") }}  128,682' in result.output
    assert not (tmp_path / "out").exists()

"""The command: answers at once, exit codes that scripts can trust, one sentence for bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from standins import Scene, write_notebook
from typer.testing import CliRunner

from audioclf_lib import cli
from audioclf_lib.datasets import load_dataset
from audioclf_lib.plan import Plan, save_plan

COMMANDS = ["data", "run", "suite", "report", "publish", "trials"]


def call(*arguments: str | Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run ``audioclf`` in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["audioclf", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


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
    assert not {"torch", "pandas", "papermill", "matplotlib", "sklearn", "nbconvert", "numpy"} & set(loaded)


def test_data_says_what_a_data_set_holds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("data", "demo", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    dataset = load_dataset("demo")
    for fact in ("50 of 5 s", "10: ", "1: 10, 2: 10", "9 per clip, 450 in all", dataset.fingerprint):
        assert fact in shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["data", "/no/such/folder"], "/no/such/folder"),
        (["suite", "--plan", "nonsense"], "unknown plan 'nonsense'; choose one of demo, full"),
        (["suite", "--dataset", "nonsense"], "'nonsense'"),
        (["suite", "--epochs", "0"], "epochs = 0 is not possible"),
        (["suite", "--seeds", "1;2"], "seeds '1;2' are not understood"),
        (["suite", "--recipe-changes", "dropout"], "are no JSON object"),
        (["suite", "--recipe-changes", '{"dropot": 1}'], "unknown setting 'dropot'"),
        (["suite", "--test-fold", "9"], "fold 9 is not in data set 'demo'"),
        (["run", "nonsense"], "neither an experiment (such as cnn-kfold) nor a notebook"),
        (["run", "cnn-kfold", "-p", "epochs"], "write it as name=value"),
        (["run", "cnn-kfold", "-p", "colour=3"], "unknown setting 'colour'"),
        (["run", "transformer-h900-split"], "num_heads = 900 is not possible"),
        (["report", "--plan", "nonsense"], "unknown plan 'nonsense'"),
        (["publish", "--plan", "nonsense"], "unknown plan 'nonsense'"),
        (["trials", "/no/such/list.yaml"], "cannot read list of trials /no/such/list.yaml"),
        (["report", "--formats", "docx"], "unknown format 'docx'; choose from pdf, html"),
        (["suite", "--recipe", "best"], "'best' is not one of"),
        (["suite", "--jobs", "0"], "greater than or equal to 1"),
    ],
)
def test_bad_input_is_told_and_changes_nothing(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] != "data":
        arguments = [*arguments, "--runs-dir", str(tmp_path / "runs")]
    assert call(*arguments, monkeypatch=monkeypatch) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert told in message.replace("│ ", "")
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []


def test_run_executes_a_notebook_with_the_given_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = write_notebook(
        tmp_path / "mine.ipynb", 'epochs = 1\nname = ""\nfolds = []', "print(epochs, repr(name), folds)", "1 / epochs"
    )
    arguments = ["run", notebook, "--epochs", "5", "-p", "name=a b=c", "-p", "folds=[1, 2]"]
    assert call(*arguments, monkeypatch=monkeypatch) == 0
    assert "executed notebook: mine-executed.ipynb" in capsys.readouterr().out
    cells = nbformat.read(tmp_path / "mine-executed.ipynb", as_version=4).cells
    assert cells[2].outputs[0].text == "5 'a b=c' [1, 2]\n"

    assert call("run", "mine.ipynb", "-p", "epochs=0", "-o", "other.ipynb", monkeypatch=monkeypatch) == 1
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
    assert call(*arguments, "--dry-run", monkeypatch=monkeypatch) == 0
    assert scene.calls() == []
    capsys.readouterr()

    assert call(*arguments, monkeypatch=monkeypatch) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "cnn-split done" in shown
    assert "1/1 20.0 % 20.0 %" in shown
    assert "transformer-h1-split failed" in shown
    assert "[4] ValueError: asked to fail" in shown
    assert "suite.log" in shown

"""The eight notebooks: committed as the design says, and run by the suite, by papermill and from any folder."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import PROJECT_ROOT
from nbformat import NotebookNode
from small_suite import CLASSES, DATASET, SmallSuite, make_sounds, notebook_path, run_program, small_suite

from audioclf_lib.config import Recipe
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.execution import run_notebook
from audioclf_lib.suite.variants import VARIANTS

COMMON = ["dataset", "epochs", "seed", "test_fold", "recipe", "recipe_changes", "device", "runs_dir"]
PARAMETERS = {
    "01_dataset": ["dataset"],
    "10_cnn_kfold": [*COMMON, "val_folds"],
    "11_cnn_split": COMMON,
    "20_transformer_kfold": [*COMMON, "val_folds", "num_heads"],
    "21_transformer_split": [*COMMON, "num_heads"],
    "30_diagnosis": ["dataset", "epochs", "seed", "test_fold", "num_heads", "device", "runs_dir"],
    "40_tuning": [*COMMON[:4], "study", "trials", "val_fold", "device", "threads", "runs_dir"],
    "90_report": ["plan", "runs_dir", "title", "authors", "course", "date"],
}
EXPERIMENTS = ["cnn-kfold", "cnn-split", "transformer-h4-split"]
RESULT_FIGURES = ["curves", "confusion", "confusion-percent", "confusion-clips", "roc", "f1"]


# ------------------------------------------------------------------------------------------------------ as committed


@pytest.fixture(params=PARAMETERS)
def committed(request: pytest.FixtureRequest) -> NotebookNode:
    return nbformat.read(notebook_path(request.param), as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]


def test_these_are_all_notebooks() -> None:
    assert sorted(path.stem for path in (PROJECT_ROOT / "notebooks").glob("*.ipynb")) == sorted(PARAMETERS)


def test_no_outputs_and_no_counts_are_committed(committed: NotebookNode) -> None:
    assert [cell.id for cell in code_cells(committed) if cell.outputs or cell.execution_count is not None] == []


def test_the_kernel_is_the_projects_own(committed: NotebookNode) -> None:
    assert committed.metadata.kernelspec.name == "audioclf"


def test_the_first_cell_says_what_is_answered_and_how_long_it_takes(committed: NotebookNode) -> None:
    first = committed.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert re.search(r"What it answers\W+\w", first.source)
    assert re.search(r"How long it takes\W.*\b(seconds?|minutes?|hours?)\b", first.source)


@pytest.mark.parametrize("name", PARAMETERS)
def test_one_cell_holds_the_known_parameters_as_scalars_with_a_comment_each(name: str) -> None:
    (cell,) = parameters_cells(nbformat.read(notebook_path(name), as_version=4))
    title, *lines = cell.source.splitlines()
    assert title.startswith("# Parameters of this notebook")
    values = {}
    for line in lines:
        code, _, comment = line.partition("  # ")
        assert comment.strip(), line
        (assignment,) = ast.parse(code).body
        assert isinstance(assignment, ast.Assign)
        values[ast.unparse(assignment.targets[0])] = ast.literal_eval(assignment.value)
    assert sorted(values) == sorted(PARAMETERS[name])
    assert all(value is None or isinstance(value, str | int | float) for value in values.values())


def test_code_is_short_and_defines_nothing(committed: NotebookNode) -> None:
    forbidden = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for cell in code_cells(committed):
        assert len(cell.source.splitlines()) <= 15, cell.source
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, forbidden)]


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name[0] in "1234"])
def test_an_experiment_is_checked_before_anything_is_loaded(name: str) -> None:
    notebook = nbformat.read(notebook_path(name), as_version=4)
    (parameters,) = parameters_cells(notebook)
    _, imports, experiment = code_cells(notebook)[:3]
    assert "check_parameters()" in imports.source
    (assignment,) = ast.parse(experiment.source).body
    assert isinstance(assignment, ast.Assign)
    assert isinstance(assignment.value, ast.Call)
    made_by = {"30_diagnosis": "Diagnosis", "40_tuning": "load_study(study).changed"}.get(name, "Experiment")
    assert ast.unparse(assignment.value.func) == made_by
    given = {ast.unparse(keyword.value) for keyword in assignment.value.keywords}
    given |= {"study"} if name == "40_tuning" else set()
    assert given >= {line.split(" =")[0] for line in parameters.source.splitlines()[1:]}


# ---------------------------------------------------------------------------------------------------- run in a suite


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> SmallSuite:
    return small_suite(tmp_path_factory.getbasetemp() / "small-suite")


@pytest.fixture(scope="module")
def executed(suite: SmallSuite) -> dict[str, NotebookNode]:
    return suite.notebooks()


def reports(cell: NotebookNode) -> list[dict[str, str]]:
    """What the report knows of a cell's outputs."""
    return [output.metadata["report"] for output in cell.outputs if "report" in output.get("metadata", {})]


def cell_with(notebook: NotebookNode, code: str) -> NotebookNode:
    return next(cell for cell in code_cells(notebook) if code in cell.source)


@pytest.mark.parametrize("name", ["dataset", *EXPERIMENTS, "diagnosis"])
def test_everything_shown_is_known_to_the_report_and_figures_are_vectors(
    executed: dict[str, NotebookNode], name: str
) -> None:
    shown = [cell for cell in code_cells(executed[name]) if "sections.show_" in cell.source]
    assert len(shown) >= 3
    for cell in shown:
        displayed = [output for output in cell.outputs if output.output_type == "display_data"]
        assert displayed, cell.source
        for output in displayed:
            report = output.metadata["report"]
            assert report["kind"] in ("figure", "table", "text", "equation")
            if report["kind"] == "figure":
                assert output.data["image/svg+xml"].lstrip().startswith("<?xml")
                assert "<image" not in output.data["image/svg+xml"]
                assert report["caption"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_shows_all_its_figures_each_followed_by_a_reading(
    executed: dict[str, NotebookNode], name: str
) -> None:
    names = []
    for call in ("show_curves", "show_confusion(result, row", "show_confusion(result, level", "show_roc", "show_f1"):
        outputs = reports(cell_with(executed[name], f"sections.{call}"))
        figures = [report["label"] for report in outputs if report["kind"] == "figure"]
        assert figures
        assert outputs[-1]["kind"] == "text"
        names += [label.removeprefix(f"fig:{name}-") for label in figures]
    assert names == RESULT_FIGURES


def test_labels_are_used_once_in_a_notebook(executed: dict[str, NotebookNode]) -> None:
    for notebook in executed.values():
        labels = [report["label"] for cell in code_cells(notebook) for report in reports(cell) if report.get("label")]
        assert len(labels) == len(set(labels))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_figures_are_also_files(suite: SmallSuite, executed: dict[str, NotebookNode], name: str) -> None:
    folder = suite.folder / "figures" / DATASET / name
    for figure in RESULT_FIGURES:
        for kind in ("svg", "pdf", "png"):
            assert (folder / f"{figure}.{kind}").stat().st_size > 0


def test_there_is_a_sound_of_every_class(executed: dict[str, NotebookNode]) -> None:
    cell = cell_with(executed["dataset"], "Audio(")
    assert sum("<audio" in output.get("data", {}).get("text/html", "") for output in cell.outputs) == len(CLASSES)


def training_lines(notebook: NotebookNode) -> list[str]:
    outputs = cell_with(notebook, "TrainingProgress()").outputs
    return [line for output in outputs for line in output.get("text", "").splitlines() if "epoch 1 of 1" in line]


def test_every_fit_is_trained_once_and_shared_by_the_protocols(
    suite: SmallSuite, executed: dict[str, NotebookNode]
) -> None:
    tuned = [run.config.model_label for run in suite.runs() if run.config.recipe == "tuned"]
    assert tuned == ["cnn", "cnn", "transformer-h4"]
    cnn = training_lines(executed["cnn-kfold"]) + training_lines(executed["cnn-split"])
    assert len(set(cnn)) == len(cnn) == 2, "each in whichever of the two came first"
    assert len(training_lines(executed["transformer-h4-split"])) == 1


def test_batch_output_is_plain_lines(executed: dict[str, NotebookNode]) -> None:
    for name in EXPERIMENTS:
        outputs = cell_with(executed[name], "TrainingProgress()").outputs
        assert {output.output_type for output in outputs} <= {"stream"}


def test_the_diagnosis_trains_looks_inside_and_finds_one_fit_for_both_protocols(
    suite: SmallSuite, executed: dict[str, NotebookNode]
) -> None:
    notebook = executed["diagnosis"]
    fits = [run for run in suite.runs() if run.config.recipe == "as-written"]
    assert len(fits) == 2 * len(VARIANTS) - 1
    inside = reports(cell_with(notebook, "show_internals"))
    assert [report["kind"] for report in inside] == ["figure", "text"]
    for kind in ("svg", "pdf", "png"):
        for figure in ("curves", "inside"):
            assert (suite.folder / "figures" / DATASET / "diagnosis" / f"{figure}.{kind}").stat().st_size > 0
    table, reading = cell_with(notebook, "show_one_fit").outputs
    for run in fits:
        named = f"`{run.config.fit_id}`" in table.data["text/markdown"]
        assert named == (run.config.recipe_settings == Recipe())
        right = int(np.trace(run.metrics["scores"]["test"]["window"]["confusion"]))
        assert not named or f"{right} of 12 test windows are right" in reading.data["text/markdown"]
    assert "is not the k-fold fit" not in reading.data["text/markdown"]


# --------------------------------------------------------------------------------------------------- run by yourself


def test_another_working_directory_and_parameters_of_ones_own(
    suite: SmallSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIOCLF_FIGURES", str(tmp_path / "figures"))
    parameters = {"dataset": str(suite.sounds), "epochs": 1, "val_folds": [3], "num_heads": 2, "runs_dir": "my runs"}
    run_notebook(notebook_path("20_transformer_kfold"), "out/mine.ipynb", parameters)
    (run,) = RunStore(tmp_path / "my runs").find()
    assert (run.config.dataset, run.config.epochs, run.config.val_fold, run.config.num_heads) == (DATASET, 1, 3, 2)
    assert {path.name for path in run.path.iterdir()} >= {"config.json", "history.csv", "predictions.parquet"}
    notebook = nbformat.read(tmp_path / "out" / "mine.ipynb", as_version=4)
    (attention,) = reports(cell_with(notebook, "show_attention"))[:1]
    assert attention["kind"] == "figure"
    shown = " ".join(output.data["text/markdown"] for output in cell_with(notebook, "show_fits").outputs)
    assert f"{100 * run.metrics['scores']['test']['window']['accuracy']:.1f}" in shown


def test_the_tuning_notebook_makes_a_study_and_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOCLF_FIGURES", str(tmp_path / "figures"))
    make_sounds(tmp_path / "sounds")
    parameters = {"dataset": str(tmp_path / "sounds"), "epochs": 1, "trials": 2, "runs_dir": str(tmp_path / "runs")}
    run_notebook(notebook_path("40_tuning"), tmp_path / "tuning.ipynb", parameters)
    runs = RunStore(tmp_path / "runs").find()
    assert len(runs) == 2
    assert {run.config.score_test for run in runs} == {False}
    notebook = nbformat.read(tmp_path / "tuning.ipynb", as_version=4)
    lines = "".join(output.text for output in cell_with(notebook, "run_study(").outputs).splitlines()
    assert [line.split(":")[0] for line in lines] == ["trial 0 (1 of 2 ended)", "trial 1 (2 of 2 ended)"]
    shown = [report for cell in code_cells(notebook) for report in reports(cell)]
    assert [report["label"] for report in shown if report["kind"] == "figure"] == [
        "fig:study-history",
        "fig:study-parallel",
    ]
    best = cell_with(notebook, "found.best").outputs[0].data["text/markdown"]
    assert '"learning_rate": ' in best


def papermill(suite: SmallSuite, folder: Path, *parameters: str | Path) -> tuple[int, str]:
    """Run the CNN's split as a user does who knows papermill only; its exit code and what it wrote to stderr."""
    arguments = [notebook_path("11_cnn_split"), "out.ipynb", "-p", "dataset", suite.sounds, "-p", "epochs", "1"]
    arguments += ["-p", "runs_dir", suite.runs_dir, *parameters]
    process = run_program("papermill", *arguments, folder=folder)
    return process.returncode, process.stderr


def test_plain_papermill_runs_it_and_trains_nothing_twice(suite: SmallSuite, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in suite.runs_dir.rglob("metrics.json")}
    code, errors = papermill(suite, tmp_path)
    assert code == 0, errors
    assert training_lines(nbformat.read(tmp_path / "out.ipynb", as_version=4)) == []
    assert {path: path.stat().st_mtime_ns for path in suite.runs_dir.rglob("metrics.json")} == before


def test_plain_papermill_stops_at_an_unknown_parameter(suite: SmallSuite, tmp_path: Path) -> None:
    code, errors = papermill(suite, tmp_path, "-p", "epoch", "5")
    assert code != 0
    known = ", ".join(COMMON)
    assert f"InputError: unknown parameter 'epoch': this notebook knows {known}; correct its name" in errors
    assert not (tmp_path / "figures").exists(), "it stopped before it showed anything"

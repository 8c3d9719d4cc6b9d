"""The notebooks: committed as the design says, and run by the suite, by papermill and from any folder."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import PROJECT_ROOT
from nbformat import NotebookNode
from own_models import write_model
from small_suite import CLASSES, SmallSuite, make_sounds, notebook_path, run_program, small_suite

from audioclf_lib import Experiment, evaluate, fit, load_dataset, predict
from audioclf_lib.models import find_model
from audioclf_lib.report import escape_markdown
from audioclf_lib.runs.store import WEIGHTS, RunStore
from audioclf_lib.suite.ablation import CHANGES
from audioclf_lib.suite.notebooks import NotebookError, run_notebook
from audioclf_lib.suite.parameters import known_parameters

COMMON = ["dataset", "epochs", "seed", "test_fold", "recipe", "recipe_changes", "device", "threads", "runs_dir", "log"]
TITLE_PAGE = ["title", "authors", "roll_numbers", "submitted_to", "course", "date", "motto"]
FINDER = ["true_class", "answer", "fold", "split", "recording", "right", "clip"]
PARAMETERS = {
    "01_dataset": ["dataset", "runs_dir"],
    "02_from_scratch": ["dataset", "epochs", "seed", "val_fold", "test_fold"],
    "10_cnn_kfold": [*COMMON, "val_folds"],
    "11_cnn_split": [*COMMON, "test_folds"],
    "20_transformer_kfold": [*COMMON, "val_folds", "num_heads"],
    "21_transformer_split": [*COMMON, "test_folds", "num_heads"],
    "30_own_model": [*COMMON, "test_folds", "val_folds", "model", "model_settings", "protocol"],
    "40_tuning": [*COMMON[:4], "study", "trials", "val_fold", "device", "threads", "runs_dir"],
    "50_explore": ["run", "runs_dir", "dataset", *FINDER, "projection", "sound", "controls"],
    "60_diagnosis": ["dataset", "epochs", "seeds", "test_fold", "num_heads", "device", "threads", "runs_dir"],
    "90_report": ["plan", "runs_dir", "dataset", *TITLE_PAGE, "language"],
}
LISTS = ("seeds", "val_folds")  # parameters that may be no scalars
EXPERIMENT_NOTEBOOKS = [name for name in PARAMETERS if name[0] in "123"]
MAX_LINES = 15  # of a cell
WITH_FUNCTIONS = ("02_from_scratch", "50_explore")  # where they are what is taught, or what widgets call

EXPERIMENTS = ["cnn-kfold", "cnn-split", "transformer-h4-split"]  # of the small suite
RESULT_FIGURES = ["curves", "confusion-clips", "confusion-windows", "roc", "f1", "reliability"]


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


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_notebook_has_the_same_kernel_and_start(name: str) -> None:
    """As ``python tools/notebook_start.py notebooks/*.ipynb`` writes them; the kernel is one that every machine has."""
    start = runpy.run_path(str(PROJECT_ROOT / "tools" / "notebook_start.py"))
    notebook = json.loads(notebook_path(name).read_text(encoding="utf-8"))
    assert start["with_start"](notebook, name) == notebook
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert [cell["cell_type"] for cell in notebook["cells"][:2]] == ["markdown", "code"]
    assert "".join(notebook["cells"][1]["source"]) == start["CELL"]


def test_the_first_cell_says_what_is_answered_and_how_long_it_takes(committed: NotebookNode) -> None:
    first = committed.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert re.search(r"What it answers\W+\w", first.source)
    assert re.search(r"How long it takes\W.*\b(seconds?|minutes?|hours?)\b", first.source, flags=re.DOTALL)


@pytest.mark.parametrize("name", PARAMETERS)
def test_one_cell_holds_the_known_parameters_as_scalars_with_a_comment_each(name: str) -> None:
    (cell,) = parameters_cells(nbformat.read(notebook_path(name), as_version=4))
    title, *lines = cell.source.splitlines()
    assert title.startswith("# Parameters of this notebook")
    values = {}
    for line in lines:
        code, _, comment = line.partition("  # ")
        assert comment.strip(), line
        assert "=" not in comment, f"papermill overlooks the parameter: {line}"
        (assignment,) = ast.parse(code).body
        assert isinstance(assignment, ast.Assign)
        values[ast.unparse(assignment.targets[0])] = ast.literal_eval(assignment.value)
    assert sorted(values) == sorted(PARAMETERS[name])
    assert known_parameters(notebook_path(name)) == list(values)
    assert all(isinstance(value, str | int | float) for key, value in values.items() if key not in LISTS)
    assert all(value is None or isinstance(value, list) for key, value in values.items() if key in LISTS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_code_is_short_and_defines_nothing(name: str) -> None:
    allowed = (ast.FunctionDef,) if name in WITH_FUNCTIONS else ()
    forbidden = tuple({ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda} - set(allowed))
    for cell in code_cells(nbformat.read(notebook_path(name), as_version=4)):
        is_list = "parameters" in cell.metadata.get("tags", [])  # a line for each
        assert is_list or len(cell.source.splitlines()) <= MAX_LINES, cell.source
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, forbidden)]


@pytest.mark.parametrize("name", [*EXPERIMENT_NOTEBOOKS, "40_tuning", "60_diagnosis"])
def test_parameters_are_checked_before_anything_is_loaded(name: str) -> None:
    if name == "01_dataset":
        pytest.skip("its parameters are checked where they are used")
    notebook = nbformat.read(notebook_path(name), as_version=4)
    _, _, imports, experiment = code_cells(notebook)[:4]
    assert "check_parameters()" in imports.source
    (assignment,) = ast.parse(experiment.source).body
    assert isinstance(assignment, ast.Assign)
    assert isinstance(assignment.value, ast.Call)
    made_by = {"60_diagnosis": "ablation.change_experiments", "40_tuning": "load_study(study).changed"}
    assert ast.unparse(assignment.value.func) == made_by.get(name, "Experiment")
    given = {node.id for node in ast.walk(assignment.value) if isinstance(node, ast.Name)}
    given |= {"study"} if name == "40_tuning" else set()
    assert given >= set(PARAMETERS[name])


@pytest.mark.parametrize("name", EXPERIMENT_NOTEBOOKS)
def test_a_reader_sees_what_is_computed_and_drawn(name: str) -> None:
    """Cells call the library's functions by name: models, training, metrics, figures."""
    source = "\n".join(cell.source for cell in code_cells(nbformat.read(notebook_path(name), as_version=4)))
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}
    assert calls >= {"load_dataset", "show"}
    if name == "01_dataset":
        assert calls >= {f"figures.plot_{what}" for what in ("classes", "windows", "silence_per_class")}
        assert calls >= {"cut_windows", "fit_baselines", "baseline_table"}
        return
    assert calls >= {"derive_layers", "derivation.layer_table", "fit_all", "ExperimentResult", "result.scores"}
    assert calls >= {f"figures.plot_{what}" for what in ("learning_curves", "confusion", "roc_panels", "f1_bars")}
    assert calls >= {"balanced_accuracy_score", "cohen_kappa_score"}


# ---------------------------------------------------------------------------------------------------- run in a suite


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> SmallSuite:
    return small_suite(tmp_path_factory.getbasetemp() / "small-suite")


@pytest.fixture(scope="module")
def executed(suite: SmallSuite) -> dict[str, NotebookNode]:
    assert suite.suite.returncode == 0, suite.suite.stderr
    return suite.notebooks()


def reports(cell: NotebookNode) -> list[dict[str, str]]:
    """What the report knows of a cell's outputs."""
    return [output.metadata["report"] for output in cell.outputs if "report" in output.get("metadata", {})]


def labels_of(notebook: NotebookNode, kind: str) -> list[str]:
    """Labels of everything of this kind that a notebook shows, in order."""
    shown = [report for cell in code_cells(notebook) for report in reports(cell)]
    return [report["label"] for report in shown if report["kind"] == kind and report.get("label")]


def cell_with(notebook: NotebookNode, code: str) -> NotebookNode:
    return next(cell for cell in code_cells(notebook) if code in cell.source)


def displayed(notebook: NotebookNode, label: str) -> NotebookNode:
    """The output with this label."""
    (output,) = [
        output
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.get("metadata", {}).get("report", {}).get("label") == label
    ]
    return output


def words_on_stderr(notebook: NotebookNode) -> list[str]:
    """Warnings, progress bars of libraries."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]


@pytest.mark.parametrize("name", ["dataset", *EXPERIMENTS, "ablation"])
def test_everything_shown_is_known_to_the_report_and_figures_are_vectors(
    executed: dict[str, NotebookNode], name: str
) -> None:
    shown = [cell for cell in code_cells(executed[name]) if re.search(r"^ *show\(", cell.source, flags=re.M)]
    assert len(shown) >= 3
    for cell in shown:
        assert reports(cell), cell.source
        for output in cell.outputs:
            if output.get("metadata", {}).get("report", {}).get("kind") == "figure":
                assert output.data["image/svg+xml"].lstrip().startswith("<?xml")
                assert "<image" not in output.data["image/svg+xml"]
        captioned = [report for report in reports(cell) if report["kind"] in ("figure", "table")]
        assert all(report["caption"] for report in captioned)


def test_nothing_is_written_to_stderr(executed: dict[str, NotebookNode]) -> None:
    assert [text for notebook in executed.values() for text in words_on_stderr(notebook)] == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_shows_all_its_figures_and_tables(executed: dict[str, NotebookNode], name: str) -> None:
    attention = ["fig:attention"] if "transformer" in name else []
    figures = [f"fig:{figure}" for figure in RESULT_FIGURES]
    assert labels_of(executed[name], "figure") == ["fig:architecture", *figures[:-1], *attention, figures[-1]]
    heads = ["tbl:heads"] if "transformer" in name else []
    assert labels_of(executed[name], "table") == ["tbl:data", *heads, "tbl:recipe", "tbl:fits", "tbl:classes"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_class_names_are_shown_letter_by_letter(executed: dict[str, NotebookNode], name: str) -> None:
    for label in ("tbl:data", "tbl:classes"):
        table = displayed(executed[name], label).data["text/markdown"]
        assert all(escape_markdown(name) in table for name in CLASSES)


def test_labels_are_used_once_in_a_notebook(executed: dict[str, NotebookNode]) -> None:
    for notebook in executed.values():
        labels = [report["label"] for cell in code_cells(notebook) for report in reports(cell) if report.get("label")]
        assert len(labels) == len(set(labels))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_figures_are_also_files(suite: SmallSuite, executed: dict[str, NotebookNode], name: str) -> None:
    (folder,) = (suite.folder / "figures" / suite.dataset).glob(f"{name}-e1-*")
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


def test_the_diagnosis_trains_every_change_and_finds_one_fit_for_both_protocols(
    suite: SmallSuite, executed: dict[str, NotebookNode]
) -> None:
    notebook = executed["ablation"]
    fits = [run for run in suite.runs() if run.config.recipe == "as-written"]
    assert len(fits) == 2 * len(CHANGES) - 1
    assert labels_of(notebook, "figure") == ["fig:ablation-curves"]
    for kind in ("svg", "pdf", "png"):
        assert (suite.folder / "figures" / suite.dataset / "ablation-e1" / f"ablation-curves.{kind}").stat().st_size > 0
    table = displayed(notebook, "tbl:ablation").data["text/markdown"]
    assert len(re.findall(r"^\| (CNN|Transformer)", table, flags=re.M)) == len(fits)
    assert "missing" not in table and "seed 0" in table
    (printed,) = cell_with(notebook, "<- the split").outputs
    (split,) = [line.split()[0] for line in printed.text.splitlines() if line.endswith("<- the split")]
    assert len(printed.text.splitlines()) == 2
    assert split in {run.config.fit_id for run in fits}


# --------------------------------------------------------------------------------------------------- run by yourself


def test_another_working_directory_and_parameters_of_ones_own(
    suite: SmallSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIOCLF_FIGURES", str(tmp_path / "figures"))
    parameters = {"dataset": str(suite.sounds), "epochs": 1, "val_folds": [3], "num_heads": 2, "runs_dir": "my runs"}
    run_notebook(notebook_path("20_transformer_kfold"), "out/mine.ipynb", parameters)
    (run,) = RunStore(tmp_path / "my runs").find()
    assert (run.config.dataset, run.config.epochs, run.config.val_fold) == (suite.dataset, 1, 3)
    assert run.config.model_settings == {"num_heads": 2}
    assert {path.name for path in run.path.iterdir()} >= {"config.json", "history.csv", "predictions.parquet"}
    notebook = nbformat.read(tmp_path / "out" / "mine.ipynb", as_version=4)
    attention = displayed(notebook, "fig:attention").metadata["report"]
    assert f"mean over {len(CLASSES)} test windows" in attention["caption"], "a window of every class"
    row = displayed(notebook, "tbl:fits").data["text/markdown"]
    assert f"{100 * run.metrics['scores']['test']['clip']['accuracy']:.1f}" in row


def test_a_split_with_test_folds_is_a_rotation_whose_clips_are_scored_together(
    suite: SmallSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOCLF_FIGURES", str(tmp_path / "figures"))
    parameters = {"dataset": str(suite.sounds), "epochs": 1, "test_folds": "all", "runs_dir": str(tmp_path / "runs")}
    run_notebook(notebook_path("11_cnn_split"), tmp_path / "mine.ipynb", parameters)
    data = load_dataset(str(suite.sounds))
    notebook = nbformat.read(tmp_path / "mine.ipynb", as_version=4)
    caption = displayed(notebook, "fig:confusion-clips").metadata["report"]["caption"]
    assert f"confusion matrix of the {len(data)} test clips" in caption
    tested = [run.config.test_fold for run in RunStore(tmp_path / "runs").find()]
    assert sorted(tested) == sorted(set(data.folds.tolist()))


def test_a_fit_from_scratch_has_the_losses_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOCLF_FIGURES", str(tmp_path / "figures"))
    make_sounds(tmp_path / "sounds")
    run_notebook(notebook_path("02_from_scratch"), tmp_path / "mine.ipynb", {"dataset": str(tmp_path / "sounds")})
    notebook = nbformat.read(tmp_path / "mine.ipynb", as_version=4)
    assert "assert_allclose(ours, theirs, rtol=0, atol=1e-5)" in cell_with(notebook, "by_library)").source
    table = displayed(notebook, "tbl:losses").data["text/plain"].splitlines()
    losses = np.array([line.split()[1:] for line in table[1:]], dtype=float)  # training, validation; twice
    assert losses.shape == (2, 4) and len(set(losses[:, 0])) == 2, "two epochs that differ"
    np.testing.assert_allclose(losses[:, :2], losses[:, 2:], rtol=0, atol=1e-5)
    assert words_on_stderr(notebook) == []


# ------------------------------------------------------------------------------------------------- a run is explored


def explore(run: Path, folder: Path, sounds: Path, **parameters: object) -> NotebookNode:
    values = {"run": str(run), "dataset": str(sounds)} | parameters
    run_notebook(notebook_path("50_explore"), folder / "mine.ipynb", values)
    return nbformat.read(folder / "mine.ipynb", as_version=4)


def shown_in_words(notebook: NotebookNode) -> str:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "\n".join(output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.fixture
def own_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOCLF_FIGURES", str(tmp_path / "figures"))


@pytest.mark.usefixtures("own_figures")
def test_a_transformer_is_explored_with_all_its_sections_and_a_sound_of_ones_own(
    suite: SmallSuite, tmp_path: Path
) -> None:
    (run,) = [
        run for run in suite.runs() if run.config.model_label == "transformer-h4" and run.config.recipe == "tuned"
    ]
    sound = suite.sounds / "0-1.wav"
    notebook = explore(run.path, tmp_path, suite.sounds, sound=str(sound), projection="tsne")
    figures = labels_of(notebook, "figure")
    assert figures[0] == "fig:occlusion-0"
    assert figures[-3:] == ["fig:filters", "fig:attention-layers", "fig:map"]
    scores = evaluate(run.predictions, CLASSES, level="clip")
    table = displayed(notebook, "tbl:scores").data["text/plain"].split()
    assert float(table[-4]) == pytest.approx(scores.accuracy)
    assert float(table[-3]) == pytest.approx(scores.balanced_accuracy)
    likeliest = predict(run, sound).top(1).iloc[0, 0]
    assert likeliest in shown_in_words(notebook)
    assert words_on_stderr(notebook) == []


@pytest.mark.usefixtures("own_figures")
def test_a_run_without_weights_is_explored_as_far_as_its_predictions_go(suite: SmallSuite, tmp_path: Path) -> None:
    run = next(run for run in suite.runs() if run.config.model_label == "cnn")
    bare = tmp_path / "published" / run.path.name
    shutil.copytree(run.path, bare, ignore=shutil.ignore_patterns(WEIGHTS))
    notebook = explore(bare, tmp_path, suite.sounds, right="all", split="validation")
    assert labels_of(notebook, "figure") == []
    assert labels_of(notebook, "table") == ["tbl:scores", "tbl:found"]
    clips = run.predictions.query("split == 'validation'")["clip_id"].unique()
    assert f"Clips that are found: {len(clips)};" in displayed(notebook, "tbl:found").metadata["report"]["caption"]
    assert shown_in_words(notebook).count("was published without its weights") == 5


@pytest.mark.usefixtures("own_figures")
def test_an_own_architecture_is_explored_but_for_what_it_does_not_have(tmp_path: Path) -> None:
    make_sounds(tmp_path / "sounds")
    data = load_dataset(str(tmp_path / "sounds"))
    (config,) = Experiment(model="mel-cnn", dataset=str(tmp_path / "sounds"), epochs=1, protocol="split").fits(data)
    run = fit(config, data, runs_dir=tmp_path / "runs")
    notebook = explore(run.path, tmp_path, tmp_path / "sounds", controls=False)
    assert [label for label in labels_of(notebook, "figure") if "occlusion" not in label] == ["fig:map"]
    words = shown_in_words(notebook)
    assert "The first layer of Mel CNN is no 1-D convolution on the waveform." in words
    assert "Mel CNN has no attention" in words


@pytest.mark.usefixtures("own_figures")
def test_a_run_is_not_explored_with_other_recordings(suite: SmallSuite, tmp_path: Path) -> None:
    run = suite.runs()[0]
    with pytest.raises(NotebookError, match="was trained on other recordings; set dataset"):
        explore(run.path, tmp_path, Path("demo"))


# ------------------------------------------------------------------------------------------------------------- others


def test_a_study_is_made_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert labels_of(notebook, "figure") == ["fig:study-history", "fig:study-parallel"]
    best = cell_with(notebook, "found.best").outputs[0].data["text/markdown"]
    assert '"learning_rate": ' in best
    assert words_on_stderr(notebook) == []


def papermill(name: str, folder: Path, sounds: Path, *parameters: str | Path) -> tuple[int, str]:
    """Run a notebook as a user does who knows papermill only; its exit code and what it wrote to stderr."""
    arguments = [notebook_path(name), "out.ipynb", "-p", "dataset", sounds, "-p", "epochs", "1", *parameters]
    process = run_program("papermill", *arguments, folder=folder)
    return process.returncode, process.stderr


def test_plain_papermill_trains_an_architecture_in_a_file_of_ones_own(tmp_path: Path) -> None:
    make_sounds(tmp_path / "sounds")
    entry = find_model(str(write_model(tmp_path)))
    own = ["-p", "model", "my_net.py", "-p", "model_settings", '{"width": 4}', "-p", "runs_dir", "runs"]
    code, errors = papermill("30_own_model", tmp_path, tmp_path / "sounds", *own)
    assert code == 0, errors
    (run,) = RunStore(tmp_path / "runs").find()
    assert (run.config.model, run.config.model_settings) == ("my-net", {"width": 4})
    assert run.config.model_digest == entry.digest
    notebook = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    described, *_ = cell_with(notebook, "experiment.entry.description").outputs
    assert described.data["text/markdown"] == "One convolution, *batch norm* and a mean over time."
    derivation = cell_with(notebook, "derivation_markdown").outputs[0].data["text/markdown"]
    assert [name for name in ("conv", "norm", "dropout", "classifier") if f"**{name}**" not in derivation] == []
    assert words_on_stderr(notebook) == []


def test_plain_papermill_stops_at_an_unknown_parameter(tmp_path: Path) -> None:
    code, errors = papermill("11_cnn_split", tmp_path, tmp_path, "-p", "epoch", "5")
    assert code != 0
    known = ", ".join(known_parameters(notebook_path("11_cnn_split")))
    assert f"InputError: unknown parameter 'epoch': this notebook knows {known}; correct its name" in errors
    assert not (tmp_path / "figures").exists(), "it stopped before it showed anything"

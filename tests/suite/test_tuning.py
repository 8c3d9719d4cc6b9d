"""Studies: workers share one, none of its trials is lost or trained twice, and it says what the run folders say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import call
from conftest import PROJECT_ROOT
from settings_files import refusal
from shown import outputs_of
from tiny import make_tones

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Experiment, FitConfig
from audioclf_lib.report import tuning_observations as readings
from audioclf_lib.report import tuning_sections as sections
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite import tuning
from audioclf_lib.suite.search import STUDIES_DIR, StudyConfig, load_study
from audioclf_lib.suite.tuning import COLUMNS, Study, journal_path, read_study, run_study

pytestmark = pytest.mark.usefixtures("one_thread")

DATASET = make_tones()
# Two rates, of which one learns three tones in an epoch and the other learns nothing.
LEARNS, LEARNS_NOTHING = 3e-3, 1e-9
SEARCH = {"learning_rate": {"choices": [LEARNS, LEARNS_NOTHING]}, "weight_decay": {"low": 0.01, "high": 1, "log": True}}


def make_study(runs_dir: Path, **changes: Any) -> StudyConfig:
    values: dict[str, Any] = {"name": "rates", "model": "cnn", "epochs": 2, "trials": 5, "startup": 1}
    values |= {"recipe_changes": {"batch_size": 4, "dropout": 0.0, "mixup_alpha": 0.0}, "search": SEARCH}
    return StudyConfig(**(values | {"runs_dir": runs_dir, "device": "cpu"} | changes))


# Works on the study in a process of its own. After the first epoch it says so, and goes on when it is told to.
CHILD = """
import sys
from pathlib import Path
import torch
from audioclf_lib.suite import tuning
from test_tuning import DATASET, make_study

torch.set_num_threads(1)
train, waited = tuning.fit, []

def fit(config, dataset, *, progress, **options):
    def stop(config, history):
        progress(config, history)
        if not waited:
            waited.append(True)
            print("first epoch", flush=True)
            sys.stdin.readline()
    return train(config, dataset, progress=stop, **options)

tuning.fit = fit
study = make_study(Path(sys.argv[1]), trials=int(sys.argv[2]))
tuning.run_study(study, DATASET, say=lambda line: print(line, flush=True))
"""


def start_worker(runs_dir: Path, trials: int) -> subprocess.Popen[str]:
    """A worker that has trained the first epoch of a trial, and waits for a line."""
    command = [sys.executable, "-c", CHILD, str(runs_dir), str(trials)]
    child = subprocess.Popen(
        command, cwd=PROJECT_ROOT / "tests" / "support", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "first epoch\n"
    return child


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The epochs that are trained from here on: name of the fit, number of the epoch."""
    epochs: list[tuple[str, int]] = []
    train = tuning.fit

    def fit(config: FitConfig, dataset: Any, *, progress: Any, **options: Any) -> Any:
        def told(_: FitConfig, history: list[dict[str, float]]) -> None:
            epochs.append((config.fit_id, len(history)))
            progress(config, history)

        return train(config, dataset, progress=told, **options)

    monkeypatch.setattr(tuning, "fit", fit)
    return epochs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with all its trials, for tests that only look."""
    torch.set_num_threads(1)
    return run_study(make_study(tmp_path_factory.mktemp("finished")), DATASET, say=lambda line: None)


@pytest.fixture
def copied(finished: Study, tmp_path: Path) -> StudyConfig:
    """The same, to be changed."""
    shutil.copytree(finished.config.runs_dir, tmp_path / "runs")
    return make_study(tmp_path / "runs")


def number_of(line: str) -> int:
    """``trial 3 (4 of 5 ended): ...`` -> 3."""
    return int(line.split()[1])


# ------------------------------------------------------------------------------------------------------- what is found


def test_the_rate_that_learns_is_found(finished: Study) -> None:
    assert finished.best_settings is not None
    assert finished.best_settings["learning_rate"] == LEARNS
    assert set(finished.trials["learning_rate"]) == {LEARNS, LEARNS_NOTHING}
    assert finished.ranked.iloc[0]["accuracy"] == 1.0


def test_a_trial_that_is_behind_is_pruned_and_recorded_and_its_checkpoint_removed(finished: Study) -> None:
    assert len(finished.trials) == 5
    behind = finished.trials[finished.trials["learning_rate"] == LEARNS_NOTHING]
    assert set(behind["state"]) == {"pruned"}
    assert set(behind["epochs"]) == {1}
    assert behind["accuracy"].between(0, 1).all()
    assert behind[["clip_accuracy", "loss", "kept_epoch"]].isna().all(axis=None)
    left = {path.name for path in (finished.config.runs_dir / "tones").iterdir()}
    assert left == {"studies", *finished.done["fit"]}
    studies = [path.name for path in (finished.config.runs_dir / "tones" / "studies").iterdir()]
    assert studies == [f"{finished.study_id}.journal"], "no marker or lock is left over"


def test_the_record_says_what_the_run_folders_say(finished: Study) -> None:
    runs = {run.config.fit_id: run for run in RunStore(finished.config.runs_dir).find()}
    assert set(finished.done["fit"]) == set(runs)
    for row in finished.done.to_dict(orient="records"):
        run = runs[row["fit"]]
        scores = run.metrics["scores"]["validation"]
        assert row["accuracy"] == pytest.approx(scores["window"]["accuracy"], abs=1e-6)
        assert row["clip_accuracy"] == pytest.approx(scores["clip"]["accuracy"], abs=1e-6)
        assert (row["loss"], row["kept_epoch"]) == (run.metrics["chosen"]["loss"], run.metrics["chosen"]["epoch"])
        assert row["epochs"] == len(run.history) == 2
        for name in SEARCH:
            assert getattr(run.config.recipe_settings, name) == row[name]
        assert (run.config.recipe_settings.batch_size, run.config.recipe_settings.dropout) == (4, 0.0)


def test_the_best_is_the_most_accurate_then_the_one_with_the_lowest_loss_then_the_first() -> None:
    rows = [(0, 0.5, 1.0), (1, 0.7, 2.0), (2, 0.7, 1.5), (3, 0.7, 1.5), (4, 0.9, 0.1)]
    table = pd.DataFrame(rows, columns=["trial", "accuracy", "loss"]).assign(state=["done"] * 4 + ["pruned"])
    study = Study(make_study(Path("runs")), "rates", table)
    assert study.ranked["trial"].tolist() == [2, 3, 1, 0]
    assert study.sorted_trials["trial"].tolist() == [2, 3, 1, 0, 4]


def test_the_best_settings_as_recipe_changes_train_as_the_best_trial_did(finished: Study) -> None:
    changes = json.dumps(finished.best_settings)
    experiment = Experiment(model="cnn", epochs=2, dataset="tones", val_folds=[2], recipe_changes=changes)
    (config,) = experiment.fits(DATASET)
    assert finished.best_run is not None
    assert config == finished.best_run.config.model_copy(update={"score_test": True})
    assert finished.best_run.path.name == finished.ranked.iloc[0]["fit"]


def test_the_first_trial_is_the_recipe_as_it_stands(finished: Study, tmp_path: Path) -> None:
    recipe = finished.config.experiment({}).recipe_settings
    assert {name: finished.trials.iloc[0][name] for name in SEARCH} == {name: getattr(recipe, name) for name in SEARCH}
    elsewhere = make_study(tmp_path, search={"dropout": {"low": 0.3, "high": 0.5}}, recipe_changes={})
    assert elsewhere.as_it_stands() is None


def test_no_test_score_is_anywhere_in_the_run_folders(finished: Study) -> None:
    for run in RunStore(finished.config.runs_dir).find():
        assert not run.config.score_test
        assert (run.config.val_fold, run.config.test_fold, run.config.train_folds) == (2, 1, (3,))
        assert [column for column in run.history if "test" in column] == []
        assert set(run.predictions["split"]) == {"train", "validation"}
        assert run.config.test_fold not in set(run.predictions["fold"])


def test_drawn_numbers_have_three_digits_and_stay_in_their_range(tmp_path: Path) -> None:
    whole = {"low": 1, "high": 64, "log": True}
    narrow = {"warmup_fraction": {"low": 0.12345, "high": 0.123456}, "reestimate_windows": whole}
    drawn = {"warmup_fraction": 0.1234512, "reestimate_windows": 17}
    assert tuning._rounded(drawn, make_study(tmp_path, search=narrow)) == {
        "warmup_fraction": 0.12345,
        "reestimate_windows": 17,
    }
    wide = make_study(tmp_path, search={"warmup_fraction": {"low": 0, "high": 0.5}})
    assert tuning._rounded({"warmup_fraction": 0.123456}, wide) == {"warmup_fraction": 0.123}


def test_a_trial_that_diverges_is_recorded_and_the_study_goes_on(tmp_path: Path) -> None:
    loud = replace(DATASET, waveforms=DATASET.waveforms * np.float32(1e30))
    config = make_study(
        tmp_path,
        recipe="as-written",
        recipe_changes={},
        epochs=1,
        trials=3,
        search={"peak_normalise": {"choices": [True, False]}, "label_smoothing": {"low": 0, "high": 0.1}},
    )
    lines: list[str] = []
    study = run_study(config, loud, say=lines.append)
    assert study.trials["state"].iloc[0] == "diverged", "the recipe as it stands does not bear such sounds"
    assert "the training loss became nan" in study.trials["reason"].iloc[0]
    assert "diverged, the training loss became nan in epoch 1" in lines[0]
    for row in study.trials.to_dict(orient="records"):
        assert (row["state"] == "done") == row["peak_normalise"]
    assert len(lines) == 3


# -------------------------------------------------------------------------------------------- who trains what, and when


def test_a_finished_study_runs_nothing_and_writes_nothing(
    copied: StudyConfig, finished: Study, trained: list[tuple[str, int]]
) -> None:
    files = {path: path.stat().st_mtime_ns for path in copied.runs_dir.rglob("*") if path.is_file()}
    again = run_study(copied, DATASET)
    pd.testing.assert_frame_equal(again.trials, finished.trials)
    assert trained == []
    assert {path: path.stat().st_mtime_ns for path in copied.runs_dir.rglob("*") if path.is_file()} == files


def test_a_study_can_be_made_longer(copied: StudyConfig, finished: Study, trained: list[tuple[str, int]]) -> None:
    longer = run_study(copied.changed(trials=6), DATASET, say=lambda line: None)
    pd.testing.assert_frame_equal(longer.trials.iloc[:5], finished.trials)
    assert len(longer.trials) == 6
    assert {fit for fit, _ in trained} == {longer.trials["fit"].iloc[5]}


def test_a_study_whose_record_is_lost_trains_nothing_twice(
    copied: StudyConfig, finished: Study, trained: list[tuple[str, int]]
) -> None:
    journal_path(copied, DATASET).unlink()
    again = run_study(copied, DATASET, say=lambda line: None)
    pd.testing.assert_frame_equal(again.trials, finished.trials)
    assert not {fit for fit, _ in trained} & set(finished.done["fit"])


def test_a_killed_worker_s_trial_goes_on_from_its_checkpoint_and_the_study_ends_as_if_undisturbed(
    finished: Study, tmp_path: Path, trained: list[tuple[str, int]]
) -> None:
    with start_worker(tmp_path, trials=5) as child:
        child.kill()
    config = make_study(tmp_path)
    left = read_study(config, DATASET).trials
    assert left[["trial", "state", "epochs"]].to_numpy().tolist() == [[0, "running", 1]]
    lines: list[str] = []
    study = run_study(config, DATASET, say=lines.append)
    assert trained[0] == (left["fit"].iloc[0], 2), "the first epoch is not trained again"
    assert [number_of(line) for line in lines] == [0, 1, 2, 3, 4]
    pd.testing.assert_frame_equal(study.trials, finished.trials)


def test_an_interrupted_worker_goes_on_where_it_stopped(
    finished: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, train = make_study(tmp_path), tuning.fit
    calls: list[str] = []

    def fit(wanted: FitConfig, dataset: Any, **options: Any) -> Any:
        calls.append(wanted.fit_id)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(wanted, dataset, **options)

    monkeypatch.setattr(tuning, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        run_study(config, DATASET, say=lambda line: None)
    assert read_study(config, DATASET).trials["state"].tolist() == ["done", "running"]
    study = run_study(config, DATASET, say=lambda line: None)
    pd.testing.assert_frame_equal(study.trials, finished.trials)


def test_two_workers_make_exactly_the_trials_asked_for_and_none_of_them_twice(tmp_path: Path) -> None:
    config = make_study(tmp_path, trials=4)
    with start_worker(tmp_path, trials=4) as child:
        assert child.stdin is not None and child.stdout is not None
        lines: list[str] = []

        def say(line: str) -> None:
            lines.append(line)
            if len(lines) == 1:  # both have begun one, and neither had ended any
                print(file=child.stdin, flush=True)

        study = run_study(config, DATASET, say=say)
        theirs = child.stdout.read().splitlines()
    assert child.returncode == 0
    ended = [number_of(line) for line in [*lines, *theirs] if line.startswith("trial ")]
    assert sorted(ended) == [0, 1, 2, 3]
    assert number_of(next(line for line in theirs if line.startswith("trial "))) == 0
    assert study.trials["trial"].tolist() == [0, 1, 2, 3]
    assert set(study.trials["state"]) <= {"done", "pruned"}
    assert set(study.done["fit"]) == {run.config.fit_id for run in RunStore(tmp_path).find()}


def test_what_the_scores_depend_on_makes_another_study_and_the_number_of_trials_does_not(tmp_path: Path) -> None:
    config = make_study(tmp_path)
    name = config.study_id(DATASET)
    assert name.startswith("rates-seed0-e2-")
    assert config.changed(trials=50, device="auto", runs_dir=tmp_path / "x").study_id(DATASET) == name
    assert config.study_id(replace(DATASET, fingerprint="1" * 16)) != name
    others = [{"epochs": 3}, {"seed": 1}, {"val_fold": 3}, {"startup": 2}, {"recipe": "as-written"}]
    others += [{"search": SEARCH | {"weight_decay": {"low": 0.01, "high": 2, "log": True}}}, {"recipe_changes": {}}]
    assert len({name, *(config.changed(**change).study_id(DATASET) for change in others)}) == 1 + len(others)


# --------------------------------------------------------------------------------------------------------- the journal


def test_a_line_that_was_cut_short_is_taken_out(copied: StudyConfig, finished: Study) -> None:
    path = journal_path(copied, DATASET)
    with path.open("ab") as file:
        file.write(b'{"op_code":5,"wor')
    pd.testing.assert_frame_equal(run_study(copied, DATASET).trials, finished.trials)
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("content", [b"no journal\n", b"{}\n", b"[]\n", b'{"op_code": 99}\n', b"\xff\xfe\n"])
def test_a_damaged_journal_is_refused_in_one_sentence(copied: StudyConfig, content: bytes) -> None:
    path = journal_path(copied, DATASET)
    path.write_bytes(content + path.read_bytes())
    for use in (run_study, read_study):
        with pytest.raises(InputError, match=r"\.journal is damaged \(.*\); restore it, or remove it"):
            use(copied, DATASET)


def test_runs_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot use study .*file/tones/studies/.*; free space or choose another"):
        run_study(make_study(tmp_path / "file"), DATASET)


# ------------------------------------------------------------------------------------------------------- what is shown


def test_a_line_says_how_a_trial_ended(finished: Study) -> None:
    best, behind = (
        int(finished.ranked.iloc[0]["trial"]),
        int(finished.trials[finished.trials["state"] == "pruned"]["trial"].iloc[0]),
    )
    line = tuning.describe_trial(finished, best)
    assert line.startswith(f"trial {best} (5 of 5 ended): learning_rate 0.003, weight_decay ")
    assert "100.0 % of the windows, 100.0 % of the clips at epoch" in line
    assert line.endswith("the best so far")
    assert "pruned after epoch 1 at" in tuning.describe_trial(finished, behind)


def shown(study: Study) -> list[tuple[str, str]]:
    """Kind and text of all that the notebook shows of a study."""

    def show() -> None:
        sections.show_search(study.config)
        sections.show_trials(study, "tones")
        sections.show_history(study, "tones")
        sections.show_importances(study, "tones")
        sections.show_parallel(study, "tones")
        sections.show_best(study)

    return [
        (output.metadata["report"]["kind"], output.data.get("text/markdown", output.data["text/plain"]))
        for output in outputs_of(show)
    ]


@pytest.fixture
def figures_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "figures"
    monkeypatch.setenv("AUDIOCLF_FIGURES", str(folder))
    return folder


def test_the_notebook_shows_every_trial_and_what_to_paste(finished: Study, figures_dir: Path) -> None:
    parts = shown(finished)
    assert [kind for kind, _ in parts].count("figure") == 2
    text = "\n".join(text for _, text in parts)
    n_done = len(finished.done)
    assert f"of 5 trials, 5 are recorded: {n_done} trained to the end and {5 - n_done} pruned" in text
    assert f"```json\n{json.dumps(finished.best_settings)}\n```" in text
    assert f"from 10 trials trained to the end on; there are {n_done}" in text
    assert "that score is too good" in text
    assert {path.stem for path in figures_dir.rglob("*.svg")} == {"history", "parallel"}


def with_rows(config: StudyConfig, *rows: dict[str, Any], **values: Any) -> Study:
    """A study with these trials."""
    plain = {"state": "done", "epochs": 2, "accuracy": 0.5, "clip_accuracy": 0.5, "loss": 1.0, "kept_epoch": 1}
    plain |= {"reason": "", "fit": "x", "learning_rate": LEARNS, "weight_decay": 0.1}
    table = pd.DataFrame(
        [{"trial": number} | plain | row for number, row in enumerate(rows)], columns=[*COLUMNS, *SEARCH]
    )
    return Study(config, "rates", table.astype(COLUMNS), **values)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "of 5 trials, 0 are recorded: 0 trained to the end"),
        (
            [{"state": "waiting", "epochs": 0, "accuracy": np.nan}],
            "1 is recorded: 0 trained to the end and 1 not begun",
        ),
        ([{"state": "pruned"}] * 3, "3 are recorded: 0 trained to the end and 3 pruned"),
    ],
    ids=["empty", "not begun", "only pruned"],
)
def test_a_study_without_a_trained_trial_can_be_shown(
    tmp_path: Path, figures_dir: Path, rows: list[dict[str, Any]], told: str
) -> None:
    parts = shown(with_rows(make_study(tmp_path), *rows))
    text = "\n".join(text for _, text in parts)
    assert told in text
    assert "nothing to choose from" in text
    assert "There are no best settings yet" in text
    assert len([kind for kind, _ in parts if kind == "figure"]) == (1 if "pruned" in told else 0)


def test_a_study_that_was_not_begun_has_no_trial_and_reading_it_writes_nothing(tmp_path: Path) -> None:
    study = read_study(make_study(tmp_path / "runs"), DATASET)
    assert study.trials.empty
    assert list(study.trials) == [*COLUMNS, *SEARCH]
    assert study.best_settings is None
    assert not (tmp_path / "runs").exists()


def test_the_gain_over_the_recipe_as_it_stands_is_told(tmp_path: Path) -> None:
    config = make_study(tmp_path)
    first = {"accuracy": 0.5, "weight_decay": 0.05}
    better = readings.read_history(with_rows(config, first, {"accuracy": 0.625}))
    assert "is trial 1, with 62.5" in better
    assert better.endswith("12.5 points less.")
    assert readings.read_history(with_rows(config, first, {"accuracy": 0.4})).endswith("has not found better settings.")
    assert "recipe as it stands" not in readings.read_history(with_rows(config, {"accuracy": 0.5}))


def test_the_interval_is_that_of_the_best_runs_windows_over_its_validation_clips(finished: Study) -> None:
    assert finished.best_run is not None
    shares = readings.window_shares(finished.best_run)
    assert len(shares) == 6
    assert shares.mean() == pytest.approx(finished.ranked.iloc[0]["accuracy"])
    others = len(finished.done) - 1
    assert f"{others} of the other {others} trials trained to the end lie within" in readings.read_certainty(finished)


def test_importances_need_trials_and_differences(tmp_path: Path) -> None:
    config = make_study(tmp_path)
    assert "from 10 trials trained to the end on; there are 9" in readings.read_importances(
        with_rows(config, *[{}] * 9)
    )
    assert "no setting matters more" in readings.read_importances(with_rows(config, *[{}] * 10))
    study = with_rows(config, *[{}] * 10, importances={"learning_rate": 0.75, "weight_decay": 0.25})
    assert "`learning_rate` has 75" in readings.read_importances(study)


def test_the_setting_that_decides_is_the_important_one(tmp_path: Path) -> None:
    """The accuracy of these trials rests on the rate alone."""
    import optuna

    study = optuna.create_study(direction="maximize")
    random = np.random.default_rng(0)
    space: dict[str, Any] = {
        "learning_rate": optuna.distributions.CategoricalDistribution([LEARNS, LEARNS_NOTHING]),
        "weight_decay": optuna.distributions.FloatDistribution(0.01, 1),
    }
    for number in range(12):
        params = {"learning_rate": [LEARNS, LEARNS_NOTHING][number % 2], "weight_decay": random.uniform(0.01, 1)}
        value = 0.9 if params["learning_rate"] == LEARNS else 0.1
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=value))
    shares = tuning._importances(study)
    assert shares["learning_rate"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command_says_a_line_per_trial_a_table_and_the_best_settings(
    copied: StudyConfig, finished: Study, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audioclf_lib.data.load_dataset", lambda name, **options: DATASET)
    values = copied.model_dump(mode="json", exclude={"runs_dir", "device", "name"}, exclude_none=True)
    path = copied.runs_dir / "rates.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    arguments = ["tune", path, "--runs-dir", copied.runs_dir, "--device", "cpu"]
    assert call(monkeypatch, *arguments) == 0
    first, *table = capsys.readouterr().out.splitlines()
    assert first == f"study {finished.study_id} on tones, 5 trials"
    assert not [line for line in table if line.startswith("trial ")], "nothing is left to do"
    assert table[-1] == f"best settings, for --recipe-changes: {json.dumps(finished.best_settings)}"

    assert call(monkeypatch, *arguments, "--trials", "6") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [number_of(line) for line in lines if line.startswith("trial ")] == [5]
    row = next(line.split() for line in lines if line.split()[:1] == ["0"])
    assert row[1:5] == ["done", "2", "100.0", "%"]


# ---------------------------------------------------------------------------------------------------------- the search


def test_the_projects_studies_begin_with_the_recipe_as_it_stands() -> None:
    names = sorted(path.stem for path in STUDIES_DIR.glob("*.yaml"))
    assert names == ["cnn", "transformer"]
    for name in names:
        study = load_study(name)
        assert (study.name, study.model) == (name, name)
        assert study.as_it_stands() is not None


def test_a_relative_data_set_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    path = tmp_path / "mine.yaml"
    path.write_text("model: cnn\ndataset: ./sounds\nsearch: {drop_silent: {choices: [true, false]}}\n")
    study = load_study(path)
    assert (study.name, study.dataset) == ("mine", str(tmp_path / "sounds"))
    assert study.search["drop_silent"].choices == (True, False)


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ("{}", "search"),
        ("{dropot: {low: 0, high: 1}}", "unknown setting 'dropot'; known are dropout, activation"),
        ("{dropout: {low: 0.5, high: 0.1}}", "low = 0.5 is not below high = 0.1; put them in order"),
        ("{dropout: {low: 0.1, high: 0.1}}", "low = 0.1 is not below high = 0.1; put them in order"),
        ("{dropout: {low: 0.0, high: 0.5, log: true}}", "low = 0 has no logarithm; raise it above 0"),
        ("{dropout: {low: 0.1, high: 1.5}}", "dropout = 1.5 is not possible"),
        ("{dropout: {low: 0.1}}", "low or high is missing; write {low: 0.1, high: 0.5}"),
        ("{dropout: {low: 0.1, high: 0.5, step: 0.1}}", "unknown setting 'step'; known are low, high, log, choices"),
        ("{dropout: {low: .nan, high: 0.5}}", "finite number"),
        ("{dropout: {low: true, high: 0.5}}", "write a number"),
        ("{dropout: 0.5}", "dictionary"),
        ("{dropout: {choices: [0.1]}}", "1 choices leave nothing to search; give two or more"),
        ("{dropout: {choices: [0.1, 0.1]}}", "the choices of dropout name a value twice"),
        ("{dropout: {choices: [0.1, high]}}", "dropout = 'high' is not possible"),
        ("{dropout: {choices: [0.1, 0.2], low: 0.1}}", "a setting has low and high, or choices; leave one out"),
        ("{batch_size: {low: 8.5, high: 16}}", "batch_size = 8.5 is not possible"),
        ("{activation: {low: 0, high: 1}}", "activation is no number and has no range; give its choices"),
        ("{drop_silent: {low: 0, high: 1}}", "drop_silent is no number and has no range; give its choices"),
        ("{activation: {choices: [relu, gelu]}}", "activation = 'gelu' is not possible"),
        (
            "{encoder_lr_scale: {low: 0.1, high: 1}}",
            "encoder_lr_scale changes nothing in the cnn; take it out of the search",
        ),
        ("{warmup: {low: 0.1, high: 0.5}}", "warmup is both searched and fixed in recipe_changes"),
    ],
)
def test_a_search_that_is_not_possible_is_refused_in_one_sentence(tmp_path: Path, search: str, told: str) -> None:
    sentence = refusal(load_study, tmp_path, f"model: cnn\nrecipe_changes: {{warmup: 0.1}}\nsearch: {search}\n")
    assert told in sentence
    assert len(sentence) < 700


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("epochs: 0", "epochs = 0 is not possible"),
        ("trials: 0", "trials = 0 is not possible"),
        ("startup: 0", "startup = 0 is not possible"),
        ("prune_after: 0", "prune_after = 0 is not possible"),
        ("val_fold: 1", "holds the test fold 1; take it out"),
        ("num_heads: 2", "the CNN has no attention heads"),
        ("recipe_changes: {dropot: 1}", "unknown setting 'dropot'"),
        ("name: a/b", "name = 'a/b' is not possible"),
        ("trial: 3", "unknown setting 'trial'; known are name, model"),
    ],
)
def test_a_study_that_is_not_possible_is_refused_in_one_sentence(tmp_path: Path, line: str, told: str) -> None:
    text = f"model: cnn\nsearch: {{weight_decay: {{low: 0.1, high: 1}}}}\n{line}\n"
    assert told in refusal(load_study, tmp_path, text)


def test_the_layout_is_told_where_users_look() -> None:
    assert "studies/" in (PROJECT_ROOT / "report" / "README.md").read_text()

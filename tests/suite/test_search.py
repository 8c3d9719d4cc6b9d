"""Studies: workers share one, none of its trials is lost or trained twice, and its table says what run folders say."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from commands import call
from conftest import PROJECT_ROOT
from optuna.trial import TrialState
from settings_files import refusal
from tiny import make_tones

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import FitConfig
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite import search
from audioclf_lib.suite.search import STUDIES_DIR, StudyConfig, StudyResult, load_study, run_study

pytestmark = pytest.mark.usefixtures("one_thread")

DATASET = make_tones()
# Two rates, of which one learns three tones in an epoch and the other learns nothing.
LEARNS, LEARNS_NOTHING = 3e-3, 1e-9
SEARCH = {"learning_rate": {"choices": [LEARNS, LEARNS_NOTHING]}, "weight_decay": {"low": 0.01, "high": 1, "log": True}}

OWN_MODEL = """
from torch import nn
from audioclf_lib.models import register_model

@register_model("own-net", title="Own net")
class OwnNet(nn.Module):
    def __init__(self, num_classes: int, width: int = 2, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        pool = nn.AvgPool1d(4000)
        self.layers = nn.Sequential(pool, nn.Flatten(), nn.Linear(4, width), nn.ReLU(), nn.Linear(width, num_classes))

    def forward(self, x):
        return self.layers(x)
"""


def make_study(runs_dir: Path, **changes: Any) -> StudyConfig:
    values: dict[str, Any] = {"name": "rates", "model": "cnn", "epochs": 2, "trials": 5, "startup": 1}
    values |= {"recipe_changes": {"batch_size": 4, "dropout": 0.0, "mixup_alpha": 0.0}, "search": SEARCH}
    return StudyConfig(**(values | {"runs_dir": runs_dir, "device": "cpu"} | changes))


def run_silently(config: StudyConfig) -> StudyResult:
    return run_study(config, DATASET, say=lambda line: None)


# Works on the study in a process of its own. After the first epoch it says so, and goes on when it is told to.
CHILD = """
import sys
from pathlib import Path
from audioclf_lib.suite import search
from test_search import DATASET, make_study

train, waited = search.fit, []
search.HEARTBEAT_SECONDS = 1

def fit(config, dataset, *, progress, **options):
    def stop(config, history):
        progress(config, history)
        if not waited:
            waited.append(True)
            print("first epoch", flush=True)
            sys.stdin.readline()
    return train(config, dataset, progress=stop, **options)

search.fit = fit
study = make_study(Path(sys.argv[1]), trials=int(sys.argv[2]))
search.run_study(study, DATASET, say=lambda line: print(line, flush=True))
"""


def start_worker(runs_dir: Path, trials: int) -> subprocess.Popen[str]:
    """A worker that has trained the first epoch of a trial, and waits for a line."""
    folders = [PROJECT_ROOT / "tests" / "support", Path(__file__).parent, PROJECT_ROOT / "tests", PROJECT_ROOT]
    code = f"import sys; sys.path[:0] = {[str(folder) for folder in folders]}\n{CHILD}"
    command = [sys.executable, "-c", code, str(runs_dir), str(trials)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "first epoch\n"
    return child


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The epochs that are trained from here on: name of the fit, number of the epoch."""
    epochs: list[tuple[str, int]] = []
    train = search.fit

    def fit(config: FitConfig, dataset: Any, *, progress: Any, **options: Any) -> Any:
        def told(_: FitConfig, history: list[dict[str, float]]) -> None:
            epochs.append((config.fit_id, len(history)))
            progress(config, history)

        return train(config, dataset, progress=told, **options)

    monkeypatch.setattr(search, "fit", fit)
    return epochs


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """What the study with all its trials said."""
    return []


@pytest.fixture(scope="module")
def finished(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """A study with all its trials, for tests that only read it."""
    torch.set_num_threads(1)
    return run_study(make_study(tmp_path_factory.mktemp("finished")), DATASET, say=lines.append)


@pytest.fixture
def copied(finished: StudyResult, tmp_path: Path) -> StudyConfig:
    """The same, to be changed."""
    shutil.copytree(finished.config.experiment.runs_dir, tmp_path / "runs")
    return make_study(tmp_path / "runs")


def rows_of(study: StudyResult) -> pd.DataFrame:
    """The table without the trials' numbers, of which a queued trial gets a new one."""
    return study.table.drop(columns="trial").sort_values("fit", ignore_index=True)


def number_of(line: str) -> int:
    """``trial 3 (4 of 5 ended): ...`` -> 3."""
    return int(line.split()[1])


# ------------------------------------------------------------------------------------------------------- what is found


def test_the_rate_that_learns_is_found(finished: StudyResult) -> None:
    assert finished.best is not None
    assert finished.best.recipe_changes["learning_rate"] == LEARNS
    assert set(finished.table["learning_rate"]) == {LEARNS, LEARNS_NOTHING}
    assert finished.done["accuracy"].iloc[0] == 1.0


def test_a_trial_that_is_behind_is_pruned_and_recorded_and_its_checkpoint_removed(finished: StudyResult) -> None:
    assert sorted(finished.table["trial"]) == [0, 1, 2, 3, 4]
    behind = finished.table[finished.table["learning_rate"] == LEARNS_NOTHING]
    assert set(behind["state"]) == {"pruned"}
    assert set(behind["epochs"]) == {1}
    assert behind["accuracy"].between(0, 1).all()
    assert behind[["clip_accuracy", "loss"]].isna().all(axis=None)
    left = {path.name for path in (finished.config.experiment.runs_dir / "tones").iterdir()}
    assert left == {"studies", *finished.done["fit"]}


def test_the_table_says_what_the_run_folders_say(finished: StudyResult) -> None:
    runs = {run.config.fit_id: run for run in RunStore(finished.config.experiment.runs_dir).find()}
    assert set(finished.done["fit"]) == set(runs)
    for row in finished.done.to_dict(orient="records"):
        run = runs[row["fit"]]
        scores = run.metrics["scores"]["validation"]
        assert row["accuracy"] == pytest.approx(scores["window"]["accuracy"], abs=1e-6)
        assert row["clip_accuracy"] == pytest.approx(scores["clip"]["accuracy"], abs=1e-6)
        assert row["loss"] == run.metrics["chosen"]["loss"]
        assert row["epochs"] == len(run.history) == 2
        for name in SEARCH:
            assert getattr(run.config.recipe_settings, name) == row[name]
        assert (run.config.recipe_settings.batch_size, run.config.recipe_settings.dropout) == (4, 0.0)


def test_the_best_is_the_most_accurate_then_the_one_with_the_lowest_loss_then_the_first(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize")
    rows = [("complete", 0.5, 1.0), ("complete", 0.7, 2.0), ("complete", 0.7, 1.5), ("complete", 0.7, 1.5)]
    for state, accuracy, loss in [*rows, ("pruned", 0.9, 0.1), ("fail", 0.9, 0.1), ("waiting", 0.9, 0.1)]:
        settings = {"learning_rate": LEARNS, "weight_decay": loss / 10}
        kept = {"accuracy": accuracy, "clip_accuracy": accuracy, "loss": loss}
        value = accuracy if state == "complete" else None
        attributes = {"settings": settings, "kept": kept}
        study.add_trial(optuna.create_trial(state=TrialState[state.upper()], value=value, user_attrs=attributes))
    result = StudyResult(make_study(tmp_path), study)
    assert result.table["trial"].tolist() == [2, 3, 1, 0, 4, 6]
    assert result.best is not None
    assert result.best.recipe_settings.weight_decay == 0.15


def test_the_best_experiment_trains_as_the_best_trial_did(finished: StudyResult) -> None:
    assert finished.best is not None
    (config,) = finished.best.fits(DATASET)
    runs = {run.config.fit_id: run for run in RunStore(finished.best.runs_dir).find()}
    run = runs[finished.done["fit"].iloc[0]]
    assert config == run.config.model_copy(update={"score_test": True})


def test_the_first_trial_is_the_recipe_as_it_stands(finished: StudyResult, tmp_path: Path) -> None:
    recipe = finished.config.experiment.recipe_settings
    first = finished.table[finished.table["trial"] == 0].iloc[0]
    assert {name: first[name] for name in SEARCH} == {name: getattr(recipe, name) for name in SEARCH}
    elsewhere = make_study(tmp_path, search={"dropout": {"low": 0.3, "high": 0.5}}, recipe_changes={})
    assert elsewhere.as_it_stands() is None


def test_no_test_score_is_anywhere_in_the_run_folders(finished: StudyResult) -> None:
    for run in RunStore(finished.config.experiment.runs_dir).find():
        assert not run.config.score_test
        assert (run.config.val_fold, run.config.test_fold, run.config.train_folds) == (2, 1, (3,))
        assert [column for column in run.history if "test" in column] == []
        assert set(run.predictions["split"]) == {"train", "validation"}
        assert run.config.test_fold not in run.predictions["fold"].tolist()


def test_drawn_numbers_have_three_digits_and_stay_in_their_range(tmp_path: Path) -> None:
    def draw(searched: dict[str, Any], **drawn: float) -> dict[str, Any]:
        return make_study(tmp_path, search=searched).draw(optuna.trial.FixedTrial(drawn))  # type: ignore[arg-type]

    narrow = {"warmup_fraction": {"low": 0.12345, "high": 0.123456}}
    assert draw(narrow, warmup_fraction=0.1234512) == {"warmup_fraction": 0.12345}
    assert draw({"warmup_fraction": {"low": 0, "high": 0.5}}, warmup_fraction=0.123456) == {"warmup_fraction": 0.123}
    whole = draw({"reestimate_windows": {"low": 1, "high": 6400, "log": True}}, reestimate_windows=1234)
    assert whole == {"reestimate_windows": 1234}
    assert isinstance(whole["reestimate_windows"], int)


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
    first = study.table[study.table["trial"] == 0].iloc[0]
    assert first["state"] == "diverged", "the recipe as it stands does not bear such sounds"
    assert "diverged, the train" in lines[0] and "nan" in lines[0]
    for row in study.table.to_dict(orient="records"):
        assert (row["state"] == "complete") == row["peak_normalise"]
    assert len(lines) == 3


def test_a_line_says_how_a_trial_ended(finished: StudyResult, lines: list[str]) -> None:
    assert lines[0].startswith(
        "trial 0 (1 of 5 ended): learning_rate 0.003, weight_decay 0.05: complete after epoch 2, "
    )
    assert lines[0].endswith(" % of the windows; the best so far")
    number = int(finished.table[finished.table["state"] == "pruned"]["trial"].iloc[0])
    assert "pruned after epoch 1, " in lines[number]


# ------------------------------------------------------------------------------------- settings of an own architecture


def test_settings_of_an_own_architecture_are_searched_beside_those_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "own_net.py").write_text(OWN_MODEL)
    searched = {"width": {"low": 2, "high": 64, "log": True}, "bias": {"choices": [True, False]}} | SEARCH
    values = {"model": "own_net.py", "epochs": 1, "trials": 3, "width": 4, "recipe_changes": {"batch_size": 4}}
    (tmp_path / "mine.yaml").write_text(json.dumps(values | {"search": searched}))  # JSON is YAML
    config = load_study(tmp_path / "mine.yaml").changed(runs_dir=tmp_path / "runs", device="cpu")
    assert config.experiment.model == str(tmp_path / "own_net.py")
    study = run_silently(config)
    first = study.table[study.table["trial"] == 0].iloc[0]
    assert (first["width"], first["bias"]) == (4, True), "the first trial is the experiment as it stands"
    assert study.best is not None
    runs = {run.config.fit_id: run for run in RunStore(tmp_path / "runs").find()}
    for row in study.done.to_dict(orient="records"):
        settings = runs[row["fit"]].config.model_settings
        assert settings == {"width": row["width"], "bias": row["bias"]}
        assert isinstance(settings["width"], int)
    best = study.done.iloc[0]
    assert study.best.model_settings == {"width": best["width"], "bias": best["bias"]}
    assert study.best.recipe_changes["learning_rate"] == best["learning_rate"]


def test_an_edited_architecture_makes_another_study(tmp_path: Path) -> None:
    def study_id() -> str:
        return make_study(tmp_path, model=str(tmp_path / "own_net.py")).study_id(DATASET)

    (tmp_path / "own_net.py").write_text(OWN_MODEL)
    before = study_id()
    (tmp_path / "own_net.py").write_text(OWN_MODEL + "\n# only a comment\n")
    assert study_id() == before
    (tmp_path / "own_net.py").write_text(OWN_MODEL.replace("nn.ReLU()", "nn.Tanh()"))
    assert study_id() != before


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("width", "{low: 0.5, high: 8}", "width = 0.5 is not possible"),
        ("width", "{choices: [2, wide]}", "width = 'wide' is not possible"),
        ("bias", "{low: 0, high: 1}", "bias is no number and has no range; give its choices"),
        ("depth", "{low: 1, high: 2}", "unknown setting 'depth'; known are dropout, activation"),
        ("time_pull", "{low: 1, high: 2}", "time_pull changes nothing in model own-net; take it out of the search"),
        ("encoder_lr_scale", "{low: 0.1, high: 1}", "encoder_lr_scale changes nothing in model own-net"),
        ("activation", "{choices: [none, relu]}", "activation changes nothing in model own-net"),
    ],
)
def test_a_setting_that_an_own_architecture_does_not_have_is_refused(
    tmp_path: Path, name: str, values: str, told: str
) -> None:
    (tmp_path / "own_net.py").write_text(OWN_MODEL)
    assert told in refusal(load_study, tmp_path, f"model: own_net.py\nsearch: {{{name}: {values}}}\n")


# -------------------------------------------------------------------------------------------- who trains what, and when


def test_a_finished_study_trains_nothing(
    copied: StudyConfig, finished: StudyResult, trained: list[tuple[str, int]]
) -> None:
    pd.testing.assert_frame_equal(run_silently(copied).table, finished.table)
    assert trained == []


def test_a_study_can_be_made_longer(copied: StudyConfig, finished: StudyResult, trained: list[tuple[str, int]]) -> None:
    longer = run_silently(copied.changed(trials=6)).table
    old, new = longer[longer["trial"] < 5], longer[longer["trial"] == 5]
    pd.testing.assert_frame_equal(old.reset_index(drop=True), finished.table)
    assert len(new) == 1
    assert {fit for fit, _ in trained} == set(new["fit"])


def test_a_study_whose_record_is_lost_trains_nothing_twice(
    copied: StudyConfig, finished: StudyResult, trained: list[tuple[str, int]]
) -> None:
    copied.record_path(DATASET).unlink()
    pd.testing.assert_frame_equal(run_silently(copied).table, finished.table)
    assert not {fit for fit, _ in trained} & set(finished.done["fit"])


def test_a_killed_worker_s_trial_goes_on_from_its_checkpoint_with_the_same_settings(
    tmp_path: Path, trained: list[tuple[str, int]]
) -> None:
    with start_worker(tmp_path, trials=3) as child:
        child.kill()
    config = make_study(tmp_path, trials=3)
    record = config.record_path(DATASET)
    with sqlite3.connect(record) as connection:  # as if the worker had been killed long ago
        connection.execute("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
    lines: list[str] = []
    study = run_study(config, DATASET, say=lines.append)
    first = next(trial for trial in study.study.trials if trial.state == TrialState.FAIL)
    assert first.number == 0
    assert trained[0] == (first.user_attrs["fit"], 2), "the first epoch is not trained again"
    row = study.table[study.table["fit"] == first.user_attrs["fit"]].iloc[0]
    assert {name: row[name] for name in SEARCH} == first.user_attrs["settings"]
    assert (len(study.table), len(lines), row["epochs"]) == (3, 3, 2)
    assert set(study.table["state"]) <= {"complete", "pruned"}


@pytest.mark.filterwarnings("ignore")  # Optuna says that a heartbeat is experimental, and not meant for ask()
def test_a_trial_whose_worker_was_killed_before_its_first_heartbeat_is_replaced(tmp_path: Path) -> None:
    config = make_study(tmp_path, trials=2)
    record = config.record_path(DATASET)
    search._open_study(config, record).ask()  # running, and no heart beats
    with sqlite3.connect(record) as connection:
        connection.execute("UPDATE trials SET datetime_start = '2020-01-01 00:00:00.000000'")
    study = run_silently(config)
    assert sorted(study.table["trial"]) == [1, 2]
    assert set(study.table["state"]) <= {"complete", "pruned"}


@pytest.mark.parametrize("fault", [KeyboardInterrupt, InputError])
def test_a_single_worker_that_is_interrupted_makes_the_same_study(
    finished: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[BaseException]
) -> None:
    config, train = make_study(tmp_path), search.fit
    calls: list[str] = []

    def fit(wanted: FitConfig, dataset: Any, **options: Any) -> Any:
        calls.append(wanted.fit_id)
        if len(calls) == 2:
            raise fault("the disk is full")
        return train(wanted, dataset, **options)

    monkeypatch.setattr(search, "fit", fit)
    with pytest.raises(fault):
        run_silently(config)
    study = run_silently(config)
    assert calls[1] == calls[2], "the trial that was interrupted comes first"
    pd.testing.assert_frame_equal(rows_of(study), rows_of(finished))


def test_two_workers_make_exactly_the_trials_asked_for_and_none_of_them_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "HEARTBEAT_SECONDS", 1)
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
    ended = [number_of(line) for line in [*lines, *theirs]]
    assert sorted(ended) == sorted(study.table["trial"])
    assert len(ended) == len(set(ended)) == 4
    assert number_of(theirs[0]) == 0
    assert set(study.table["state"]) <= {"complete", "pruned"}
    assert set(study.done["fit"]) == {run.config.fit_id for run in RunStore(tmp_path).find()}


def test_a_trial_that_two_workers_begin_as_the_last_is_one_too_many_for_the_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[tuple[str, int]]
) -> None:
    """Between counting the trials and beginning one, another worker begins and ends the last."""
    config = make_study(tmp_path, trials=2)
    run_silently(make_study(tmp_path, trials=1))
    count = search.counted
    interloped: list[bool] = []

    def counted(study: optuna.Study) -> Any:
        known = count(study)
        if not interloped:
            interloped.append(True)
            run_silently(config)
        return known

    monkeypatch.setattr(search, "counted", counted)
    study = run_silently(config)
    assert [trial.state for trial in study.study.trials].count(TrialState.FAIL) == 1
    assert len(study.table) == 2
    assert len({fit for fit, _ in trained}) == 2


def test_what_the_scores_depend_on_makes_another_study_and_the_number_of_trials_does_not(tmp_path: Path) -> None:
    config = make_study(tmp_path)
    name = config.study_id(DATASET)
    assert name.startswith("rates-seed0-e2-")
    assert config.changed(trials=50, device="auto", runs_dir=tmp_path / "x").study_id(DATASET) == name
    assert config.study_id(replace(DATASET, fingerprint="1" * 16)) != name
    others: list[dict[str, Any]] = [
        {"epochs": 3},
        {"seed": 1},
        {"val_fold": 3},
        {"startup": 2},
        {"recipe": "as-written"},
        {"threads": 2},
    ]
    others += [{"search": SEARCH | {"weight_decay": {"low": 0.01, "high": 2, "log": True}}}, {"recipe_changes": {}}]
    assert len({name, *(config.changed(**change).study_id(DATASET) for change in others)}) == 1 + len(others)


def test_a_fold_that_the_data_set_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fold 9 is not in data set"):
        run_silently(make_study(tmp_path / "runs", val_fold=9))
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------------------------------------------------- the record


def test_a_damaged_record_is_refused_in_one_sentence(copied: StudyConfig) -> None:
    copied.record_path(DATASET).write_bytes(b"no database" * 1000)
    with pytest.raises(
        InputError, match=r"cannot use study .*\.sqlite3 \(.*not a database\); .*remove the file"
    ) as error:
        run_silently(copied)
    assert "\n" not in str(error.value)


def test_runs_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match=r"cannot lock .*file/tones/studies/.*; free space or choose a folder elsewhere"
    ):
        run_silently(make_study(tmp_path / "file"))


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command_says_a_line_per_trial_a_table_and_the_best_settings(
    copied: StudyConfig, finished: StudyResult, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audioclf_lib.data.load_dataset", lambda name, **options: DATASET)
    own = copied.model_dump(mode="json", exclude={"name", "experiment"}, exclude_none=True)
    fixed = {"model": "cnn", "epochs": 2, "recipe_changes": copied.experiment.recipe_changes}
    path = copied.experiment.runs_dir / "rates.yaml"
    path.write_text(json.dumps(own | fixed))  # JSON is YAML
    arguments = ["tune", path, "--runs-dir", copied.experiment.runs_dir, "--device", "cpu"]
    assert call(monkeypatch, *arguments) == 0
    first, *table = capsys.readouterr().out.splitlines()
    assert first == f"study {copied.study_id(DATASET)} on tones, 5 trials"
    assert not [line for line in table if line.startswith("trial ")], "nothing is left to do"
    assert finished.best is not None
    assert f"best settings, for --recipe-changes: {json.dumps(finished.best.recipe_changes)}" in table
    assert table[-1] == "settings of its model: {}"

    assert call(monkeypatch, *arguments, "--trials", "6") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [number_of(line) for line in lines if line.startswith("trial ")] == [5]
    row = next(line.split() for line in lines if line.split()[:1] == ["0"])
    assert row[1:5] == ["complete", "2", "100.0", "%"]


# -------------------------------------------------------------------------------------------------------- study files


def test_the_projects_studies_begin_with_the_recipe_as_it_stands() -> None:
    names = sorted(path.stem for path in STUDIES_DIR.glob("*.yaml"))
    assert names == ["cnn", "transformer"]
    for name in names:
        study = load_study(name)
        assert (study.name, study.experiment.model) == (name, name)
        assert study.as_it_stands() is not None


def test_a_relative_data_set_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    path = tmp_path / "mine.yaml"
    path.write_text("model: cnn\ndataset: ./sounds\nsearch: {drop_silent: {choices: [true, false]}}\n")
    study = load_study(path)
    assert (study.name, study.experiment.dataset) == ("mine", str(tmp_path / "sounds"))
    assert study.search["drop_silent"].choices == (True, False)


def test_choices_are_what_the_recipe_makes_of_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: cnn\nsearch: {learning_rate: {choices: [1e-3, 1]}}\n")  # 1e-3 is a text for YAML
    assert repr(load_study(path).search["learning_rate"].choices) == "(0.001, 1.0)"


@pytest.mark.parametrize("name", ["cnnn", "missing.yaml", "."])
def test_a_study_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"there is no study .*; choose one of cnn, transformer, or give a \.yaml"):
        load_study(name)


@pytest.mark.parametrize(
    ("searched", "told"),
    [
        ("{}", "search"),
        ("{dropot: {low: 0, high: 1}}", "unknown setting 'dropot'; known are dropout, activation"),
        ("{dropout: {low: 0.5, high: 0.1}}", "low = 0.5 is not below high = 0.1; put them in order"),
        ("{dropout: {low: 0.1, high: 0.1}}", "low = 0.1 is not below high = 0.1; put them in order"),
        ("{dropout: {low: 0.0, high: 0.5, log: true}}", "low = 0 has no logarithm; raise it above 0"),
        ("{dropout: {low: 0.1, high: 1.5}}", "dropout = 1.5 is not possible"),
        ("{dropout: {low: 0.1}}", "write low and high, as {low: 0.1, high: 0.5}"),
        ("{dropout: {low: 0.1, high: 0.5, step: 0.1}}", "unknown setting 'step'; known are low, high, log, choices"),
        ("{dropout: {low: .nan, high: 0.5}}", "finite number"),
        ("{dropout: {low: true, high: 0.5}}", "write a number"),
        ("{dropout: 0.5}", "name: value pairs"),
        ("{dropout: {choices: [0.1]}}", "choices = (0.1,) must be two or more different values"),
        ("{dropout: {choices: [0.1, 0.1]}}", "choices = (0.1, 0.1) must be two or more different values"),
        ("{dropout: {choices: [0.1, 1e-1]}}", "choices = (0.1, 0.1) must be two or more different values"),
        ("{dropout: {choices: [0.1, high]}}", "dropout = 'high' is not possible"),
        (
            "{dropout: {choices: [0.1, 0.2], low: 0.1}}",
            "write low and high, as {low: 0.1, high: 0.5}, or {choices: [0.1, 0.2]}",
        ),
        ("{batch_size: {low: 8.5, high: 16}}", "batch_size = 8.5 is not possible"),
        ("{activation: {low: 0, high: 1}}", "activation = 0.0 is not possible"),
        ("{drop_silent: {low: 0, high: 1}}", "drop_silent is no number and has no range; give its choices"),
        ("{activation: {choices: [relu, gelu]}}", "activation = 'gelu' is not possible"),
        ("{encoder_lr_scale: {low: 0.1, high: 1}}", "encoder_lr_scale changes nothing in model cnn; take it out"),
        ("{warmup_fraction: {low: 0.1, high: 0.5}}", "warmup_fraction is both searched and fixed in recipe_changes"),
        ("{num_heads: {choices: [1, 2]}}", "unknown setting 'num_heads'"),
    ],
)
def test_a_search_that_is_not_possible_is_refused_in_one_sentence(tmp_path: Path, searched: str, told: str) -> None:
    text = f"model: cnn\nrecipe_changes: {{warmup_fraction: 0.1}}\nsearch: {searched}\n"
    sentence = refusal(load_study, tmp_path, text)
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
        ("val_folds: [2, 3]", "a study has one validation fold; give val_fold instead of val_folds"),
        ("num_heads: 2", "unknown setting 'num_heads' for model cnn"),
        ("recipe_changes: {dropot: 1}", "unknown setting 'dropot'"),
        ("name: a/b", "name = 'a/b' is not possible"),
        ("trial: 3", "those of a study are name, experiment, val_fold, trials"),
        ("protocol: split", "belongs to the kfold protocol"),
    ],
)
def test_a_study_that_is_not_possible_is_refused_in_one_sentence(tmp_path: Path, line: str, told: str) -> None:
    text = f"model: cnn\nsearch: {{weight_decay: {{low: 0.1, high: 1}}}}\n{line}\n"
    assert told in refusal(load_study, tmp_path, text)


def test_a_study_without_a_model_is_refused(tmp_path: Path) -> None:
    assert "unknown model ''; choose one of cnn, transformer" in refusal(
        load_study, tmp_path, "search: {dropout: {low: 0.1, high: 0.2}}\n"
    )


def test_the_layout_is_told_where_users_look() -> None:
    assert "studies/" in (PROJECT_ROOT / "report" / "README.md").read_text()

"""Tuning trials: what they change is told in full, the test fold is never scored, and none is forgotten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import call
from conftest import PROJECT_ROOT
from settings_files import refusal
from shown import outputs_of
from tiny import make_dataset, with_other_sound

from audioclf_lib.config import Experiment, Recipe
from audioclf_lib.errors import InputError
from audioclf_lib.reporting import sections
from audioclf_lib.store import Run, RunStore
from audioclf_lib.trials import MAX_TRIALS, RECORD, Trials, load_trials, read_record, run_trials

DATASET = make_dataset(folds=4)
PLAIN: dict[str, Any] = {"name": "plain", "why": "the starting point", "model": "cnn", "epochs": 2}
RELU: dict[str, Any] = PLAIN | {"name": "relu", "why": "None, but for | and $", "settings": {"activation": "relu"}}
HEADS: dict[str, Any] = PLAIN | {"name": "heads", "why": "nan", "model": "transformer", "num_heads": 2, "epochs": 1}


def listed(*trials: dict[str, Any]) -> Trials:
    return Trials(dataset="tiny", trials=trials)


class Workplace:
    """Where trials are trained and recorded."""

    def __init__(self, folder: Path) -> None:
        self.store = RunStore(folder / "runs")
        self.record = folder / "published" / RECORD
        self.trained: list[str] = []

    def run(self, *trials: dict[str, Any], only: tuple[str, ...] = ()) -> pd.DataFrame:
        def progress(config: Any, history: list[dict[str, float]]) -> None:
            if len(history) == 1:
                self.trained.append(config.fit_id)

        return run_trials(
            listed(*trials),
            DATASET,
            runs_dir=self.store.runs_dir,
            record=self.record,
            only=only,
            device="cpu",
            progress=progress,
        )


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Three trials, trained and recorded once for all tests that only look."""
    place = Workplace(tmp_path_factory.mktemp("trials"))
    place.run(PLAIN, RELU, HEADS)
    return place


@pytest.fixture
def copied(trained: Workplace, tmp_path: Path) -> Workplace:
    """The same, to be changed."""
    shutil.copytree(trained.store.runs_dir, tmp_path / "runs")
    shutil.copytree(trained.record.parent, tmp_path / "published")
    return Workplace(tmp_path)


def run_of(place: Workplace, name: str) -> Run:
    record = read_record(place.record).set_index("trial")
    (run,) = [run for run in place.store.find() if run.config.fit_id == record.loc[name, "fit"]]
    return run


# --------------------------------------------------------------------------------------------------- what is trained


def test_a_trial_is_a_k_fold_fit_that_changes_the_recipe_as_written_and_does_not_score_the_test_fold() -> None:
    trials = listed(HEADS | {"settings": {"dropout": 0.1}})
    config = trials.config(trials.trials[0], DATASET)
    (fit,) = Experiment(
        model="transformer", num_heads=2, epochs=1, val_folds=[2], recipe="as-written", recipe_changes={"dropout": 0.1}
    ).fits(DATASET)
    assert (config.train_folds, config.val_fold, config.test_fold) == ((3, 4), 2, 1)
    assert config == fit.model_copy(update={"score_test": False})
    assert config.recipe_settings == Recipe(dropout=0.1)
    assert config.fit_id != fit.fit_id


def test_a_trial_may_have_a_validation_fold_of_its_own() -> None:
    trials = listed(HEADS | {"val_fold": 3})
    config = trials.config(trials.trials[0], DATASET)
    assert (config.train_folds, config.val_fold, config.test_fold) == ((2, 4), 3, 1)
    with pytest.raises(InputError, match="holds the test fold 1"):
        listed(HEADS | {"val_fold": 1})


def test_no_test_score_is_anywhere_in_the_run_folders(trained: Workplace) -> None:
    runs = trained.store.find()
    assert len(runs) == 3
    for run in runs:
        assert not run.config.score_test
        assert [column for column in run.history if "test" in column] == []
        assert set(run.predictions["split"]) == {"train", "validation"}
        assert run.config.test_fold not in set(run.predictions["fold"])
        assert run.metrics["scores"].keys() == {"train", "validation"}


def test_the_test_folds_sounds_leave_no_trace(trained: Workplace, place: Workplace) -> None:
    other = with_other_sound(DATASET, [1])
    run_trials(listed(PLAIN), other, runs_dir=place.store.runs_dir, record=place.record, device="cpu")
    here, there = (run_of(where, "plain").history.drop(columns="seconds") for where in (place, trained))
    pd.testing.assert_frame_equal(here, there)


def test_a_trial_that_was_trained_is_not_trained_again(copied: Workplace) -> None:
    before = copied.record.read_bytes()
    copied.run(PLAIN, RELU, HEADS)
    assert copied.trained == []
    assert copied.record.read_bytes() == before


def test_an_interrupted_list_goes_on_where_it_stopped(place: Workplace, trained: Workplace) -> None:
    place.run(PLAIN)
    table = place.run(PLAIN, RELU, HEADS)
    assert len(place.trained) == len(set(place.trained)) == 3
    assert list(table["trial"]) == ["plain", "relu", "heads"]
    scores = [column for column in table if column != "minutes"]
    pd.testing.assert_frame_equal(table[scores], read_record(trained.record)[scores])


def test_one_trial_may_be_chosen(place: Workplace) -> None:
    table = place.run(PLAIN, RELU, HEADS, only=("relu",))
    assert list(table["trial"]) == ["relu"]
    assert len(place.trained) == 1


# -------------------------------------------------------------------------------------------------------- the record


@pytest.mark.parametrize("trial", [PLAIN, RELU, HEADS], ids=lambda trial: trial["name"])
def test_the_record_says_what_a_trial_was_and_how_it_did(trained: Workplace, trial: dict[str, Any]) -> None:
    row = read_record(trained.record).set_index("trial").loc[trial["name"]]
    run = run_of(trained, trial["name"])
    assert (row["why"], row["model"], row["epochs"]) == (trial["why"], trial["model"], trial["epochs"])
    assert pd.isna(row["num_heads"]) if trial["model"] == "cnn" else row["num_heads"] == 2
    assert json.loads(row["settings"]) == trial.get("settings", {})
    scores = run.metrics["scores"]["validation"]
    assert row["kept_epoch"] == run.metrics["chosen"]["epoch"]
    assert row["validation_window_accuracy"] == pytest.approx(scores["window"]["accuracy"], abs=1e-6)
    assert row["validation_clip_accuracy"] == pytest.approx(scores["clip"]["accuracy"], abs=1e-6)
    assert row["validation_loss"] == run.metrics["chosen"]["loss"]
    last = run.history.iloc[-1]
    assert row["last_window_accuracy"] == last["validation_accuracy"]
    assert row["last_clip_accuracy"] == last["validation_clip_accuracy"]
    assert row["minutes"] == pytest.approx(run.environment["wall_seconds"] / 60)
    assert row["val_fold"] == 2
    assert row["fit"] == run.path.name


def test_what_is_recorded_stays_without_its_run_folder_and_is_not_trained_again(copied: Workplace) -> None:
    before = read_record(copied.record)
    shutil.rmtree(copied.store.runs_dir)
    pd.testing.assert_frame_equal(copied.run(PLAIN, RELU, HEADS), before)
    assert copied.trained == []
    copied.run(PLAIN | {"name": "dropout", "settings": {"dropout": 0.1}}, RELU, HEADS)
    after = read_record(copied.record)
    assert list(after["trial"]) == ["dropout", "relu", "heads", "plain"], "what left the list stays in the record"
    rows = after.set_index("trial").loc[list(before["trial"])].reset_index()
    pd.testing.assert_frame_equal(rows[list(before)], before)


def test_a_lost_record_is_made_from_the_run_folders(copied: Workplace) -> None:
    before = copied.record.read_bytes()
    copied.record.unlink()
    copied.run(PLAIN, RELU, HEADS)
    assert copied.record.read_bytes() == before
    assert copied.trained == []


def test_a_recorded_trial_cannot_change_or_be_renamed(copied: Workplace) -> None:
    with pytest.raises(InputError, match=r"trial 'relu' is in .* with other settings; give the changed one another"):
        copied.run(RELU | {"settings": {"dropout": 0.1}})
    with pytest.raises(InputError, match=r"trial 'again' is in .* as 'relu'; leave it out"):
        copied.run(RELU | {"name": "again"})
    assert copied.trained == []


def test_trials_that_left_the_list_count(copied: Workplace) -> None:
    more = [PLAIN | {"name": f"t{n}", "settings": {"dropout": n / 100}} for n in range(MAX_TRIALS - 2)]
    with pytest.raises(InputError, match=f"{MAX_TRIALS + 1} trials are more than the {MAX_TRIALS} allowed"):
        copied.run(*more)
    assert copied.trained == []


def test_a_damaged_record_is_refused(copied: Workplace) -> None:
    copied.record.write_text("trial,why\nplain,because\n")
    with pytest.raises(InputError, match=r"trials.csv is damaged .* restore it from git"):
        copied.run(PLAIN)


def test_the_report_lists_every_trial(trained: Workplace) -> None:
    heading, text, table = (
        output.data["text/markdown"] for output in outputs_of(lambda: sections.show_trials(trained.record.parent))
    )
    assert heading == "# Appendix: tuning trials"
    assert "3 short fits were trained and scored on validation fold 2, never on a test fold" in text
    for trial in (PLAIN, RELU, HEADS):
        assert f"| {trial['name']}\\: " in table
    assert r"None\, but for \| and \$" in table
    assert "transformer\\-h2" in table


def test_without_a_record_the_report_says_nothing_of_trials(tmp_path: Path) -> None:
    assert outputs_of(lambda: sections.show_trials(tmp_path)) == []


# ---------------------------------------------------------------------------------------------------------- the list


def test_the_projects_list_can_be_run_and_is_recorded_in_its_settings() -> None:
    trials = load_trials()
    assert (trials.dataset, trials.val_fold, trials.test_fold, trials.seed) == ("esc10", 2, 1, 0)
    record = read_record(PROJECT_ROOT / "report" / "published" / RECORD)
    assert len(set(record["trial"]) | {trial.name for trial in trials.trials}) <= MAX_TRIALS
    settings = {trial.name: trial.settings for trial in trials.trials}
    for row in record.to_dict(orient="records"):
        assert settings.get(row["trial"], json.loads(row["settings"])) == json.loads(row["settings"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trials: [", "is not valid YAML; correct line 1"),
        ("- a", "holds no settings"),
        ("trial: []", "unknown setting 'trial'; known are dataset"),
        ("trials: [{name: a, model: cnn, epochs: 1}]", "why"),
        ("trials: [{name: a b, why: x, model: cnn, epochs: 1}]", "a b"),
        ("trials: [{name: a, why: x, model: lstm, epochs: 1}]", "lstm"),
        ("trials: [{name: a, why: x, model: cnn, epochs: 0}]", "trial 'a': experiment: epochs = 0 is not possible"),
        ("trials: [{name: a, why: x, model: cnn, num_heads: 2, epochs: 1}]", "the CNN has no attention heads"),
        ("trials: [{name: a, why: x, model: cnn, epochs: 1, settings: {dropot: 1}}]", "unknown setting 'dropot'"),
        ("val_fold: 1\ntrials: [{name: a, why: x, model: cnn, epochs: 1}]", "holds the test fold 1"),
        (
            "trials: [{name: a, why: x, model: cnn, epochs: 1}, {name: a, why: y, model: cnn, epochs: 2}]",
            "two trials have the name 'a'; give each its own",
        ),
        (
            "trials: [{name: a, why: x, model: cnn, epochs: 1}, {name: b, why: y, model: cnn, epochs: 1}]",
            "trials 'a' and 'b' are the same; leave one out",
        ),
        (
            "trials: [" + ", ".join(f"{{name: t{n}, why: x, model: cnn, epochs: {n + 1}}}" for n in range(31)) + "]",
            "31 trials are more than the 30 allowed",
        ),
    ],
)
def test_a_wrong_list_is_refused_in_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    sentence = refusal(load_trials, tmp_path, text)
    assert told in sentence
    assert len(sentence) < 500, "the list itself is not repeated"


def test_thirty_trials_are_allowed() -> None:
    assert len(listed(*(PLAIN | {"name": f"t{n}", "epochs": n + 1} for n in range(30))).trials) == 30


# ------------------------------------------------------------------------------------------------------- the command


def test_the_command_trains_and_shows_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, record = tmp_path / "mine.yaml", tmp_path / RECORD
    arguments = ["trials", path, "--runs-dir", tmp_path / "runs", "--record", record]
    path.write_text("trials: []\n")
    assert call(monkeypatch, *arguments) == 0
    assert "no trials are listed" in capsys.readouterr().out
    assert not record.exists()

    monkeypatch.setattr("audioclf_lib.datasets.load_dataset", lambda name: DATASET)
    trials = ["{name: one, why: x, model: cnn, epochs: 1}", "{name: two, why: x, model: cnn, epochs: 2}"]
    path.write_text(f"dataset: demo\ntrials: [{', '.join(trials)}]\n")
    assert call(monkeypatch, *arguments, "--only", "three") == 2
    assert "there is no trial 'three'; the list has one, two" in capsys.readouterr().err
    assert call(monkeypatch, *arguments, "--only", "one") == 0
    shown = " ".join(capsys.readouterr().out.split())
    (row,) = read_record(record).to_dict(orient="records")
    assert f"one cnn 1 {100 * row['validation_window_accuracy']:.1f} %" in shown
    assert "two not done" in shown

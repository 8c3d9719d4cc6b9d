"""Names of runs: folders, fits, experiments, the best."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from synthetic import write_run
from tiny import make_fit

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Experiment
from audioclf_lib.data import Dataset
from audioclf_lib.inference import choice, choose_runs
from audioclf_lib.metrics.scores import best_fit
from audioclf_lib.runs import RunStore
from audioclf_lib.runs.store import WEIGHTS
from audioclf_lib.suite.jobs import experiment_job


@pytest.fixture
def copied(store: RunStore, tmp_path: Path) -> RunStore:
    """Runs that a test may change."""
    shutil.copytree(store.runs_dir, tmp_path / "runs")
    return RunStore(tmp_path / "runs")


def test_a_run_its_folder_and_its_id_are_the_same_fit(store: RunStore, tones: Dataset) -> None:
    run = store.load(make_fit(tones))
    for which in (run, [run], run.path, str(run.path), run.config.fit_id, f"tones/{run.config.fit_id}"):
        assert choose_runs(which, store.runs_dir) == [run]


@pytest.mark.parametrize("protocol", ["kfold", "split", "rotation"])
def test_an_experiment_is_called_as_its_executed_notebook_is(store: RunStore, tones: Dataset, protocol: str) -> None:
    experiment = Experiment(model="cnn", epochs=2, protocol=protocol)
    trained = [fit for fit in experiment.fits(tones) if store.exists(fit)]
    job = experiment_job(experiment, tones)
    found = choose_runs(job.id.rpartition("-")[0], store.runs_dir)
    assert [run.config for run in found] == trained
    if len(trained) == len(job.fits):
        assert choose_runs(job.id, store.runs_dir) == found


def test_the_beginning_of_a_name_is_enough_where_it_tells_one_from_the_others(store: RunStore) -> None:
    assert [run.config.model for run in choose_runs("transformer-h2-kfold", store.runs_dir)] == ["transformer"]
    with pytest.raises(InputError, match=r"say which: tones/cnn-kfold-seed0-.*, tones/cnn-kfold-seed1-"):
        choose_runs("cnn-kfold", store.runs_dir)
    with pytest.raises(InputError, match="there is no fit 'cn'"):
        choose_runs("cn", store.runs_dir)


def test_the_best_has_the_highest_validation_score_of_those_with_weights(copied: RunStore) -> None:
    runs = copied.find()
    best = best_fit(runs)
    assert choose_runs("best", copied.runs_dir) == choose_runs("tones/best", copied.runs_dir) == [best]
    (best.path / WEIGHTS).unlink()
    assert choose_runs("best", copied.runs_dir) == [best_fit([run for run in runs if run != best])]


def test_the_best_of_two_data_sets_must_be_named(copied: RunStore, tones: Dataset) -> None:
    write_run(copied, make_fit(tones).model_copy(update={"dataset": "others"}))
    with pytest.raises(InputError, match="say which: others/best, tones/best"):
        choose_runs("best", copied.runs_dir)


def test_names_are_searched_in_the_default_runs_then_in_the_published(
    copied: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "DEFAULT_RUNS_DIR", tmp_path / "none")
    monkeypatch.setattr(choice, "PUBLISHED_DIR", copied.runs_dir)
    (best,) = choose_runs("best")
    assert best.path.is_relative_to(copied.runs_dir)
    mine = tmp_path / "none" / "tones"
    mine.mkdir(parents=True)
    (other,) = choose_runs("transformer-h2-kfold")
    shutil.copytree(other.path, mine / other.path.name)
    assert choose_runs("best")[0].path.is_relative_to(mine)


def test_what_stands_for_nothing_is_refused(tmp_path: Path, store: RunStore) -> None:
    with pytest.raises(InputError, match=r"no fit in .* has weights; train one"):
        choose_runs("best", tmp_path)
    with pytest.raises(InputError, match="same classes"):
        choose_runs([])
    run = store.find()[0]
    renamed = run.config.model_copy(update={"class_names": ("a", "b", "c")})
    with pytest.raises(InputError, match="same classes"):
        choose_runs([run, type(run)(run.path, renamed)])

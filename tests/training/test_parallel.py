"""Fits side by side: the same numbers as one after another, progress told, errors raised, nobody left behind."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from own_models import SOURCE, write_model
from tiny import make_dataset

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Experiment, FitConfig
from audioclf_lib.data import Dataset
from audioclf_lib.runs.store import Run
from audioclf_lib.training.parallel import PROCESSES, fit_all
from audioclf_lib.training.trainer import fit


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset()


def fits_of(dataset: Dataset, **settings: object) -> list[FitConfig]:
    return Experiment(**{"model": "cnn", "epochs": 2} | settings).fits(dataset)


class Progress:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.epochs: list[tuple[str, int]] = []
        self.shares: dict[str, list[float]] = {}

    def __call__(self, config: FitConfig, history: list[dict[str, float]]) -> None:
        self.epochs.append((config.fit_id, len(history)))

    def step(self, config: FitConfig, history: list[dict[str, float]], share: float) -> None:
        self.shares.setdefault(config.fit_id, []).append(len(history) + share)


class Together(NamedTuple):
    """A CNN and an own architecture, trained side by side."""

    configs: list[FitConfig]
    runs: list[Run]
    progress: Progress
    runs_dir: Path


@pytest.fixture(scope="module")
def together(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """Made once: every process takes seconds until it has imported torch."""
    folder, progress = tmp_path_factory.mktemp("together"), Progress()
    configs = [fits_of(dataset)[0], fits_of(dataset, model=write_model(folder))[1]]
    options = {"runs_dir": folder / "runs", "device": "cpu", "processes": 2}
    return Together(configs, fit_all(configs, dataset, progress=progress, **options), progress, folder / "runs")


def test_every_epoch_and_step_of_every_process_is_told(together: Together) -> None:
    assert sorted(together.progress.epochs) == sorted((each.fit_id, n) for each in together.configs for n in (1, 2))
    assert together.progress.shares.keys() == {config.fit_id for config in together.configs}
    for shares in together.progress.shares.values():
        assert shares == sorted(shares) and {1, 2} <= set(shares)


def test_fits_side_by_side_have_the_numbers_of_fits_one_after_another(
    together: Together, dataset: Dataset, tmp_path: Path
) -> None:
    assert [run.config for run in together.runs] == together.configs
    for run in together.runs:
        alone = fit(run.config, dataset, runs_dir=tmp_path / "alone", device="cpu")
        pd.testing.assert_frame_equal(run.predictions, alone.predictions, check_exact=True)
        assert run.metrics == alone.metrics


def test_what_is_trained_is_not_trained_again(together: Together, dataset: Dataset) -> None:
    progress = Progress()
    options = {"runs_dir": together.runs_dir, "device": "cpu", "processes": 2}
    again = fit_all(together.configs, dataset, progress=progress, **options)
    assert (progress.epochs, progress.shares) == ([], {})
    assert [run.path for run in again] == [run.path for run in together.runs]


def test_an_own_architecture_is_found_in_its_process(together: Together) -> None:
    assert (together.runs[1].path / "model.py").read_text() == SOURCE


def test_an_error_in_one_process_is_raised_and_ends_the_others(dataset: Dataset, tmp_path: Path) -> None:
    endless = fits_of(dataset, recipe="as-written", recipe_changes={"learning_rate": 1.0}, epochs=1000)[0]
    broken = SOURCE.replace('"my-net"', '"broken-net"').replace(
        "return self.classifier(x.mean(2))", "return self.classifier(x.mean(2)) * float('nan')"
    )
    configs = [fits_of(dataset, model=write_model(tmp_path, broken))[0], endless]
    with pytest.raises(InputError, match="the training loss became nan in epoch 1"):
        fit_all(configs, dataset, runs_dir=tmp_path / "runs", device="cpu", processes=2)
    assert not multiprocessing.active_children()


def test_the_environment_says_how_many_fits_train_at_once(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    monkeypatch.setattr("audioclf_lib.training.parallel._train_side_by_side", lambda *a: started.append(a[-1]))
    monkeypatch.setattr("audioclf_lib.training.parallel.usable_cores", lambda: 4)
    for value, threads, expected in [("", 1, [4]), ("", 2, [2]), ("", 4, []), ("1", 1, []), ("3", 1, [3])]:
        monkeypatch.setenv(PROCESSES, value)
        started.clear()
        configs = fits_of(dataset, epochs=1, threads=threads, seed=expected[0] if expected else 9)
        fit_all(configs, dataset, runs_dir=tmp_path / f"{value}-{threads}", device="cpu")
        assert started == expected, (value, threads)


def test_fits_are_finished_although_one_of_their_processes_is_killed(dataset: Dataset, tmp_path: Path) -> None:
    # Enough epochs that no process has trained the last one when the first is told.
    configs, killed = fits_of(dataset, epochs=30), list[int]()

    def kill_one(_config: FitConfig, _history: list[dict[str, float]]) -> None:
        for child in multiprocessing.active_children()[:1]:
            if not killed:
                child.kill()
                killed.append(child.pid or 0)

    runs = fit_all(configs, dataset, runs_dir=tmp_path, device="cpu", processes=2, progress=kill_one)
    assert killed
    assert [(run.config, len(run.history)) for run in runs] == [(config, 30) for config in configs]

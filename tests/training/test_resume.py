"""A fit that is killed goes on where it stopped, and ends with the numbers of one that nobody disturbed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT_ROOT
from same_numbers import assert_same_numbers
from tiny import RECIPES, make_dataset, make_fit

from audioclf_lib.config import FitConfig
from audioclf_lib.data import Dataset
from audioclf_lib.runs.store import CHECKPOINT, Run, RunStore
from audioclf_lib.training.trainer import fit

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCHS = 4

# Trains in a process of its own, says each epoch whose checkpoint is written, and goes on until it is killed.
CHILD = """
import sys
import torch
from tiny import RECIPES, make_dataset, make_fit
from audioclf_lib.training.trainer import fit

recipe, runs_dir, epochs = sys.argv[1:]
torch.set_num_threads(1)
dataset = make_dataset()
fit(
    make_fit(dataset, epochs=int(epochs), **RECIPES[recipe]),
    dataset,
    runs_dir=runs_dir,
    device="cpu",
    progress=lambda config, history: print(len(history), flush=True),
)
"""


@pytest.fixture
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of fits that nobody disturbs, each trained by the first test that asks for it."""
    return tmp_path_factory.mktemp("calm")


def kill_after_epoch(epoch: int, recipe: str, runs_dir: Path) -> None:
    """Train in another process and kill it when it has written this epoch's checkpoint."""
    command = [sys.executable, "-c", CHILD, recipe, str(runs_dir), str(EPOCHS)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT / "tests" / "support", stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == epoch:
                child.kill()
                break
    assert child.returncode == -9


def train(config: FitConfig, dataset: Dataset, runs_dir: Path) -> tuple[Run, list[int]]:
    """The run, and after which epochs progress was told."""
    told: list[int] = []
    run = fit(config, dataset, runs_dir=runs_dir, device="cpu", progress=lambda _, history: told.append(len(history)))
    return run, told


def checkpoint_of(config: FitConfig, runs_dir: Path) -> Path:
    return runs_dir / "tiny" / f".{config.fit_id}.partial" / CHECKPOINT


@pytest.mark.parametrize("recipe", ["transformer tuned"])
def test_a_killed_fit_goes_on_and_ends_with_the_same_numbers(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    config = make_fit(dataset, epochs=EPOCHS, **RECIPES[recipe])
    undisturbed, told = train(config, dataset, tmp_path / "undisturbed")
    assert told == [1, 2, 3, 4]

    kill_after_epoch(2, recipe, tmp_path / "killed")
    assert checkpoint_of(config, tmp_path / "killed").exists()
    assert not RunStore(tmp_path / "killed").exists(config)
    resumed, told = train(config, dataset, tmp_path / "killed")
    assert told in ([3, 4], [4]), "what was done is not done again"
    assert_same_numbers(undisturbed, resumed)
    assert [path.name for path in (tmp_path / "killed" / "tiny").iterdir()] == [config.fit_id], "nothing is left over"


@pytest.mark.parametrize("stop", [1, 3])
def test_a_fit_interrupted_after_any_epoch_ends_with_the_same_numbers(
    stop: int, dataset: Dataset, calm: Path, tmp_path: Path
) -> None:
    config = make_fit(dataset, epochs=3, **RECIPES["cnn tuned"])
    undisturbed, _ = train(config, dataset, calm)

    def interrupt(_: FitConfig, history: list[dict[str, float]]) -> None:
        if len(history) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(config, dataset, runs_dir=tmp_path / "stopped", device="cpu", progress=interrupt)
    resumed, told = train(config, dataset, tmp_path / "stopped")
    assert told == list(range(stop + 1, 4))
    assert_same_numbers(undisturbed, resumed)


def test_a_finished_fit_is_not_trained_again(dataset: Dataset, tmp_path: Path) -> None:
    config = make_fit(dataset)
    first, _ = train(config, dataset, tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second, told = train(config, dataset, tmp_path)
    assert told == []
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps


def test_the_split_finds_the_fit_that_k_folds_trained(dataset: Dataset, tmp_path: Path) -> None:
    train(make_fit(dataset, val_fold=2, protocol="kfold"), dataset, tmp_path)
    split = make_fit(dataset, protocol="split", val_folds=None)
    _, told = train(split, dataset, tmp_path)
    assert told == []

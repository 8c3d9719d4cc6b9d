"""Recordings and runs on a drive that is mounted over the network, as Colab mounts Drive, and goes away in the middle.

The drive is simulated: a folder whose every operation fails, from a moment on, as those of a lost mount do.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import PROJECT_ROOT
from same_numbers import assert_same_numbers
from small_suite import CLASSES, make_sounds
from tiny import make_dataset, make_fit

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import FitConfig
from audioclf_lib.data import load_dataset
from audioclf_lib.training.trainer import fit

EPOCHS = 3
GONE = {"ENOTCONN": "Transport endpoint is not connected", "EIO": "Input/output error", "ESTALE": "Stale file handle"}


class Drive:
    """A mounted folder; ``go`` makes every operation in it fail until ``come_back``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.error: int | None = None
        for name in ("open", "mkdir", "replace", "rename", "scandir", "listdir", "stat", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, self._guarded(getattr(os, name)))
        monkeypatch.setattr("io.open", self._guarded(open))

    def _guarded(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(path: object = ".", *more: object, **options: object) -> object:
            inside = isinstance(path, (str, Path)) and str(path).startswith(str(self.folder))
            if self.error is not None and inside:
                raise OSError(self.error, os.strerror(self.error), str(path))
            return real(path, *more, **options)

        return call

    def go(self, error: int) -> None:
        self.error = error

    def come_back(self) -> None:
        self.error = None


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drive]:
    with monkeypatch.context() as patches:
        folder = tmp_path / "drive" / "MyDrive" / "my runs"
        folder.mkdir(parents=True)
        yield Drive(folder, patches)


def test_a_fit_goes_on_where_it_was_when_its_drive_went_away(drive: Drive, tmp_path: Path) -> None:
    name, dataset = "ENOTCONN", make_dataset()
    config = make_fit(dataset, epochs=EPOCHS)
    undisturbed = fit(config, dataset, runs_dir=tmp_path / "here", device="cpu")

    def goes_after_two(_: FitConfig, history: list[dict[str, float]]) -> None:
        if len(history) == 2:
            drive.go(getattr(errno, name))

    with pytest.raises(InputError, match=rf"^cannot \w+ {drive.folder}.*: {GONE[name]}; free space or choose another"):
        fit(config, dataset, runs_dir=drive.folder, device="cpu", progress=goes_after_two)
    drive.come_back()
    trained: list[int] = []
    run = fit(
        config,
        dataset,
        runs_dir=drive.folder,
        device="cpu",
        progress=lambda _, history: trained.append(len(history)),
    )
    assert trained == [EPOCHS], "the first two epochs are kept"
    assert_same_numbers(run, undisturbed)


@pytest.mark.parametrize("name", GONE)
def test_a_drive_that_is_away_at_the_start_is_named(name: str, drive: Drive) -> None:
    dataset = make_dataset()
    drive.go(getattr(errno, name))
    with pytest.raises(InputError, match=f"{GONE[name]}"):
        fit(make_fit(dataset), dataset, runs_dir=drive.folder, device="cpu")


KILLED = """
import os, sys
from tiny import make_dataset, make_fit
from audioclf_lib.training.trainer import fit

dataset = make_dataset()
end = lambda _, history: os._exit(9) if len(history) == 2 else None
fit(make_fit(dataset, epochs=3), dataset, runs_dir=sys.argv[1], device="cpu", progress=end)
"""


def test_a_machine_that_is_taken_away_leaves_its_epochs_and_half_a_file_is_known(tmp_path: Path) -> None:
    """The drive has what the machine wrote; of a file that it has only in part, nothing is used."""
    whole, half = tmp_path / "My Drive", tmp_path / "half"
    folders = [PROJECT_ROOT, PROJECT_ROOT / "tests" / "support"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    assert subprocess.run([sys.executable, "-c", KILLED, str(whole)], env=environment).returncode == 9
    shutil.copytree(whole, half)
    (checkpoint,) = half.rglob("checkpoint.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    dataset = make_dataset()
    config = make_fit(dataset, epochs=EPOCHS)
    for runs_dir, epochs in ((whole, [EPOCHS]), (half, [1, 2, EPOCHS])):
        trained: list[int] = []
        fit(
            config,
            dataset,
            runs_dir=runs_dir,
            device="cpu",
            progress=lambda _, history, seen=trained: seen.append(len(history)),
        )
        assert trained == epochs


def test_nothing_is_written_to_the_folder_of_the_recordings(tmp_path: Path) -> None:
    """As Kaggle's inputs, which are read-only."""
    recordings = tmp_path / "kaggle" / "input" / "my sounds"
    make_sounds(recordings)
    before = {path: path.stat().st_mtime_ns for path in [recordings, *recordings.rglob("*")]}
    data = load_dataset(str(recordings), data_dir=tmp_path / "working")
    assert data.class_names == tuple(sorted(CLASSES))
    assert {path: path.stat().st_mtime_ns for path in [recordings, *recordings.rglob("*")]} == before

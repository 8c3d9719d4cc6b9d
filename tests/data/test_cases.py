"""Inputs from public bug reports of other projects, in ``cases``, and the right answer to each.

The tables go with ``sounds``: three classes (bark, bell, tür), three folds, 18 clips of half a second.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from audioclf_lib._support.errors import InputError
from audioclf_lib.data import load_dataset
from audioclf_lib.data.audio import decoded_length, measure_sound, read_clip

CASES = Path(__file__).with_name("cases")
TABLES = sorted(path.stem for path in (CASES / "tables").iterdir())


def folder_with(table: str, tmp_path: Path) -> Path:
    folder = tmp_path / table
    shutil.copytree(CASES / "sounds", folder / "sounds")
    shutil.copy(CASES / "tables" / f"{table}.csv", folder / "labels.csv")
    return folder


@pytest.mark.parametrize("table", [name for name in TABLES if name != "no-folds"])
def test_tables_as_people_have_them(tmp_path: Path, table: str) -> None:
    dataset = load_dataset(folder_with(table, tmp_path), data_dir=tmp_path / "data")
    assert dataset.class_names == ("bark", "bell", "tür")
    assert np.bincount(dataset.labels).tolist() == [6, 6, 6]
    assert dataset.folds.tolist() == [1, 1, 2, 2, 3, 3] * 3
    assert dataset.waveforms.any(axis=1).all()


def test_half_a_fold_is_refused(tmp_path: Path) -> None:
    folder = folder_with("pandas-float-folds", tmp_path)
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace("1.0", "1.5", 1))
    with pytest.raises(InputError, match=r"line 2: fold '1\.5' is none of 0, 1, 2"):
        load_dataset(folder, data_dir=tmp_path / "data")


@pytest.mark.parametrize("table", ["no-folds", None])
def test_without_folds_some_are_made_and_said_and_written_down(tmp_path: Path, table: str | None) -> None:
    folder = folder_with(table, tmp_path) if table else CASES / "sounds"
    before = sorted(folder.rglob("*"))
    with pytest.warns(UserWarning, match=r"5 folds were made .*; they are kept in .*folds.*\.csv"):
        dataset = load_dataset(folder, data_dir=tmp_path / "data")
    assert dataset.class_names == ("bark", "bell", "tür")
    assert set(dataset.folds.tolist()) == {1, 2, 3, 4, 5}
    assert len(list((tmp_path / "data" / "folds").glob("*.csv"))) == 1
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "seconds"), [("vbr-without-xing.mp3", 10.0), ("streamed.flac", 1.0), ("size-0.wav", 1.0)]
)
def test_a_header_that_does_not_tell_the_length_does_not_cut_the_sound(name: str, seconds: float) -> None:
    path = CASES / "audio" / name
    assert decoded_length(path) / 16_000 == pytest.approx(seconds, abs=0.05)  # an MP3 encoder adds some samples
    assert measure_sound(path)["seconds"] == pytest.approx(seconds, abs=0.05)
    samples = read_clip(path, round(seconds * 16_000))
    parts = np.abs(samples.reshape(10, -1)).max(axis=1)
    assert (parts > 0.05).all(), "there is sound to the end"


def test_phase_opposed_channels_do_not_become_silence() -> None:
    path = CASES / "audio" / "phase-opposed.wav"
    assert np.abs(read_clip(path, 16_000)).max() == pytest.approx(0.3, abs=0.01)
    assert measure_sound(path)["opposed"]

"""What is odd about recordings is told with names."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from audio_files import make_folder, tone

from audioclf_lib.data import find_oddities, load_dataset


def oddities(folder: Path) -> dict[str, list[str]]:
    return find_oddities(load_dataset(folder, data_dir=folder.parent / "data"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three recordings of two classes in each of three folds: nothing is odd about them."""
    folder = make_folder(tmp_path / "sounds", folds=tuple(range(1, 10)))
    pd.read_csv(folder / "labels.csv").assign(fold=lambda clips: (clips["fold"] - 1) // 3 + 1).to_csv(
        folder / "labels.csv", index=False
    )
    return folder


def test_nothing_is_odd_about_good_recordings(folder: Path) -> None:
    assert oddities(folder) == {}


@pytest.mark.parametrize(
    ("samples", "what", "how"),
    [
        (np.zeros(16_000), "silent", "low-1.wav"),
        (np.clip(5 * tone(), -1, 1), "clipped", "low-1.wav ("),
        (np.stack([tone(), -tone()], axis=1), "channels cancel each other out, so one is taken", "low-1.wav"),
        (tone(0.1), "shorter than 0.25 s", "low-1.wav"),
        (tone(0.75), "padded to 1 s", "low-1.wav (0.25 s of zeros)"),
    ],
)
def test_a_sound_that_is_odd_is_named(folder: Path, samples: np.ndarray, what: str, how: str) -> None:
    sf.write(folder / "low-1.wav", samples, 16_000)
    (name,) = oddities(folder)[what]
    assert name.startswith(how)


def test_sounds_that_are_cut_are_named_with_what_is_lost_the_longest_first(folder: Path) -> None:
    sf.write(folder / "low-1.wav", tone(31), 16_000)
    sf.write(folder / "high-2.wav", tone(40), 16_000)
    found = oddities(folder)
    assert found["cut to 30 s"] == ["high-2.wav (10.00 s left out)", "low-1.wav (1.00 s left out)"]
    assert found["longer than 10 times the usual"] == ["high-2.wav (40.0 s)", "low-1.wav (31.0 s)"]
    assert len(found["padded to 30 s"]) == 16


def test_equal_content_is_told_and_where_it_lies_in_several_folds(folder: Path) -> None:
    shutil.copy(folder / "low-1.wav", folder / "low-2.wav")  # fold 1 both
    sf.write(folder / "high-9.flac", sf.read(folder / "high-1.wav")[0], 16_000)  # the same in another format
    table = (folder / "labels.csv").read_text().replace("high-9.wav", "high-9.flac")
    (folder / "labels.csv").write_text(table)
    found = oddities(folder)
    assert found["equal content under several names"] == ["low-1.wav = low-2.wav"]
    assert found["equal content in several folds"] == ["high-1.wav = high-9.flac (folds 1, 3)"]


def test_silent_sounds_are_not_told_to_be_equal(folder: Path) -> None:
    for name in ("low-1.wav", "low-9.wav"):
        sf.write(folder / name, np.zeros(16_000), 16_000)
    assert list(oddities(folder)) == ["silent"]


def test_a_class_that_is_small_for_its_folds_is_told(folder: Path) -> None:
    table = pd.read_csv(folder / "labels.csv")
    table[~table["filename"].isin(["low-1.wav", "low-2.wav"])].to_csv(folder / "labels.csv", index=False)
    assert oddities(folder) == {"class with a single recording in a fold": ["low (7 in all)"]}


def test_of_the_demo_set_only_the_content_is_looked_at() -> None:
    assert list(find_oddities(load_dataset("demo"))) == ["class with a single recording in a fold"]

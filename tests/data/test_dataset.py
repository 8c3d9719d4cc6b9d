"""A data set counts its clips and windows; none can be made that breaks the rules (see also ``test_bad_input.py``)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audio_files import make_folder

from audioclf_lib._support.errors import InputError
from audioclf_lib.data import Dataset, load_dataset


def test_options_that_do_not_belong_to_a_data_set_are_refused(tmp_path: Path) -> None:
    own = make_folder(tmp_path / "own")
    for name in ("demo:esc10", f"{own}:esc10"):
        with pytest.raises(InputError, match=r"':esc10' is for a copy of ESC-50, which .* is not; leave it out"):
            load_dataset(name, data_dir=tmp_path)
    with pytest.raises(InputError, match=r"':2s' is for your own folder, which 'demo' is not; leave it out"):
        load_dataset("demo:2s", data_dir=tmp_path)


@pytest.fixture
def good() -> Dataset:
    return Dataset(
        name="noise",
        waveforms=np.random.default_rng(0).uniform(-1, 1, (6, 16_000)).astype(np.float32),
        labels=np.array([0, 1] * 3),
        folds=np.repeat([1, 2, 3], 2),
        clip_ids=tuple("abcdef"),
        class_names=("x", "y"),
        sources=tuple("abcdef"),
        fingerprint="0" * 16,
    )


def test_a_class_table_counts_clips_recordings_and_windows(good: Dataset) -> None:
    waveforms = np.full((7, 32_000), 0.5, dtype=np.float32)  # three windows each: from 0, 8,000 and 16,000
    waveforms[0, 8_000:] = 0  # windows 1 and 2 are silent
    waveforms[1, :16_000] = 0  # window 0 is
    waveforms[2] = 0  # all three are
    dataset = replace(
        good,
        waveforms=waveforms,
        labels=np.array([0, 1, 0, 1, 0, 1, 0]),
        folds=np.array([1, 1, 2, 2, 3, 3, 3]),
        clip_ids=tuple("abcdefg"),
        sources=("p", "q", "r", "s", "t", "u", "t"),  # two clips of class x are of recording t
    )
    table = dataset.class_table()
    assert table.columns.tolist() == ["Class", "Clips", "Recordings", "Windows", "Silent windows"]
    assert table.to_numpy().tolist() == [["x", 4, 3, 12, 5], ["y", 3, 3, 9, 1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_ids": tuple("abcdea")}, "'a' twice"),
        ({"folds": np.repeat([1, 2], 3)}, r"only the folds \[1, 2\]"),
        ({"sources": tuple("abacef")}, r"recording 'a' in folds \[1, 2\]"),
        ({"labels": np.array([0, 1, 0, 0, 0, 1])}, "class 'y' in fold 2"),
        ({"class_names": ("x", "x")}, "two or more different"),
    ],
)
def test_no_data_set_can_be_made_that_breaks_the_rules(good: Dataset, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(good, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"waveforms": np.zeros((5, 16_000), dtype=np.float32)},
        {"clip_ids": tuple("abcde")},
    ],
)
def test_columns_of_different_lengths_are_a_programming_error(good: Dataset, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="Length of values") as caught:
        replace(good, **changes)  # type: ignore[arg-type]
    assert not isinstance(caught.value, InputError)

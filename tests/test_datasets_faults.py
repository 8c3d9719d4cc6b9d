"""Bad data ends in one sentence that names the culprit and the remedy, and nothing on disk is changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from audio_files import make_esc50, make_folder, tone, tree

from audioclf_lib.datasets import Dataset, load_dataset
from audioclf_lib.datasets.esc import ESC10_FOLDERS
from audioclf_lib.errors import InputError


def table(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = next(path for path in (folder / "labels.csv", folder / "meta" / "esc50.csv") if path.exists())
    change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)


def put(column: str, value: str, row: int = 0) -> Callable[[Path], None]:
    """Overwrite one entry of the table."""

    def change(clips: pd.DataFrame) -> pd.DataFrame:
        clips.loc[row, column] = value
        return clips

    return lambda folder: table(folder, change)


def drop_column(column: str) -> Callable[[Path], None]:
    return lambda folder: table(folder, lambda clips: clips.drop(columns=column))


def with_sample(value: float) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        samples = tone()
        samples[5_000] = value
        sf.write(folder / "high-2.wav", samples, 16_000, subtype="FLOAT")

    return write


def write_bytes(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def one_recording_in_two_folds(folder: Path) -> None:
    table(folder, lambda clips: clips.assign(source=["walk.wav", "b", "c", "d", "walk.wav", "f"]))


def same_file_spelled_twice(folder: Path) -> None:
    row = {"filename": "./low-1.wav", "label": "low", "fold": "1"}
    table(folder, lambda clips: pd.concat([clips, pd.DataFrame([row])]))


def no_rows(folder: Path) -> None:
    table(folder, lambda clips: clips.head(0))


# What is done to a good folder, and what the sentence must name.
FOLDER_FAULTS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "missing folder": (shutil.rmtree, ["sounds", "nor a folder"]),
    "no table": (lambda folder: (folder / "labels.csv").unlink(), ["sounds", "labels.csv", "filename, label, fold"]),
    "empty table": (write_bytes("labels.csv", b""), ["labels.csv", "comma-separated"]),
    "table without rows": (no_rows, ["sounds", "no clips"]),
    "table is no text": (
        write_bytes("labels.csv", b"filename,label,fold\n\xff\xfe\xfa,a,1\n"),
        ["labels.csv", "UTF-8"],
    ),
    "ragged table": (
        write_bytes("labels.csv", b"filename,label,fold\na.wav,x,1\nb.wav,x,1,y,z\n"),
        ["labels.csv", "line 3"],
    ),
    "semicolons": (write_bytes("labels.csv", b"filename;label;fold\na.wav;x;1\n"), ["'filename'", "comma-separated"]),
    "no filename column": (drop_column("filename"), ["labels.csv", "'filename'"]),
    "no label column": (drop_column("label"), ["labels.csv", "'label'"]),
    "no fold column": (drop_column("fold"), ["labels.csv", "'fold'"]),
    "empty label": (put("label", "", row=1), ["labels.csv, line 3", "label"]),
    "fold is a word": (put("fold", "train", row=2), ["labels.csv, line 4", "'train'", "whole number"]),
    "fold is negative": (put("fold", "-1"), ["labels.csv, line 2", "'-1'"]),
    "fold is empty": (put("fold", ""), ["labels.csv, line 2", "fold ''"]),
    "two folds": (lambda folder: table(folder, lambda clips: clips[clips["fold"] != "3"]), ["[1, 2]", "3 or more"]),
    "one class": (
        lambda folder: table(folder, lambda clips: clips[clips["label"] == "low"]),
        ["['low']", "two or more"],
    ),
    "clip listed twice": (put("filename", "low-1.wav", row=1), ["'low-1.wav'", "twice"]),
    "clip listed twice in two spellings": (same_file_spelled_twice, ["'low-1.wav'", "twice"]),
    "one recording in two folds": (one_recording_in_two_folds, ["'walk.wav'", "[1, 3]", "one fold"]),
    "class missing in a fold": (put("label", "low", row=3), ["'high'", "fold 2"]),
    "missing file": (lambda folder: (folder / "high-2.wav").unlink(), ["high-2.wav", "missing"]),
    "file is a folder": (put("filename", "."), ["sounds", "missing"]),
    "0-byte file": (write_bytes("high-2.wav", b""), ["high-2.wav", "0 bytes"]),
    "file is text": (write_bytes("high-2.wav", b"no sound at all"), ["high-2.wav", "cannot be read as sound"]),
    "file is noise": (write_bytes("high-2.wav", bytes(range(256)) * 40), ["high-2.wav", "cannot be read as sound"]),
    "header only": (lambda folder: sf.write(folder / "high-2.wav", tone(0), 16_000), ["high-2.wav", "no samples"]),
    "rate too low": (lambda folder: sf.write(folder / "high-2.wav", tone(), 10), ["high-2.wav", "10 Hz"]),
    "NaN": (with_sample(float("nan")), ["'high-2.wav'", "NaN"]),
    "infinite": (with_sample(float("-inf")), ["'high-2.wav'", "NaN or infinite"]),
}

ESC50_FAULTS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no category column": (drop_column("category"), ["esc50.csv", "'category'"]),
    "no source column": (drop_column("src_file"), ["esc50.csv", "'src_file'"]),
    "unknown class": (put("category", "unicorn", row=4), ["esc50.csv, line 6", "'unicorn'", "dog, rooster"]),
    "unknown fold": (put("fold", "6"), ["esc50.csv, line 2", "'6'", "1, 2, 3, 4, 5"]),
    "missing clip": (lambda folder: (folder / "audio" / "2-2001-A-1.wav").unlink(), ["2-2001-A-1.wav", "missing"]),
    "no audio folder": (lambda folder: shutil.rmtree(folder / "audio"), ["1-1000-A-0.wav", "missing"]),
    "recording in two folds": (put("src_file", "2000"), ["'2000'", "[1, 2]"]),
}


def assert_refused(folder: Path, named: list[str]) -> None:
    """Loading says one sentence with all of ``named`` in it, and leaves every file as it was."""
    before = tree(folder.parent)
    with pytest.raises(InputError) as caught:
        load_dataset(folder, data_dir=folder.parent / "data")
    message = str(caught.value)
    assert [part for part in named if part not in message] == [], message
    assert "\n" not in message
    assert ";" in message, "the remedy follows the fault"
    assert tree(folder.parent) == before


@pytest.mark.parametrize("fault", FOLDER_FAULTS)
def test_own_folder(tmp_path: Path, fault: str) -> None:
    damage, named = FOLDER_FAULTS[fault]
    folder = make_folder(tmp_path / "sounds")
    damage(folder)
    assert_refused(folder, named)


@pytest.mark.parametrize("fault", ESC50_FAULTS)
def test_esc50(tmp_path: Path, fault: str) -> None:
    damage, named = ESC50_FAULTS[fault]
    folder = make_esc50(tmp_path / "ESC-50", {"dog": True, "pig": False})
    damage(folder)
    assert_refused(folder, named)


ESC10_FAULTS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "wrong checksum": (
        lambda clip: clip.write_bytes(clip.read_bytes()[:-1] + b"?"),
        ["wrong checksum", "1-100032-A.ogg"],
    ),
    "truncated": (lambda clip: clip.write_bytes(clip.read_bytes()[:5_000]), ["wrong checksum", "1-100032-A.ogg"]),
    "0-byte file": (lambda clip: clip.write_bytes(b""), ["wrong checksum", "1-100032-A.ogg"]),
    "missing clip": (lambda clip: clip.unlink(), ["missing", "1-100032-A.ogg"]),
    "missing class": (lambda clip: shutil.rmtree(clip.parent), ["missing", "001 - Dog bark", "39 more"]),
    "clip that is not part of it": (
        lambda clip: clip.rename(clip.with_name("9-1-A.ogg")) and shutil.copy(clip.with_name("9-1-A.ogg"), clip),
        ["9-1-A.ogg", "no clip of ESC-10"],
    ),
}


@pytest.mark.parametrize("fault", ESC10_FAULTS)
def test_esc10(tmp_path: Path, real_esc10: Path, fault: str) -> None:
    damage, named = ESC10_FAULTS[fault]
    folder = tmp_path / "ESC-10"
    for name in ESC10_FOLDERS:
        (folder / name).mkdir(parents=True)
        for clip in (real_esc10 / name).glob("*.ogg"):
            (folder / name / clip.name).symlink_to(clip)
    victim = folder / ESC10_FOLDERS[0] / "1-100032-A.ogg"
    content = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(content)  # the only real file: the recordings themselves are not ours to touch
    damage(victim)
    assert_refused(folder, [*named, "fresh copy"])


@pytest.mark.parametrize("name", ["esc11", "ESC-50", "/no/such/folder", ""])
def test_an_unknown_name_is_named_with_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"demo.*esc10.*folder|neither a labels\.csv") as caught:
        load_dataset(name, data_dir=tmp_path)
    assert name in str(caught.value)


def test_options_that_do_not_belong_to_a_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="esc10_only"):
        load_dataset("demo", esc10_only=True)
    with pytest.raises(InputError, match="clip_seconds"):
        load_dataset("demo", clip_seconds=2)
    with pytest.raises(InputError, match="esc10_only"):
        load_dataset(make_folder(tmp_path / "own"), esc10_only=True, data_dir=tmp_path)


@pytest.mark.parametrize("variable", ["/no/such/folder", "."])
def test_a_variable_that_leads_nowhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIOCLF_DATA", variable)
    with pytest.raises(InputError, match=f"AUDIOCLF_DATA = '{variable}' holds no ESC-10"):
        load_dataset("esc10", data_dir=tmp_path / "data")
    assert tree(tmp_path) == {}


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_ids": tuple("abcdea")}, "'a' twice"),
        ({"folds": np.repeat([1, 2], 3)}, r"only the folds \[1, 2\]"),
        ({"sources": tuple("abacef")}, r"'a' are in folds \[1, 2\]"),
        ({"labels": np.array([0, 1, 0, 0, 0, 1])}, "class 'y' in fold 2"),
        ({"labels": np.array([0, 1, 0, 2, 0, 1])}, "'d' has label 2; labels go from 0 to 1"),
        ({"class_names": ("x", "x")}, "two or more different"),
        ({"waveforms": np.full((6, 16_000), np.nan, dtype=np.float32)}, "'a' has samples that are NaN"),
    ],
)
def test_no_data_set_can_be_made_that_breaks_the_rules(good: Dataset, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(good, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"waveforms": np.zeros((6, 15_999), dtype=np.float32)},
        {"waveforms": np.zeros((6, 16_000))},
        {"waveforms": np.zeros((5, 16_000), dtype=np.float32)},
        {"clip_ids": tuple("abcde")},
    ],
)
def test_arrays_that_do_not_fit_each_other_are_a_programming_error(good: Dataset, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"float32|lengths") as caught:
        replace(good, **changes)  # type: ignore[arg-type]
    assert not isinstance(caught.value, InputError)

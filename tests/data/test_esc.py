"""ESC-10 and ESC-50: the facts of the real recordings, and ESC-50's layout on a small copy."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from audio_files import make_esc50

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import PROJECT_ROOT
from audioclf_lib.data import Dataset, dataset_slug, load_dataset
from audioclf_lib.data.audio import decoded_length
from audioclf_lib.data.esc import ESC10_CLASSES, ESC10_FOLDERS, locate_esc10, read_registry
from audioclf_lib.data.windowing import cut_windows


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def esc10(real_esc10: Path, data_dir: Path) -> Dataset:
    return load_dataset(real_esc10, data_dir=data_dir)


def test_the_registry_is_what_the_maintainers_tool_makes_of_the_copy(real_esc10: Path) -> None:
    make_registry = runpy.run_path(str(PROJECT_ROOT / "tools" / "make_registry.py"))["make_registry"]
    made = make_registry(real_esc10).astype({"fold": int})
    pd.testing.assert_frame_equal(made, read_registry(), check_dtype=False)


def test_the_registry_lists_eight_clips_for_each_class_and_fold_with_their_credits() -> None:
    registry = read_registry()
    counts = pd.crosstab(registry["label"], registry["fold"])
    assert counts.shape == (10, 5)
    assert (counts == 8).all(axis=None)
    assert registry["sha256"].str.fullmatch(r"[0-9a-f]{64}").all()
    assert registry["sha256"].is_unique
    assert (registry[["author", "title", "url", "licence_url"]] != "").all(axis=None)
    assert registry["licence"].value_counts().to_dict() == {"CC0": 233, "CC-BY": 165, "CC-Sampling+": 2}


def test_classes_are_in_the_order_of_the_folders(esc10: Dataset) -> None:
    assert esc10.class_names == ESC10_CLASSES
    assert ESC10_CLASSES[0] == "dog bark"
    assert ESC10_CLASSES[9] == "fire crackling"
    for clip in ("1-100032-A", "5-215658-B"):
        registered = read_registry().set_index(read_registry()["path"].map(lambda path: Path(path).stem)).loc[clip]
        row = esc10.clip_ids.index(clip)
        folder = ESC10_FOLDERS[esc10.labels[row]]
        assert registered["path"].startswith(folder)
        assert (esc10.folds[row], esc10.sources[row]) == (registered["fold"], registered["source"])
        assert clip == f"{registered['fold']}-{registered['source']}-{clip[-1]}"


def test_there_are_400_clips_of_five_seconds(esc10: Dataset) -> None:
    assert esc10.name == "esc10"
    assert esc10.fingerprint == "8749e6ec65fcfe91"
    assert esc10.waveforms.shape == (400, 80_000)
    assert cut_windows(esc10.waveforms).shape == (400, 9, 1, 16_000)
    assert np.bincount(esc10.labels).tolist() == [40] * 10


def test_takes_of_one_recording_share_source_and_fold(esc10: Dataset) -> None:
    first, second = esc10.clip_ids.index("2-122104-A"), esc10.clip_ids.index("2-122104-B")
    assert esc10.sources[first] == esc10.sources[second] == "122104"
    assert len(set(esc10.sources)) < 400


def test_recordings_differ_in_length(real_esc10: Path) -> None:
    lengths = [decoded_length(path) for path in real_esc10.glob("*/*.ogg")]
    assert (min(lengths), max(lengths)) == (58_306, 115_845)


def test_303_of_the_3600_windows_are_silent(esc10: Dataset) -> None:
    counts = {name: int(esc10.silent[esc10.labels == label].sum()) for label, name in enumerate(esc10.class_names)}
    assert {name: count for name, count in counts.items() if count} == {
        "dog bark": 46,
        "sea waves": 1,
        "baby cry": 6,
        "person sneeze": 131,
        "helicopter": 8,
        "rooster": 105,
        "fire crackling": 6,
    }
    assert esc10.silent.size == 3_600
    assert esc10.silent[esc10.folds == 1].sum() == 82
    assert esc10.silent[esc10.folds == 1].size == 720


def test_a_second_load_gives_the_same_from_the_cache(esc10: Dataset, real_esc10: Path, data_dir: Path) -> None:
    again = load_dataset(real_esc10, data_dir=data_dir)
    np.testing.assert_array_equal(again.waveforms, esc10.waveforms)
    assert again.fingerprint == esc10.fingerprint


def test_loading_takes_less_than_a_gibibyte_beyond_the_libraries(real_esc10: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from audioclf_lib.data import load_dataset;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "before = peak(); load_dataset(sys.argv[1], data_dir=__import__('pathlib').Path(sys.argv[2]));"
        "print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(real_esc10), str(tmp_path)], capture_output=True, text=True, check=True
    )
    kibibytes = int(done.stdout) // (1024 if sys.platform == "darwin" else 1)
    assert kibibytes < 2**20


@pytest.mark.parametrize("parent", [False, True], ids=["the folder itself", "the folder that holds it"])
def test_the_variable_leads_to_a_copy(
    real_esc10: Path, esc10: Dataset, data_dir: Path, monkeypatch: pytest.MonkeyPatch, parent: bool
) -> None:
    monkeypatch.setenv("AUDIOCLF_DATA", str(real_esc10.parent if parent else real_esc10))
    assert load_dataset("esc10", data_dir=data_dir).fingerprint == esc10.fingerprint


def test_a_relative_variable_works_from_any_folder(
    real_esc10: Path, esc10: Dataset, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOCLF_DATA", os.path.relpath(real_esc10, PROJECT_ROOT))
    monkeypatch.chdir(tmp_path)
    assert load_dataset("esc10", data_dir=data_dir).fingerprint == esc10.fingerprint


def test_a_copy_in_the_data_folder_is_found(real_esc10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUDIOCLF_DATA", raising=False)
    (tmp_path / "ESC-10").symlink_to(real_esc10)
    assert locate_esc10(tmp_path) == tmp_path / "ESC-10"


@pytest.fixture
def esc50(tmp_path: Path) -> Path:
    """A small ESC-50 with the targets of the real one."""
    folder = make_esc50(tmp_path / "ESC-50", {"clock_tick": True, "dog": True, "hand_saw": False})
    table = pd.read_csv(folder / "meta" / "esc50.csv")
    table["target"] = table["category"].map({"dog": 0, "clock_tick": 38, "hand_saw": 49})
    table.to_csv(folder / "meta" / "esc50.csv", index=False)
    return folder


def test_esc50_gives_all_its_classes_in_the_order_of_the_targets(esc50: Path, tmp_path: Path) -> None:
    dataset = load_dataset(esc50, data_dir=tmp_path / "data")
    assert dataset.name == f"esc50-{dataset.fingerprint[:8]}"
    assert dataset_slug(esc50) == "esc50"
    assert dataset.class_names == ("dog", "clock tick", "hand saw")
    assert dataset.waveforms.shape == (15, 80_000)
    assert dataset.labels.tolist() == [1, 0, 2] * 5
    assert dataset.folds.tolist() == np.repeat([1, 2, 3, 4, 5], 3).tolist()
    assert dataset.clip_ids[:2] == ("1-1000-A-0", "1-1001-A-1")
    assert dataset.sources[:2] == ("1000", "1001")


def test_esc50_can_be_narrowed_to_the_classes_of_esc10(esc50: Path, tmp_path: Path) -> None:
    dataset = load_dataset(f"{esc50}:esc10", data_dir=tmp_path / "data")
    assert dataset.name == f"esc50-esc10-{dataset.fingerprint[:8]}"
    assert dataset_slug(f"{esc50}:esc10") == "esc50-esc10"
    assert dataset.class_names == ("dog", "clock tick")
    assert len(dataset) == 10


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("category", "unicorn", r"esc50.csv, line 5: there is target 38 for 'unicorn' and for 'clock tick'"),
        ("target", 0, r"esc50.csv, line 5: there is target 0 for 'clock tick' and for 'dog'"),
        ("target", "none", r"esc50.csv, line 5: target 'none' is none of 0, 1, 2"),
        ("target", 7, r"two or more different"),
    ],
)
def test_every_class_of_esc50_has_a_target_of_its_own(esc50: Path, column: str, value: object, message: str) -> None:
    table = pd.read_csv(esc50 / "meta" / "esc50.csv", dtype=object)
    table.loc[3, column] = value
    table.to_csv(esc50 / "meta" / "esc50.csv", index=False)
    with pytest.raises(InputError, match=message):
        load_dataset(esc50)

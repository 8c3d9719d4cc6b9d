"""Decoded clips are kept once, wholly or not at all, and never served when they are damaged."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from audio_files import make_folder, tree

from audioclf_lib.data import cache, load_dataset

SAMPLES = np.random.default_rng(0).standard_normal((3, 16_000)).astype(np.float32)


class Builder:
    """Makes the samples and counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return SAMPLES.copy()


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """No file may grow beyond 64 KiB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_samples_are_built_once_and_come_back_bit_by_bit(tmp_path: Path) -> None:
    build, path = Builder(), tmp_path / "cache" / "key.npy"
    for _ in range(3):
        np.testing.assert_array_equal(cache.load_or_build(path, SAMPLES.shape, build), SAMPLES)
    assert build.calls == 1
    assert [file.name for file in path.parent.iterdir()] == ["key.npy"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:100],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: content[:5_000] + bytes([content[5_000] ^ 1]) + content[5_001:],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content.replace(b"<f4", b"<i4", 1),
        lambda content: content.replace(b"(3, 16000)", b"(6, 8000) ", 1),
        lambda content: content.replace(b"False", b"True ", 1),
        lambda content: b"PK\x03\x04" + content,
    ],
    ids=[
        "empty",
        "beginning only",
        "last byte missing",
        "a byte too many",
        "a bit of a sample",
        "a bit of the checksum",
        "other type",
        "other shape",
        "other order",
        "a zip archive",
    ],
)
def test_a_damaged_file_is_noticed_and_replaced(tmp_path: Path, damage: object) -> None:
    build, path = Builder(), tmp_path / "key.npy"
    cache.load_or_build(path, SAMPLES.shape, build)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))  # type: ignore[operator]
    np.testing.assert_array_equal(cache.load_or_build(path, SAMPLES.shape, build), SAMPLES)
    assert build.calls == 2
    assert path.read_bytes() == whole


def test_cached_samples_can_be_written_to_like_fresh_ones(tmp_path: Path) -> None:
    build, path = Builder(), tmp_path / "key.npy"
    for _ in range(2):
        assert cache.load_or_build(path, SAMPLES.shape, build).flags.writeable  # torch warns about arrays that are not
    assert build.calls == 1


def test_numpy_reads_a_cached_file(tmp_path: Path) -> None:
    cache.load_or_build(tmp_path / "key.npy", SAMPLES.shape, Builder())
    np.testing.assert_array_equal(np.load(tmp_path / "key.npy"), SAMPLES)


def test_without_space_nothing_is_kept_and_one_sentence_says_so(tmp_path: Path, file_size_limit: None) -> None:
    with pytest.warns(UserWarning, match=r"could not be kept in .*; free some space"):
        samples = cache.load_or_build(tmp_path / "cache" / "key.npy", SAMPLES.shape, Builder())
    np.testing.assert_array_equal(samples, SAMPLES)
    assert tree(tmp_path) == {}


def test_a_folder_that_cannot_be_written_to_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    folder = make_folder(tmp_path / "sounds")
    with pytest.warns(UserWarning, match=r"could not be kept"):
        dataset = load_dataset(folder, data_dir=tmp_path / "data")
    assert len(dataset) == 6


def test_a_set_is_decoded_again_only_if_what_is_decoded_changes(tmp_path: Path) -> None:
    folder, kept = make_folder(tmp_path / "sounds"), tmp_path / "data" / "cache"
    load_dataset(folder, data_dir=tmp_path / "data")
    (first,) = kept.iterdir()
    stamp = first.stat().st_mtime_ns
    load_dataset(folder, data_dir=tmp_path / "data")
    assert [file.stat().st_mtime_ns for file in kept.iterdir()] == [stamp]
    load_dataset(f"{folder}:2s", data_dir=tmp_path / "data")
    assert len(list(kept.iterdir())) == 2

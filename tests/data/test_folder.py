"""Your own folder with a ``labels.csv``: any rate, channels, length and number of classes; three folds or more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from audio_files import make_folder, tone

from audioclf_lib._support.errors import InputError
from audioclf_lib.data import Dataset, load_dataset
from audioclf_lib.data.audio import decoded_length, read_clip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "My Sounds")


def load(folder: Path, option: str = "") -> Dataset:
    return load_dataset(f"{folder}{option}", data_dir=folder.parent / "data")


def edit(folder: Path, **columns: object) -> None:
    pd.read_csv(folder / "labels.csv").assign(**columns).to_csv(folder / "labels.csv", index=False)


def test_it_is_named_after_the_folder_and_classes_are_sorted(folder: Path) -> None:
    dataset = load(folder)
    assert dataset.name == f"my-sounds-{dataset.fingerprint[:8]}"
    assert dataset.class_names == ("high", "low")
    assert dataset.clip_ids == ("low-1.wav", "high-1.wav", "low-2.wav", "high-2.wav", "low-3.wav", "high-3.wav")
    assert dataset.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert dataset.folds.tolist() == [1, 1, 2, 2, 3, 3]
    assert dataset.sources == dataset.clip_ids


def test_a_path_will_do(folder: Path) -> None:
    assert load_dataset(folder, data_dir=folder.parent / "data").fingerprint == load(folder).fingerprint


@pytest.mark.parametrize("name", ["demo", "ESC 10", "esc10", "esc50-esc10"])
def test_a_folder_never_takes_the_name_of_a_built_in_set(tmp_path: Path, name: str) -> None:
    dataset = load(make_folder(tmp_path / name))
    slug = dataset.name.removesuffix(f"-{dataset.fingerprint[:8]}")
    assert slug not in ("demo", "esc10", "esc50", "esc50-esc10")


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_099, 44_100, 48_000, 192_000])
def test_any_sample_rate_becomes_16_khz(tmp_path: Path, rate: int) -> None:
    sf.write(tmp_path / "tone.wav", tone(2.0, rate, 440), rate)
    samples = read_clip(tmp_path / "tone.wav", 32_000)
    inner = slice(1_000, -1_000)  # a filter rings at the ends
    np.testing.assert_allclose(samples[inner], tone(2.0, 16_000, 440)[inner], atol=0.01)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(frequency=300), tone(frequency=500)
    sf.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 16_000, subtype="FLOAT")
    np.testing.assert_allclose(read_clip(tmp_path / "stereo.wav", 16_000), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_usual_formats_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tone{suffix}"
    sf.write(path, tone(2.0, 44_100), 44_100)
    spectrum = np.abs(np.fft.rfft(read_clip(path, 32_000)))
    assert np.argmax(spectrum) / 2 == pytest.approx(440, abs=1)


def test_short_clips_are_padded_with_zeros_and_long_ones_trimmed(tmp_path: Path) -> None:
    sf.write(tmp_path / "tone.wav", tone(1.5), 16_000, subtype="FLOAT")
    long, short = read_clip(tmp_path / "tone.wav", 40_000), read_clip(tmp_path / "tone.wav", 20_000)
    np.testing.assert_array_equal(long[:24_000], tone(1.5))
    assert not long[24_000:].any()
    np.testing.assert_array_equal(short, tone(1.5)[:20_000])


def test_reading_the_beginning_only_gives_the_same_samples_as_reading_all(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 44_100 * 4)
    sf.write(tmp_path / "noise.wav", noise, 44_100)
    np.testing.assert_allclose(
        read_clip(tmp_path / "noise.wav", 32_000), read_clip(tmp_path / "noise.wav", 64_000)[:32_000], atol=1e-6
    )


@pytest.mark.parametrize(
    ("longest", "expected"), [(0.3, 1.0), (1.0, 1.0), (1.49, 1.0), (1.5, 1.5), (5.2, 5.0), (31.0, 30.0)]
)
def test_clips_have_the_whole_windows_of_the_longest_one(folder: Path, longest: float, expected: float) -> None:
    for path in folder.glob("*.wav"):
        sf.write(path, tone(0.2), 16_000)
    sf.write(folder / "low-2.wav", tone(longest), 16_000)
    assert load(folder).waveforms.shape == (6, expected * 16_000)


def test_the_length_can_be_set(folder: Path) -> None:
    dataset = load(folder, ":2.5s")
    assert dataset.waveforms.shape == (6, 40_000)
    assert dataset.silent.shape == (6, 4)
    assert dataset.fingerprint != load(folder).fingerprint


@pytest.mark.parametrize("seconds", ["0", "0.99", "601"])
def test_an_impossible_length_is_refused(folder: Path, seconds: str) -> None:
    with pytest.raises(InputError, match=rf"clips of {seconds} s are not possible; choose 1 \(one window\) to 600"):
        load(folder, f":{seconds}s")


def test_a_source_column_names_the_recordings(folder: Path) -> None:
    edit(folder, source=["a", "b", "c", "d", "e", ""])
    assert load(folder).sources == ("a", "b", "c", "d", "e", "high-3.wav")


def test_any_number_of_classes_and_folds_will_do(tmp_path: Path) -> None:
    dataset = load(make_folder(tmp_path / "many", classes=tuple("abcdefg"), folds=(0, 2, 4, 6)))
    assert len(dataset.class_names) == 7
    assert sorted(set(dataset.folds.tolist())) == [0, 2, 4, 6]


def test_tables_saved_by_a_spreadsheet_are_read(folder: Path) -> None:
    text = (folder / "labels.csv").read_text().replace(",", " , ").replace("\n", "\r\n")
    (folder / "labels.csv").write_bytes(b"\xef\xbb\xbf" + text.encode() + b",,\r\n\r\n")
    assert len(load(folder)) == 6


def test_the_fingerprint_follows_the_content_and_not_the_place(folder: Path) -> None:
    fingerprint = load(folder).fingerprint
    moved = shutil.copytree(folder, folder.parent / "elsewhere" / "Other Name")
    assert load(moved).fingerprint == fingerprint
    edit(moved, label=["low", "loud", "low", "loud", "low", "loud"])
    assert load(moved).fingerprint != fingerprint
    sf.write(folder / "low-1.wav", tone(frequency=999), 16_000)
    assert load(folder).fingerprint != fingerprint


def test_an_exchanged_file_is_noticed_even_if_its_size_and_date_stay(folder: Path) -> None:
    path = folder / "low-1.wav"
    before, status = load(folder), path.stat()
    samples, rate = sf.read(path)
    sf.write(path, -samples, rate)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    np.testing.assert_allclose(load(folder).waveforms[0], -before.waveforms[0], atol=1e-4)


def test_the_length_in_the_header_is_that_of_the_decoded_clip(tmp_path: Path) -> None:
    sf.write(tmp_path / "tone.ogg", tone(1.2345, 44_100), 44_100)
    length = decoded_length(tmp_path / "tone.ogg")
    samples = read_clip(tmp_path / "tone.ogg", length + 100)
    assert length == pytest.approx(1.2345 * 16_000, abs=1)
    assert not samples[length:].any()


@pytest.fixture
def mp3(tmp_path: Path) -> Path:
    path = tmp_path / "noise.mp3"
    sf.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 80_000), 16_000)
    return path


def test_the_mp3_decoder_prints_nothing_about_what_is_harmless(mp3: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = read_clip(mp3, 80_000)
    mp3.write_bytes(mp3.read_bytes() + bytes(range(256)) * 100)  # longer than its header says
    np.testing.assert_array_equal(read_clip(mp3, 80_000), whole)
    assert capfd.readouterr().err == ""


def test_a_truncated_mp3_is_one_warning_that_names_it(mp3: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mp3.write_bytes(mp3.read_bytes()[:10_000])
    with pytest.warns(UserWarning, match=r"noise\.mp3 is damaged: only .* of 80,000 samples can be read; .*") as told:
        read_clip(mp3, 80_000)
    assert len(told) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_process_without_stderr_reads_sounds(mp3: Path) -> None:
    code = "import os, sys; os.close(2); from audioclf_lib.data.audio import read_clip; read_clip(sys.argv[1], 16_000)"
    code = code.replace("sys.argv[1]", "__import__('pathlib').Path(sys.argv[1])")
    assert subprocess.run([sys.executable, "-c", code, str(mp3)]).returncode == 0

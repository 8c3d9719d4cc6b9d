"""The demo set: generated, the same every time, varied within a class, and neither trivial nor hopeless."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audioclf_lib.data import Dataset, load_dataset
from audioclf_lib.data.demo import load_demo, make_clip
from audioclf_lib.data.esc import ESC10_CLASSES
from audioclf_lib.data.windowing import cut_windows


@pytest.fixture(scope="module")
def demo() -> Dataset:
    return load_dataset("demo")


def test_it_is_what_load_dataset_gives_by_default(demo: Dataset) -> None:
    assert load_dataset().fingerprint == demo.fingerprint


def test_its_content_is_the_one_of_the_published_results(demo: Dataset) -> None:
    assert demo.fingerprint == "d8bea0f9328402ea"


def test_it_has_one_clip_for_each_class_and_fold_of_esc10(demo: Dataset) -> None:
    assert demo.class_names == ESC10_CLASSES
    assert demo.waveforms.shape == (50, 80_000)
    assert demo.waveforms.dtype == np.float32
    pairs = set(zip(demo.labels.tolist(), demo.folds.tolist(), strict=True))
    assert pairs == {(label, fold) for label in range(10) for fold in range(1, 6)}


def test_it_is_the_same_every_time(demo: Dataset, tmp_path: Path) -> None:
    again = load_demo(tmp_path)  # an empty cache: made anew
    np.testing.assert_array_equal(again.waveforms, demo.waveforms)
    assert again.fingerprint == demo.fingerprint


def test_a_clip_is_the_same_in_whatever_order_clips_are_made(demo: Dataset) -> None:
    clip = make_clip(label=8, fold=3) / np.float32(2**15)
    row = demo.clip_ids.index("demo-3-rooster")
    np.testing.assert_array_equal(clip, demo.waveforms[row])


def test_samples_stay_within_full_scale(demo: Dataset) -> None:
    peaks = np.abs(demo.waveforms).max(axis=1)
    assert (peaks < 1).all()
    assert (peaks > 0.1).all()


def test_clips_of_a_class_are_not_copies_of_each_other(demo: Dataset) -> None:
    for label in range(10):
        spectra = np.abs(np.fft.rfft(demo.waveforms[demo.labels == label]))
        likeness = np.corrcoef(spectra)
        assert likeness[~np.eye(5, dtype=bool)].max() < 0.99


def test_some_windows_are_silent_but_no_clip_is(demo: Dataset) -> None:
    assert 0.03 < demo.silent.mean() < 0.2
    assert not demo.silent.all(axis=1).any()
    events = [demo.class_names.index(name) for name in ("dog bark", "person sneeze", "rooster")]
    assert demo.silent[np.isin(demo.labels, events)].any()
    assert not demo.silent[demo.labels == demo.class_names.index("rain")].any()


def test_a_simple_classifier_learns_it_without_getting_all_of_it(demo: Dataset) -> None:
    windows = cut_windows(demo.waveforms).numpy()[:, :, 0]
    windows = windows / np.maximum(np.abs(windows).max(axis=-1, keepdims=True), 1e-4)
    frames = windows.reshape(*windows.shape[:2], 80, 200) * np.hanning(200)
    power = np.abs(np.fft.rfft(frames)) ** 2
    bands = np.log(np.stack([band.mean(-1) for band in np.array_split(power, 20, axis=-1)], axis=-1) + 1e-5)
    features = np.concatenate([bands.mean(axis=2), bands.std(axis=2)], axis=-1)  # (n_clips, 9, 40)
    labels = np.repeat(demo.labels[:, None], 9, axis=1)
    train, test = np.isin(demo.folds, [3, 4, 5]), demo.folds == 1
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    classifier.fit(features[train].reshape(-1, 40), labels[train].ravel())
    assert 0.5 < classifier.score(features[test].reshape(-1, 40), labels[test].ravel()) < 0.95

"""What a model must beat: the commonest class, and a random forest on MFCC statistics, on the folds that models have.

Both answer once per clip. ``metrics.baselines`` scores their answers.
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import RandomForestClassifier
from torch.nn import functional as F

from audioclf_lib._support.cores import torch_threads
from audioclf_lib._support.extras import load_torchaudio
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR
from audioclf_lib.config import rotation
from audioclf_lib.data import Dataset
from audioclf_lib.data.windowing import SAMPLE_RATE, SILENCE_PEAK
from audioclf_lib.metrics.baselines import Pair
from audioclf_lib.metrics.scores import FloatArray
from audioclf_lib.runs.store import RunStore

torchaudio = load_torchaudio()

VERSION = 1  # raise it when the same data set and seed would give another table than before
N_MFCC, N_MELS = 20, 40
FRAME_SIZE, FRAME_HOP = 512, 256  # samples
N_TREES = 500
MANY_FOLDS = 6  # with more, a forest for every two folds takes minutes


def fit_baselines(dataset: Dataset, *, runs_dir: Path | str = "", seed: int = 0) -> pd.DataFrame:
    """The baselines' answers to all test clips; fitted once and kept in ``runs_dir``.

    A baseline learns from the clips of the folds that neither validate nor test, as a model does; it chooses nothing,
    so validation clips have no part. There is a forest for every two folds, n (n - 1) / 2 for n folds: ten, and some 20
    seconds of a processor, on ESC-10. Of more than six folds, only the rotation and the k-fold on the first fold are
    fitted.

    Args:
        dataset: with three folds or more, as every data set has.
        runs_dir: where run folders are kept; empty: report/runs of the project.
        seed: of the forests, 0 to 2^32 - 1.

    Returns:
        DataFrame, a row per baseline (``majority``, ``forest``), pair of folds and test clip, see
        ``metrics.baselines``; its ``attrs`` say what it was made from.

    Raises:
        InputError: the table cannot be read or written in ``runs_dir``; one that is damaged is made again.
    """
    store = RunStore(runs_dir or DEFAULT_RUNS_DIR)
    made_from: dict[Hashable | None, object] = {"version": VERSION, "seed": seed, "fingerprint": dataset.fingerprint}
    table = store.load_baselines(dataset)
    if table is None or table.attrs != made_from:
        table = answer_all(dataset, mfcc_statistics(dataset.waveforms), seed)
        table.attrs = made_from
        store.save_baselines(dataset, table)
    return table


def fold_pairs(dataset: Dataset) -> list[Pair]:
    """All pairs of validation and test fold that are fitted."""
    folds = sorted(set(dataset.folds.tolist()))
    if len(folds) <= MANY_FOLDS:
        return sorted(permutations(folds, 2))
    return sorted({*rotation(folds), *((fold, folds[0]) for fold in folds[1:])})


def answer_all(dataset: Dataset, features: FloatArray, seed: int) -> pd.DataFrame:
    """The table of ``fit_baselines``, from the features of every clip (n_clips, n_features)."""
    n_classes = len(dataset.class_names)
    clips = pd.DataFrame({"clip_id": dataset.clip_ids, "source": dataset.sources, "fold": dataset.folds})
    clips["y_true"] = dataset.labels
    pairs, parts = fold_pairs(dataset), []
    for held_out in sorted({(min(pair), max(pair)) for pair in pairs}):  # a pair and its reverse: the same training
        training = ~np.isin(dataset.folds, held_out)
        labels = dataset.labels[training]
        shares = np.bincount(labels, minlength=n_classes) / len(labels)
        forest = RandomForestClassifier(N_TREES, random_state=seed).fit(features[training], labels)
        answers = {
            "majority": np.tile(shares, (int(np.sum(~training)), 1)),
            "forest": forest.predict_proba(features[~training]),  # of all classes, since every fold has every class
        }
        for baseline, probabilities in answers.items():
            rows = clips[~training].assign(baseline=baseline)
            rows[[f"p_{label}" for label in range(n_classes)]] = probabilities
            for val_fold, test_fold in {held_out, held_out[::-1]} & set(pairs):
                parts.append(rows[rows["fold"] == test_fold].assign(val_fold=val_fold, test_fold=test_fold))
    order = ["baseline", "val_fold", "test_fold"]
    table: pd.DataFrame = pd.concat(parts).sort_values(order, kind="stable", ignore_index=True)
    return table[[*order, *table.columns.drop(order)]]


def mfcc_statistics(waveforms: np.ndarray) -> FloatArray:
    """Mean and standard deviation of 20 MFCCs over the frames of a clip that are heard (Davis and Mermelstein 1980).

    A frame of 32 ms is silent if its peak stays under ``SILENCE_PEAK``; a clip that is silent throughout keeps all.
    torchaudio limits a spectrogram to 80 dB under the loudest sound of all that it is given, so it is given one clip at
    a time: no clip's features depend on another's.

    Args:
        waveforms: (n_clips, n_samples) float32 at 16 kHz, full scale = 1.

    Returns:
        (n_clips, 40): the means, then the standard deviations (of the frames as a population).
    """
    mel = {"n_fft": FRAME_SIZE, "hop_length": FRAME_HOP, "n_mels": N_MELS}
    transform = torchaudio.transforms.MFCC(SAMPLE_RATE, N_MFCC, melkwargs=mel)
    statistics = np.empty((len(waveforms), 2 * N_MFCC))
    with torch_threads(1):  # a clip is too short to share, and sums over another number of threads round otherwise
        for row, waveform in enumerate(torch.from_numpy(waveforms)):
            frames = transform(waveform)  # (20, n_frames), centred on every 256th sample
            heard = F.max_pool1d(waveform.abs()[None], FRAME_SIZE, FRAME_HOP, FRAME_SIZE // 2)[0] >= SILENCE_PEAK
            frames = frames[:, heard | ~heard.any()]
            statistics[row] = torch.cat([frames.mean(1), frames.std(1, correction=0)]).numpy()
    return statistics

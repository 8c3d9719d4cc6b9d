"""What is odd about the recordings of a data set, with names: what people want to know before they train."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from tqdm import tqdm

from audioclf_lib.data.audio import measure_sound
from audioclf_lib.data.dataset import Dataset
from audioclf_lib.data.windowing import SILENCE_PEAK

CLIPPED_SHARE = 0.001  # of the samples
SHORT_SECONDS = 0.25
LONG_RATIO = 10  # times the median length


def find_oddities(dataset: Dataset) -> dict[str, list[str]]:
    """What is odd, and the names of the classes or clips, those with the most of it first.

    The files are read anew, each to its end; of a generated data set there is nothing to read.

    Raises:
        InputError: a file that cannot be read.
    """
    clips = pd.DataFrame({"clip": dataset.clip_ids, "fold": dataset.folds, "source": dataset.sources})
    clips["label"] = np.asarray(dataset.class_names, dtype=object)[dataset.labels]
    recordings = clips.groupby(["label", "fold"])["source"].nunique().groupby("label").agg(["min", "sum"])
    found = {
        "class with a single recording in a fold": [
            f"{label} ({row['sum']} in all)" for label, row in recordings[recordings["min"] == 1].iterrows()
        ]
    }
    heard = clips[dataset.waveforms.any(axis=1)]
    content = [hashlib.sha256(dataset.waveforms[row].tobytes()).digest() for row in heard.index]
    for _, twins in heard.groupby(content):
        if len(twins) > 1:
            folds = sorted(set(twins["fold"]))
            what = "equal content in several folds" if len(folds) > 1 else "equal content under several names"
            where = f" (folds {', '.join(map(str, folds))})" if len(folds) > 1 else ""
            found.setdefault(what, []).append(" = ".join(twins["clip"]) + where)
    if not dataset.paths:
        return {what: names for what, names in found.items() if names}
    progress = tqdm(dataset.paths, "looking at the files", unit="file", leave=False, disable=None)
    facts = pd.DataFrame([measure_sound(path) for path in progress], index=dataset.clip_ids)
    length, seconds = dataset.waveforms.shape[1] / dataset.sample_rate, facts["seconds"]
    checks = {
        "silent": (facts["peak"] < SILENCE_PEAK, facts["peak"], ""),
        "clipped": (facts["clipped"] > CLIPPED_SHARE, 100 * facts["clipped"], "{:.1f} % of its samples"),
        "channels cancel each other out, so one is taken": (facts["opposed"], facts["peak"], ""),
        f"shorter than {SHORT_SECONDS} s": (seconds < SHORT_SECONDS, -seconds, ""),
        f"longer than {LONG_RATIO} times the usual": (seconds > LONG_RATIO * seconds.median(), seconds, "{:.1f} s"),
        f"cut to {length:g} s": (seconds > length + 1e-3, seconds - length, "{:.2f} s left out"),
        f"padded to {length:g} s": (seconds < length - 1e-3, length - seconds, "{:.2f} s of zeros"),
    }
    for what, (is_so, amount, text) in checks.items():
        worst = amount[is_so].sort_values(ascending=False, kind="stable")
        found[what] = [f"{clip} ({text.format(value)})" if text else str(clip) for clip, value in worst.items()]
    return {what: names for what, names in found.items() if names}

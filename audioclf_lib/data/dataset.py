"""What a data set is, and the one place that says whether it can be used."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from audioclf_lib._support.errors import InputError, quote, refuse_control_characters
from audioclf_lib.config import refuse_missing_folds
from audioclf_lib.data.windowing import WINDOW_SIZE, find_silent_windows

SAMPLE_RATE = 16_000

# Train, validate, test.
MIN_FOLDS = 3

# What scores call their averages over classes; tables of scores have them beside the classes.
AVERAGES = ("micro", "macro")

MAX_NAME = 100  # of a class: figures and tables have to hold it


@dataclass(frozen=True, eq=False)
class Dataset:
    """Clips of one length with their labels and folds, checked when it is made.

    Args:
        name: short name, fit for a folder: ``"demo"``, ``"esc10"``, ``"esc50"``, ``"esc50-esc10"`` or your folder's.
        waveforms: (n_clips, n_samples) float32, mono at 16 kHz, full scale = 1.
        labels: (n_clips,) int64, index into ``class_names``.
        folds: (n_clips,) int64.
        clip_ids: a different one for each clip.
        class_names: in the order of the models' outputs.
        sources: the recording that each clip was cut from; all clips of one recording lie in one fold.
        fingerprint: 16 hexadecimal digits, the same for the same content on every machine.
        description: one phrase for captions.
        licence: of the recordings.

    Raises:
        InputError: the clips cannot serve for training, validation and test; see ``check_clips``.
        ValueError: the arrays do not fit each other.
    """

    name: str
    waveforms: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]
    clip_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    sources: tuple[str, ...]
    fingerprint: str
    description: str = ""
    licence: str = ""

    sample_rate: ClassVar[int] = SAMPLE_RATE

    def __post_init__(self) -> None:
        if self.waveforms.ndim != 2 or self.waveforms.dtype != np.float32 or self.waveforms.shape[1] < WINDOW_SIZE:
            raise ValueError(
                f"waveforms must be float32 (n_clips, at least {WINDOW_SIZE}), "
                f"not {self.waveforms.dtype} {self.waveforms.shape}"
            )
        columns = {"clip_id": self.clip_ids, "label": self.labels, "fold": self.folds, "source": self.sources}
        lengths = {name: len(values) for name, values in columns.items()} | {"waveforms": len(self.waveforms)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"one entry for each clip is needed everywhere, but the lengths are {lengths}")
        check_clips(self.name, pd.DataFrame({name: list(values) for name, values in columns.items()}), self.class_names)
        check_samples(self.name, self.clip_ids, self.waveforms)

    def __len__(self) -> int:
        return len(self.clip_ids)

    @cached_property
    def silent(self) -> npt.NDArray[np.bool_]:
        """Which windows hold no sound: (n_clips, n_windows) bool."""
        return find_silent_windows(self.waveforms).numpy()


def check_clips(
    name: str, clips: pd.DataFrame, class_names: Sequence[str], *, with_folds: Collection[int] = ()
) -> None:
    """Check all that can be known of a data set before its audio is decoded.

    Args:
        name: of the data set, for the message.
        clips: a row for each clip, with ``clip_id``, ``label`` (index into ``class_names``), ``fold``, ``source``.
        class_names: of the labels.
        with_folds: folds that must be there.

    Raises:
        InputError: no clips, fewer than two classes or three folds, a class name that cannot be used, a clip id given
            twice, a label without a class, a source recording in two folds, a class without a clip in some fold, or a
            fold that is wanted and not there.
    """
    if clips.empty:
        raise InputError(f"data set {name!r} holds no clips; list at least one for each class and fold")
    twice = clips["clip_id"][clips["clip_id"].duplicated()]
    if len(twice):
        raise InputError(f"data set {name!r} lists clip {twice.iloc[0]!r} twice; list every clip once")
    if len(class_names) < 2 or len(set(class_names)) != len(class_names):
        raise InputError(f"data set {name!r} has the classes {list(class_names)}; give two or more different ones")
    for class_name in class_names:
        if len(class_name) > MAX_NAME:
            raise InputError(
                f"data set {name!r}: class {quote(class_name)} is too long; use at most {MAX_NAME} characters"
            )
        refuse_control_characters(f"data set {name!r}: class {quote(class_name)}", class_name)
        if class_name in AVERAGES:
            raise InputError(
                f"data set {name!r}: class {class_name!r} has the name of an average over classes; give it another"
            )
    for clip_id in clips["clip_id"]:
        refuse_control_characters(f"data set {name!r}: clip {quote(clip_id)}", clip_id)
    unknown = clips[~clips["label"].between(0, len(class_names) - 1)]
    if len(unknown):
        clip_id, label = unknown["clip_id"].iloc[0], unknown["label"].iloc[0]
        raise InputError(
            f"data set {name!r}: clip {clip_id!r} has label {label}; labels go from 0 to {len(class_names) - 1}"
        )
    _check_folds(name, clips, class_names)
    refuse_missing_folds(name, sorted(clips["fold"].unique().tolist()), with_folds)


def _check_folds(name: str, clips: pd.DataFrame, class_names: Sequence[str]) -> None:
    folds = sorted(clips["fold"].unique().tolist())
    if len(folds) < MIN_FOLDS:
        raise InputError(
            f"data set {name!r} has only the folds {folds}; "
            f"spread the clips over {MIN_FOLDS} or more, for training, validation and test"
        )
    folds_of = clips.groupby("source")["fold"].unique()
    leaks = folds_of[folds_of.map(len) > 1]
    if len(leaks):
        raise InputError(
            f"data set {name!r}: clips of the recording {leaks.index[0]!r} are in folds "
            f"{sorted(leaks.iloc[0].tolist())}; put all clips of one recording in one fold"
        )
    counts = pd.crosstab(clips["fold"], clips["label"]).reindex(columns=range(len(class_names)), fill_value=0)
    empty = np.argwhere(counts.to_numpy() == 0)
    if len(empty):
        fold, label = counts.index[empty[0, 0]], class_names[empty[0, 1]]
        raise InputError(
            f"data set {name!r} has no clip of class {label!r} in fold {fold}; every fold needs one of each class"
        )


def check_samples(name: str, clip_ids: Sequence[str], waveforms: npt.NDArray[np.float32]) -> None:
    """Raise InputError for the first clip with a sample that is no finite number."""
    finite = np.isfinite(waveforms.max(axis=1)) & np.isfinite(waveforms.min(axis=1))  # max and min hand NaN on
    if not finite.all():
        clip_id = clip_ids[int(np.argmin(finite))]
        raise InputError(
            f"data set {name!r}: clip {clip_id!r} has samples that are NaN or infinite; export it anew or leave it out"
        )

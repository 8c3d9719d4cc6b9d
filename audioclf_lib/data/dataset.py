"""The data set class, and the checks that every data set must pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from audioclf_lib._support.errors import InputError, quote, refuse_control_characters
from audioclf_lib.data.windowing import WINDOW_SIZE, find_silent_windows

SAMPLE_RATE = 16_000

MIN_FOLDS = 3  # for training, validation and test

# Names of averages over classes; tables of scores list them beside the classes.
AVERAGES = ("micro", "macro")

MAX_CLASS_NAME = 100  # characters; a longer one does not fit into figures and tables


@dataclass(frozen=True, eq=False)
class Dataset:
    """Clips of one length with their labels and folds, checked when it is made.

    Args:
        name: short name, fit for a folder and different for different content: ``"demo"``, ``"esc10"``, or a slug and
            the beginning of the fingerprint, such as ``"esc50-1a2b3c4d"`` or ``"my-sounds-1a2b3c4d"``.
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
            given = f"{self.waveforms.dtype} {self.waveforms.shape}"
            raise ValueError(f"waveforms must be float32 (n_clips, at least {WINDOW_SIZE}), not {given}")
        columns = {"clip_id": self.clip_ids, "label": self.labels, "fold": self.folds, "source": self.sources}
        if any(len(column) != len(self.waveforms) for column in columns.values()):
            raise ValueError(f"one entry for each of the {len(self.waveforms)} clips is needed in {', '.join(columns)}")
        check_clips(self.name, pd.DataFrame({name: list(column) for name, column in columns.items()}), self.class_names)
        check_samples(self.name, self.clip_ids, self.waveforms)

    def __len__(self) -> int:
        return len(self.clip_ids)

    @cached_property
    def silent(self) -> npt.NDArray[np.bool_]:
        """True for windows without sound: (n_clips, n_windows) bool."""
        return find_silent_windows(self.waveforms).numpy()


def check_clips(name: str, clips: pd.DataFrame, class_names: Sequence[str]) -> None:
    """Check all that can be known of a data set before its audio is decoded.

    Args:
        name: of the data set, for the message.
        clips: a row for each clip, with ``clip_id``, ``label`` (index into ``class_names``), ``fold``, ``source``.
        class_names: of the labels.

    Raises:
        InputError: no clips, fewer than two classes or three folds, a class name that cannot be used, a clip id given
            twice, a label without a class, a source recording in two folds, or a class without a clip in some fold.
    """
    for kind, texts in (("class", class_names), ("clip", clips["clip_id"])):
        for text in texts:
            refuse_control_characters(f"data set {name!r}: {kind} {quote(text)}", text)
    fault = next(_faults(clips, class_names), None)
    if fault is not None:
        raise InputError(f"data set {name!r} {fault}")


def _faults(clips: pd.DataFrame, class_names: Sequence[str]) -> Iterator[str]:
    if clips.empty:
        yield "holds no clips; list at least one for each class and fold"
    for clip_id in clips["clip_id"][clips["clip_id"].duplicated()]:
        yield f"lists clip {clip_id!r} twice; list every clip once"
    if len(class_names) < 2 or len(set(class_names)) != len(class_names):
        yield f"has the classes {list(class_names)}; give two or more different ones"
    for name in class_names:
        if len(name) > MAX_CLASS_NAME:
            yield f"has the class {quote(name)}, whose name is too long; use at most {MAX_CLASS_NAME} characters"
        if name in AVERAGES:
            yield f"has the class {name!r}, which is the name of an average over classes; give it another"
    for clip in clips[~clips["label"].between(0, len(class_names) - 1)].itertuples():
        yield f"has the label {clip.label} for clip {clip.clip_id!r}; labels go from 0 to {len(class_names) - 1}"
    folds = sorted(clips["fold"].unique().tolist())
    if len(folds) < MIN_FOLDS:
        yield f"has only the folds {folds}; use {MIN_FOLDS} or more, for training, validation and test"
    for source, folds_of_source in clips.groupby("source")["fold"].unique().items():
        if len(folds_of_source) > 1:
            listed = sorted(folds_of_source.tolist())
            yield f"has clips of the recording {source!r} in folds {listed}; put all clips of one recording in one fold"
    counts = pd.crosstab(clips["fold"], clips["label"]).reindex(columns=range(len(class_names)), fill_value=0)
    for row, label in np.argwhere(counts.to_numpy() == 0):
        fold, name = counts.index[row], class_names[label]
        yield f"has no clip of class {name!r} in fold {fold}; every fold needs one of each class"


def check_samples(name: str, clip_ids: Sequence[str], waveforms: npt.NDArray[np.float32]) -> None:
    """Raise InputError for the first clip with a sample that is not a finite number."""
    finite = np.isfinite(waveforms.max(axis=1)) & np.isfinite(waveforms.min(axis=1))  # NaN is passed on by max and min
    if not finite.all():
        clip_id = clip_ids[int(np.argmin(finite))]
        raise InputError(
            f"data set {name!r}: clip {clip_id!r} has samples that are NaN or infinite; export it anew or leave it out"
        )

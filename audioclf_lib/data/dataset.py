"""What a data set is: clips with labels and folds, decoded (``Dataset``) or as a list of sound files (``Listing``).

torch is imported only where clips are decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile as sf
from tqdm import tqdm

from audioclf_lib._support.cores import torch_threads
from audioclf_lib._support.digests import digest
from audioclf_lib._support.errors import InputError, quote, refuse_control_characters
from audioclf_lib._support.extras import load_torchaudio
from audioclf_lib.data import cache
from audioclf_lib.data.audio import PREPARATION_VERSION, REPAIR_VERSION, decoded_length, open_file, read_clip
from audioclf_lib.data.windowing import HOP_SIZE, SAMPLE_RATE, WINDOW_SIZE, count_windows, find_silent_windows

MIN_FOLDS = 3  # for training, validation and test

# Names of averages over classes; tables of scores list them beside the classes.
AVERAGES = ("micro", "macro")

# Data sets with the same content everywhere: the name alone says what they hold.
FIXED_CONTENT = ("demo", "esc10")

MAX_DEFAULT_SECONDS = 30  # unless the user gives a length, clips are cut to this one
MAX_SECONDS = 600


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
        paths: of the sound files; none if the clips are generated.

    Raises:
        InputError: the clips cannot serve for training, validation and test; see ``check_clips``.
        ValueError: the columns differ in length.
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
    paths: tuple[Path, ...] = ()

    sample_rate: ClassVar[int] = SAMPLE_RATE

    def __post_init__(self) -> None:
        clips = {"clip_id": self.clip_ids, "label": self.labels, "fold": self.folds, "source": self.sources}
        # pandas raises ValueError if a column has another length than the index.
        check_clips(self.name, pd.DataFrame(clips, index=range(len(self.waveforms))), self.class_names)

    def __len__(self) -> int:
        return len(self.clip_ids)

    @cached_property
    def silent(self) -> npt.NDArray[np.bool_]:
        """True for windows without sound: (n_clips, n_windows) bool."""
        return find_silent_windows(self.waveforms).numpy()

    def class_table(self) -> pd.DataFrame:
        """A row per class: Class, Clips, Recordings, Windows, Silent windows."""
        silent = self.silent.sum(axis=1)
        clips = pd.DataFrame({"source": self.sources, "Windows": self.silent.shape[1], "Silent windows": silent})
        by_class = clips.groupby(self.labels)
        sums = by_class[["Windows", "Silent windows"]].sum()
        counts = {"Class": self.class_names, "Clips": by_class.size(), "Recordings": by_class["source"].nunique()}
        return pd.DataFrame(counts).join(sums)


def check_clips(name: str, clips: pd.DataFrame, class_names: Sequence[str]) -> None:
    """Check all that can be known of a data set before its audio is decoded.

    Args:
        name: of the data set, for the message.
        clips: a row for each clip, with ``clip_id``, ``label`` (index into ``class_names``), ``fold``, ``source``.
        class_names: of the labels.

    Raises:
        InputError: no clips, fewer than two classes or three folds, a class name that cannot be used, a clip id given
            twice, a source recording in two folds, or a class without a clip in some fold.
    """
    for kind, texts in (("class", class_names), ("clip", clips["clip_id"])):
        for text in texts:
            refuse_control_characters(f"data set {name!r}: {kind} {quote(text)}", text)
    for fault in _faults(clips, class_names):
        raise InputError(f"data set {name!r} {fault}")


def _faults(clips: pd.DataFrame, class_names: Sequence[str]) -> Iterator[str]:
    if clips.empty:
        yield "holds no clips; list at least one for each class and fold"
    for clip_id in clips["clip_id"][clips["clip_id"].duplicated()]:
        yield f"lists clip {clip_id!r} twice; list every clip once"
    if len(class_names) < 2 or len(set(class_names)) != len(class_names):
        yield f"has the classes {list(class_names)}; give two or more different ones"
    for name in class_names:
        if name in AVERAGES:
            yield f"has the class {name!r}, which is the name of an average over classes; give it another"
    folds = sorted(clips["fold"].unique().tolist())
    if len(folds) < MIN_FOLDS:
        yield f"has only the folds {folds}; use {MIN_FOLDS} or more, for training, validation and test"
    for source, used in clips.groupby("source")["fold"].unique().items():
        if len(used) > 1:
            yield f"has clips of the recording {source!r} in folds {sorted(used.tolist())}; put them all in one fold"
    counts = pd.crosstab(clips["fold"], clips["label"]).reindex(columns=range(len(class_names)), fill_value=0)
    for row, label in np.argwhere(counts.to_numpy() == 0):
        fold, name = counts.index[row], class_names[label]
        yield f"has no clip of class {name!r} in fold {fold}; every fold needs one of each class"


@dataclass(eq=False)
class Listing:
    """Sound files that make a data set, checked and hashed but not decoded.

    Args:
        slug: what the data set's name begins with.
        clips: a row for each clip, with ``path``, ``clip_id``, ``label`` (one of ``class_names``), ``fold`` and
            ``source``; and ``sha256`` where it is known.
        class_names: in the order of the models' outputs.
        clip_seconds: length to which every clip is trimmed or zero-padded; by default the whole windows of the
            longest clip, at least one window (1 s) and at most 30 s.
        description, licence: for captions.
        made_folds: where the folds are kept if they were made.

    Raises:
        InputError: a file, the list as a whole or the length cannot be used.
    """

    slug: str
    clips: pd.DataFrame
    class_names: Sequence[str]
    clip_seconds: float | None
    description: str
    licence: str
    made_folds: Path | None = None

    def __post_init__(self) -> None:
        self.clips = self.clips.assign(label=[self.class_names.index(label) for label in self.clips["label"]])
        check_clips(self.slug, self.clips, self.class_names)
        self.n_samples = _clip_samples(self.clips["path"], self.clip_seconds)
        if "sha256" not in self.clips:
            self.clips["sha256"] = hash_files(self.clips["path"])
        self.folds = self.clips["fold"].to_numpy(np.int64)
        rows = self.clips[["clip_id", "label", "fold", "source"]].to_numpy().tolist()
        checksums = self.clips["sha256"].tolist()
        self.fingerprint = digest([rows, checksums, list(self.class_names), self.n_samples, PREPARATION_VERSION], 16)
        self.name = self.slug if self.slug in FIXED_CONTENT else f"{self.slug}-{self.fingerprint[:8]}"

    def decode(self, data_dir: Path) -> Dataset:
        """Decode the files, or take them from the cache.

        Args:
            data_dir: folder whose ``cache`` keeps the decoded clips.

        Raises:
            InputError: a file cannot be used.
        """
        decoder = [PREPARATION_VERSION, REPAIR_VERSION, sf.__libsndfile_version__, load_torchaudio().__version__]
        key = digest([self.clips["sha256"].tolist(), self.n_samples, SAMPLE_RATE, decoder], 16)
        kept = data_dir / "cache" / f"{self.slug[:20]}-{key}.npy"
        return Dataset(
            name=self.name,
            waveforms=cache.load_or_build(kept, (len(self.clips), self.n_samples), self._decode),
            labels=self.clips["label"].to_numpy(np.int64),
            folds=self.folds,
            clip_ids=tuple(self.clips["clip_id"]),
            class_names=tuple(self.class_names),
            sources=tuple(self.clips["source"]),
            fingerprint=self.fingerprint,
            description=self.description,
            licence=self.licence,
            paths=tuple(self.clips["path"]),
        )

    def _decode(self) -> Iterator[npt.NDArray[np.float32]]:
        progress = tqdm(self.clips["path"], f"decoding {self.name}", unit="clip", leave=False, disable=None)
        with torch_threads(1):  # a clip is too short to share, and on a busy machine threads wait for each other
            for path in progress:
                yield read_clip(path, self.n_samples)


def _clip_samples(paths: Iterable[Path], clip_seconds: float | None) -> int:
    if clip_seconds is None:
        longest = min(max(map(decoded_length, paths)), MAX_DEFAULT_SECONDS * SAMPLE_RATE)
        return WINDOW_SIZE + (count_windows(max(longest, WINDOW_SIZE)) - 1) * HOP_SIZE
    shortest = WINDOW_SIZE / SAMPLE_RATE
    if not shortest <= clip_seconds <= MAX_SECONDS:
        choice = f"choose {shortest:g} (one window) to {MAX_SECONDS} seconds"
        raise InputError(f"clips of {clip_seconds:g} s are not possible; {choice}")
    return round(clip_seconds * SAMPLE_RATE)


def hash_files(paths: Iterable[Path]) -> list[str]:
    """SHA-256 of each file, in hexadecimal.

    Raises:
        InputError: a file is missing or may not be read.
    """

    def hash_file(path: Path) -> str:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor() as pool:
        return list(pool.map(hash_file, paths))

"""A list of sound files -> a data set: checked, fingerprinted, decoded once.

torch is imported where clips are decoded; all else is known of a data set without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile as sf
from tqdm import tqdm

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import explained
from audioclf_lib.data import cache
from audioclf_lib.data.audio import PREPARATION_VERSION, check_file, decoded_length, read_clip
from audioclf_lib.data.dataset import SAMPLE_RATE, Dataset, check_clips, check_samples
from audioclf_lib.data.windowing import HOP_SIZE, WINDOW_SIZE, count_windows

# Data sets with the same content everywhere: the name alone says what they hold.
FIXED_CONTENT = ("demo", "esc10")

MAX_DEFAULT_SECONDS = 30  # unless the user gives a length, clips are cut to this one
MAX_SECONDS = 600


class Listing:
    """Sound files that make a data set, checked and hashed but not decoded.

    Args:
        slug: what the data set's name begins with.
        clips: a row for each clip, with ``path``, ``clip_id``, ``label`` (one of ``class_names``), ``fold``,
            ``source`` and, where they are known already, the files' ``sha256``.
        class_names: in the order of the models' outputs.
        clip_seconds: length to which every clip is trimmed or zero-padded; by default the whole windows of the
            longest clip, at least one window (1 s) and at most 30 s.
        description, licence: for captions.

    Raises:
        InputError: a file, the list as a whole or the length cannot be used.
    """

    def __init__(
        self,
        slug: str,
        clips: pd.DataFrame,
        class_names: Sequence[str],
        *,
        clip_seconds: float | None,
        description: str,
        licence: str,
    ) -> None:
        clips = clips.assign(label=[class_names.index(label) for label in clips["label"]])
        check_clips(slug, clips, class_names)
        self.n_samples = _clip_samples(clips["path"], clip_seconds)
        self.clips = clips if "sha256" in clips else clips.assign(sha256=hash_files(clips["path"]))
        self.slug, self.class_names = slug, tuple(class_names)
        self.description, self.licence = description, licence

    @property
    def name(self) -> str:
        return self.slug if self.slug in FIXED_CONTENT else f"{self.slug}-{self.fingerprint[:8]}"

    @cached_property
    def fingerprint(self) -> str:
        rows = self.clips[["clip_id", "label", "fold", "source"]].to_numpy().tolist()
        checksums = self.clips["sha256"].tolist()
        return digest([rows, checksums, list(self.class_names), self.n_samples, PREPARATION_VERSION])

    @property
    def folds(self) -> npt.NDArray[np.int64]:
        return self.clips["fold"].to_numpy(np.int64)

    def decode(self, data_dir: Path) -> Dataset:
        """Decode the files, or take them from the cache.

        Args:
            data_dir: folder whose ``cache`` keeps the decoded clips.

        Raises:
            InputError: a file cannot be used.
        """
        import torchaudio

        decoder = [PREPARATION_VERSION, sf.__libsndfile_version__, torchaudio.__version__]
        key = digest([self.clips["sha256"].tolist(), self.n_samples, SAMPLE_RATE, decoder])
        return Dataset(
            name=self.name,
            waveforms=cache.load_or_build(data_dir / "cache" / f"{self.slug[:20]}-{key}.npy", self._decode),
            labels=self.clips["label"].to_numpy(np.int64),
            folds=self.folds,
            clip_ids=tuple(self.clips["clip_id"]),
            class_names=self.class_names,
            sources=tuple(self.clips["source"]),
            fingerprint=self.fingerprint,
            description=self.description,
            licence=self.licence,
        )

    def _decode(self) -> npt.NDArray[np.float32]:
        import torch

        waveforms = np.empty((len(self.clips), self.n_samples), dtype=np.float32)
        progress = tqdm(self.clips["path"], f"decoding {self.name}", unit="clip", leave=False, disable=None)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a clip is too short to share, and on a busy machine threads wait for each other
        try:
            for row, path in enumerate(progress):
                waveforms[row] = read_clip(path, self.n_samples)
        finally:
            torch.set_num_threads(threads)
        check_samples(self.slug, self.clips["clip_id"].tolist(), waveforms)
        return waveforms


def _clip_samples(paths: Iterable[Path], clip_seconds: float | None) -> int:
    if clip_seconds is None:
        longest = min(max(map(decoded_length, paths)), MAX_DEFAULT_SECONDS * SAMPLE_RATE)
        return WINDOW_SIZE + (count_windows(max(longest, WINDOW_SIZE)) - 1) * HOP_SIZE
    if not WINDOW_SIZE / SAMPLE_RATE <= clip_seconds <= MAX_SECONDS:
        raise InputError(
            f"clip_seconds = {clip_seconds} is not possible; "
            f"choose {WINDOW_SIZE / SAMPLE_RATE:g} (one window) to {MAX_SECONDS} seconds"
        )
    return round(clip_seconds * SAMPLE_RATE)


def hash_files(paths: Iterable[Path]) -> list[str]:
    """SHA-256 of each file, in hexadecimal.

    Raises:
        InputError: a file is missing or may not be read.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_hash_file, paths))


def _hash_file(path: Path) -> str:
    check_file(path)
    with explained(path, "make it a readable sound file", fault="cannot open"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: object) -> str:
    """16 hexadecimal digits that change with anything in ``content``, which JSON must be able to write."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

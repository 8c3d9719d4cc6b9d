"""A list of sound files -> a data set: checked, fingerprinted, decoded once.

torch is imported where clips are decoded: what is known of a listed data set is known without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile as sf
from tqdm import tqdm

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import KnownDataset
from audioclf_lib.data import cache
from audioclf_lib.data.audio import PREPARATION_VERSION, check_file, read_clip
from audioclf_lib.data.dataset import SAMPLE_RATE, Dataset, check_clips, check_samples


@dataclass(frozen=True, eq=False)
class Listing:
    """Sound files that make a data set, checked and hashed but not decoded.

    Attributes:
        name: of the data set.
        clips: a row for each clip, with ``path``, ``clip_id``, ``label``, ``fold`` and ``source``.
        checksums: SHA-256 of each file.
        class_names: of the labels.
        n_samples: length to which every clip is trimmed or zero-padded, at 16 kHz.
        description, licence: for captions.
    """

    name: str
    clips: pd.DataFrame
    checksums: tuple[str, ...]
    class_names: tuple[str, ...]
    n_samples: int
    description: str
    licence: str

    @property
    def facts(self) -> KnownDataset:
        folds = tuple(sorted({int(fold) for fold in self.clips["fold"]}))
        return KnownDataset(self.name, self.fingerprint, folds, self.class_names)

    @property
    def fingerprint(self) -> str:
        return digest([self._rows, list(self.checksums), list(self.class_names), self.n_samples, PREPARATION_VERSION])

    @property
    def _rows(self) -> list[list[object]]:
        rows: list[list[object]] = self.clips[["clip_id", "label", "fold", "source"]].to_numpy().tolist()
        return rows

    def decode(self, data_dir: Path) -> Dataset:
        """Decode the files, or take them from the cache.

        Args:
            data_dir: folder whose ``cache`` keeps the decoded clips.

        Raises:
            InputError: a file cannot be used.
        """
        import torchaudio

        decoder = [PREPARATION_VERSION, sf.__libsndfile_version__, torchaudio.__version__]
        key = digest([list(self.checksums), self.n_samples, SAMPLE_RATE, decoder])
        path, shape = data_dir / "cache" / f"{self.name}-{key}.f32", (len(self.clips), self.n_samples)
        return Dataset(
            name=self.name,
            waveforms=cache.load_or_build(path, shape, self._decode),
            labels=self.clips["label"].to_numpy(np.int64),
            folds=self.clips["fold"].to_numpy(np.int64),
            clip_ids=tuple(self.clips["clip_id"]),
            class_names=self.class_names,
            sources=tuple(self.clips["source"]),
            fingerprint=self.fingerprint,
            description=self.description,
            licence=self.licence,
        )

    def _decode(self) -> npt.NDArray[np.float32]:
        paths = [Path(path) for path in self.clips["path"]]
        waveforms = np.empty((len(paths), self.n_samples), dtype=np.float32)
        with one_thread():
            for row, path in enumerate(tqdm(paths, f"decoding {self.name}", unit="clip", leave=False, disable=None)):
                waveforms[row] = read_clip(path, self.n_samples)
        check_samples(self.name, self.clips["clip_id"].tolist(), waveforms)
        return waveforms


def list_files(
    name: str,
    clips: pd.DataFrame,
    class_names: Sequence[str],
    n_samples: int,
    *,
    description: str,
    licence: str,
    with_folds: Collection[int] = (),
) -> Listing:
    """Check and hash the listed files.

    Args:
        name: of the data set.
        clips: a row for each clip, with ``path``, ``clip_id``, ``label``, ``fold``, ``source`` and, if they are known
            already, the files' ``sha256``.
        class_names: of the labels.
        n_samples: length to which every clip is trimmed or zero-padded, at 16 kHz.
        description, licence: for captions.
        with_folds: folds that must be there.

    Raises:
        InputError: a file or the list as a whole cannot be used.
    """
    check_clips(name, clips, class_names, with_folds=with_folds)
    checksums = clips["sha256"].tolist() if "sha256" in clips else hash_files(Path(path) for path in clips["path"])
    return Listing(name, clips, tuple(checksums), tuple(class_names), n_samples, description, licence)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: a clip is too short to share, and on a busy machine threads wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def hash_files(paths: Iterable[Path]) -> list[str]:
    """SHA-256 of each file, in hexadecimal.

    Raises:
        InputError: a file is missing or may not be read.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_hash_file, paths))


def _hash_file(path: Path) -> str:
    check_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); make it a readable sound file") from None


def digest(content: object) -> str:
    """16 hexadecimal digits that change with anything in ``content`` (whatever JSON can write)."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

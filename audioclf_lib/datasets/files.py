"""A list of sound files -> a data set: checked, fingerprinted, decoded once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile as sf
import torch
import torchaudio
from tqdm import tqdm

from audioclf_lib.datasets import cache
from audioclf_lib.datasets.audio import PREPARATION_VERSION, check_file, read_clip
from audioclf_lib.datasets.dataset import SAMPLE_RATE, Dataset, check_clips, check_samples
from audioclf_lib.errors import InputError


def dataset_from_files(
    name: str,
    clips: pd.DataFrame,
    class_names: Sequence[str],
    n_samples: int,
    *,
    data_dir: Path,
    description: str,
    licence: str,
    with_folds: Collection[int] = (),
) -> Dataset:
    """Decode the listed files, or take them from the cache, and make a data set of them.

    Args:
        name: of the data set.
        clips: a row for each clip, with ``path``, ``clip_id``, ``label``, ``fold``, ``source`` and, if they are known
            already, the files' ``sha256``.
        class_names: of the labels.
        n_samples: length to which every clip is trimmed or zero-padded, at 16 kHz.
        data_dir: folder whose ``cache`` keeps the decoded clips.
        description, licence: for captions.
        with_folds: folds that must be there; looked for before anything is decoded.

    Raises:
        InputError: a file or the list as a whole cannot be used.
    """
    check_clips(name, clips, class_names, with_folds=with_folds)
    paths = [Path(path) for path in clips["path"]]
    checksums = clips["sha256"].tolist() if "sha256" in clips else hash_files(paths)

    def decode() -> npt.NDArray[np.float32]:
        waveforms = np.empty((len(paths), n_samples), dtype=np.float32)
        with one_thread():
            for row, path in enumerate(tqdm(paths, f"decoding {name}", unit="clip", leave=False, disable=None)):
                waveforms[row] = read_clip(path, n_samples)
        check_samples(name, clips["clip_id"].tolist(), waveforms)
        return waveforms

    decoder = [PREPARATION_VERSION, sf.__libsndfile_version__, torchaudio.__version__]
    key = digest([checksums, n_samples, SAMPLE_RATE, decoder])
    rows = clips[["clip_id", "label", "fold", "source"]].to_numpy().tolist()
    return Dataset(
        name=name,
        waveforms=cache.load_or_build(data_dir / "cache" / f"{name}-{key}.f32", (len(paths), n_samples), decode),
        labels=clips["label"].to_numpy(np.int64),
        folds=clips["fold"].to_numpy(np.int64),
        clip_ids=tuple(clips["clip_id"]),
        class_names=tuple(class_names),
        sources=tuple(clips["source"]),
        fingerprint=digest([rows, checksums, list(class_names), n_samples, PREPARATION_VERSION]),
        description=description,
        licence=licence,
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: a clip is too short to share, and on a busy machine threads wait for each other."""
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

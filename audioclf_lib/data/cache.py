"""Decoded clips kept on disk: a NumPy file with a checksum behind the array, read by way of a memory map.

The caller puts all that determines the clips into the file's name, so a file is never out of date; the checksum tells
whether it is intact. Neither making nor reading one holds all clips in memory, which may be too small for them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audioclf_lib._support.paths import folder_for

Waveforms = npt.NDArray[np.float32]


def load_or_build(path: Path, shape: tuple[int, int], build: Callable[[], Iterable[Waveforms]]) -> Waveforms:
    """Map the clips in ``path`` into memory; if the file is missing or damaged, build and keep them.

    Args:
        path: a file whose name changes with whatever determines the clips.
        shape: (n_clips, n_samples) of all clips.
        build: makes the clips one after the other, (n_samples,) float32 each.

    Returns:
        (n_clips, n_samples) float32; what is written to it stays in memory.
    """
    if (kept := _read(path)) is not None:
        return kept
    try:
        with folder_for(path.parent), tempfile.TemporaryDirectory(dir=path.parent) as folder:
            draft = Path(folder, path.name)
            with draft.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
                file.writelines(clip.data for clip in build())
                file.flush()
                file.write(_checksum(np.lib.format.open_memmap(draft, mode="r")))
            os.replace(draft, path)
        if (kept := _read(path)) is not None:
            return kept
    except OSError as error:
        warnings.warn(
            f"the decoded clips could not be kept in {path.parent} ({error.strerror or error}) and will be decoded "
            "again next time; free some space or make the folder writable",
            stacklevel=2,
        )
    return np.fromiter(build(), np.dtype((np.float32, shape[1])), count=shape[0])


def _read(path: Path) -> Waveforms | None:
    """The clips in a file, if it is intact."""
    with suppress(OSError, ValueError), path.open("rb") as file:
        kept = np.lib.format.open_memmap(path, mode="c")
        file.seek(kept.offset + kept.nbytes)
        if file.read(1024) == _checksum(kept):
            return kept.view(np.ndarray)
    return None


def _checksum(clips: Waveforms) -> bytes:
    samples = hashlib.sha256(np.ascontiguousarray(clips).data).hexdigest()
    return hashlib.sha256(f"{clips.dtype.str} {clips.shape} {samples}".encode()).digest()

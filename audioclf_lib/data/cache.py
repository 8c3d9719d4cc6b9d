"""Decoded clips kept on disk: little-endian float32 samples, then their SHA-256.

A file's name holds the key of its content, so that it is never stale; its checksum tells whether it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

Waveforms = npt.NDArray[np.float32]


def load_or_build(path: Path, shape: tuple[int, int], build: Callable[[], Waveforms]) -> Waveforms:
    """Read the samples kept in ``path``; if there are none, or they are damaged, build them and keep them.

    Args:
        path: a file whose name changes with whatever determines the samples.
        shape: (n_clips, n_samples).
        build: makes the samples.

    Returns:
        (n_clips, n_samples) float32.
    """
    kept = read(path, shape)
    if kept is not None:
        return kept
    built = build()
    write(path, built)
    return built


def read(path: Path, shape: tuple[int, int]) -> Waveforms | None:
    """The samples in ``path``, or None if it is missing, truncated or damaged."""
    waveforms = np.empty(shape, dtype="<f4")
    try:
        with path.open("rb") as file:
            whole = file.readinto(waveforms.data.cast("B")) == waveforms.nbytes
            digest = file.read(1024)
    except OSError:
        return None
    return waveforms if whole and digest == _digest(waveforms) else None


def write(path: Path, waveforms: Waveforms) -> None:
    """Keep samples in ``path``: wholly, or, with a warning that says why, not at all."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(np.ascontiguousarray(waveforms, dtype="<f4").data)
            file.write(_digest(waveforms))
        os.replace(temporary, path)
    except OSError as error:
        warnings.warn(
            f"the decoded clips could not be kept in {path.parent} ({error.strerror or error}) and will be decoded "
            "again next time; free some space or make the folder writable",
            stacklevel=2,
        )
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _digest(waveforms: Waveforms) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(waveforms, dtype="<f4").data).digest()

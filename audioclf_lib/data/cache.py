"""Decoded clips kept on disk: a NumPy file with a checksum behind the array.

The caller puts all that determines the clips into the file's name, so a file is never out of date; the checksum tells
whether it is intact.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audioclf_lib._support.paths import replace_file

Waveforms = npt.NDArray[np.float32]


def load_or_build(path: Path, build: Callable[[], Waveforms]) -> Waveforms:
    """Read the clips in ``path``; if the file is missing or damaged, build and keep them.

    Args:
        path: a file whose name changes with whatever determines the clips.
        build: makes the clips, (n_clips, n_samples) float32.
    """
    with suppress(OSError, ValueError), path.open("rb") as file:
        kept: Waveforms = np.lib.format.read_array(file)  # np.load without its formats other than .npy
        if file.read(1024) == _checksum(kept):
            return kept
    clips = build()
    content = io.BytesIO()
    np.save(content, clips)
    content.write(_checksum(clips))
    try:
        replace_file(path, content.getbuffer())
    except OSError as error:
        warnings.warn(
            f"the decoded clips could not be kept in {path.parent} ({error.strerror or error}) and will be decoded "
            "again next time; free some space or make the folder writable",
            stacklevel=2,
        )
    return clips


def _checksum(clips: Waveforms) -> bytes:
    samples = hashlib.sha256(np.ascontiguousarray(clips).data).hexdigest()
    return hashlib.sha256(f"{clips.dtype.str} {clips.shape} {samples}".encode()).digest()

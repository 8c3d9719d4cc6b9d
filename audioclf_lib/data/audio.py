"""Sound file -> mono float32 samples at 16 kHz, trimmed or zero-padded to one length.

Only decoding needs torch, which is imported there: lengths come from the files' headers.
"""

from __future__ import annotations

import math
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BufferedReader
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile as sf

from audioclf_lib._support.errors import InputError, quote
from audioclf_lib._support.extras import load_torchaudio
from audioclf_lib.data.windowing import SAMPLE_RATE

# Raise it when a file would decode to other samples than before: fingerprints and cached clips depend on it.
PREPARATION_VERSION = 1

MIN_SAMPLE_RATE = 1_000

# The resampling filter has (numerator x denominator) taps for a ratio of rates. Ratios of all common rates are far
# below this; an odd one like 44,099 Hz is met to better than 0.0001 % instead of taking gigabytes.
MAX_DENOMINATOR = 1_000

# Read beyond the samples in use, so that the resampling filter does not see the cut.
MARGIN_SECONDS = 0.1


def decoded_length(path: Path) -> int:
    """Samples of a sound file at 16 kHz, from its header.

    Raises:
        InputError: missing, empty or not a sound file.
    """
    with _open_sound(path) as sound:
        return math.ceil(int(sound.frames) * SAMPLE_RATE / int(sound.samplerate))


def read_clip(path: Path, n_samples: int) -> npt.NDArray[np.float32]:
    """Decode a sound file of any rate and channel count to (n_samples,) float32, mono at 16 kHz.

    Channels are averaged; the result is trimmed, or padded with zeros, at its end.

    Raises:
        InputError: missing, empty, not a sound file, or with samples that are not finite numbers.
    """
    import torch

    functional = load_torchaudio().functional
    with _open_sound(path) as sound:
        frames = math.ceil((n_samples / SAMPLE_RATE + MARGIN_SECONDS) * sound.samplerate)
        samples = sound.read(frames, dtype="float32", always_2d=True)  # (frames, channels)
        expected = min(frames, sound.frames)
        ratio = Fraction(sound.samplerate, SAMPLE_RATE).limit_denominator(MAX_DENOMINATOR)
    if not len(samples):
        raise InputError(f"{path} holds no samples; export it anew or leave it out")
    if len(samples) < expected:
        given = f"{len(samples):,} of {expected:,} samples"
        warnings.warn(f"{path} is damaged: only {given} can be read; export it anew or leave it out", stacklevel=2)
    mono = torch.from_numpy(samples.mean(axis=1))
    mono = functional.resample(mono, ratio.numerator, ratio.denominator)[:n_samples]
    if not mono.isfinite().all():
        raise InputError(f"{path} has samples that are NaN or infinite; export it anew or leave it out")
    return np.pad(mono.numpy(), (0, n_samples - len(mono)))


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file; anything else is refused, since reading a pipe could block for ever.

    Raises:
        InputError: missing, not a regular file, or not readable.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is no file; put a sound file in its place or take it out of the list")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        remedy = "restore the file, correct its name or rights, or take it out of the list"
        raise InputError(f"{quote(str(path))} cannot be opened ({error.strerror or error}); {remedy}") from None


@contextmanager
def _open_sound(path: Path) -> Iterator[sf.SoundFile]:
    try:
        with open_file(path), _quiet_decoder(), sf.SoundFile(path) as sound:
            if sound.samplerate < MIN_SAMPLE_RATE:
                raise InputError(f"{path} has a rate of {sound.samplerate} Hz; give {MIN_SAMPLE_RATE} Hz or more")
            yield sound
    except (sf.SoundFileError, TypeError) as error:  # TypeError: formats without a header, by their suffix
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise InputError(f"{path} cannot be read as sound ({reason}); give a WAV, FLAC, Ogg or MP3 file") from None


@contextmanager
def _quiet_decoder() -> Iterator[None]:
    """Keep off stderr what the MP3 decoder, which is C code, prints there without naming the file."""
    try:
        stderr = os.dup(2)
    except OSError:  # this process has none
        yield
        return
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)

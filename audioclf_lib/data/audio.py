"""Sound file -> mono float32 samples at 16 kHz, trimmed or zero-padded to one length.

Only decoding needs torch, which is imported there: what a header says is known without it.
"""

from __future__ import annotations

import math
import stat
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile as sf

from audioclf_lib._support.errors import InputError, quote
from audioclf_lib.data.dataset import SAMPLE_RATE

# Raise it when a file would decode to other samples than before: fingerprints and cached clips depend on it.
PREPARATION_VERSION = 1

MIN_SAMPLE_RATE = 1_000

# The resampling filter has (numerator x denominator) taps for a ratio of rates. Ratios of all common rates are far
# below this; an odd one like 44,099 Hz is met to better than 0.0001 % instead of taking gigabytes.
MAX_DENOMINATOR = 1_000

# Read beyond the samples in use, so that the resampling filter does not see the cut.
MARGIN_SECONDS = 0.1

# What soundfile raises for files that it cannot read (TypeError: headerless files, by their suffix).
_UNREADABLE = (sf.SoundFileError, TypeError, OSError)


def decoded_length(path: Path) -> int:
    """Samples of a sound file at 16 kHz, from its header.

    Raises:
        InputError: missing, empty or no sound file.
    """
    info = _open(path)
    return math.ceil(int(info.frames) * SAMPLE_RATE / int(info.samplerate))


def read_clip(path: Path, n_samples: int) -> npt.NDArray[np.float32]:
    """Decode a sound file of any rate and channel count to (n_samples,) float32, mono at 16 kHz.

    Channels are averaged; the result is trimmed, or padded with zeros, at its end.

    Raises:
        InputError: missing, empty or no sound file.
    """
    rate = _open(path).samplerate
    frames = math.ceil((n_samples / SAMPLE_RATE + MARGIN_SECONDS) * rate)
    try:
        samples, _ = sf.read(path, frames=frames, dtype="float32", always_2d=True)  # (frames, channels)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    if not len(samples):
        raise InputError(f"{path} holds no samples; export it anew or leave it out")
    mono = resample(samples.mean(axis=1), rate)[:n_samples]
    return np.pad(mono, (0, n_samples - len(mono)))


def resample(waveform: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    """Bring (n_samples,) at ``rate`` Hz to 16 kHz."""
    import torch
    import torchaudio.functional

    ratio = Fraction(rate, SAMPLE_RATE).limit_denominator(MAX_DENOMINATOR)
    resampled = torchaudio.functional.resample(torch.from_numpy(waveform), ratio.numerator, ratio.denominator)
    samples: npt.NDArray[np.float32] = resampled.numpy()
    return samples


def check_file(path: Path) -> None:
    """Raise InputError if ``path`` is no file: reading a pipe would wait for ever, and reading a device never end."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} is missing; restore the file or take it out of the list") from None
    except OSError as error:
        raise InputError(
            f"{quote(str(path))} cannot be opened ({error.strerror}); correct its name or rights"
        ) from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is no file; put a sound file in its place or take it out of the list")


def _open(path: Path) -> sf._SoundFileInfo:
    check_file(path)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); export it anew or leave it out")
    try:
        info = sf.info(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    if info.samplerate < MIN_SAMPLE_RATE:
        raise InputError(f"{path} has a sample rate of {info.samplerate} Hz; give {MIN_SAMPLE_RATE} Hz or more")
    if info.frames <= 0:
        raise InputError(f"{path} holds no samples; export it anew or leave it out")
    return info


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = getattr(error, "error_string", None) or str(error)
    return InputError(f"{path} cannot be read as sound ({reason.rstrip('.')}); give a WAV, FLAC, Ogg or MP3 file")

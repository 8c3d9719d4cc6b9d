"""Sound file -> mono float32 samples at 16 kHz, trimmed or zero-padded to one length.

Only decoding needs torch, which is imported there: lengths come from the files' headers.
"""

from __future__ import annotations

import math
import os
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile as sf

from audioclf_lib._support.errors import InputError, one_line, quote
from audioclf_lib.data.dataset import SAMPLE_RATE

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
        InputError: missing, empty or not a sound file.
    """
    with _open_sound(path) as sound:
        rate = sound.samplerate
        frames = math.ceil((n_samples / SAMPLE_RATE + MARGIN_SECONDS) * rate)
        samples = sound.read(frames, dtype="float32", always_2d=True)  # (frames, channels)
    if not len(samples):
        raise InputError(f"{path} holds no samples; export it anew or leave it out")
    mono = resample(samples.mean(axis=1), rate)[:n_samples]
    return np.pad(mono, (0, n_samples - len(mono)))


def resample(waveform: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    """Resample (n_samples,) from ``rate`` Hz to 16 kHz."""
    import torch
    import torchaudio.functional

    ratio = Fraction(rate, SAMPLE_RATE).limit_denominator(MAX_DENOMINATOR)
    resampled = torchaudio.functional.resample(torch.from_numpy(waveform), ratio.numerator, ratio.denominator)
    samples: npt.NDArray[np.float32] = resampled.numpy()
    return samples


def check_file(path: Path) -> None:
    """Raise InputError if ``path`` is not a regular file: reading a pipe could block for ever, a device never end."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} is missing; restore the file or take it out of the list") from None
    except OSError as error:
        reason = error.strerror
        raise InputError(f"{quote(str(path))} cannot be opened ({reason}); correct its name or rights") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is no file; put a sound file in its place or take it out of the list")


@contextmanager
def _open_sound(path: Path) -> Iterator[sf.SoundFile]:
    check_file(path)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); export it anew or leave it out")
    try:
        with _decoder_messages_as_warning(path), sf.SoundFile(path) as sound:
            if sound.samplerate < MIN_SAMPLE_RATE:
                rate = sound.samplerate
                raise InputError(f"{path} has a sample rate of {rate} Hz; give {MIN_SAMPLE_RATE} Hz or more")
            if sound.frames <= 0:
                raise InputError(f"{path} holds no samples; export it anew or leave it out")
            yield sound
    except (sf.SoundFileError, TypeError, OSError) as error:  # TypeError: formats without a header, by their suffix
        reason = getattr(error, "error_string", None) or str(error)
        raise InputError(
            f"{path} cannot be read as sound ({reason.rstrip('.')}); give a WAV, FLAC, Ogg or MP3 file"
        ) from None


@contextmanager
def _decoder_messages_as_warning(path: Path) -> Iterator[None]:
    """Replace what the MP3 decoder, which is C code, prints on file descriptor 2 by a warning that names the file."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        messages.seek(0)
        if text := one_line(messages.read().decode(errors="replace")):
            warnings.warn(f"{path}: the decoder says {quote(text)}; export it anew if it sounds damaged", stacklevel=4)

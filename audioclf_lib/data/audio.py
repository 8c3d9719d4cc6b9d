"""Sound file -> mono float32 samples at 16 kHz, trimmed or zero-padded to one length.

Only decoding needs torch, which is imported there: lengths come from the files' headers. libsndfile reads the files;
what it does not know (AAC and other formats of phones and browsers) is converted by ffmpeg where that is installed.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import shutil
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from io import BufferedReader, FileIO
from pathlib import Path
from typing import IO, Self

import numpy as np
import numpy.typing as npt
import soundfile as sf

from audioclf_lib._support.errors import InputError, quote
from audioclf_lib._support.extras import load_torchaudio
from audioclf_lib.data.windowing import SAMPLE_RATE

# Raise it when a file would decode to other samples than before: fingerprints and cached clips depend on it.
PREPARATION_VERSION = 1

# Raise it when only files would that were misread before: cached clips depend on it, fingerprints do not.
REPAIR_VERSION = 2

MIN_SAMPLE_RATE = 1_000

# The resampling filter has (numerator x denominator) taps for a ratio of rates. Ratios of all common rates are far
# below this; an odd one like 44,099 Hz is met to better than 0.0001 % instead of taking gigabytes.
MAX_DENOMINATOR = 1_000

# Read beyond the samples in use, so that the resampling filter does not see the cut.
MARGIN_SECONDS = 0.1

# Channels whose mean has less than this share of their energy cancel each other out: phase-opposed stereo. The mean of
# n unrelated channels keeps 1/n of it.
OPPOSED_SHARE = 0.01

UNKNOWN_FRAMES = 2**40  # beyond what any file holds: the header does not tell the length
STEP_FRAMES = 1152  # read at once there, as many as MP3 packs together: what is read together is lost together
BLOCK_FRAMES = 2**18  # read at once where a file is read to its end

# Full scale as limiters and 16-bit samples leave it; a clipped sound stays there, a loud one passes.
FULL_SCALE = 0.98

FOR_FFMPEG = r".*\.(m4[ab]|mp4|mov|3g[p2]|aac|webm|mk[av]|wma|amr|ac3|caf)"
SOUND_NAME = re.compile(rf"{FOR_FFMPEG}|.*\.(wav|flac|og[ga]|opus|mp[23]|aif[fc]?|au|w64|rf64|sph)", re.IGNORECASE)

# How files for ffmpeg begin, whatever they are called: MP4 and 3GP, Matroska and WebM, WMA, AMR, AAC.
FFMPEG_BEGINNINGS = re.compile(rb"....ftyp|\x1aE\xdf\xa3|0&\xb2u|#!AMR|\xff[\xf0\xf1\xf8\xf9]", re.DOTALL)
# No playlists: those would have ffmpeg read other files.
FFMPEG_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,amr,amrnb,amrwb,aac,ac3,eac3,caf"


def decoded_length(path: Path) -> int:
    """Samples of a sound file at 16 kHz, from its header; where that does not tell the length, by reading it all.

    Raises:
        InputError: missing, empty or not a sound file.
    """
    with open_sound(path) as sound:
        frames = int(sound.frames) if sound.tells_length else sum(map(len, sound.blocks()))
        return math.ceil(frames * SAMPLE_RATE / int(sound.samplerate))


def read_clip(path: Path, n_samples: int) -> npt.NDArray[np.float32]:
    """Decode a sound file of any rate and channel count to (n_samples,) float32, mono at 16 kHz.

    Channels are averaged, but where they cancel each other out, the loudest is taken; the result is trimmed, or padded
    with zeros, at its end.

    Raises:
        InputError: missing, empty, not a sound file, or with samples that are not finite numbers.
    """
    import torch

    functional = load_torchaudio().functional
    with open_sound(path) as sound:
        frames = math.ceil((n_samples / SAMPLE_RATE + MARGIN_SECONDS) * sound.samplerate)
        samples = sound.read_on(frames)  # (frames, channels)
        expected = f" of {min(frames, sound.frames):,}" if sound.tells_length else ""
        is_damaged = sound.is_broken_off or (sound.tells_length and len(samples) < min(frames, sound.frames))
        ratio = Fraction(sound.samplerate, SAMPLE_RATE).limit_denominator(MAX_DENOMINATOR)
    if not len(samples):
        raise InputError(f"{path} holds no samples; export it anew or leave it out")
    if is_damaged:
        given = f"{len(samples):,}{expected} samples"
        warnings.warn(f"{path} is damaged: only {given} can be read; export it anew or leave it out", stacklevel=2)
    mono = functional.resample(torch.from_numpy(to_mono(samples)), ratio.numerator, ratio.denominator)[:n_samples]
    if not mono.isfinite().all():
        raise InputError(f"{path} has samples that are NaN or infinite; export it anew or leave it out")
    return np.pad(mono.numpy(), (0, n_samples - len(mono)))


def to_mono(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(frames, channels) -> (frames,): the mean, or the loudest channel where they cancel each other out."""
    averaged: npt.NDArray[np.float32] = samples.mean(axis=1)
    if len(samples) and _energy(averaged) < OPPOSED_SHARE * _energy(samples):
        averaged = samples[:, np.square(samples).sum(axis=0).argmax()]
    return averaged


def measure_sound(path: Path) -> dict[str, float]:
    """Read a sound file to its end, in blocks, and say what it is like.

    Returns:
        ``seconds``, its length; ``peak``, the largest amplitude of any channel, full scale = 1; ``clipped``, the share
        of the samples that stay at full scale or go beyond it; ``opposed``, True if the channels cancel each other out
        when they are averaged.

    Raises:
        InputError: missing or not a sound file.
    """
    frames, peak, clipped, energy, averaged = 0, 0.0, 0, 0.0, 0.0
    with open_sound(path) as sound:
        for block in sound.blocks():  # (frames, channels)
            level = np.abs(block)
            stays = (level[1:] >= FULL_SCALE) & (block[1:] == block[:-1])
            frames, peak = frames + len(block), max(peak, float(level.max()))
            clipped += int((stays | (level[1:] > 1)).any(axis=1).sum())
            energy, averaged = energy + _energy(block) * len(block), averaged + _energy(block.mean(axis=1)) * len(block)
        seconds, opposed = frames / sound.samplerate, averaged < OPPOSED_SHARE * energy
    return {"seconds": seconds, "peak": peak, "clipped": clipped / max(frames, 1), "opposed": opposed}


def _energy(samples: npt.NDArray[np.float32]) -> float:
    return float(np.square(samples, dtype=np.float64).mean())


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


class _Sound(sf.SoundFile):  # type: ignore[misc]
    """A sound file that is read from front to back.

    soundfile would seek after each read, which fails where the header does not tell the length.
    """

    is_broken_off = False  # True once a file of unknown length could not be read on

    def __enter__(self) -> Self:  # soundfile's own is untyped
        return self

    def seekable(self) -> bool:
        return False

    @property
    def tells_length(self) -> bool:
        return bool(self.frames < UNKNOWN_FRAMES)

    def read_on(self, frames: int) -> npt.NDArray[np.float32]:
        """The next frames, (frames, channels); fewer where the file ends, none once it has ended."""
        if self.tells_length:
            return np.asarray(self.read(min(frames, self.frames), dtype="float32", always_2d=True))
        parts = [np.empty((0, self.channels), np.float32)]
        with suppress(sf.LibsndfileError):  # what follows is damaged, or is no sound
            self.is_broken_off = True
            while frames and len(part := self.read(min(frames, STEP_FRAMES), dtype="float32", always_2d=True)):
                parts.append(part)
                frames -= len(part)
            self.is_broken_off = False
        return np.concatenate(parts)

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """All that is left, in blocks of (frames, channels)."""
        while len(block := self.read_on(BLOCK_FRAMES)):
            yield block


class _EndlessFile(FileIO):
    """A file that says it never ends.

    An MP3 file without a Xing header does not tell its length. It is estimated from the file's size and the first
    frames, which fails for variable bit rates, and no sample beyond the estimate would be read.
    """

    at_end = False

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at_end = (offset, whence) == (0, os.SEEK_END)
        return super().seek(offset, whence)

    def tell(self) -> int:
        return 1 << 50 if self.at_end else super().tell()


@contextmanager
def open_sound(path: Path) -> Iterator[_Sound]:
    """Open a sound file of any format, to be read from front to back.

    Raises:
        InputError: missing, empty, not a sound file, or one for ffmpeg, which is not installed.
    """
    try:
        with _quiet_decoder(), open_file(path) as file, ExitStack() as opened:  # else the file may become stderr
            sound = _start_decoder(path, file, opened)
            if sound.samplerate < MIN_SAMPLE_RATE:
                raise InputError(f"{path} has a rate of {sound.samplerate} Hz; give {MIN_SAMPLE_RATE} Hz or more")
            yield sound
    except (sf.SoundFileError, TypeError) as error:  # TypeError: formats without a header, by their suffix
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise InputError(f"{path} cannot be read as sound ({reason}); give a WAV, FLAC, Ogg or MP3 file") from None


def _start_decoder(path: Path, file: BufferedReader, opened: ExitStack) -> _Sound:
    """The decoder that reads all of the file; what it needs is closed with ``opened``."""
    is_for_ffmpeg = FFMPEG_BEGINNINGS.match(file.read(8)) or re.fullmatch(FOR_FFMPEG, path.name, re.IGNORECASE)
    try:
        sound = opened.enter_context(_Sound(path))
    except sf.SoundFileError:
        if not is_for_ffmpeg:
            raise
        return opened.enter_context(_Sound(opened.enter_context(_converted(path))))
    if sound.format == "MP3":
        endless = opened.enter_context(_Sound(opened.enter_context(_EndlessFile(path))))
        return sound if endless.tells_length else endless
    if sound.format in ("WAV", "WAVEX", "RF64") and not sound.frames:
        # A recorder that streams leaves sizes of 0; libsndfile reads on where the RIFF chunk has its first size, 8.
        content = opened.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        content[:8] = b"RIFF\x08\0\0\0"
        return opened.enter_context(_Sound(content))
    return sound


@contextmanager
def _converted(path: Path) -> Iterator[IO[bytes]]:
    """The first audio track of a file as WAV, of its own rate and channels, in a temporary file.

    Raises:
        InputError: ffmpeg is not installed or cannot read the file either.
    """
    ffmpeg = shutil.which("ffmpeg")
    with suppress(ImportError, RuntimeError):  # RuntimeError: installed without the program
        from imageio_ffmpeg import get_ffmpeg_exe

        ffmpeg = ffmpeg or get_ffmpeg_exe()
    if ffmpeg is None:
        remedy = f"`pip install imageio-ffmpeg`, or convert it elsewhere: `ffmpeg -i {path.name} {path.stem}.wav`"
        raise InputError(f"{path} is read by ffmpeg, which is not installed; install it with {remedy}")
    what = ["-protocol_whitelist", "file", "-format_whitelist", FFMPEG_FORMATS, "-i", f"file:{path.resolve()}"]
    how = ["-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "pipe:1"]
    with tempfile.TemporaryFile() as wav:
        done = subprocess.run([ffmpeg, "-v", "error", "-nostdin", *what, *how], stdout=wav, stderr=subprocess.PIPE)
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2].rstrip(".")
            raise InputError(f"{path} cannot be read by ffmpeg ({reason}); export it anew or leave it out")
        wav.seek(0)
        yield wav


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

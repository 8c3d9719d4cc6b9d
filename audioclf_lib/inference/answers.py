"""``predict``: what a trained run makes of sounds of any length, rate and channel count.

A sound is cut into windows as clips are in training, to its end: the last window is padded with zeros, and only a
rest of under a quarter of a second is left out. Files are read in blocks: memory does not grow with their length.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from tqdm import tqdm

from audioclf_lib._support.cores import torch_threads
from audioclf_lib._support.errors import InputError, quote
from audioclf_lib._support.extras import load_torchaudio
from audioclf_lib._support.paths import user_path
from audioclf_lib.data import audio
from audioclf_lib.data.folder import sound_files
from audioclf_lib.data.windowing import (
    HOP_SIZE,
    SAMPLE_RATE,
    SILENCE_PEAK,
    WINDOW_SIZE,
    clip_probabilities,
    cut_windows,
)
from audioclf_lib.inference.choice import choose_runs
from audioclf_lib.runs.store import Run
from audioclf_lib.runs.trained import TrainedModel
from audioclf_lib.training.accelerate import accelerate

LONG_SECONDS = 60  # from here on, a file is read in blocks
MAX_CHANNELS = 32  # no clip is so short
SHORTEST_REST = HOP_SIZE // 2  # after the last whole window, to be heard in a window of its own

Waveform = NDArray[np.float32]
Answer = tuple[Tensor, Tensor]  # probabilities (n_windows, n_classes), and which windows are silent (n_windows,)


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """What the fits of a run make of sounds; shown in a notebook it is the table of the likeliest classes.

    Attributes:
        clips: a row for each sound, a column for each class: probabilities, mean over windows and fits. The index,
            ``file``, holds paths as they were given, or the numbers of the arrays from 0.
        windows: the same for each window of 1 s: index ``file`` and ``start``, in seconds.
        silent: of each window, with the same index; silent ones have no vote unless all of a sound are.
        failed: files that could not be read, and why.
        fits: ids of the fits that voted.
    """

    clips: pd.DataFrame
    windows: pd.DataFrame
    silent: pd.Series
    failed: dict[str, str]
    fits: tuple[str, ...]

    def top(self, n: int = 3, *, windows: bool = False) -> pd.DataFrame:
        """The ``n`` likeliest classes of each sound, or of each window, the first first: ``dog bark (93.1 %)``."""
        table = self.windows if windows else self.clips
        values = table.to_numpy()
        order = np.argsort(-values, axis=1, kind="stable")[:, :n]
        rows = [
            [f"{table.columns[label]} ({100 * row[label]:.1f}\N{NO-BREAK SPACE}%)" for label in best]
            for row, best in zip(values, order, strict=True)
        ]
        return pd.DataFrame(rows, table.index, range(1, order.shape[1] + 1))

    def table(self, *, windows: bool = False) -> pd.DataFrame:
        """For files: ``file`` (and ``start``), ``answer``, ``silent``, and a column for each class's probability."""
        probabilities = self.windows if windows else self.clips
        silent = self.silent if windows else self.silent.groupby("file", sort=False).all()
        answer = probabilities.idxmax(axis=1).rename("answer")
        return pd.concat([answer, silent, probabilities], axis=1).reset_index(allow_duplicates=True)

    def __repr__(self) -> str:
        return "\n".join([self.top().to_string(), *self.failed.values()])

    def _repr_html_(self) -> str:
        return self.top().to_html() + "".join(
            f"<p>{escape(reason, quote=False)}</p>" for reason in self.failed.values()
        )


def predict(
    run: Run | Path | str | Iterable[Run],
    files_or_array: str | Path | Iterable[str | Path] | ArrayLike,
    sample_rate: int | None = None,
    *,
    runs_dir: Path | str | None = None,
) -> Prediction:
    """What a trained run makes of sounds; of several fits, the mean of their probabilities.

    Args:
        run: what answers, see :func:`audioclf_lib.inference.choose_runs`: a run, a run folder, the id of a fit, an
            experiment, ``"best"``, or several runs.
        files_or_array: a sound file, or a folder (its sound files at any depth), or several of these; or samples in
            mono, full scale = 1 or 16-bit integers: (n_samples,) or (n_clips, n_samples).
        sample_rate: of the samples, 16,000 Hz unless given; files say theirs.
        runs_dir: where ``run`` is searched, unless it is a folder.

    Raises:
        InputError: a name that stands for no run, nothing to read, or not one file that can be read.
    """
    fits = choose_runs(run, runs_dir)
    models = [fit.model() for fit in fits]
    networks = [(model, accelerate(model.network, torch.device("cpu"))) for model in models]
    sounds = _find_sounds(files_or_array, sample_rate)
    heard: dict[str | int, Answer] = {}
    failed: dict[str, str] = {}
    with torch_threads(1):  # more would wait for each other on so little work
        for name, blocks in tqdm(sounds.items(), "listening", unit="file", leave=False, disable=None):
            try:
                heard[name] = _answer(networks, name, blocks)
            except InputError as error:
                failed[str(name)] = str(error)
    if not heard:
        others = f"; {len(failed) - 1} more cannot be read either" if len(failed) > 1 else ""
        raise InputError(next(iter(failed.values())) + others)
    return _tabulate(heard, failed, fits)


def _tabulate(heard: dict[str | int, Answer], failed: dict[str, str], fits: Sequence[Run]) -> Prediction:
    classes, clips = list(fits[0].config.class_names), pd.Index(heard, name="file")
    of_clips = [clip_probabilities(windows[None], silent[None])[0] for windows, silent in heard.values()]
    starts = [(name, n * HOP_SIZE / SAMPLE_RATE) for name, (_, silent) in heard.items() for n in range(len(silent))]
    index = pd.MultiIndex.from_tuples(starts, names=["file", "start"])
    windows, silent = (torch.cat(parts).numpy() for parts in zip(*heard.values(), strict=True))
    return Prediction(
        clips=pd.DataFrame(torch.stack(of_clips).numpy(), clips, classes),
        windows=pd.DataFrame(windows, index, classes),
        silent=pd.Series(silent, index, name="silent"),
        failed=failed,
        fits=tuple(run.config.fit_id for run in fits),
    )


@torch.no_grad()
def _answer(networks: Sequence[tuple[TrainedModel, nn.Module]], name: str | int, blocks: Iterable[Waveform]) -> Answer:
    """What the networks answer to the windows of one sound."""
    parts = []
    for windows in _cut(blocks):
        if not windows.isfinite().all():
            raise InputError(f"{name} has samples that are NaN or infinite; export it anew or leave it out")
        votes = [network(model.normalise(windows)).softmax(1) for model, network in networks]
        parts.append((torch.stack(votes).mean(0), windows.abs().amax(dim=(1, 2)) < SILENCE_PEAK))
    probabilities, silent = map(torch.cat, zip(*parts, strict=True))
    return probabilities, silent


def _cut(blocks: Iterable[Waveform]) -> Iterator[Tensor]:
    """Blocks of one sound at 16 kHz -> its windows in order, (n, 1, 16000) at a time."""
    held, is_first = np.zeros(0, dtype=np.float32), True
    for block in blocks:
        held = np.concatenate([held, block])
        if len(held) >= WINDOW_SIZE:
            windows = cut_windows(held[None])[0]
            held, is_first = held[len(windows) * HOP_SIZE :], False
            yield windows
    if is_first or len(held) >= WINDOW_SIZE - HOP_SIZE + SHORTEST_REST:
        yield torch.from_numpy(np.pad(held, (0, WINDOW_SIZE - len(held)))).view(1, 1, WINDOW_SIZE)


def _find_sounds(given: Any, sample_rate: int | None) -> dict[str | int, Iterator[Waveform]]:
    """The sounds that ``predict`` is given, by path or number; each is read as its blocks at 16 kHz are asked for."""
    items = [given] if isinstance(given, (str, os.PathLike)) or getattr(given, "ndim", 2) == 1 else list(given)
    if not items:
        raise InputError("there is nothing to listen to; give a sound file, a folder or samples")
    if all(isinstance(each, (str, os.PathLike)) for each in items):
        if sample_rate is not None:
            raise InputError("sample_rate is for samples; files say theirs, so leave it out")
        paths = [path for each in items for path in _files_of(user_path(each))]
        return {str(path): _read_file(path) for path in paths}
    rate = SAMPLE_RATE if sample_rate is None else sample_rate
    if not rate >= audio.MIN_SAMPLE_RATE:
        raise InputError(f"sample_rate = {quote(sample_rate)} is not possible; give {audio.MIN_SAMPLE_RATE} Hz or more")
    arrays = [_check_samples(np.asarray(each)) for each in items]
    return {number: _resample([samples], rate) for number, samples in enumerate(arrays)}


def _files_of(path: Path) -> list[Path]:
    """A file itself, or the sound files in a folder."""
    if not path.is_dir():
        return [path]
    files = [*sound_files(path)]
    if not files:
        raise InputError(f"{path} holds no sound files, such as WAV, FLAC, MP3 or M4A; name another folder")
    return files


def _check_samples(samples: NDArray[Any]) -> Waveform:
    if samples.ndim != 1 or samples.dtype.kind not in "fi" or len(samples) <= MAX_CHANNELS:
        raise InputError(
            f"samples are numbers with a sign, (n_samples,) or (n_clips, n_samples), and no clip is {samples.dtype} "
            f"{samples.shape}; convert it, and average channels: samples.mean(axis=1)"
        )
    scale = -np.iinfo(samples.dtype).min if samples.dtype.kind == "i" else 1
    return (samples / scale).astype(np.float32)


def _read_file(path: Path) -> Iterator[Waveform]:
    """A file as training reads it; a long one in blocks."""
    n_samples = audio.decoded_length(path)
    if n_samples <= LONG_SECONDS * SAMPLE_RATE:
        yield audio.read_clip(path, n_samples)
        return
    with audio.open_sound(path) as sound:
        yield from _resample(map(audio.to_mono, sound.blocks()), sound.samplerate)


def _resample(blocks: Iterable[Waveform], sample_rate: int) -> Iterator[Waveform]:
    """Blocks of one sound in mono -> the same at 16 kHz, as if it were resampled as a whole."""
    functional = load_torchaudio().functional
    ratio = Fraction(sample_rate, SAMPLE_RATE).limit_denominator(audio.MAX_DENOMINATOR)
    step, margin = ratio.numerator, 8 * ratio.numerator  # the filter reaches over less than 7 periods of the ratio
    skipped = 8 * ratio.denominator  # what the margin becomes
    held = np.zeros(margin, dtype=np.float32)

    def resampled() -> Waveform:
        whole = functional.resample(torch.from_numpy(held), ratio.numerator, ratio.denominator)
        samples: Waveform = whole[skipped:].numpy()
        return samples

    for block in blocks:
        held = np.concatenate([held, block])
        n_periods = (len(held) - 2 * margin) // step
        if n_periods > 0:
            yield resampled()[: n_periods * ratio.denominator]
            held = held[n_periods * step :]
    yield resampled()

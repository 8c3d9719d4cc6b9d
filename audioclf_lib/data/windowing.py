"""Clip -> windows, and back: window scores -> clip scores.

A clip of 80,000 samples (5 s at 16 kHz) gives nine windows of 16,000 samples that start 8,000 samples apart.
Everything here works on any device and copies only what it must. torch is imported inside the functions that need it,
because lengths and counts of windows are also asked for where loading torch would take too long.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from audioclf_lib.config import Recipe

SAMPLE_RATE = 16_000
WINDOW_SIZE = 16_000
HOP_SIZE = 8_000

# A window whose peak stays under this is silent: Vorbis decoding and resampling leave residues of up to about 1e-5
# where the recording was padded with zeros, and no sound event of ESC-10 is this quiet.
SILENCE_PEAK = 1e-4


def count_windows(n_samples: int, size: int = WINDOW_SIZE, hop: int = HOP_SIZE) -> int:
    """Number of whole windows in a clip of ``n_samples`` samples: floor((n_samples - size) / hop) + 1.

    Raises:
        ValueError: the clip is shorter than one window.
    """
    if n_samples < size:
        raise ValueError(f"a clip of {n_samples} samples holds no window of {size}; pad it with zeros first")
    return (n_samples - size) // hop + 1


def cut_windows(waveforms: Tensor | np.ndarray, size: int = WINDOW_SIZE, hop: int = HOP_SIZE) -> Tensor:
    """Cut every clip into overlapping windows.

    Args:
        waveforms: (n_clips, n_samples) float32.
        size: samples in a window.
        hop: samples from the start of one window to the start of the next.

    Returns:
        (n_clips, n_windows, 1, size): a view of ``waveforms``; the axis of length 1 is the audio channel.

    Raises:
        ValueError: ``waveforms`` has another number of axes, or clips shorter than one window.
    """
    import torch

    waveforms = torch.as_tensor(waveforms)
    if waveforms.ndim != 2:
        raise ValueError(f"waveforms must be (n_clips, n_samples), not of shape {tuple(waveforms.shape)}")
    count_windows(waveforms.shape[1], size, hop)
    return waveforms.unfold(1, size, hop).unsqueeze(2)  # (n_clips, n_windows, 1, size)


def find_silent_windows(waveforms: Tensor | np.ndarray, threshold: float = SILENCE_PEAK) -> Tensor:
    """Flag the windows whose peak amplitude stays under ``threshold``, measured before any normalisation.

    Args:
        waveforms: (n_clips, n_samples) float32, full scale = 1.
        threshold: peak amplitude below which a window counts as silent.

    Returns:
        (n_clips, n_windows) bool.
    """
    import torch

    waveforms = torch.as_tensor(waveforms)
    silent = torch.empty(cut_windows(waveforms).shape[:2], dtype=torch.bool, device=waveforms.device)
    for part, clips in zip(silent.split(16), waveforms.split(16), strict=True):  # all windows take twice their memory
        part[:] = cut_windows(clips).abs().amax(dim=(2, 3)) < threshold
    return silent


def peak_normalise(x: Tensor) -> Tensor:
    """Scale windows (B, 1, n) to peak 1; silent ones, whose peak is under ``SILENCE_PEAK``, stay as they are."""
    peak = x.abs().amax(dim=2, keepdim=True)  # (B, 1, 1)
    return x.where(peak < SILENCE_PEAK, x / peak.clamp(min=SILENCE_PEAK))


def compand(x: Tensor, mu: float) -> Tensor:
    """sign(x) ln(1 + µ|x|) / ln(1 + µ): the µ-law curve of ITU-T G.711, not quantised; 0 stays 0 and ±1 stays ±1."""
    import torch

    return x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu)


def normalise(x: Tensor, recipe: Recipe) -> Tensor:
    """What a model is given for windows (B, 1, n) as they are cut: to peak 1, then companded, as the recipe asks."""
    x = peak_normalise(x) if recipe.peak_normalise else x
    return compand(x, recipe.companding) if recipe.companding > 0 else x


def clip_probabilities(window_probabilities: Tensor | np.ndarray, silent: Tensor | np.ndarray) -> Tensor:
    """Average the class probabilities of a clip's windows; silent windows have no vote.

    A clip that is silent throughout keeps all its votes, since it has no others.

    Args:
        window_probabilities: (n_clips, n_windows, n_classes), each row summing to 1.
        silent: (n_clips, n_windows) bool.

    Returns:
        (n_clips, n_classes), each row summing to 1.
    """
    import torch

    window_probabilities = torch.as_tensor(window_probabilities)
    votes = ~torch.as_tensor(silent)
    votes = votes | ~votes.any(dim=1, keepdim=True)
    weights = votes.to(window_probabilities.dtype)
    # The division comes last: clips whose windows all say the same stay tied, however many of them have a vote.
    return torch.einsum("nw,nwc->nc", weights, window_probabilities) / weights.sum(dim=1, keepdim=True)

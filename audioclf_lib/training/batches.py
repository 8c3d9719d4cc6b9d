"""Training and evaluation batches, cut and augmented on the device from clips that lie there once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from audioclf_lib.config import Recipe
from audioclf_lib.data import Dataset
from audioclf_lib.data.windowing import HOP_SIZE, SILENCE_PEAK, WINDOW_SIZE, normalise


@dataclass(frozen=True)
class Windows:
    """The windows of some folds, cut on the device from clips that lie there once.

    Attributes:
        waveforms: (n_clips, n_samples) of the whole data set, on the device.
        labels: (n_clips,) on the device.
        silent: (n_clips, n_windows) of the whole data set, on the CPU.
        clips: (n,) clip of each window; starts: (n,) first sample of each; both on the CPU.
    """

    waveforms: Tensor
    labels: Tensor
    silent: Tensor
    clips: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def window_index(self) -> Tensor:
        return self.starts // HOP_SIZE

    @property
    def is_silent(self) -> Tensor:
        return self.silent[self.clips, self.window_index]

    def subset(self, keep: Tensor) -> Windows:
        """The windows where ``keep`` (n,) is true."""
        return replace(self, clips=self.clips[keep], starts=self.starts[keep])

    def of_clips(self, keep: NDArray[np.bool_]) -> Windows:
        """The windows of the clips where ``keep`` (n_clips,) is true."""
        return self.subset(torch.from_numpy(keep)[self.clips])

    def cut(self, chosen: Tensor, shift: Tensor | None = None, speed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Windows ``chosen`` (B,), started ``shift`` samples later: (B, 1, 16000) and their labels (B,).

        With ``speed`` (B,), a window is read that many times faster about its middle, by linear interpolation, as far
        as its clip is long enough: pitch and pace change together, as on a tape.
        """
        device, n_samples = self.waveforms.device, self.waveforms.shape[1]
        clips, starts = self.clips[chosen], self.starts[chosen]
        if shift is not None:
            starts = (starts + shift).clamp(0, n_samples - WINDOW_SIZE)
        labels = self.labels[clips.to(device)]
        if speed is None:
            x = self.waveforms.unfold(1, WINDOW_SIZE, 1)[clips.to(device), starts.to(device)]  # (B, 16000), a copy
        else:
            x = self._read_at_speed(clips, starts, speed)
        return x.unsqueeze(1), labels

    def _read_at_speed(self, clips: Tensor, starts: Tensor, speed: Tensor) -> Tensor:
        n_samples, device = self.waveforms.shape[1], self.waveforms.device
        speed = speed.double().clamp(max=(n_samples - 1) / (WINDOW_SIZE - 1))
        span = speed * (WINDOW_SIZE - 1)  # from the first sample read to the last
        first = (starts + (WINDOW_SIZE - 1 - span) / 2).clamp(min=0).minimum(n_samples - 1 - span)
        position = first[:, None] + speed[:, None] * torch.arange(WINDOW_SIZE)  # (B, 16000), in samples of the clip
        before = position.long().clamp(0, n_samples - 2)
        weight = (position - before).float().to(device)
        before, clips = before.to(device), clips.to(device)[:, None]
        return torch.lerp(self.waveforms[clips, before], self.waveforms[clips, before + 1], weight)


def all_windows(dataset: Dataset, device: torch.device) -> Windows:
    """Put the data set on ``device`` and list all its windows in the order of clips and time."""
    waveforms, silent = torch.as_tensor(dataset.waveforms, device=device), torch.as_tensor(dataset.silent)
    labels = torch.tensor(dataset.labels, dtype=torch.int64, device=device)
    n_clips, n_windows = silent.shape
    clips = torch.arange(n_clips).repeat_interleave(n_windows)
    starts = (torch.arange(n_windows) * HOP_SIZE).repeat(n_clips)
    return Windows(waveforms, labels, silent, clips, starts)


def training_batch(windows: Windows, chosen: Tensor, recipe: Recipe, n_classes: int) -> tuple[Tensor, Tensor]:
    """One training batch with the recipe's augmentation, drawn from torch's CPU generator.

    Returns:
        windows (B, 1, 16000) and target distributions (B, n_classes).
    """
    batch = len(chosen)
    shift = torch.randint(-HOP_SIZE // 2, HOP_SIZE // 2 + 1, (batch,)) if recipe.random_crops else None
    speed = recipe.speed_perturbation ** (torch.rand(batch) * 2 - 1) if recipe.speed_perturbation > 1 else None
    x, labels = windows.cut(chosen, shift, speed)
    if shift is not None and recipe.drop_silent:
        # A shifted window may have slid into silence: take it where it was, and as it was.
        slid = (x.abs().amax(dim=(1, 2)) < SILENCE_PEAK).cpu()
        if slid.any():
            x, labels = windows.cut(chosen, shift.where(~slid, 0), None if speed is None else speed.where(~slid, 1.0))
    if recipe.tilt_db > 0:
        x = tilt(x, (torch.rand(batch) * 2 - 1) * recipe.tilt_db)
    x = normalise(x, recipe)
    target = F.one_hot(labels, n_classes).to(x.dtype)
    target = target * (1 - recipe.label_smoothing) + recipe.label_smoothing / n_classes
    if recipe.mixup_alpha > 0:
        x, target = mix(x, target, recipe.mixup_alpha)
    scale = torch.ones(batch)
    if recipe.gain_db > 0:
        scale = 10 ** ((torch.rand(batch) * 2 - 1) * recipe.gain_db / 20)
    if recipe.flip_polarity:
        scale = scale * (torch.randint(0, 2, (batch,)) * 2 - 1)
    if recipe.gain_db > 0 or recipe.flip_polarity:
        x = x * scale.view(-1, 1, 1).to(x)
    return x, target


def tilt(x: Tensor, decibels: Tensor) -> Tensor:
    """Raise the highest frequency of windows (B, 1, 16000) by ``decibels`` (B,) against the lowest.

    y[t] = x[t] - a x[t - 1], whose gain grows steadily from 1 - a at 0 Hz to 1 + a at 8 kHz;
    a = tanh(decibels ln 10 / 40) makes their ratio what is asked for. The first sample has none before it.
    """
    before = F.pad(x[:, :, :-1], (1, 0))
    share = torch.tanh(decibels * math.log(10) / 40)
    return x - share.view(-1, 1, 1).to(x) * before


def mix(x: Tensor, target: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Between-class mixing (Tokozume et al. 2018, arXiv:1711.10282; Zhang et al. 2018, arXiv:1710.09412).

    Each window gets a share 1 - λ of another window of the batch, λ ~ Beta(beta, beta) folded to λ >= 1/2, so that
    its own class dominates. The sum is divided by √(λ² + (1 - λ)²), which keeps the energy of independent sounds.
    """
    share = torch.distributions.Beta(beta, beta).sample((len(x),))
    share = share.maximum(1 - share).to(x)
    partner = torch.randperm(len(x)).to(x.device)
    own, other = share.view(-1, 1, 1), (1 - share).view(-1, 1, 1)
    mixed = (own * x + other * x[partner]) / (own**2 + other**2).sqrt()
    return mixed, share.view(-1, 1) * target + (1 - share.view(-1, 1)) * target[partner]

"""What an answer rests on: parts of a clip silenced one by one, and the features that the last layer reads."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from audioclf_lib.data.windowing import SAMPLE_RATE, clip_probabilities, cut_windows, find_silent_windows

N_FFT = 1024
CHANGED = 1e-5  # a window whose samples all change by less keeps its probabilities: what the transform rounds
MAX_WINDOWS = 64  # of a batch
EDGES = (0, 250, 500, 1000, 2000, 4000, 8000)  # Hz, of the bands: octaves, as the ear has them


@torch.no_grad()
def occlude(model: nn.Module, waveform: npt.ArrayLike, label: int, *, n_spans: int = 10) -> pd.DataFrame:
    """How far the probability of a class falls when a stretch of time and a band of frequency are silenced.

    Each tile is set to zero in the short-time Fourier transform of the clip, and the clip is answered anew
    (Zeiler and Fergus 2014, arXiv:1311.2901). Falls need not add up: what one tile tells another may tell, too.

    Args:
        model: of a run (:meth:`audioclf_lib.runs.Run.model`): windows (B, 1, 16000) -> logits (B, classes).
        waveform: (n_samples,) at 16 kHz, a second or more.
        label: of the class whose probability is followed.
        n_spans: stretches that the clip is divided into.

    Returns:
        DataFrame (bands, n_spans) of falls of the clip's probability; index: intervals in Hz, columns: in seconds.
    """
    samples = torch.as_tensor(np.array(waveform, dtype=np.float32))
    look: dict[str, Any] = {"n_fft": N_FFT, "hop_length": N_FFT // 4, "window": torch.hann_window(N_FFT)}
    spectrum = torch.stft(samples, **look, return_complex=True)  # (513, frames)
    times = torch.arange(spectrum.shape[1]) * (N_FFT // 4) / SAMPLE_RATE
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, spectrum.shape[0])
    spans = pd.IntervalIndex.from_breaks(np.linspace(0, len(samples) / SAMPLE_RATE, n_spans + 1), name="s")
    bands = pd.IntervalIndex.from_breaks(EDGES, name="Hz")
    silent = find_silent_windows(samples[None])
    windows = cut_windows(samples[None])[0]  # (n_windows, 1, 16000)
    whole = _probabilities(model, windows)
    falls = []
    for band, span in product(bands, spans):
        inside = (frequencies >= band.left) & (frequencies <= band.right)
        tile = inside[:, None] & (times >= span.left) & (times <= span.right)
        left = torch.istft(spectrum.masked_fill(tile, 0), **look, length=len(samples))
        occluded, answers = cut_windows(left[None])[0], whole.clone()
        changed = (occluded - windows).abs().amax(dim=(1, 2)) > CHANGED
        if changed.any():
            answers[changed] = _probabilities(model, occluded[changed])
        falls.append((clip_probabilities(whole[None], silent) - clip_probabilities(answers[None], silent))[0, label])
    return pd.DataFrame(torch.stack(falls).view(len(bands), n_spans).numpy(), bands, spans)


@torch.no_grad()
def last_features(model: nn.Module, windows: Tensor) -> Tensor:
    """What a model's last linear layer reads for windows (B, 1, 16000), or its logits where it has none: (B, n)."""
    read: list[Tensor] = []
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda _, given: read.append(given[0])) for layer in layers]
    try:
        logits: Tensor = model(windows)
    finally:
        for hook in hooks:
            hook.remove()
    return (read[-1] if read else logits).flatten(1)


def _probabilities(model: nn.Module, windows: Tensor) -> Tensor:
    return torch.cat([model(batch) for batch in windows.split(MAX_WINDOWS)]).softmax(1)

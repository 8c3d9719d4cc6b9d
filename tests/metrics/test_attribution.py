"""What an answer rests on is found where it was put."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from audioclf_lib.metrics.attribution import last_features, occlude
from audioclf_lib.models import create_model


class HearsOneTone(nn.Module):
    """Two classes by the amplitude at 3 kHz, and nothing else."""

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 16000)
        amplitude = torch.fft.rfft(x[:, 0]).abs()[:, 3000] / 8000
        return torch.stack([torch.zeros_like(amplitude), 8 * amplitude], dim=1)


def clip(start: float, end: float) -> np.ndarray:
    """A low tone all along, and one of 3 kHz from ``start`` to ``end``, in 2.5 s."""
    time = np.arange(40_000) / 16_000
    there = (time >= start) & (time < end)
    return 0.3 * np.sin(2 * np.pi * 300 * time) + 0.5 * there * np.sin(2 * np.pi * 3000 * time)


def test_a_probability_falls_where_its_sound_is_silenced_and_nowhere_else() -> None:
    falls = occlude(HearsOneTone(), clip(1.0, 1.5), label=1, n_spans=5)
    assert falls.shape == (6, 5)
    band = next(band for band in falls.index if 3000 in band)
    inside = falls.loc[band, falls.columns[2]]
    assert (falls.columns[2].left, falls.columns[2].right) == (1.0, 1.5)
    assert inside > 0.1
    others = falls.drop(index=[band]).to_numpy()
    assert np.abs(others).max() < 0.01 * inside
    assert np.abs(falls.loc[band].to_numpy()[[0, 4]]).max() < 0.1 * inside
    np.testing.assert_allclose(occlude(HearsOneTone(), clip(1.0, 1.5), label=0, n_spans=5), -falls, atol=1e-6)


def test_a_silent_window_has_no_vote_also_when_the_others_are_silenced() -> None:
    padded = clip(0.0, 0.5)
    padded[16_000:] = 0  # the windows at 1.0 and 1.5 s are silent
    with_padding = occlude(HearsOneTone(), padded, label=1, n_spans=5)
    without = occlude(HearsOneTone(), padded[:24_000], label=1, n_spans=3)
    np.testing.assert_allclose(with_padding.to_numpy()[:, :3], without.to_numpy(), atol=1e-3)


@pytest.mark.parametrize(("model", "size"), [("cnn", 8000), ("transformer", 250)])
def test_the_last_features_are_what_the_classifier_reads(model: str, size: int) -> None:
    network, windows = create_model(model).eval(), torch.rand(2, 1, 16_000) - 0.5
    features = last_features(network, windows)
    assert features.shape == (2, size)
    torch.testing.assert_close(network.classifier(features), network(windows).detach())
    assert not any(layer._forward_pre_hooks for layer in network.modules())


def test_a_model_without_a_linear_layer_gives_its_logits() -> None:
    network = nn.Sequential(nn.Conv1d(1, 3, 16_000), nn.Flatten())
    windows = torch.rand(2, 1, 16_000)
    torch.testing.assert_close(last_features(network, windows), network(windows).detach())

"""Clips are cut into nine windows that overlap by half; silent windows have no vote when clips are scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given
from hypothesis import strategies as st

from audioclf_lib.data.windowing import (
    HOP_SIZE,
    SILENCE_PEAK,
    WINDOW_SIZE,
    clip_probabilities,
    compand,
    count_windows,
    cut_windows,
    find_silent_windows,
    peak_normalise,
)


def test_a_clip_of_five_seconds_gives_nine_windows_of_one_second() -> None:
    assert cut_windows(torch.zeros(3, 80_000)).shape == (3, 9, 1, 16_000)


def test_window_k_starts_half_a_second_times_k_into_its_clip() -> None:
    waveforms = torch.arange(2 * 80_000, dtype=torch.float32).reshape(2, 80_000)
    windows = cut_windows(waveforms)
    for clip in range(2):
        for k in range(9):
            assert torch.equal(windows[clip, k, 0], waveforms[clip, 8_000 * k : 8_000 * k + 16_000])


@given(length=st.integers(1, 400), size=st.integers(1, 60), hop=st.integers(1, 60))
def test_the_number_of_windows_is_that_of_the_starts_that_leave_room_for_one(length: int, size: int, hop: int) -> None:
    starts = [start for start in range(0, length, hop) if start + size <= length]
    if starts:
        assert count_windows(length, size, hop) == len(starts)
        assert cut_windows(torch.zeros(1, length), size, hop).shape == (1, len(starts), 1, size)
    else:
        with pytest.raises(ValueError, match="pad it"):
            count_windows(length, size, hop)


def test_windows_share_memory_with_their_clips() -> None:
    waveforms = np.zeros((1, 80_000), dtype=np.float32)
    windows = cut_windows(waveforms)
    waveforms[0, 10_000] = 1
    assert windows[0, 0, 0, 10_000] == 1
    assert windows[0, 1, 0, 2_000] == 1


@pytest.mark.parametrize("shape", [(80_000,), (2, 1, 80_000), (2, WINDOW_SIZE - 1)])
def test_what_is_no_table_of_clips_of_a_window_or_more_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="clip"):
        cut_windows(torch.zeros(shape))


def test_a_window_is_silent_if_its_peak_stays_under_the_threshold() -> None:
    waveforms = torch.full((1, 80_000), 0.9 * SILENCE_PEAK)
    assert find_silent_windows(waveforms).all()
    waveforms[0, 20_000] = -2 * SILENCE_PEAK  # in window 1 (8,000 to 24,000) and window 2 (16,000 to 32,000)
    assert find_silent_windows(waveforms).tolist() == [[True, False, False] + 6 * [True]]


def test_a_window_is_scaled_to_peak_1_and_a_silent_one_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 1, 16_000, generator=generator) - 0.5
    x[1] *= 2 * SILENCE_PEAK / x[1].abs().max()
    x[2] *= 0.9 * SILENCE_PEAK / x[2].abs().max()
    scaled = peak_normalise(x)
    for window in (0, 1):
        torch.testing.assert_close(scaled[window], x[window] / x[window].abs().max())
    assert torch.equal(scaled[2], x[2])
    assert not torch.equal(scaled, x), "the windows that were given stay as they are"


@given(mu=st.floats(0.1, 1e4), seed=st.integers(0, 100))
def test_companding_lifts_quiet_samples_and_keeps_sign_order_and_full_scale(mu: float, seed: int) -> None:
    x = torch.rand(2, 1, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    y = compand(x, mu)
    expected = np.sign(x.numpy()) * np.log(1 + mu * np.abs(x.numpy())) / np.log(1 + mu)
    torch.testing.assert_close(y, torch.from_numpy(expected))
    assert (y.abs() >= x.abs() - 1e-12).all() and y.abs().max() <= 1
    assert (y.flatten()[x.flatten().argsort()].diff() >= 0).all()
    ends = torch.tensor([-1.0, 0.0, 1.0])
    torch.testing.assert_close(compand(ends, mu), ends)


def test_companding_of_a_thousand_steps_agrees_with_torchaudios_mu_law() -> None:
    steps = torch.linspace(-1, 1, 1000)
    codes = torchaudio.functional.mu_law_encoding(steps, 256)  # compands with µ = 255, then rounds to 256 levels
    assert (codes - (compand(steps, 255) + 1) / 2 * 255).abs().max() <= 0.5 + 1e-3


def test_a_clips_probabilities_are_the_mean_over_its_windows_with_sound() -> None:
    generator = np.random.default_rng(0)
    windows = generator.dirichlet(np.ones(5), size=(20, 9))
    silent = generator.random((20, 9)) < 0.4
    clips = clip_probabilities(windows, silent).numpy()
    for clip in range(20):
        np.testing.assert_allclose(clips[clip], windows[clip][~silent[clip]].mean(axis=0))


def test_clips_whose_windows_all_say_the_same_are_tied_however_many_have_a_vote() -> None:
    """Else the area under the ROC curve of a model with one answer for everything would hang on rounding."""
    answer = np.random.default_rng(0).dirichlet(np.ones(10)).astype(np.float32)
    windows = np.tile(answer.astype(np.float64), (9, 9, 1))
    silent = np.arange(9)[None, :] < np.arange(9)[:, None]  # 9, 8, ... 1 votes
    assert np.array_equal(clip_probabilities(windows, silent).numpy(), windows[:, 0])


def test_a_clip_of_silence_keeps_all_its_windows() -> None:
    windows = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]])
    assert clip_probabilities(windows, torch.tensor([[True, True]])).tolist() == [
        [pytest.approx(0.7), pytest.approx(0.3)]
    ]


def test_windows_are_one_second_and_overlap_by_half() -> None:
    assert (WINDOW_SIZE, HOP_SIZE) == (16_000, WINDOW_SIZE // 2)

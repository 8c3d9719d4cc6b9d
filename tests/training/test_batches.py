"""Batches: windows are slices of their clips; what augmentation may do to them, and what never happens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_dataset
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from audioclf_lib.config import Recipe
from audioclf_lib.data import Dataset
from audioclf_lib.data.windowing import SILENCE_PEAK, cut_windows, normalise
from audioclf_lib.training.batches import Windows, all_windows, mix, tilt, training_batch

CPU = torch.device("cpu")
PLAIN = Recipe()
EVERYTHING = Recipe(
    drop_silent=True,
    random_crops=True,
    speed_perturbation=1.25,
    tilt_db=12,
    gain_db=6,
    flip_polarity=True,
    peak_normalise=True,
    companding=100,
    mixup_alpha=0.4,
    label_smoothing=0.1,
)


def counting(n_clips: int = 9, n_samples: int = 32_000) -> Dataset:
    """Every sample of clip c is c, plus its own number as a fraction: a window tells where it was cut."""
    dataset = make_dataset(n_windows=n_samples // 8_000 - 1)
    ramp = np.arange(n_samples, dtype=np.float32) / 65_536
    return replace(dataset, waveforms=np.arange(n_clips, dtype=np.float32)[:, None] + ramp + 0.25)


def everything(windows: Windows) -> Tensor:
    return torch.arange(len(windows))


def test_all_windows_come_in_the_order_of_clips_and_time() -> None:
    dataset = make_dataset(n_windows=3)
    windows = all_windows(dataset, CPU)
    x, labels = windows.cut(everything(windows))
    assert torch.equal(x, cut_windows(dataset.waveforms).flatten(0, 1))
    assert labels.tolist() == np.repeat(dataset.labels, 3).tolist()
    assert windows.window_index.tolist() == [0, 1, 2] * len(dataset)
    assert windows.is_silent.tolist() == dataset.silent.flatten().tolist()


@given(chosen=st.lists(st.integers(0, 26), min_size=1, max_size=9), data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_shifted_window_is_a_slice_of_its_own_clip(chosen: list[int], data: st.DataObject) -> None:
    dataset = counting()
    windows = all_windows(dataset, CPU)
    bound = st.integers(-40_000, 40_000)
    shift = torch.tensor(data.draw(st.lists(bound, min_size=len(chosen), max_size=len(chosen))))
    x, labels = windows.cut(torch.tensor(chosen), shift)
    for row, number in enumerate(chosen):
        clip, start = number // 3, number % 3 * 8_000 + int(shift[row])
        start = min(max(start, 0), 16_000)
        assert np.array_equal(x[row, 0], dataset.waveforms[clip, start : start + 16_000])
        assert labels[row] == dataset.labels[clip]


def test_the_windows_of_some_clips_are_those_and_no_other() -> None:
    dataset = counting()
    keep = dataset.folds == 2
    windows = all_windows(dataset, CPU).of_clips(keep)
    x, labels = windows.cut(everything(windows))
    assert torch.equal(x, cut_windows(dataset.waveforms[keep]).flatten(0, 1))
    assert labels.tolist() == np.repeat(dataset.labels[keep], 3).tolist()
    assert windows.is_silent.tolist() == dataset.silent[keep].flatten().tolist()


def test_a_subset_keeps_what_belongs_to_its_windows() -> None:
    dataset = make_dataset(n_windows=3)
    windows = all_windows(dataset, CPU)
    heard = windows.subset(~windows.is_silent)
    assert len(heard) == (~dataset.silent).sum()
    assert not heard.is_silent.any()
    x, _ = heard.cut(everything(heard))
    assert (x.abs().amax(dim=(1, 2)) >= SILENCE_PEAK).all()


def test_a_batch_without_augmentation_is_the_windows_themselves() -> None:
    windows = all_windows(make_dataset(), CPU)
    chosen = torch.tensor([5, 0, 3])
    x, target = training_batch(windows, chosen, PLAIN, 3)
    expected, expected_labels = windows.cut(chosen)
    assert torch.equal(x, expected)
    assert torch.equal(target, torch.eye(3)[expected_labels])


def test_the_clips_stay_as_they_are_whatever_is_done_to_windows() -> None:
    windows = all_windows(make_dataset(), CPU)
    before = windows.waveforms.clone()
    training_batch(windows, everything(windows), EVERYTHING, 3)
    assert torch.equal(windows.waveforms, before)


def test_random_crops_start_up_to_half_a_hop_away_and_stay_in_the_clip() -> None:
    windows = all_windows(counting(), CPU)
    recipe = Recipe(random_crops=True)
    shifts = set()
    for seed in range(20):
        torch.manual_seed(seed)
        x, target = training_batch(windows, everything(windows), recipe, 3)
        first = (x[:, 0, 0].double() - 0.25) - windows.clips
        assert ((first >= 0) & (first * 65_536 <= 16_000.5)).all(), "a crop begins in its own clip and ends in it"
        assert torch.allclose(x[:, 0, -1] - x[:, 0, 0], torch.tensor(15_999 / 65_536), atol=1e-5)
        assert torch.equal(target.argmax(1), windows.labels[windows.clips])
        # float32 holds the first sample of clip 0 exactly enough to read the shift
        middle = int(everything(windows)[windows.starts == 8_000][0])
        shifts.add(round(float(first[middle]) * 65_536) - 8_000)
    assert len(shifts) > 15
    assert -4_000 <= min(shifts) < 0 < max(shifts) <= 4_000


@given(onset=st.integers(0, 31_999), length=st.integers(1, 200), seed=st.integers(0, 1_000))
@settings(max_examples=25, deadline=None)
def test_no_crop_slides_into_silence_where_silence_is_left_out(onset: int, length: int, seed: int) -> None:
    dataset = make_dataset(n_windows=3)
    waveforms = np.zeros_like(dataset.waveforms)
    waveforms[:, onset : onset + length] = 0.5  # a short event in padding
    windows = all_windows(replace(dataset, waveforms=waveforms), CPU)
    windows = windows.subset(~windows.is_silent)
    torch.manual_seed(seed)
    x, target = training_batch(
        windows, everything(windows), Recipe(drop_silent=True, random_crops=True, speed_perturbation=2.0), 3
    )
    assert (x.abs().amax(dim=(1, 2)) >= SILENCE_PEAK).all()
    assert torch.equal(target.argmax(1), windows.labels[windows.clips])


def test_at_its_own_speed_a_window_is_what_it_is_without_stretching() -> None:
    windows = all_windows(make_dataset(n_windows=3), CPU)
    chosen = everything(windows)
    shift = torch.randint(-4_000, 4_001, (len(chosen),), generator=torch.Generator().manual_seed(0))
    plain, labels = windows.cut(chosen, shift)
    stretched, same_labels = windows.cut(chosen, shift, torch.ones(len(chosen)))
    torch.testing.assert_close(stretched, plain, rtol=0, atol=1e-6)
    assert torch.equal(same_labels, labels)


@given(speed=st.floats(0.25, 4), start=st.integers(0, 2), shift=st.integers(-5_000, 5_000))
@settings(max_examples=40, deadline=None)
def test_a_stretched_window_reads_its_own_clip_at_that_speed_about_its_middle(
    speed: float, start: int, shift: int
) -> None:
    dataset = counting()  # a ramp: a sample tells its place, between samples too
    windows = all_windows(dataset, CPU)
    x, _ = windows.cut(torch.tensor([12 + start]), torch.tensor([shift]), torch.tensor([speed], dtype=torch.float64))
    place = (x[0, 0].double() - 4.25) * 65_536  # in samples of clip 4
    possible = min(speed, 31_999 / 15_999)  # no faster than the clip is long
    assert torch.allclose(place.diff(), torch.tensor(possible, dtype=torch.float64), atol=0.1)
    assert place.min() >= -0.1
    assert place.max() <= 31_999.1
    middle = min(max(8_000 * start + shift, 0), 16_000) + 15_999 / 2
    reach = possible * 15_999 / 2
    assert float(place.mean()) == pytest.approx(min(max(middle, reach), 31_999 - reach), abs=0.2)


def test_stretching_changes_the_pitch_of_a_tone_by_the_speed() -> None:
    dataset = make_dataset(n_windows=3)
    tone = np.sin(2 * np.pi * 500 * np.arange(32_000) / 16_000).astype(np.float32)
    windows = all_windows(replace(dataset, waveforms=np.tile(tone, (len(dataset), 1))), CPU)
    x, _ = windows.cut(torch.tensor([1, 1]), None, torch.tensor([0.8, 1.25]))
    loudest = torch.fft.rfft(x[:, 0]).abs().argmax(1)  # in Hz, since a window is a second
    assert loudest.tolist() == pytest.approx([400, 625], abs=1)


def test_speeds_lie_between_the_stretch_and_its_inverse_and_use_both() -> None:
    windows = all_windows(counting(), CPU)
    torch.manual_seed(0)
    x, _ = training_batch(windows, everything(windows).repeat(40), Recipe(speed_perturbation=1.25), 3)
    speed = (x[:, 0, -1] - x[:, 0, 0]).double() * 65_536 / 15_999
    assert 0.79 < speed.min() < 0.82
    assert 1.22 < speed.max() < 1.26
    assert float(speed.log().mean()) == pytest.approx(0, abs=0.02), "as often slower as faster"


@given(share=st.floats(0, 0.99), seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_smoothed_targets_keep_that_share_for_all_classes(share: float, seed: int) -> None:
    windows = all_windows(make_dataset(), CPU)
    torch.manual_seed(seed)
    _, target = training_batch(windows, everything(windows), Recipe(label_smoothing=share), 3)
    expected = (1 - share) * torch.eye(3)[windows.labels[windows.clips]] + share / 3
    torch.testing.assert_close(target, expected)


@given(peak=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_normalised_windows_have_peak_one_whatever_their_loudness(peak: float, seed: int) -> None:
    x = torch.randn(4, 1, 100, generator=torch.Generator().manual_seed(seed)) * peak
    loud = normalise(x, Recipe(peak_normalise=True))
    torch.testing.assert_close(loud.abs().amax(dim=(1, 2)), torch.ones(4))
    torch.testing.assert_close(loud / loud[:, :, :1], x / x[:, :, :1], rtol=1e-3, atol=1e-4)
    assert normalise(x, PLAIN) is x


def test_normalising_leaves_silence_silent() -> None:
    residue = torch.full((1, 1, 100), 0.9 * SILENCE_PEAK)
    assert torch.equal(normalise(residue, Recipe(peak_normalise=True)), residue)
    nothing = torch.zeros(1, 1, 100)
    assert torch.equal(normalise(nothing, Recipe(peak_normalise=True)), nothing)


@given(gain=st.floats(0.1, 40), seed=st.integers(0, 1_000))
@settings(max_examples=10, deadline=None)
def test_gain_stays_within_its_decibels_and_polarity_flips_whole_windows(gain: float, seed: int) -> None:
    windows = all_windows(counting(), CPU)
    chosen = everything(windows)
    torch.manual_seed(seed)
    x, target = training_batch(windows, chosen, Recipe(gain_db=gain, flip_polarity=True), 3)
    plain, labels = windows.cut(chosen)
    ratio = (x / plain).double()
    assert torch.allclose(ratio, ratio[:, :, :1].expand_as(ratio), rtol=1e-5), "one factor for a window"
    decibels = 20 * ratio[:, 0, 0].abs().log10()
    assert (decibels.abs() <= gain + 1e-5).all()
    assert {-1.0, 1.0} == set(ratio[:, 0, 0].sign().tolist())
    assert torch.equal(target, torch.eye(3)[labels])


@pytest.mark.parametrize("decibels", [-12.0, -3.0, 0.0, 6.0])
def test_a_tilt_raises_high_tones_against_low_by_its_decibels_and_those_between_by_less(decibels: float) -> None:
    tones = [40.0, 1_000.0, 4_000.0, 7_960.0]  # Hz
    time = torch.arange(16_000, dtype=torch.float64) / 16_000
    x = torch.stack([torch.sin(2 * torch.pi * tone * time) for tone in tones]).unsqueeze(1)
    levels = 20 * tilt(x, torch.full((len(tones),), decibels))[:, 0, 1:].square().mean(dim=1).sqrt().log10()
    torch.testing.assert_close(levels[-1] - levels[0], torch.tensor(decibels, dtype=torch.float64), rtol=0, atol=0.05)
    steps = levels.diff() * (1 if decibels >= 0 else -1)
    assert (steps >= -1e-3).all()


def test_tilts_differ_from_window_to_window_and_leave_silence() -> None:
    windows = all_windows(counting(), CPU)
    torch.manual_seed(0)
    x, _ = training_batch(windows, everything(windows), Recipe(tilt_db=6), 3)
    ratio = (x / windows.cut(everything(windows))[0])[:, 0, 1]
    assert len(ratio.unique()) == len(ratio)
    assert ratio.min() < 1 < ratio.max()
    assert not tilt(torch.zeros(2, 1, 16_000), torch.tensor([6.0, -6.0])).any()


def test_gain_uses_the_range_it_may() -> None:
    windows = all_windows(counting(), CPU)
    chosen = everything(windows)
    torch.manual_seed(0)
    batches = [training_batch(windows, chosen, Recipe(gain_db=6), 3)[0] for _ in range(20)]
    factors = torch.stack(batches)[:, :, 0, 0] / windows.cut(chosen)[0][:, 0, 0]
    assert (factors > 0).all(), "polarity is another lever"
    decibels = 20 * factors.log10()
    assert decibels.min() < -5
    assert decibels.max() > 5


@given(beta=st.floats(0.01, 10), seed=st.integers(0, 10_000), n=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_mixed_targets_are_distributions_in_which_the_own_class_dominates(beta: float, seed: int, n: int) -> None:
    torch.manual_seed(seed)
    labels = torch.randint(0, 4, (n,))
    x, target = mix(torch.randn(n, 1, 50), torch.eye(4)[labels], beta)
    assert x.isfinite().all()
    torch.testing.assert_close(target.sum(1), torch.ones(n))
    assert (target >= 0).all()
    assert (target[torch.arange(n), labels] >= 0.5).all()


def test_mixing_adds_one_other_window_of_the_batch_by_the_share_that_the_target_tells() -> None:
    torch.manual_seed(0)
    n = 16
    basis = torch.eye(n)  # window i is unit vector i, of class i: the mixture shows its parts
    x, target = mix(basis.unsqueeze(1), basis, 1.0)
    share, partner = target.diagonal(), (target - torch.diag(target.diagonal())).argmax(1)
    norm = (share**2 + (1 - share) ** 2).sqrt()
    for i in range(n):
        expected = torch.zeros(n)
        expected[i] += share[i] / norm[i]
        if share[i] < 1:
            expected[partner[i]] += (1 - share[i]) / norm[i]
            torch.testing.assert_close(x[i, 0], expected)
    assert (share < 1).sum() > n / 2, "hardly a window is mixed with itself"


def test_mixing_keeps_the_energy_of_independent_sounds() -> None:
    torch.manual_seed(0)
    n = 256
    noise = torch.randn(n, 1, 4_000)
    target = torch.eye(n)
    mixed, shares = mix(noise, target, 1.0)
    with_another = shares.diagonal() < 1
    energy = mixed[with_another].square().mean(dim=(1, 2))
    torch.testing.assert_close(energy, torch.ones_like(energy), rtol=0.15, atol=0)
    assert energy.mean().item() == pytest.approx(1, abs=0.01)


def test_the_seed_decides_all_that_is_random() -> None:
    windows = all_windows(make_dataset(), CPU)
    windows = windows.subset(~windows.is_silent)

    def batch(seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        return training_batch(windows, everything(windows), EVERYTHING, 3)

    for first, again in zip(batch(3), batch(3), strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(batch(3)[0], batch(4)[0])


class NoFloat64(TorchDispatchMode):
    """Refuses what Apple's GPU cannot hold: a tensor of float64 on another device than the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type != "cpu":
                assert tensor.dtype != torch.float64, func
        return result


def test_a_batch_takes_no_float64_on_the_device() -> None:
    """The device is torch's ``meta``, which computes shapes and types alone."""
    levers = {"speed_perturbation": 1.25, "tilt_db": 6.0, "mixup_alpha": 0.2, "gain_db": 6.0, "label_smoothing": 0.1}
    recipe = Recipe(**levers, random_crops=True, flip_polarity=True, peak_normalise=True)
    windows = all_windows(make_dataset(), torch.device("meta"))
    with NoFloat64():
        x, target = training_batch(windows, torch.arange(4), recipe, 3)
    assert (x.dtype, target.dtype, x.device.type) == (torch.float32, torch.float32, "meta")

"""Figures of the data show what is in the waveforms."""

from __future__ import annotations

import numpy as np
import pytest
from figure_data import TEN, silence_table, texts, waveform
from matplotlib.colors import to_hex

from audioclf_lib import figures
from audioclf_lib.figures.sounds import hertz_to_mel
from audioclf_lib.figures.style import LIGHT_BLUE, LIGHT_GREY


def test_the_waveform_band_reaches_the_extremes_at_their_time():
    samples = np.zeros(80_000, dtype=np.float32)
    samples[40_000], samples[64_000] = 0.7, -0.4
    (band,) = figures.plot_waveform(samples).collections
    points = band.get_paths()[0].vertices
    assert points[:, 1].max() == pytest.approx(0.7)
    assert points[:, 1].min() == pytest.approx(-0.4)
    assert points[points[:, 1].argmax(), 0] == pytest.approx(2.5, abs=0.01)
    assert points[points[:, 1].argmin(), 0] == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("frequency", [500, 1000, 4000])
def test_a_tone_is_loudest_at_its_frequency_in_the_spectrogram(frequency):
    time = np.arange(80_000) / 16_000
    ax = figures.plot_mel_spectrogram(np.sin(2 * np.pi * frequency * time))
    (areas,) = ax.collections
    loudest = areas.get_paths()[-1].vertices
    assert loudest[:, 1].mean() == pytest.approx(hertz_to_mel(frequency), abs=2 * hertz_to_mel(8000) / 65)
    assert np.ptp(loudest[:, 0]) > 4.5, "it lasts as long as the clip"
    assert (areas.levels[0], areas.levels[-1]) == (-80, 0)


def test_a_longer_clip_is_drawn_with_no_more_detail():
    points = [
        sum(len(path.vertices) for path in figures.plot_mel_spectrogram(waveform(seconds)).collections[0].get_paths())
        for seconds in (5, 60)
    ]
    assert points[1] < 2 * points[0]


def test_windows_lie_where_they_are_cut_and_silent_ones_are_named():
    ax = figures.plot_windows(waveform(), [False] * 7 + [True] * 2)
    boxes = list(ax.patches)
    assert [box.get_x() for box in boxes] == [0.5 * i for i in range(9)]
    assert {box.get_width() for box in boxes} == {1.0}
    assert [to_hex(box.get_facecolor()) for box in boxes] == [LIGHT_BLUE] * 7 + [LIGHT_GREY] * 2
    assert texts(ax) == ["1", "2", "3", "4", "5", "6", "7", "8 silent", "9 silent"]


def test_silence_is_counted_per_class_and_sorted():
    ax = figures.plot_silence_per_class(silence_table(TEN))
    assert ax.get_yticklabels()[0].get_text() == "class_1"
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([12 / 27] + [0] * 9)
    assert texts(ax) == ["12 of 27"] + ["0 of 27"] * 9

"""The demo set: ten generated sound classes that imitate those of ESC-10, so that everything runs without a download.

Each class has a function below, named after it; what varies from clip to clip (pitch, tempo, level, spectral tilt,
background) is drawn from a generator seeded by class and fold. The functions return (CLIP_SAMPLES,) float64 of any
level.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy  # loads scipy.signal when it is first used, which takes a second
from numpy.random import Generator

from audioclf_lib._support.digests import digest
from audioclf_lib.data import cache
from audioclf_lib.data.dataset import Dataset
from audioclf_lib.data.esc import CLIP_SECONDS, ESC10_CLASSES
from audioclf_lib.data.windowing import SAMPLE_RATE

Samples = npt.NDArray[np.float64]

FOLDS = (1, 2, 3, 4, 5)
SEED = 10
CLIP_SAMPLES = CLIP_SECONDS * SAMPLE_RATE
SECONDS = np.arange(CLIP_SAMPLES) / SAMPLE_RATE

# Recordings of single events often end before the clip does, and are padded with zeros: share of such clips, by class.
PADDED_SHARE = {"dog bark": 0.4, "person sneeze": 0.9, "rooster": 0.7, "baby cry": 0.2}


def load_demo(data_dir: Path) -> Dataset:
    """The demo set: 50 clips of 5 s, one for each of ten classes and five folds; the same on every machine.

    Args:
        data_dir: the clips are kept in its ``cache`` folder, under a name that changes with this module.
    """
    key = digest([Path(__file__).read_text(encoding="utf-8"), np.__version__, scipy.__version__], 16)
    clips = [(label, fold) for fold in FOLDS for label in range(len(ESC10_CLASSES))]
    kept = data_dir / "cache" / f"demo-{key}.npy"

    def build() -> Iterator[npt.NDArray[np.float32]]:
        return ((make_clip(*clip) / 2**15).astype(np.float32) for clip in clips)

    waveforms = cache.load_or_build(kept, (len(clips), CLIP_SAMPLES), build)
    samples = (waveforms * 2**15).astype("<i2")  # those of ``make_clip``
    clip_ids = tuple(f"demo-{fold}-{name.replace(' ', '-')}" for fold in FOLDS for name in ESC10_CLASSES)
    return Dataset(
        name="demo",
        waveforms=waveforms,
        labels=np.tile(np.arange(len(ESC10_CLASSES)), len(FOLDS)),
        folds=np.repeat(FOLDS, len(ESC10_CLASSES)),
        clip_ids=clip_ids,
        class_names=ESC10_CLASSES,
        sources=clip_ids,
        fingerprint=digest([list(ESC10_CLASSES), hashlib.sha256(samples.tobytes()).hexdigest()], 16),
        description="demo set: 50 generated clips of 5 s that imitate the ten classes of ESC-10, in five folds",
        licence="none needed: generated",
    )


def make_clip(label: int, fold: int) -> npt.NDArray[np.int16]:
    """One clip as 16-bit samples, since rounding hides the last digits in which machines may differ."""
    rng = np.random.default_rng([SEED, fold, label])
    name = ESC10_CLASSES[label]
    maker: Callable[[Generator], Samples] = globals()[name.replace(" ", "_")]
    sound = to_peak(colour(maker(rng), rng.uniform(-3, 3)), 0)
    clip = sound + to_peak(noise(rng, 30, 7000, rng.uniform(-7, -1)), rng.uniform(-60, -28))
    if rng.random() < PADDED_SHARE.get(name, 0.0):
        last = int(np.flatnonzero(np.abs(sound) > 0.02)[-1])
        clip[last + int(rng.uniform(0.05, 0.4) * SAMPLE_RATE) :] = 0
    return np.round(to_peak(clip, rng.uniform(-18, -1)) * 2**15).astype(np.int16)


def to_peak(sound: Samples, level: float) -> Samples:
    """Scale a sound to a peak of ``level`` dB below (if negative) full scale."""
    return np.asarray(sound * (10 ** (level / 20) / np.abs(sound).max()))


def colour(sound: Samples, slope: float) -> Samples:
    """Tilt a sound's spectrum by ``slope`` dB per octave, from 60 Hz up."""
    frequency = np.maximum(np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE), 60)
    gain = (frequency / 1000) ** (slope / (20 * np.log10(2)))
    return np.fft.irfft(np.fft.rfft(sound) * gain, len(sound))


def noise(rng: Generator, low: float, high: float, slope: float) -> Samples:
    """Noise between ``low`` and ``high`` Hz with soft edges, tilted by ``slope`` dB per octave; RMS 1."""
    frequency = np.maximum(np.fft.rfftfreq(CLIP_SAMPLES, 1 / SAMPLE_RATE), 1)
    band = 1 / (1 + (low / frequency) ** 6) / (1 + (frequency / high) ** 6)
    shaped = np.fft.irfft(np.fft.rfft(rng.standard_normal(CLIP_SAMPLES)) * band, CLIP_SAMPLES)
    return to_rms(colour(shaped, slope))


def to_rms(sound: Samples) -> Samples:
    """Scale a sound to RMS 1."""
    return np.asarray(sound / np.sqrt(np.mean(sound**2)))


def harmonics(pitch: Samples, formants: list[float], brightness: float) -> Samples:
    """A voiced sound: overtones of ``pitch`` (Hz, sample by sample), stronger near the formants (Hz)."""
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    middle = float(np.median(pitch))
    sound = np.zeros(CLIP_SAMPLES)
    for number in range(1, int(min(24, 6500 / middle)) + 1):
        frequency = number * middle
        resonance = sum(math.exp(-(((frequency - formant) / (0.3 * formant)) ** 2)) for formant in formants)
        sound += number**-brightness * (0.15 + resonance) * np.sin(number * phase)
    return sound


def bump(start: float, length: float, attack: float = 0.2) -> Samples:
    """An envelope that rises from ``start`` (s), falls again, and is zero outside ``length`` (s)."""
    position = np.clip((SECONDS - start) / length, 0, 1)
    return np.where(position < attack, position / attack, (1 - position) / (1 - attack)) ** 1.5


def ring(impulses: Samples, frequency: float, decay: float) -> Samples:
    """Let impulses excite a resonance at ``frequency`` Hz that dies away with time constant ``decay`` (s)."""
    radius = np.exp(-1 / (decay * SAMPLE_RATE))
    cosine = np.cos(2 * np.pi * frequency / SAMPLE_RATE)
    return np.asarray(scipy.signal.lfilter([1.0], [1.0, -2 * radius * cosine, radius**2], impulses), dtype=np.float64)


def random_impulses(rng: Generator, rate: float, spread: float) -> Samples:
    """``rate`` impulses a second at random times, their log-normal heights spread by ``spread``."""
    impulses = np.zeros(CLIP_SAMPLES)
    times = rng.integers(0, CLIP_SAMPLES, rng.poisson(rate * CLIP_SAMPLES / SAMPLE_RATE))
    np.add.at(impulses, times, rng.lognormal(0, spread, len(times)) * rng.choice([-1, 1], len(times)))
    return impulses


def dog_bark(rng: Generator) -> Samples:
    pitch, tempo = rng.uniform(220, 700), rng.uniform(0.35, 0.9)
    formants = [rng.uniform(500, 900), rng.uniform(1200, 2200)]
    roughness = noise(rng, 400, 4000, -3) * rng.uniform(0.1, 0.5)
    envelope, start = np.zeros(CLIP_SAMPLES), rng.uniform(0.05, 0.5)
    for _ in range(rng.integers(1, 7)):
        envelope += bump(start, rng.uniform(0.12, 0.28)) * rng.uniform(0.6, 1)
        start += tempo * rng.uniform(0.8, 1.4)
    return envelope * (harmonics(pitch * (0.75 + 0.4 * envelope), formants, 0.7) + roughness)


def rain(rng: Generator) -> Samples:
    hiss = noise(rng, rng.uniform(300, 1500), rng.uniform(4500, 7500), rng.uniform(-4, 1))
    drops = ring(random_impulses(rng, rng.uniform(30, 250), 0.9), rng.uniform(1200, 3500), rng.uniform(0.001, 0.003))
    return hiss + to_rms(drops) * rng.uniform(0.2, 1.2)


def sea_waves(rng: Generator) -> Samples:
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(0.12, 0.35) * SECONDS + rng.random()))
    wash = noise(rng, 80, rng.uniform(1500, 5000), rng.uniform(-6, -2))
    foam = noise(rng, 800, 7000, rng.uniform(-3, 0)) * rng.uniform(0.1, 0.4)
    return wash * (rng.uniform(0.15, 0.4) + swell**2) + foam * swell**3


def baby_cry(rng: Generator) -> Samples:
    pitch, vibrato = rng.uniform(330, 540), rng.uniform(0.01, 0.04)
    formants = [rng.uniform(900, 1300), rng.uniform(2500, 3600)]
    wobble = 1 + vibrato * np.sin(2 * np.pi * rng.uniform(4, 9) * SECONDS)
    breath = noise(rng, 800, 5000, -2) * rng.uniform(0.05, 0.3)
    envelope, start = np.zeros(CLIP_SAMPLES), rng.uniform(0, 0.4)
    while start < 4.2:
        length = rng.uniform(0.5, 1.3)
        envelope += bump(start, length, attack=0.3) ** 0.5 * rng.uniform(0.6, 1)
        start += length + rng.uniform(0.1, 0.6)
    return envelope * (harmonics(pitch * wobble * (0.85 + 0.2 * envelope), formants, 0.4) + breath)


def clock_tick(rng: Generator) -> Samples:
    period, offset = 1 / rng.uniform(1.5, 6), rng.uniform(0, 0.3)
    impulses = np.zeros(CLIP_SAMPLES)
    ticks = ((np.arange(offset, 4.99, period)) * SAMPLE_RATE).astype(int)
    impulses[ticks] = np.where(np.arange(len(ticks)) % 2, 1, rng.uniform(0.4, 1)) * rng.uniform(0.8, 1.2, len(ticks))
    low, high = rng.uniform(900, 2500), rng.uniform(2500, 6000)
    case = ring(impulses, low, rng.uniform(0.002, 0.012)) * rng.uniform(0.2, 1)
    return case + ring(impulses, high, rng.uniform(0.001, 0.005))


def person_sneeze(rng: Generator) -> Samples:
    start = rng.uniform(0.2, 0.9)
    inhale = noise(rng, 600, 4000, -3) * bump(max(0.0, start - 0.5), 0.5, attack=0.8) * rng.uniform(0.03, 0.15)
    burst = noise(rng, rng.uniform(500, 1500), 7500, rng.uniform(-2, 1))
    burst = burst * bump(start, rng.uniform(0.2, 0.5), attack=0.1)
    voice = harmonics(np.full(CLIP_SAMPLES, rng.uniform(150, 450)), [700, rng.uniform(1300, 2200)], 0.6)
    return inhale + burst + voice * bump(start - 0.05, rng.uniform(0.2, 0.6)) * rng.uniform(0.1, 0.7)


def helicopter(rng: Generator) -> Samples:
    rate = rng.uniform(9, 24)
    blades = (0.5 + 0.5 * np.cos(2 * np.pi * (rate * SECONDS + rng.random()))) ** rng.uniform(2, 6)
    thud = noise(rng, 40, rng.uniform(250, 700), rng.uniform(-4, 0))
    turbine = noise(rng, 500, rng.uniform(2500, 6000), -3) * rng.uniform(0.1, 0.35)
    approach: Samples = np.interp(SECONDS, [0, 5], rng.uniform(0.5, 1, 2))
    return approach * (thud * (0.15 + blades) + turbine * (0.5 + 0.5 * blades))


def chainsaw(rng: Generator) -> Samples:
    idle, full = rng.uniform(50, 80), rng.uniform(100, 190)
    times = np.sort(rng.uniform(0, 5, 6))
    speed: Samples = np.interp(SECONDS, times, rng.choice([idle, full, full], 6))
    engine = harmonics(speed, [rng.uniform(400, 900), rng.uniform(1800, 3500)], rng.uniform(0.0, 0.4))
    chain = noise(rng, 700, 6500, rng.uniform(-3, 0)) * speed / full
    return to_rms(engine) * (0.5 + speed / full) + chain * rng.uniform(0.3, 1.2)


def rooster(rng: Generator) -> Samples:
    pitch, start, pace = rng.uniform(550, 950), rng.uniform(0.05, 0.6), rng.uniform(0.7, 1.4)
    formants = [rng.uniform(900, 1400), rng.uniform(2000, 3000)]
    envelope, contour = np.zeros(CLIP_SAMPLES), np.ones(CLIP_SAMPLES)
    for length, height in ((0.2, 0.8), (0.2, 1.1), (0.3, 1.2), (0.9, 1.0)):
        syllable = bump(start, length * pace, attack=0.15) ** 0.5
        contour = np.where(syllable > 0, height * (0.8 + 0.25 * syllable), contour)
        envelope += syllable * rng.uniform(0.6, 1)
        start += length * pace + 0.04
    rasp = 1 + rng.uniform(0, 0.6) * np.sin(2 * np.pi * rng.uniform(40, 80) * SECONDS)
    return envelope * (harmonics(pitch * contour, formants, 0.5) * rasp + noise(rng, 800, 5000, -2) * 0.1)


def fire_crackling(rng: Generator) -> Samples:
    rumble = noise(rng, 40, rng.uniform(400, 2500), rng.uniform(-6, -2)) * rng.uniform(0.1, 0.6)
    sharp = ring(random_impulses(rng, rng.uniform(8, 50), 1.1), rng.uniform(2000, 6000), rng.uniform(0.0004, 0.0015))
    dull = ring(random_impulses(rng, rng.uniform(5, 30), 1.0), rng.uniform(600, 1800), rng.uniform(0.001, 0.004))
    return rumble + 2 * to_rms(sharp) + to_rms(dull)

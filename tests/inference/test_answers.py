"""``predict``: the answers that training stored, for any length, rate and channel count."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from tiny import make_fit

from audioclf_lib import predict
from audioclf_lib._support.errors import InputError
from audioclf_lib.data import Dataset, audio
from audioclf_lib.data.audio import read_clip
from audioclf_lib.data.windowing import cut_windows
from audioclf_lib.inference import answers
from audioclf_lib.runs import Run, RunStore

SECOND = 16_000


@pytest.fixture(scope="module")
def run(store: RunStore, tones: Dataset) -> Run:
    return store.load(make_fit(tones))


def noise(seconds: float, *, rate: int = SECOND, channels: int = 1, seed: int = 0) -> np.ndarray:
    """(n_samples, channels) of noise that grows louder, so that no two places are alike."""
    n_samples = round(seconds * rate)
    drawn = np.random.default_rng(seed).uniform(-0.5, 0.5, (n_samples, channels))
    return (drawn * np.linspace(0.1, 1, n_samples)[:, None]).astype(np.float32)


def test_the_answers_are_those_that_the_run_folder_holds(run: Run, tones: Dataset) -> None:
    given = predict(run, tones.waveforms)
    rows = run.predictions.set_index(["clip_id", "window_index"])
    names = [(tones.clip_ids[clip], round(2 * start)) for clip, start in given.windows.index]
    stored = rows.loc[names, ["p_0", "p_1", "p_2"]]
    np.testing.assert_allclose(given.windows, stored, atol=1e-6)
    assert given.silent.tolist() == rows.loc[names, "silent"].tolist()
    assert list(given.clips) == list(given.windows) == list(tones.class_names)


def test_an_answer_is_the_mean_over_windows_that_are_not_silent(run: Run) -> None:
    sound = noise(3)[:, 0]
    sound[SECOND:] = 0
    given = predict(run, sound)
    assert given.silent.tolist() == [False, False, True, True, True]
    np.testing.assert_allclose(given.clips.loc[0], given.windows[:2].mean(), rtol=1e-6)
    silence = predict(run, np.zeros(2 * SECOND))
    assert silence.silent.all(), "a silent sound keeps its votes, which are no answer, and says so"
    np.testing.assert_allclose(silence.clips.loc[0].sum(), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("n_samples", "starts"),
    [
        (40, [0]),
        (SECOND, [0]),
        (SECOND + 3_999, [0]),
        (SECOND + 4_000, [0, 0.5]),
        (5 * SECOND + 16, [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]),
    ],
)
def test_a_sound_is_heard_to_its_end_but_for_a_rest_of_under_a_quarter_second(
    run: Run, n_samples: int, starts: list[float]
) -> None:
    given = predict(run, noise(n_samples / SECOND)[:, 0])
    assert given.windows.index.get_level_values("start").tolist() == starts


CASES = Path(__file__).parents[1] / "data" / "cases" / "audio"


@pytest.mark.parametrize(
    ("name", "n_windows"),
    [
        ("vbr-without-xing.mp3", 19),
        ("streamed.flac", 1),
        ("size-0.wav", 1),
        ("phase-opposed.wav", None),
        ("phone.m4a", 3),
    ],
)
def test_files_that_are_hard_to_read_are_read_as_in_training(run: Run, name: str, n_windows: int | None) -> None:
    if name.endswith(".m4a") and shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed; `make system-packages` installs it")
    given = predict(run, CASES / name)
    assert n_windows in (None, len(given.windows))
    assert not given.silent.all()


def test_a_long_file_of_opposed_channels_is_heard(run: Run, tmp_path: Path) -> None:
    sound = noise(answers.LONG_SECONDS + 2, rate=8_000)
    sf.write(tmp_path / "long.wav", np.hstack([sound, -sound]), 8_000)
    assert not predict(run, tmp_path / "long.wav").silent.any()


def test_what_is_missing_of_the_last_window_is_silence(run: Run) -> None:
    sound = noise(0.7)[:, 0]
    padded = np.pad(sound, (0, SECOND - len(sound)))
    pd.testing.assert_frame_equal(predict(run, sound).clips, predict(run, padded).clips)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 44_099, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_file_of_any_rate_and_channel_count_is_heard_as_training_reads_it(
    run: Run, rate: int, channels: int, tmp_path: Path
) -> None:
    path = tmp_path / "sound.wav"
    sf.write(path, noise(1.6, rate=rate, channels=channels), rate)
    whole = read_clip(path, 24_000)
    given = predict(run, path)
    probabilities = run.model()(cut_windows(whole[None])[0]).softmax(1).detach().numpy()
    np.testing.assert_allclose(given.windows[:2], probabilities, atol=1e-5)
    assert given.clips.index.tolist() == [str(path)]


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 44_099])
def test_a_long_file_read_in_blocks_gives_the_answers_of_the_whole(
    run: Run, rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.flac"
    sf.write(path, noise(7.3, rate=rate, channels=2), rate)
    whole = predict(run, path)
    monkeypatch.setattr(answers, "LONG_SECONDS", 1)
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 2 * rate)
    in_blocks = predict(run, path)
    pd.testing.assert_frame_equal(in_blocks.windows, whole.windows, atol=1e-5)
    assert len(in_blocks.windows) == 14


def test_samples_have_a_rate_and_may_be_tensors_or_integers(run: Run, tones: Dataset) -> None:
    first = predict(run, tones.waveforms[:2])
    assert predict(run, torch.from_numpy(tones.waveforms[:2])).clips.equals(first.clips)
    integers = (tones.waveforms[:2] * 2**15).astype(np.int16)
    pd.testing.assert_frame_equal(predict(run, integers).clips, first.clips, atol=1e-2)
    at_double_rate = noise(2, rate=32_000)[:, 0]
    assert len(predict(run, at_double_rate, 32_000).windows) == 3
    assert len(predict(run, at_double_rate).windows) == 7
    assert len(predict(run, [noise(1)[:, 0], noise(2)[:, 0]]).windows) == 4, "clips of several lengths"


def test_a_folder_stands_for_its_sound_files_at_any_depth(run: Run, tmp_path: Path) -> None:
    for name in ("b.WAV", "deep/er/a.flac", "._b.WAV", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(tmp_path / name, noise(1), SECOND, format="WAV" if name.endswith("V") else "FLAC")
    given = predict(run, [tmp_path, tmp_path / "b.WAV"])
    assert given.clips.index.tolist() == [str(tmp_path / "b.WAV"), str(tmp_path / "deep/er/a.flac")]


def test_files_that_cannot_be_read_are_named_and_the_others_go_on(run: Run, tmp_path: Path) -> None:
    sf.write(tmp_path / "good.wav", noise(1), SECOND)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    given = predict(run, [tmp_path, tmp_path / "gone.wav"])
    assert given.clips.index.tolist() == [str(tmp_path / "good.wav")]
    assert [Path(name).name for name in given.failed] == ["bad.wav", "gone.wav"]
    for name, reason in given.failed.items():
        assert name in reason and reason in str(given) and reason.split("(")[0] in given._repr_html_()


def test_the_table_shows_the_likeliest_classes_first(run: Run) -> None:
    given = predict(run, noise(2)[:, 0])
    ranked = given.clips.loc[0].sort_values(ascending=False)
    assert given.top().loc[0].tolist() == [f"{name} ({100 * p:.1f}\N{NO-BREAK SPACE}%)" for name, p in ranked.items()]
    assert given.top(1, windows=True).shape == (3, 1)
    assert ranked.index[0] in str(given)


def test_fits_of_an_experiment_vote_with_the_mean_of_their_probabilities(store: RunStore, tones: Dataset) -> None:
    given = predict("cnn-kfold-seed0", tones.waveforms, runs_dir=store.runs_dir)
    each = [predict(run, tones.waveforms) for run in store.find(model="cnn", seed=0)]
    assert given.fits == tuple(one.fits[0] for one in each) and len(each) == 2
    np.testing.assert_allclose(given.clips, (each[0].clips + each[1].clips) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], ["nothing to listen to"]),
        (np.zeros((500, 2)), ["(2,)", "mean(axis=1)"]),
        (np.zeros((2, 2, 500)), ["(2, 500)", "(n_clips, n_samples)"]),
        (np.zeros(500, dtype=np.uint8), ["uint8"]),
        (np.array([np.nan] * 500), ["NaN"]),
        ("gone.wav", ["gone.wav", "cannot be opened"]),
        (["gone.wav", "lost.wav"], ["gone.wav", "cannot be opened"]),
    ],
)
def test_what_cannot_be_heard_is_refused_in_a_sentence(run: Run, given: object, words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        predict(run, given)  # type: ignore[arg-type]
    assert all(word in str(refused.value) for word in words)


def test_a_rate_is_for_samples_alone(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave it out"):
        predict(run, "any.wav", 44_100)
    with pytest.raises(InputError, match="1000 Hz or more"):
        predict(run, noise(1)[:, 0], 0)
    with pytest.raises(InputError, match="holds no sound files"):
        predict(run, tmp_path)

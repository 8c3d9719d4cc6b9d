"""``audioclf predict``, ``export`` and ``card``: tables, files, and exit codes that scripts can trust."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from commands import call
from tiny import make_fit

from audioclf_lib import predict
from audioclf_lib.data import Dataset
from audioclf_lib.report.card import model_card
from audioclf_lib.runs import Run, RunStore


@pytest.fixture
def run(store: RunStore, tones: Dataset) -> Run:
    return store.load(make_fit(tones))


@pytest.fixture
def sounds(tones: Dataset, tmp_path: Path) -> Path:
    """A folder with two clips of which the first ends in silence."""
    for number, waveform in enumerate(tones.waveforms[:2]):
        sf.write(tmp_path / f"{number}.wav", waveform * (np.arange(24_000) < 6_000) ** (number == 0), 16_000)
    return tmp_path


def test_the_table_shows_three_answers_for_each_file(
    run: Run, sounds: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(monkeypatch, "predict", run.path, sounds) == 0
    shown = "".join(capsys.readouterr().out.split())
    for answer in predict(run, sounds).top().to_numpy().ravel():
        assert "".join(answer.split()) in shown
    assert run.config.fit_id in shown and "silent" not in shown


def test_windows_are_the_answer_over_time(
    run: Run, sounds: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(monkeypatch, "predict", run.config.fit_id, sounds, "--windows", "--runs-dir", run.path.parents[1]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if " 0.0 " in line] and len([line for line in lines if " 0.5 " in line]) == 2
    assert sum("silent" in line for line in lines) == 1


@pytest.mark.parametrize("windows", [False, True])
def test_csv_and_json_hold_every_probability_under_its_class(
    run: Run, sounds: Path, windows: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = predict(run, sounds)
    probabilities = given.windows if windows else given.clips
    options = ["--windows"] * windows
    assert call(monkeypatch, "predict", run.path, sounds, "--csv", *options) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    np.testing.assert_allclose(table[list(probabilities)], probabilities, rtol=1e-5)
    assert table["answer"].tolist() == probabilities.idxmax(axis=1).tolist()
    assert call(monkeypatch, "predict", run.path, sounds, "--json", *options) == 0
    rows = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose([list(row["probabilities"].values()) for row in rows], probabilities, rtol=1e-5)
    assert [row["file"] for row in rows] == table["file"].tolist()
    assert [row["silent"] for row in rows] == table["silent"].tolist()


def test_unreadable_files_are_named_and_the_command_fails_at_the_end(
    run: Run, sounds: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (sounds / "no\x1b[2Jise.wav").write_bytes(b"no sound")
    assert call(monkeypatch, "predict", run.path, sounds, "gone.wav", "--csv") == 1
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 3
    assert len(shown.err.splitlines()) == 2
    assert "gone.wav" in shown.err and r"no\x1b[2Jise.wav" in shown.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "cnn-kfold-seed0", "gone.wav"], ["gone.wav"]),
        (["predict", "nothing", "gone.wav"], ["nothing"]),
        (["export", "cnn-kfold-seed0"], ["has 2 fits", "name one"]),
        (["card", "cnn-kfold"], ["say which"]),
    ],
)
def test_bad_input_is_one_sentence(
    store: RunStore,
    arguments: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert call(monkeypatch, *arguments, "--runs-dir", store.runs_dir) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words)


def test_an_export_is_a_folder_with_the_network_and_its_card(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in run.path.iterdir()}
    assert call(monkeypatch, "export", run.path, "--to", "onnx") == 0
    folder = tmp_path / run.config.fit_id
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model_card.md"]
    assert (folder / "model_card.md").read_text(encoding="utf-8") == model_card(run)
    assert {path: path.read_bytes() for path in run.path.iterdir()} == before, "the run folder stays as it is"
    capsys.readouterr()
    assert call(monkeypatch, "card", run.path) == 0
    assert capsys.readouterr().out == model_card(run)

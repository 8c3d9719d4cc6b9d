"""A look at a suite: what is done, and how long the rest may take, told from finished fits and without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from audio_files import make_folder
from commands import call
from synthetic import write_run

from audioclf_lib.config import FitConfig, KnownDataset
from audioclf_lib.data import dataset_facts, load_dataset
from audioclf_lib.runs.checksums import write_sums
from audioclf_lib.runs.store import ARTEFACTS, ENVIRONMENT, Run, RunStore
from audioclf_lib.suite.forecast import Forecast, find_pace, forecast, likely_device
from audioclf_lib.suite.plan import Plan, Sweep

CNN = {"model": "cnn", "protocol": ["kfold", "split"]}
HEADS = {"model": "transformer", "num_heads": [1, 2], "protocol": "split"}
PLAN = Plan(name="mine", epochs=10, experiments=[CNN, HEADS])


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def look(store: RunStore, plan: Plan | Sweep = PLAN, **options: Any) -> Forecast:
    return forecast(plan, runs_dir=store.runs_dir, published=store.runs_dir / "published", **options)


def fits_of(plan: Plan = PLAN) -> list[FitConfig]:
    """Without those of the split, which are among them."""
    facts = dataset_facts(plan.dataset)
    return [
        fit for each in plan.experiments_list() for fit in each.fits(facts) if each.name != "cnn-split"
    ]  # four of the CNN, one of each Transformer


def finish(store: RunStore, fit: FitConfig, seconds_per_epoch: float, device: str = "cpu") -> Run:
    run = write_run(store, fit, n_windows=1, silent_windows=0)
    environment = run.environment | {"wall_seconds": seconds_per_epoch * fit.epochs, "device": device}
    (run.path / ENVIRONMENT).write_text(json.dumps(environment))
    write_sums(run.path, ARTEFACTS)
    return run


# --- what is known without decoding -----------------------------------------------------------------------------------


def test_the_facts_of_a_data_set_are_those_of_the_loaded_one(tmp_path: Path) -> None:
    for name in ("demo", make_folder(tmp_path / "sounds")):
        loaded, facts = load_dataset(name), dataset_facts(name)
        folds = tuple(sorted(set(loaded.folds.tolist())))
        assert facts == KnownDataset(loaded.name, loaded.fingerprint, folds, loaded.class_names)


def test_the_facts_change_with_the_recordings_whatever_the_clock_says(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "sounds")
    before, file = dataset_facts(folder), folder / "high-2.wav"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert dataset_facts(folder).fingerprint != before.fingerprint
    assert dataset_facts(folder).fingerprint == load_dataset(folder, data_dir=tmp_path / "data").fingerprint


LOOK = """
import sys
from audioclf_lib import cli
from audioclf_lib.data import audio, dataset

def decode(*arguments):
    raise AssertionError("a clip was decoded")

audio.read_clip = dataset.read_clip = decode
sys.argv = ["audioclf", "suite", "--plan", "mine.yaml", "--runs-dir", "runs", "--dry-run"]
try:
    cli.main()
except SystemExit as end:
    assert end.code == 0, end.code
print("LOADED", *sys.modules)
"""


def test_a_look_at_a_thousand_runs_loads_no_torch_and_decodes_nothing(tmp_path: Path) -> None:
    make_folder(tmp_path / "sounds")
    dataset_facts("demo")  # known from now on
    (tmp_path / "mine.yaml").write_text(
        f"""
        dataset: [demo, ./sounds]
        recipe: [tuned, as-written]
        learning_rate: [0.001, 0.002, 0.003, 0.005, 0.01]
        seeds: {list(range(10))}
        experiments: [{{model: transformer, num_heads: [1, 2, 4], protocol: [kfold, split]}}]
        """
    )
    shown = subprocess.run([sys.executable, "-c", LOOK], cwd=tmp_path, capture_output=True, text=True, check=True)
    text, _, modules = shown.stdout.partition("LOADED")
    assert not {"torch", "torchaudio", "papermill", "sklearn", "matplotlib"} & set(modules.split())
    n_runs = 2 + 2 * 2 * 5 * 10 * 3 * 2
    n_fits = 2 * 5 * 10 * 3 * (4 + 2)  # the folder has three folds
    assert f"{n_runs} of {n_runs} runs are to do; 0 of {n_fits} different fits are trained" in text
    assert text.count("\n") < 30, "a row for each kind of run, not for each run"
    assert "transformer-h2-kfold 0/200 0/600" in " ".join(text.split())


# --- what is done -----------------------------------------------------------------------------------------------------


def test_fits_that_experiments_share_are_counted_once_and_jobs_need_their_notebook(store: RunStore) -> None:
    finish(store, fits_of()[0], 1)  # of k-fold and split
    expected = look(store)
    assert (len(expected.jobs), len(expected.fits), len(expected.trained)) == (5, 6, 1)
    assert not expected.done
    split = next(job for job in expected.jobs if job.title == "cnn-split")
    split.output.parent.mkdir()
    split.output.touch()
    assert look(store).done == {split.key}


# --- how long the rest takes ------------------------------------------------------------------------------------------


def test_without_a_finished_fit_no_time_is_told(store: RunStore) -> None:
    expected = look(store)
    assert expected.seconds is None
    assert set(expected.paces.values()) == {None}


def test_the_time_is_that_of_the_fits_that_are_left_shared_by_the_runs_at_once(store: RunStore) -> None:
    cnn, transformer = fits_of()[0], fits_of()[-1]
    finish(store, cnn, 2.0)
    finish(store, transformer, 5.0)
    # left: three fits of the CNN in one run, and one of the Transformer with one head
    assert look(store, jobs=1).seconds == pytest.approx(10 * (3 * 2 + 5))
    assert look(store, jobs=2).seconds == pytest.approx(10 * 3 * 2), "no run ends before its own fits do"
    spread = PLAN.changed(spread_folds=True)
    assert look(store, spread, jobs=2).seconds == pytest.approx(10 * (3 * 2 + 5) / 2)
    assert look(store, jobs=1).paces[cnn.dataset, "transformer-h1"].source == "finished fits of transformer-h2"


def test_a_plan_that_is_trained_takes_no_time(store: RunStore) -> None:
    for fit in fits_of():
        finish(store, fit, 1.0)
    assert (look(store).seconds, look(store).paces) == (None, {})


def test_the_nearest_architecture_tells_the_pace_and_the_median_is_taken(store: RunStore) -> None:
    fits = fits_of()
    assert find_pace("demo", "cnn", [store.runs_dir]) is None
    finish(store, fits[-1], 9.0)
    assert find_pace("demo", "cnn", [store.runs_dir]).source == "finished fits of transformer-h2"
    for fit, seconds in zip(fits[:3], (1.0, 2.0, 30.0), strict=True):
        finish(store, fit, seconds)
    pace = find_pace("demo", "cnn", [store.runs_dir])
    assert (pace.seconds, pace.runs, pace.source) == (2.0, 3, "finished fits of cnn")
    assert find_pace("demo", "transformer-h4", [store.runs_dir]).seconds == 9.0
    assert find_pace("esc10", "cnn", [store.runs_dir]) is None, "other clips take another time"


def test_only_runs_on_such_a_device_tell_and_on_an_accelerator_one_runs_at_a_time(store: RunStore) -> None:
    finish(store, fits_of()[0], 2.0, device="NVIDIA H100")
    assert find_pace("demo", "cnn", [store.runs_dir], "cpu") is None
    assert find_pace("demo", "cnn", [store.runs_dir], "cuda").seconds == 2.0
    assert look(store).at_once == 1
    assert look(store, jobs=3).at_once == 3


@pytest.mark.parametrize(("here", "seconds"), [("cpu", 3.0), ("cuda", 0.5), ("mps", 3.0)])
def test_unless_a_device_is_asked_for_runs_on_the_likely_one_tell(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, here: str, seconds: float
) -> None:
    """Published fits are partly of a GPU: a laptop must not be promised its pace, whichever are newer and nearer."""
    monkeypatch.setattr("audioclf_lib.suite.forecast.likely_device", lambda: here)
    monkeypatch.setattr("audioclf_lib.suite.forecast.SAMPLE", 1)
    cnn, _, _, _, one_head, two_heads = fits_of()
    finish(store, one_head, 3.0)
    finish(store, two_heads, 0.5, device="NVIDIA H100")
    finish(store, cnn, 0.4, device="NVIDIA H100")
    pace = find_pace("demo", "transformer-h2", [store.runs_dir])
    assert (pace.seconds, pace.device == "cpu") == (seconds, seconds == 3.0)


@pytest.mark.parametrize(
    ("tool", "machine", "device"),
    [
        ("/usr/bin/nvidia-smi", ("Linux", "x86_64"), "cuda"),
        (None, ("Linux", "x86_64"), "cpu"),
        (None, ("Linux", "arm64"), "cpu"),
        (None, ("Darwin", "arm64"), "mps"),
        (None, ("Darwin", "x86_64"), "cpu"),
    ],
)
def test_the_likely_device_is_told_without_torch(
    monkeypatch: pytest.MonkeyPatch, tool: str | None, machine: tuple[str, str], device: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: tool if name == "nvidia-smi" else None)
    monkeypatch.setattr("platform.system", lambda: machine[0])
    monkeypatch.setattr("platform.machine", lambda: machine[1])
    assert likely_device() == device


def test_damaged_and_foreign_folders_tell_nothing(store: RunStore, tmp_path: Path) -> None:
    runs = [finish(store, fit, 2.0) for fit in fits_of()[:3]]
    (runs[0].path / ENVIRONMENT).write_text("{")
    (runs[1].path / ENVIRONMENT).write_text("{}")
    (store.runs_dir / "demo" / "cnn-val9-mine").mkdir()
    pace = find_pace("demo", "cnn", [store.runs_dir])
    assert (pace.seconds, pace.runs) == (2.0, 1)


def test_the_command_says_what_it_reckons_from(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(store, fits_of()[0], 2.0)
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 10\nexperiments: [{model: cnn, protocol: [kfold, split]}]")
    options = ["--plan", path, "--runs-dir", store.runs_dir, "--jobs", "1", "--dry-run"]
    assert call(monkeypatch, "suite", *options) == 0
    shown = capsys.readouterr().out
    assert "3 of 3 runs are to do; 1 of 4 different fits are trained" in shown
    assert "about 60 s of training left, one run at a time, reckoned from" in shown
    assert "cnn on demo: 2 s an epoch (finished fits of cnn, one, on cpu)" in shown


def test_elsewhere_as_many_run_at_once_as_the_profile_says(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(store, fits_of()[0], 2.0)
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 10\nexperiments: [{model: cnn, protocol: kfold}]")
    (tmp_path / "farm").mkdir()
    (tmp_path / "farm" / "config.yaml").write_text("executor: slurm\njobs: 7\n")
    options = ["--plan", path, "--runs-dir", store.runs_dir, "--on", tmp_path / "farm", "--dry-run"]
    assert call(monkeypatch, "suite", *options) == 0
    assert "7 runs at a time" in capsys.readouterr().out

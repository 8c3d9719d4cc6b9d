"""A plan as jobs: each once, told apart by its title, behind those that it waits for; what is done; the time left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from audio_files import make_folder
from commands import call
from standins import mark_done
from synthetic import DEMO, write_run

from audioclf_lib._support.paths import PROJECT_ROOT
from audioclf_lib.config import FitConfig, KnownDataset
from audioclf_lib.data import dataset_facts, load_dataset
from audioclf_lib.runs.checksums import write_sums
from audioclf_lib.runs.store import ARTEFACTS, HISTORY, Run, RunStore
from audioclf_lib.suite.jobs import (
    Job,
    distinct_fits,
    fit_key,
    jobs_at_once,
    plan_jobs,
    read_outcomes,
    seconds_left,
    suite_jobs,
)
from audioclf_lib.suite.parameters import known_parameters
from audioclf_lib.suite.plan import Plan

MEL_CNN = str(PROJECT_ROOT / "examples" / "mel_cnn.py")
CNN = {"model": "cnn", "protocol": ["kfold", "split"]}
HEADS = {"model": "transformer", "num_heads": [1, 2, 4], "protocol": ["kfold", "split"]}


def known(name: str, *, with_folds: object) -> KnownDataset:
    """Every folder holds what the demo set holds."""
    return KnownDataset(Path(name).name, DEMO.fingerprint, DEMO.folds, DEMO.class_names)


def jobs_of(*, datasets: tuple[str, ...] = ("demo",), **settings: object) -> list[Job]:
    values = {"name": "mine", "epochs": 2, "experiments": [CNN]} | settings
    plans = [Plan(**values | {"dataset": dataset}) for dataset in datasets]
    return suite_jobs(plans, runs_dir=Path("runs"), read=known)


def titles(jobs: list[Job]) -> list[str]:
    return [job.title for job in jobs]


# --- what there is to run ---------------------------------------------------------------------------------------------


def test_a_plan_is_a_view_of_the_data_its_experiments_and_its_ablation() -> None:
    plan = Plan(name="mine", epochs=2, ablation={"epochs": 1}, experiments=[CNN])
    assert suite_jobs(plan, runs_dir=Path("runs"), read=known) == plan_jobs(plan, DEMO, runs_dir=Path("runs"))
    assert titles(plan_jobs(plan, DEMO)) == ["dataset", "cnn-kfold", "cnn-split", "ablation"]


def test_titles_tell_what_differs_and_nothing_else() -> None:
    assert titles(jobs_of(recipe=["tuned", "as-written"], test_fold=[1, 3])) == [
        "dataset",
        "cnn-kfold",
        "cnn-split",
        "cnn-kfold-test3",
        "cnn-split-test3",
        "cnn-kfold-as-written",
        "cnn-split-as-written",
        "cnn-kfold-test3-as-written",
        "cnn-split-test3-as-written",
    ]
    there = titles(jobs_of(datasets=("demo", "/sounds/mine"), learning_rate=[0.001, 0.01]))
    assert there[0] == "dataset on demo"
    assert "cnn-split-learning-rate-0-01 on mine" in there
    assert len(there) == len(set(there)) == 2 * (1 + 2 * 2)


def test_data_sets_of_the_same_content_have_jobs_of_their_own() -> None:
    jobs = jobs_of(datasets=("demo", "/sounds/mine"))
    assert len({job.key for job in jobs}) == len({job.output for job in jobs}) == len(jobs) == 6


def test_an_ablation_is_made_once_for_each_data_set() -> None:
    jobs = jobs_of(datasets=("demo", "mine"), recipe=["tuned", "as-written"], test_fold=[1, 2], ablation={"epochs": 1})
    assert [title for title in titles(jobs) if "ablation" in title] == ["ablation on demo", "ablation on mine"]


def test_checks_come_last() -> None:
    jobs = jobs_of(experiments=[CNN, {"model": "cnn", "protocol": "split", "test_fold": 3}])
    priorities = {job.title: job.priority for job in jobs}
    assert priorities["cnn-split-test3"] == 0 < priorities["cnn-split"]


def test_a_fit_that_two_experiments_share_is_the_same_fit() -> None:
    """The recipe as written has a learning rate of 0.001, so giving it that rate changes nothing."""
    given, left = (
        distinct_fits(jobs_of(recipe="as-written", **settings)) for settings in ({"learning_rate": 0.001}, {})
    )
    assert list(given) == list(left)


def test_the_same_experiment_said_in_two_ways_is_one_job() -> None:
    changes = {"recipe": "as-written", "recipe_changes": [{}, {"learning_rate": 0.001}]}
    assert titles(jobs_of(**changes)) == ["dataset", "cnn-kfold-as-written", "cnn-split-as-written"]


OWN = """
from torch import nn
from audioclf_lib.models import register_model

@register_model("my-net", title="My net")
class MyNet(nn.Module):
    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
"""


def test_notebooks_are_chosen_by_architecture_and_protocol_and_given_their_parameters(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(OWN)
    own = {"model": str(tmp_path / "net.py"), "width": 32, "protocol": "split"}
    jobs = jobs_of(experiments=[CNN, {"model": "transformer", "num_heads": 4, "protocol": "kfold"}, own], threads=2)
    assert {job.title: job.notebook.name for job in jobs} == {
        "dataset": "01_dataset.ipynb",
        "cnn-kfold": "10_cnn_kfold.ipynb",
        "cnn-split": "11_cnn_split.ipynb",
        "transformer-h4-kfold": "20_transformer_kfold.ipynb",
        "my-net-width32-split": "30_own_model.ipynb",
    }
    parameters = {job.title: job.parameters for job in jobs}
    assert all(each["threads"] == 2 for title, each in parameters.items() if title != "dataset")
    assert parameters["transformer-h4-kfold"]["num_heads"] == 4
    assert "num_heads" not in parameters["cnn-kfold"]
    assert len({each["runs_dir"] for each in parameters.values()}) == 1, "baselines lie with the runs"
    given = parameters["my-net-width32-split"]
    assert given["model"] == str(tmp_path / "net.py")
    assert (json.loads(given["model_settings"]), given["protocol"]) == ({"width": 32}, "split")


def test_an_edited_model_makes_other_jobs_and_a_comment_does_not(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    ids = []
    for text in (
        OWN,
        OWN + "# a comment\n",
        OWN.replace("super().__init__()", "super().__init__()\n        self.a = 1"),
    ):
        file.write_text(text)
        ids.append(jobs_of(experiments=[{"model": str(file), "protocol": "split"}])[1].id)
    assert ids[0] == ids[1] != ids[2]


def test_threads_are_part_of_a_job(tmp_path: Path) -> None:
    assert not {job.id for job in jobs_of(threads=1)[1:]} & {job.id for job in jobs_of(threads=2)[1:]}


# --- folds spread over runs -------------------------------------------------------------------------------------------


def test_a_spread_experiment_comes_after_a_run_for_each_of_its_folds() -> None:
    plain, spread = jobs_of(), jobs_of(spread_folds=True)
    assert titles(spread) == [
        "dataset",
        *(f"cnn-kfold-val{fold}" for fold in (2, 3, 4, 5)),
        "cnn-kfold",
        "cnn-split",
    ]
    by_title = {job.title: job for job in spread}
    parts = [by_title[f"cnn-kfold-val{fold}"] for fold in (2, 3, 4, 5)]
    assert [job.parameters["val_folds"] for job in parts] == [[2], [3], [4], [5]]
    assert by_title["cnn-kfold"].after == tuple(job.key for job in parts)
    assert by_title["cnn-split"].after == (parts[0].key,), "the run of the fold that the split validates on"
    assert distinct_fits(parts) == distinct_fits(spread) == distinct_fits(plain)
    assert [job.key for job in spread if not job.for_others] == [job.key for job in plain], "the experiments stay"
    assert all(not job.after for job in plain)


def test_a_rotation_is_spread_over_its_test_folds_and_trained_once_with_the_split() -> None:
    rotation = {"model": "transformer", "num_heads": 2, "protocol": ["rotation", "split"]}
    jobs = jobs_of(spread_folds=True, experiments=[rotation])
    parts = [f"transformer-h2-rotation-test{fold}" for fold in (1, 2, 3, 4, 5)]
    assert titles(jobs) == ["dataset", *parts, "transformer-h2-rotation", "transformer-h2-split"]
    by_title = {job.title: job for job in jobs}
    assert {job.notebook.name for job in jobs[1:]} == {"21_transformer_split.ipynb"}
    assert [by_title[part].parameters["test_folds"] for part in parts] == [[1], [2], [3], [4], [5]]
    assert by_title["transformer-h2-rotation"].parameters["test_folds"] == "all"
    assert "test_folds" not in by_title["transformer-h2-split"].parameters
    assert by_title["transformer-h2-split"].after == (by_title[parts[0]].key,)
    assert len(distinct_fits(jobs)) == 5
    (own,) = jobs_of(experiments=[{"model": MEL_CNN, "protocol": "rotation"}])[1:]
    assert (own.notebook.name, own.parameters["protocol"]) == ("30_own_model.ipynb", "rotation")


def test_checks_and_experiments_with_one_fold_are_spread_no_further() -> None:
    check = {"model": "cnn", "protocol": "kfold", "test_fold": 3}
    assert titles(jobs_of(spread_folds=True, experiments=[CNN, check]))[-1] == "cnn-kfold-test3"

    def three_folds(name: str, *, with_folds: object) -> KnownDataset:
        return KnownDataset(name, DEMO.fingerprint, (1, 2, 3), DEMO.class_names)

    plan = Plan(name="mine", epochs=1, spread_folds=True, experiments=[CNN], dataset="three")
    jobs = suite_jobs(plan, read=three_folds)
    assert titles(jobs) == ["dataset", "cnn-kfold-val2", "cnn-kfold-val3", "cnn-kfold", "cnn-split"]


def test_every_fit_of_the_eight_experiments_can_have_a_worker_of_its_own() -> None:
    spread = jobs_of(spread_folds=True, experiments=[CNN, HEADS])
    ready = [job for job in spread if not job.after and job.fits]
    assert len(ready) == len({fit_key(fit) for job in ready for fit in job.fits}) == 16


def test_there_is_a_notebook_for_each_core_or_group_of_cores_and_one_on_an_accelerator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def at_once(cores: int, threads: int = 1, device: str = "cpu") -> int:
        monkeypatch.setattr("audioclf_lib.suite.jobs.usable_cores", lambda: cores)
        return jobs_at_once(jobs_of(experiments=[CNN, HEADS], threads=threads), device)

    assert [at_once(cores) for cores in (1, 2, 8, 64)] == [1, 2, 8, 16]
    assert [at_once(cores, threads=4) for cores in (2, 4, 8, 32)] == [1, 1, 2, 8]
    assert [at_once(8, device=device) for device in ("cuda", "mps")] == [1, 1]


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


@pytest.mark.slow
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
    assert f"{n_runs} of {n_runs} runs are to do" in text
    assert text.count("not run") == n_runs - 2, "a row for each run that trains"


# --- what is done, and how long the rest takes ------------------------------------------------------------------------

PLAN = Plan(
    name="mine", epochs=10, experiments=[CNN, {"model": "transformer", "num_heads": [1, 2], "protocol": "split"}]
)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def time_left(store: RunStore) -> float | None:
    return seconds_left(suite_jobs(PLAN, runs_dir=store.runs_dir), store)


def fits_of(plan: Plan = PLAN) -> list[FitConfig]:
    """Four of the CNN, one of each Transformer; that of the split is among the k-fold's."""
    facts = dataset_facts(plan.dataset)
    return [fit for each in plan.experiments_list() for fit in each.fits(facts) if each.name != "cnn-split"]


def finish(store: RunStore, fit: FitConfig, seconds_per_epoch: float) -> Run:
    run = write_run(store, fit, n_windows=1, silent_windows=0)
    run.history.assign(seconds=seconds_per_epoch).to_csv(run.path / HISTORY, index=False)
    write_sums(run.path, ARTEFACTS)
    return run


def test_jobs_need_their_fits_and_their_notebook(store: RunStore) -> None:
    finish(store, fits_of()[0], 1)  # of k-fold and split
    jobs = suite_jobs(PLAN, runs_dir=store.runs_dir)
    split = next(job for job in jobs if job.title == "cnn-split")
    states = {outcome.job.title: outcome.state for outcome in read_outcomes(jobs, store)}
    assert states.pop("cnn-split") == "trained"
    assert set(states.values()) == {"not run"}
    mark_done(split)
    assert [each.job for each in read_outcomes(jobs, store) if each.state == "done"] == [split]


def test_without_a_finished_fit_no_time_is_told_and_a_plan_that_is_trained_takes_none(store: RunStore) -> None:
    assert time_left(store) is None
    for fit in fits_of():
        finish(store, fit, 1.0)
    assert time_left(store) == 0


def test_the_time_left_follows_from_the_epochs_of_finished_fits(store: RunStore) -> None:
    cnn, *_, transformer = fits_of()
    finish(store, cnn, 2.0)
    assert time_left(store) == pytest.approx(10 * 5 * 2), "of another architecture where there is none"
    finish(store, transformer, 5.0)
    # left: three fits of the CNN, and one of the Transformer with one head
    assert time_left(store) == pytest.approx(10 * (3 * 2 + 5))


def test_the_command_tells_the_time_left_in_one_line(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(store, fits_of()[0], 2.0)
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 10\nexperiments: [{model: cnn, protocol: [kfold, split]}]")
    options = ["--plan", path, "--runs-dir", store.runs_dir, "--jobs", "1", "--dry-run"]
    assert call(monkeypatch, "suite", *options) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "3 of 3 runs are to do, of which 1 only lacks its notebook; "
        "about 1 min 00 s of training left with 1 run at a time"
    )
    for fit in fits_of()[1:]:
        finish(store, fit, 2.0)
    assert call(monkeypatch, "suite", *options) == 0
    assert capsys.readouterr().out.splitlines()[-1] == ("3 of 3 runs are to do, of which 2 only lack their notebooks")


def test_a_log_is_told_to_every_experiments_notebook_and_changes_no_job() -> None:
    experiments = [
        CNN,
        {"model": "transformer", "protocol": ["kfold", "split"]},
        {"model": MEL_CNN, "protocol": "split"},
    ]
    plain, logged = (jobs_of(experiments=experiments, log=log) for log in ("none", "wandb"))
    assert [job.key for job in logged] == [job.key for job in plain]
    assert [job.fits for job in logged] == [job.fits for job in plain]
    for job in logged[1:]:
        assert job.parameters["log"] == "wandb" and "log" in known_parameters(job.notebook)
    assert all("log" not in job.parameters for job in plain), "notebooks of before, too, are given what they know"

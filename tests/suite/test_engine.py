"""The suite runs what is not done, once, and survives what can happen to it: real Snakemake, real kernels."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest
from audio_files import make_folder
from commands import call
from standins import Scene, wait_until

from audioclf_lib.data import Dataset, load_dataset
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.engine import engine_lock, run_suite
from audioclf_lib.suite.jobs import Outcome, describe_accuracy, plan_jobs, read_outcomes, suite_jobs
from audioclf_lib.suite.plan import Plan, load_plan, load_plans, save_plan

SETTINGS = {
    "name": "small",
    "epochs": 2,
    "experiments": [{"model": "cnn", "protocol": "split"}, {"model": "cnn", "protocol": "kfold"}],
}
PLAN = Plan(**SETTINGS)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("demo")


@pytest.fixture
def scene(tmp_path: Path, dataset: Dataset) -> Scene:
    """The plan's fits and the look at the data set are done, the experiments' notebooks are not."""
    scene = Scene(tmp_path)
    scene.train(PLAN, dataset)
    scene.look(PLAN, dataset)
    return scene


def run(scene: Scene, *, jobs: int = 1, say: Callable[[str], None] = lambda line: None) -> list[Outcome]:
    return run_suite(PLAN, runs_dir=scene.runs_dir, notebooks_dir=scene.notebooks, jobs=jobs, say=say)


def states(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.job.title: outcome.state for outcome in outcomes}


ALL_DONE = {"dataset": "done", "cnn-split": "done", "cnn-kfold": "done"}


def test_everything_runs_once_and_only_what_changed_runs_again(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a path with braces, which papermill and Snakemake take for fields to fill in; and without a home that can be
    written, where Snakemake wants a cache."""
    (tmp_path / "home").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    scene = Scene(tmp_path / "a {b} {seed} {")
    scene.train(PLAN, dataset)
    lines: list[str] = []
    outcomes = run(scene, say=lines.append)
    assert states(outcomes) == ALL_DONE
    assert scene.calls() == ["cnn-kfold", "dataset", "cnn-split"], "k-fold comes before the split that shares its fit"
    started, ended = lines[::2], lines[1::2]
    assert started == ["cnn-kfold: started", "dataset: started", "cnn-split: started"]
    assert ended[1].startswith("dataset: done in ")
    assert ended[0].endswith("right on the test fold: 35.0 ± 12.9 % of windows, 35.0 ± 12.9 % of clips")
    assert load_plan(scene.runs_dir / "plan.yaml") == PLAN
    assert all(outcome.job.output.is_relative_to(scene.folder) for outcome in outcomes)
    executed = nbformat.read(outcomes[1].job.output, as_version=4)
    assert executed.metadata.papermill.parameters["epochs"] == 2

    lines.clear()
    assert states(run(scene, say=lines.append)) == ALL_DONE
    assert (scene.calls(), lines) == ([], []), "what is done is left alone"

    notebook = scene.notebooks / "11_cnn_split.ipynb"
    notebook.write_text(notebook.read_text().replace("asked to fail", "told to fail"))
    RunStore(scene.runs_dir).path(outcomes[2].job.fits[3]).rename(scene.folder / "lost")
    run(scene, jobs=2)
    assert sorted(scene.calls()) == ["cnn-kfold", "cnn-split"], "a changed notebook and a lost run are redone"


def test_a_changed_plan_makes_other_jobs_and_leaves_the_old_results(scene: Scene, dataset: Dataset) -> None:
    def outputs(plan: Plan) -> list[Path]:
        return [job.output for job in plan_jobs(plan, dataset, runs_dir=scene.runs_dir)]

    before = outputs(PLAN)
    for changed in (PLAN.changed(epochs=3), PLAN.changed(seeds=(1,)), PLAN.changed(recipe_changes={"dropout": 0.3})):
        assert outputs(changed)[0] == before[0]
        assert not set(outputs(changed)[1:]) & set(before)
    assert outputs(PLAN.changed(name="other")) == before


def test_checks_have_names_of_their_own_and_an_ablation_comes_last_and_has_no_mean(
    scene: Scene, dataset: Dataset
) -> None:
    check = {"model": "transformer", "protocol": "split", "test_fold": 3}
    plan = PLAN.changed(experiments=[PLAN.experiments[0], check], ablation={"epochs": 1})
    scene.train(plan, dataset)
    lines: list[str] = []
    outcomes = run_suite(plan, runs_dir=scene.runs_dir, notebooks_dir=scene.notebooks, jobs=1, say=lines.append)
    assert scene.calls() == ["cnn-split", "transformer-split", "ablation"]
    assert states(outcomes) == dict.fromkeys(["dataset", "cnn-split", "transformer-h1-split-test3", "ablation"], "done")
    checked, last = outcomes[-2:]
    executed = nbformat.read(checked.job.output, as_version=4)
    assert executed.metadata.papermill.parameters["test_fold"] == 3
    assert (last.fits_done, last.accuracy) == (len(last.job.fits), {}), "fits of different recipes have no mean"
    assert lines[-1].startswith("ablation: done in ")
    assert "right on the test fold" not in lines[-1]
    executed = nbformat.read(last.job.output, as_version=4)
    given = executed.metadata.papermill.parameters
    assert (given["epochs"], given["seeds"], given["runs_dir"]) == (1, [0], str(scene.runs_dir))
    assert load_plan(scene.runs_dir / "plan.yaml") == plan


def test_another_length_of_the_ablation_makes_another_job_of_it_alone(dataset: Dataset) -> None:
    def jobs(plan: Plan) -> dict[str, str]:
        return {job.title: job.id for job in plan_jobs(plan, dataset)}

    short, long = (jobs(PLAN.changed(ablation={"epochs": epochs})) for epochs in (1, 2))
    assert [title for title in short if short[title] != long[title]] == ["ablation"]
    assert "ablation" not in jobs(PLAN)


SPREAD = PLAN.changed(spread_folds=True)
PARTS = [f"cnn-kfold-val{fold}" for fold in (2, 3, 4, 5)]


def untrained(scene: Scene, dataset: Dataset, *folds: int) -> Scene:
    """The scene without the fits of these validation folds, so that the runs of the folds are needed."""
    for job in plan_jobs(SPREAD, dataset, runs_dir=scene.runs_dir):
        for fit in job.fits:
            if fit.val_fold in folds:
                shutil.rmtree(RunStore(scene.runs_dir).path(fit), ignore_errors=True)
    return scene


def run_spread(scene: Scene, jobs: int = 1) -> list[Outcome]:
    return run_suite(SPREAD, runs_dir=scene.runs_dir, notebooks_dir=scene.notebooks, jobs=jobs, say=lambda line: None)


def test_an_experiment_runs_after_its_folds_and_a_split_after_the_fold_that_trains_its_fit(
    scene: Scene, dataset: Dataset
) -> None:
    parts = PARTS[:2]
    outcomes = run_spread(untrained(scene, dataset, 2, 3), jobs=2)
    calls = scene.calls()
    assert sorted(calls) == sorted(["cnn-kfold", "cnn-split", *parts]), "each once"
    assert max(map(calls.index, parts)) < calls.index("cnn-kfold")
    assert calls.index("cnn-kfold-val2") < calls.index("cnn-split")
    jobs = [outcome.job for outcome in outcomes if outcome.job.title in calls]
    executed = {job.title: nbformat.read(job.output, as_version=4) for job in jobs}
    given = {title: notebook.metadata.papermill.parameters.get("val_folds") for title, notebook in executed.items()}
    assert [given[title] for title in ("cnn-kfold", "cnn-kfold-val3")] == [None, [3]]


def test_no_fold_is_run_whose_fit_is_there(scene: Scene) -> None:
    assert states(run_spread(scene)) == ALL_DONE | dict.fromkeys(PARTS, "done")
    assert scene.calls() == ["cnn-kfold", "cnn-split"]
    for plan in (PLAN, SPREAD):
        jobs = suite_jobs(plan, runs_dir=scene.runs_dir, notebooks_dir=scene.notebooks)
        outcomes = read_outcomes(jobs, RunStore(scene.runs_dir))
        assert {each.state for each in outcomes} == {"done"}, "with folds spread or not, the same is done"


def test_what_needs_a_fold_whose_run_failed_is_not_started_and_all_else_is(scene: Scene, dataset: Dataset) -> None:
    scene.wish({"cnn-kfold-val4": "fail"})
    ended = states(run_spread(untrained(scene, dataset, 3, 4), jobs=2))
    assert (ended["cnn-kfold-val4"], ended["cnn-kfold"]) == ("failed", "not run")
    assert {"cnn-kfold-val3", "cnn-split"} <= set(scene.calls())


def test_recipes_and_data_sets_run_side_by_side_and_the_last_plan_holds_them_all(
    tmp_path: Path, dataset: Dataset
) -> None:
    scene = Scene(tmp_path)
    sounds = load_dataset(make_folder(tmp_path / "sounds"))
    plan = PLAN.changed(recipe=["tuned", "as-written"], experiments=[{"model": "cnn", "protocol": "split"}])
    plans = [plan, plan.changed(dataset=str(tmp_path / "sounds"))]
    for each, recordings in zip(plans, (dataset, sounds), strict=True):
        scene.train(each, recordings)
        scene.look(each, recordings)
    lines: list[str] = []
    outcomes = run_suite(plans, runs_dir=scene.runs_dir, notebooks_dir=scene.notebooks, jobs=1, say=lines.append)
    names = ["dataset", "cnn-split", "cnn-split-as-written"]
    names = [f"{name} on {each.name}" for each in (dataset, sounds) for name in names]
    assert states(outcomes) == dict.fromkeys(names, "done")
    assert scene.calls() == 4 * ["cnn-split"]
    assert {line.partition(":")[0] for line in lines} == {name for name in names if not name.startswith("dataset")}
    assert load_plans(scene.runs_dir / "plan.yaml") == plans


def test_a_failure_is_told_and_stops_nothing_else(scene: Scene) -> None:
    scene.wish({"cnn-kfold": "fail"})
    lines: list[str] = []
    outcomes = run(scene, jobs=2, say=lines.append)
    assert states(outcomes) == ALL_DONE | {"cnn-kfold": "failed"}
    failed = outcomes[2]
    assert failed.status is not None
    assert (failed.status.cell, failed.status.error, failed.status.message) == (4, "ValueError", "asked to fail")
    assert any("cnn-kfold: failed after" in line and "ValueError: asked to fail" in line for line in lines)
    assert failed.job.output.with_suffix(".failed.ipynb").exists()
    assert not failed.job.output.exists()

    scene.calls()
    scene.wish({})
    assert states(run(scene)) == ALL_DONE
    assert scene.calls() == ["cnn-kfold"]
    assert not failed.job.output.with_suffix(".failed.ipynb").exists()


def engine_pid(scene: Scene) -> int:
    (pid,) = re.findall(r"process (\d+) on", engine_lock(scene.runs_dir / ".suite").read_text())
    return int(pid)


class Meanwhile(threading.Thread):
    """Do something once the k-fold notebook runs, while the main thread runs the suite."""

    def __init__(self, scene: Scene, act: Callable[[], None]) -> None:
        super().__init__()
        self.scene, self.act = scene, act
        self.started: list[psutil.Process] = []

    def run(self) -> None:
        wait_until(lambda: self.scene.waits("cnn-kfold"), "the notebook to run")
        snakemake = psutil.Process(engine_pid(self.scene))
        self.started = [snakemake, *snakemake.children(recursive=True)]  # the notebook's process, its kernel
        self.act()

    def left_nothing_running(self) -> bool:
        self.join()
        _, alive = psutil.wait_procs(self.started, timeout=10)
        return bool(self.started) and not alive


def test_a_stopped_suite_leaves_nothing_running_and_goes_on(scene: Scene) -> None:
    scene.wish({"cnn-kfold": "wait"})
    meanwhile = Meanwhile(scene, lambda: os.kill(os.getpid(), signal.SIGINT))
    meanwhile.start()
    with pytest.raises(KeyboardInterrupt):
        run(scene)
    assert meanwhile.left_nothing_running()

    scene.release()
    assert scene.calls() == ["cnn-kfold"]
    assert states(run(scene, jobs=2)) == ALL_DONE
    assert sorted(scene.calls()) == ["cnn-kfold", "cnn-split"]


def test_when_snakemake_is_killed_the_suite_stops_its_notebooks(scene: Scene) -> None:
    scene.wish({"cnn-kfold": "wait"})
    meanwhile = Meanwhile(scene, lambda: os.kill(engine_pid(scene), signal.SIGKILL))
    meanwhile.start()
    assert states(run(scene)) == ALL_DONE | {"cnn-kfold": "stopped", "cnn-split": "trained"}
    assert meanwhile.left_nothing_running()


def test_the_longest_experiments_start_first_and_a_split_after_its_k_fold(dataset: Dataset) -> None:
    experiments = [{"model": model, "protocol": ["split", "kfold"]} for model in ("cnn", "transformer")]
    jobs = plan_jobs(Plan(name="mine", experiments=experiments), dataset)
    order = [job.title for job in sorted(jobs, key=lambda job: -job.priority)]
    assert order == ["transformer-h1-kfold", "cnn-kfold", "dataset", "cnn-split", "transformer-h1-split"]


def start(scene: Scene) -> subprocess.Popen[bytes]:
    save_plan(PLAN, scene.folder / "plan.yaml")
    command = [sys.executable, "-m", "audioclf_lib.cli", "suite", "--plan", str(scene.folder / "plan.yaml")]
    command += ["--runs-dir", str(scene.runs_dir), "--notebooks-dir", str(scene.notebooks), "--jobs", "1"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_after_kill_9_of_everything_the_orphaned_notebook_is_not_run_twice(scene: Scene) -> None:
    scene.wish({"cnn-kfold": "wait"})
    suite = start(scene)
    wait_until(lambda: scene.waits("cnn-kfold"), "the notebook to run")
    os.kill(engine_pid(scene), signal.SIGKILL)
    suite.kill()
    suite.wait()

    log = scene.runs_dir / ".suite" / "suite.log"

    def release_when_met() -> None:
        wait_until(lambda: "waiting for process" in log.read_text(), "the second suite to meet the orphan")
        scene.release()

    meanwhile = threading.Thread(target=release_when_met)
    meanwhile.start()
    assert states(run(scene)) == ALL_DONE
    meanwhile.join()
    assert scene.calls() == ["cnn-kfold", "cnn-split"]


def test_a_suite_waits_for_the_snakemake_of_a_killed_one(scene: Scene) -> None:
    scene.wish({"cnn-kfold": "wait"})
    suite = start(scene)
    wait_until(lambda: scene.waits("cnn-kfold"), "the notebook to run")
    suite.kill()
    suite.wait()

    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        scene.release()

    assert states(run(scene, say=say)) == ALL_DONE
    assert re.match(r"process \d+ on .* still runs notebooks of a suite that was killed; waiting for it", lines[0])
    assert scene.calls() == ["cnn-kfold", "cnn-split"]


def test_a_dry_run_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "suite", "--dry-run", "--runs-dir", tmp_path / "runs") == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("accuracy", "text"), [(None, "–"), ((0.5, None), "50.0 %"), ((0.642, 0.0307), "64.2 ± 3.1 %")]
)
def test_accuracy_is_told_in_per_cent(accuracy: tuple[float, float | None] | None, text: str) -> None:
    assert describe_accuracy(accuracy) == text

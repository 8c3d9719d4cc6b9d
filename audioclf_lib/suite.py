"""Run a plan: every experiment's notebook through papermill, as jobs of a Snakemake workflow.

A job's id names what determines its result, so a job whose executed notebook and fits are there is done, and a
changed plan makes other jobs. An experiment's split protocol shares a fit with its k-fold protocol: k-fold jobs have
the higher priority, and where both run at once, the fit's lock in ``store`` lets one of them train it. (An input
dependency would leave the split out after its k-fold failed.)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from audioclf_lib.config import DEFAULT_RUNS_DIR, PROJECT_ROOT, DeviceName, Experiment, FitConfig
from audioclf_lib.datasets import Dataset, load_dataset
from audioclf_lib.diagnosis import Diagnosis, planned_diagnosis
from audioclf_lib.engine import log_path, run_snakemake, wait_for_orphan
from audioclf_lib.errors import InputError
from audioclf_lib.evaluation import experiment_scores
from audioclf_lib.execution import Status, failed_path, is_of, read_status, status_path
from audioclf_lib.lease import hold_lease
from audioclf_lib.paths import explained, try_to_write
from audioclf_lib.plan import Plan, save_plan
from audioclf_lib.store import RunStore
from audioclf_lib.training import choose_device

NOTEBOOKS_DIR = PROJECT_ROOT / "notebooks"
THIS_MACHINE = "laptop"  # of the profiles
FREE_SPACE = "free space, or make it writable, and run the same command again"
DATASET_NOTEBOOK = "01_dataset.ipynb"
EXPERIMENT_NOTEBOOKS = {
    ("cnn", "kfold"): "10_cnn_kfold.ipynb",
    ("cnn", "split"): "11_cnn_split.ipynb",
    ("transformer", "kfold"): "20_transformer_kfold.ipynb",
    ("transformer", "split"): "21_transformer_split.ipynb",
}
DIAGNOSIS_NOTEBOOK = "30_diagnosis.ipynb"


@dataclass(frozen=True)
class Job:
    """One notebook to run.

    Attributes:
        id: readable, and the same for the same result, e.g. ``cnn-kfold-seed0-tuned-e12-1a2b3c4d``.
        title: short name for progress lines, e.g. ``cnn-kfold``.
        notebook, output: what is run, and where the executed notebook goes.
        parameters: for papermill.
        fits: what it trains, if it is not trained yet.
        priority: jobs of higher priority start first.
        has_mean: the fits differ in their validation fold only, so that their mean says something.
    """

    id: str
    title: str
    notebook: Path
    output: Path
    parameters: dict[str, Any]
    fits: tuple[FitConfig, ...]
    priority: int
    has_mean: bool = True

    def is_done(self, store: RunStore) -> bool:
        """Whether its fits are whole and its executed notebook is there, made from the notebook as it is now."""
        is_there = self.output.exists() and (not self.notebook.is_file() or is_of(self.notebook, self.output))
        return is_there and all(store.is_whole(fit) for fit in self.fits)


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: ``done``, ``failed``, ``stopped`` (killed, or interrupted) or ``not run``.
        fits_done: how many of its fits are there.
        status: what the notebook's process left behind: time, failing cell and error.
        accuracy: per level (``window``, ``clip``), mean and standard deviation (n - 1) of the accuracy on the test
            fold over the fits that are there; the deviation of a single fit is None.
    """

    job: Job
    state: Literal["done", "failed", "stopped", "not run"]
    fits_done: int
    status: Status | None
    accuracy: dict[str, tuple[float, float | None]]


def plan_jobs(
    plan: Plan,
    dataset: Dataset,
    *,
    runs_dir: Path = DEFAULT_RUNS_DIR,
    device: DeviceName = "auto",
    notebooks_dir: Path = NOTEBOOKS_DIR,
) -> list[Job]:
    """The plan's jobs: a look at the data set, the experiments in the plan's order, its checks, and its diagnosis.

    Raises:
        InputError: a fold that the data set does not have.
    """
    folder = runs_dir.resolve() / dataset.name / "notebooks"
    notebooks_dir = notebooks_dir.resolve()  # the engine works in another folder
    look = f"dataset-{dataset.fingerprint[:8]}"
    first = Job(
        id=look,
        title="dataset",
        notebook=notebooks_dir / DATASET_NOTEBOOK,
        output=folder / f"{look}.ipynb",
        parameters={"dataset": plan.dataset},
        fits=(),
        priority=2,
    )
    experiments, checks = (
        [experiment_job(each, dataset, notebooks_dir=notebooks_dir) for each in listed(device, runs_dir.resolve())]
        for listed in (plan.experiments_list, plan.checks_list)
    )
    diagnosis = planned_diagnosis(plan, device, runs_dir.resolve())
    last = [diagnosis_job(diagnosis, dataset, notebooks_dir)] if diagnosis else []
    return [first, *experiments, *(replace(job, priority=0) for job in checks), *last]


def experiment_job(
    experiment: Experiment, dataset: Dataset | None = None, *, notebooks_dir: Path = NOTEBOOKS_DIR
) -> Job:
    """The job that runs an experiment; loads its data set unless given.

    Raises:
        InputError: a fold that the data set does not have, or a data set that cannot be used.
    """
    dataset = dataset or load_dataset(experiment.dataset, with_folds=experiment.named_folds)
    fits = tuple(experiment.fits(dataset))
    job_id = f"{experiment.name}-seed{experiment.seed}-{experiment.recipe}-e{experiment.epochs}-{digest_of(fits)}"
    return Job(
        id=job_id,
        title=experiment.full_name,
        notebook=notebooks_dir / EXPERIMENT_NOTEBOOKS[experiment.model, experiment.protocol],
        output=experiment.runs_dir.resolve() / dataset.name / "notebooks" / f"{job_id}.ipynb",
        parameters=notebook_parameters(experiment),
        fits=fits,
        priority=start_first(experiment),
    )


def diagnosis_job(diagnosis: Diagnosis, dataset: Dataset, notebooks_dir: Path = NOTEBOOKS_DIR) -> Job:
    """The job that runs a diagnosis, after all experiments."""
    fits = tuple(case.config for case in diagnosis.cases(dataset))
    job_id = f"diagnosis-seed{diagnosis.seed}-e{diagnosis.epochs}-{digest_of(fits)}"
    return Job(
        id=job_id,
        title="diagnosis",
        notebook=notebooks_dir / DIAGNOSIS_NOTEBOOK,
        output=diagnosis.runs_dir.resolve() / dataset.name / "notebooks" / f"{job_id}.ipynb",
        parameters=diagnosis.model_dump(mode="json"),
        fits=fits,
        priority=-1,
        has_mean=False,
    )


def digest_of(fits: Sequence[FitConfig]) -> str:
    """Eight characters that stand for these fits."""
    return hashlib.sha256(" ".join(fit.fit_id for fit in fits).encode()).hexdigest()[:8]


def start_first(experiment: Experiment) -> int:
    """Priority of an experiment: the longest first, so that no core waits for it in the end; split after k-fold.

    A split's fit is one of the k-fold's, and is there when its turn comes. A plan's checks have priority 0.
    """
    if experiment.protocol == "split":
        return 1
    return 4 if experiment.model == "transformer" else 3


def notebook_parameters(experiment: Experiment) -> dict[str, Any]:
    """An experiment as parameters of its notebook."""
    parameters: dict[str, Any] = {
        "dataset": experiment.dataset,
        "epochs": experiment.epochs,
        "seed": experiment.seed,
        "test_fold": experiment.test_fold,
        "recipe": experiment.recipe,
        "recipe_changes": json.dumps(experiment.recipe_changes),
        "device": experiment.device,
        "runs_dir": str(experiment.runs_dir),
    }
    if experiment.model == "transformer":
        parameters["num_heads"] = experiment.num_heads
    if experiment.val_folds is not None:
        parameters["val_folds"] = list(experiment.val_folds)
    return parameters


def run_suite(
    plan: Plan,
    *,
    runs_dir: Path = DEFAULT_RUNS_DIR,
    device: DeviceName = "auto",
    jobs: int | None = None,
    cores: int | None = None,
    on: str = THIS_MACHINE,
    notebooks_dir: Path = NOTEBOOKS_DIR,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Run all of a plan that is not done yet; a failed experiment does not stop the others.

    Args:
        plan: what to run; written to ``<runs_dir>/plan.yaml``, which ``audioclf report`` reads.
        runs_dir: for run folders, executed notebooks and, in ``.suite``, the engine's files.
        device: of every fit.
        jobs: notebooks at once, each with an equal share of the cores; see ``default_jobs`` for the default.
        cores: of this machine, all unless given.
        on: a folder in ``workflow/profiles``.
        notebooks_dir: where the notebooks are.
        say: called with one line whenever a notebook starts or ends.

    Returns:
        One outcome for each job, in the plan's order, checks last.

    Raises:
        InputError: the data set or the plan cannot be used, or ``runs_dir`` cannot be written.
        KeyboardInterrupt: the user stopped it; the next call goes on.
    """
    if on == THIS_MACHINE:
        choose_device(device)  # raises if it is not present; other machines have other devices
    dataset = load_dataset(plan.dataset, with_folds=[plan.test_fold])
    todo = plan_jobs(plan, dataset, runs_dir=runs_dir, device=device, notebooks_dir=notebooks_dir)
    for job in todo:
        if not job.notebook.is_file():
            raise InputError(f"there is no notebook {job.notebook}; give the folder that has it, with --notebooks-dir")
    store = RunStore(runs_dir)
    damages = _damages(todo, store)  # raises if something else is in the place of a run folder
    folder = runs_dir.resolve() / ".suite"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {runs_dir}: {error.strerror}; choose another --runs-dir") from None
    with (
        explained(runs_dir, FREE_SPACE),
        hold_lease(folder / "suite.lock", lambda who: say(f"{who} runs a suite in {runs_dir}; waiting for it")),
    ):
        wait_for_orphan(folder, say)
        for damage in damages:
            say(damage)
        save_plan(plan, runs_dir / "plan.yaml")
        _forget_incomplete(todo, store)
        progress = _Progress(todo, store, say)
        cores = cores or usable_cores()
        jobs = jobs or default_jobs(device, cores)
        threads = max(1, cores // jobs)
        settings = {"jobs": _write_jobs(todo, folder), "runs_dir": str(runs_dir.resolve()), "threads": threads}
        code = run_snakemake(folder, settings, profile=on, cores=threads * jobs, tick=progress.update)
        progress.update()
        outcomes = [outcome(job, store) for job in todo]
        if code != 0:
            say(f"what the engine and the notebooks' processes printed: {log_path(folder)}")
            try_to_write(folder, FREE_SPACE)
            if all(result.state == "done" for result in outcomes):
                raise RuntimeError(f"the workflow engine ended with exit code {code}, see {log_path(folder)}")
    return outcomes


def inspect_suite(
    plan: Plan, *, runs_dir: Path = DEFAULT_RUNS_DIR, notebooks_dir: Path = NOTEBOOKS_DIR
) -> list[Outcome]:
    """What is done of a plan, running nothing and writing nothing.

    Raises:
        InputError: the data set or the plan cannot be used.
    """
    store = RunStore(runs_dir)
    dataset = load_dataset(plan.dataset, with_folds=[plan.test_fold])
    return [outcome(job, store) for job in plan_jobs(plan, dataset, runs_dir=runs_dir, notebooks_dir=notebooks_dir)]


def default_jobs(device: DeviceName, cores: int) -> int:
    """Notebooks at once: one on an accelerator, which they would share; on the CPU one per core, four at most.

    One thread per fit wastes nothing on waiting for another thread, and a plan's k-fold experiments are four.
    """
    return min(cores, 4) if choose_device(device).type == "cpu" else 1


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def outcome(job: Job, store: RunStore) -> Outcome:
    """What is known of a job, from its files."""
    status = read_status(job.output)
    runs = [store.load(fit) for fit in job.fits if store.is_whole(fit)]
    state: Literal["done", "failed", "stopped", "not run"]
    if job.is_done(store):
        state = "done"
    elif status is None:
        state = "not run"
    else:
        state = "failed" if status.state == "failed" else "stopped"
    accuracy: dict[str, tuple[float, float | None]] = {}
    if runs and job.has_mean:
        for level, values in experiment_scores(runs).groupby("level")["accuracy"]:
            accuracy[str(level)] = (float(values.mean()), float(values.std()) if len(values) > 1 else None)
    return Outcome(job, state, len(runs), status, accuracy)


def describe_accuracy(accuracy: tuple[float, float | None] | None) -> str:
    """Mean and standard deviation in per cent, e.g. ``64.2 ± 3.1 %``."""
    if accuracy is None:
        return "–"
    mean, deviation = accuracy
    return f"{100 * mean:.1f} %" if deviation is None else f"{100 * mean:.1f} ± {100 * deviation:.1f} %"


def describe_seconds(seconds: float) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class _Progress:
    """Says once for each notebook that it started and how it ended."""

    def __init__(self, jobs: Sequence[Job], store: RunStore, say: Callable[[str], None]) -> None:
        self._jobs = {job.id: job for job in jobs}
        self._store = store
        self._say = say
        self._seen = {job.id: read_status(job.output) for job in jobs}

    def update(self) -> None:
        for job_id, job in self._jobs.items():
            before, now = self._seen[job_id], read_status(job.output)
            if now is None or now == before:
                continue
            self._seen[job_id] = now
            if before is None or before.pid != now.pid:
                self._say(f"{job.title}: started")
            if now.state != "running":
                self._say(f"{job.title}: {self._ending(job, now)}")

    def _ending(self, job: Job, status: Status) -> str:
        time = describe_seconds(status.seconds)
        if status.state == "failed":
            return f"failed after {time}: {status.error}: {status.message}"
        if status.state == "stopped":
            return f"stopped after {time}"
        accuracy = outcome(job, self._store).accuracy
        if not accuracy:
            return f"done in {time}"
        scores = ", ".join(f"{describe_accuracy(accuracy[level])} of {level}s" for level in ("window", "clip"))
        return f"done in {time}; right on the test fold: {scores}"


def _damages(jobs: Sequence[Job], store: RunStore) -> list[str]:
    """One line for each fit of which a file is damaged; its notebook finds the same and trains it again."""
    fits = {fit.fit_id: fit for job in jobs for fit in job.fits}
    found = {fit_id: store.damage(fit) for fit_id, fit in fits.items()}
    return [f"{damage}; fit {fit_id} is trained again" for fit_id, damage in found.items() if damage]


def _forget_incomplete(jobs: Sequence[Job], store: RunStore) -> None:
    """Remove executed notebooks that are out of date, and what is known of earlier attempts at unfinished jobs."""
    for job in jobs:
        if not job.is_done(store):
            for path in (job.output, status_path(job.output), failed_path(job.output)):
                path.unlink(missing_ok=True)


def _write_jobs(jobs: Sequence[Job], folder: Path) -> str:
    path = folder / "jobs.json"
    fields = {
        job.id: {
            "notebook": str(job.notebook),
            "output": str(job.output),
            "parameters": job.parameters,
            "priority": job.priority,
        }
        for job in jobs
    }
    path.write_text(json.dumps(fields, indent=2), encoding="utf-8")
    return str(path)

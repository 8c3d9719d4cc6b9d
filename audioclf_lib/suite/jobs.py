"""A plan's notebooks as jobs: what there is to run, in which order, and what of it is done. Nothing here needs torch.

A job's id names what determines its result, so a job whose executed notebook and fits are there is done, and a
changed plan makes other jobs; what several plans of a sweep have in common is one job.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, PROJECT_ROOT
from audioclf_lib.config import DatasetFacts, DeviceName, Experiment, FitConfig
from audioclf_lib.data import dataset_facts, load_dataset
from audioclf_lib.suite.plan import Plan, Sweep, as_sweep
from audioclf_lib.suite.status import is_of
from audioclf_lib.suite.variants import Diagnosis, planned_diagnosis

NOTEBOOKS_DIR = PROJECT_ROOT / "notebooks"
DATASET_NOTEBOOK = "01_dataset.ipynb"
EXPERIMENT_NOTEBOOKS = {
    ("cnn", "kfold"): "10_cnn_kfold.ipynb",
    ("cnn", "split"): "11_cnn_split.ipynb",
    ("transformer", "kfold"): "20_transformer_kfold.ipynb",
    ("transformer", "split"): "21_transformer_split.ipynb",
}
DIAGNOSIS_NOTEBOOK = "30_diagnosis.ipynb"

# Notebooks at once, where there are cores for them: a plan's k-fold experiments are four, and spread over their folds
# sixteen. Each takes more than a gigabyte.
MIN_AT_ONCE, MAX_AT_ONCE = 4, 16
LONG = 3  # priority of what is started first


@dataclass(frozen=True)
class Job:
    """One notebook to run.

    Attributes:
        id: readable, and the same for the same result, e.g. ``cnn-kfold-seed0-tuned-e12-1a2b3c4d``.
        kind: what is run, whatever its settings, e.g. ``cnn-kfold``.
        title: short name for progress lines, with what tells it from the others, e.g. ``cnn-kfold-test3 (tuned)``.
        notebook, output: what is run, and where the executed notebook goes.
        parameters: for papermill.
        fits: what it trains, if it is not trained yet.
        priority: jobs of higher priority start first.
        has_mean: the fits differ in their validation fold only, so that their mean says something.
        for_others: nothing is wanted of it but its fits, which other jobs are made of.
        after: keys of the jobs that come first.
    """

    id: str
    kind: str
    title: str
    notebook: Path
    output: Path
    parameters: dict[str, Any]
    fits: tuple[FitConfig, ...]
    priority: int
    has_mean: bool = True
    for_others: bool = False
    after: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Data set and id: no other job has both."""
        return f"{self.output.parent.parent.name}/{self.id}"

    def is_shown(self) -> bool:
        """Whether its executed notebook is there, made from the notebook as it is now."""
        return self.output.exists() and (not self.notebook.is_file() or is_of(self.notebook, self.output))

    def is_done(self, trained: Collection[str]) -> bool:
        """Whether its fits are there and, unless it only trains for others, its executed notebook is.

        Args:
            trained: the fits that are there, by ``fit_key``.
        """
        return all(fit_key(fit) in trained for fit in self.fits) and (self.for_others or self.is_shown())


def suite_jobs(
    plan: Plan | Sweep,
    *,
    runs_dir: Path = DEFAULT_RUNS_DIR,
    device: DeviceName = "auto",
    notebooks_dir: Path = NOTEBOOKS_DIR,
    read: Callable[..., DatasetFacts] = dataset_facts,
) -> list[Job]:
    """The jobs of a plan, or of all plans of a sweep, each once: see ``plan_jobs``.

    Args:
        plan: what to run.
        runs_dir, device, notebooks_dir: as of ``plan_jobs``.
        read: gives what is known of a data set, by its name or path and the folds ``with_folds`` that it must have.

    Raises:
        InputError: a data set that cannot be used, or a fold that it does not have.
    """
    sweep = as_sweep(plan)
    notebooks_dir = notebooks_dir.resolve()  # the engine works in another folder
    folds: dict[str, list[int]] = {}
    for each in sweep.plans.values():
        folds.setdefault(each.dataset, []).append(each.test_fold)
    known = {name: read(name, with_folds=wanted) for name, wanted in folds.items()}
    jobs: dict[str, Job] = {}
    for each, marks in zip(sweep.plans.values(), sweep.marks, strict=True):
        options: dict[str, Any] = {"runs_dir": runs_dir, "device": device, "notebooks_dir": notebooks_dir}
        for job in plan_jobs(each, known[each.dataset], marks=marks, **options):
            there = jobs.get(job.key, job)  # one plan's check can be another plan's experiment
            jobs[job.key] = max(there, job, key=lambda same: same.priority)
    return _in_order(list(jobs.values()))


def plan_jobs(
    plan: Plan,
    dataset: DatasetFacts,
    *,
    runs_dir: Path = DEFAULT_RUNS_DIR,
    device: DeviceName = "auto",
    notebooks_dir: Path = NOTEBOOKS_DIR,
    marks: Mapping[str, str] | None = None,
) -> list[Job]:
    """One plan's jobs: a look at the data set, the experiments in the plan's order, its checks, and its diagnosis.

    Args:
        plan, dataset: what to run on what.
        runs_dir: for run folders and executed notebooks.
        device: of every fit.
        notebooks_dir: where the notebooks are.
        marks: what tells the plan from others, for titles; see ``Sweep``.

    Raises:
        InputError: a fold that the data set does not have.
    """
    folder, marks = runs_dir.resolve() / dataset.name / "notebooks", marks or {}
    look = f"dataset-{dataset.fingerprint[:8]}"
    first = Job(
        id=look,
        kind="dataset",
        title=_titled("dataset", marks, "dataset"),
        notebook=notebooks_dir / DATASET_NOTEBOOK,
        output=folder / f"{look}.ipynb",
        parameters={"dataset": plan.dataset},
        fits=(),
        priority=2,
    )
    experiments, checks = (
        [
            replace(job, title=_titled(job.title, marks, "dataset", "recipe", "learning_rate"))
            for each in listed(device, runs_dir.resolve())
            for job in experiment_jobs(each, dataset, notebooks_dir=notebooks_dir, spread_folds=plan.spread_folds)
        ]
        for listed in (plan.experiments_list, plan.checks_list)
    )
    diagnosis = planned_diagnosis(plan, device, runs_dir.resolve())
    last = [diagnosis_job(diagnosis, dataset, notebooks_dir)] if diagnosis else []
    return [
        first,
        *experiments,
        *(replace(job, priority=0) for job in checks),
        *(replace(job, title=_titled(job.title, marks, "dataset", "test_fold")) for job in last),
    ]


def _titled(name: str, marks: Mapping[str, str], *chosen: str) -> str:
    """A name with those marks of its plan that it depends on and does not show itself."""
    shown = [marks[each] for each in chosen if each in marks]
    return f"{name} ({', '.join(shown)})" if shown else name


def _in_order(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each after those that train its fits for it.

    So an experiment finds its fits, and a split does not take a place in which it would wait for its k-fold's.
    """
    trained_by = {fit_key(fit): job.key for job in jobs if job.for_others for fit in job.fits}
    if not trained_by:
        return list(jobs)
    return [
        job
        if job.for_others
        else replace(job, after=tuple(trained_by[key] for key in map(fit_key, job.fits) if key in trained_by))
        for job in jobs
    ]


def fit_key(fit: FitConfig) -> str:
    """Data set and id of a fit: no other fit has both."""
    return f"{fit.dataset}/{fit.fit_id}"


def distinct_fits(jobs: Iterable[Job]) -> dict[str, FitConfig]:
    """The fits of some jobs, each once, by ``fit_key``."""
    return {fit_key(fit): fit for job in jobs for fit in job.fits}


def experiment_jobs(
    experiment: Experiment, dataset: DatasetFacts, *, notebooks_dir: Path = NOTEBOOKS_DIR, spread_folds: bool = False
) -> list[Job]:
    """The job that runs an experiment; if its folds are spread, behind one for each validation fold."""
    whole = experiment_job(experiment, dataset, notebooks_dir=notebooks_dir)
    folds = experiment.validation_folds(dataset.folds) if spread_folds and experiment.protocol == "kfold" else []
    parts = []
    for fold in folds if len(folds) > 1 else []:
        part = Experiment(**(experiment.model_dump() | {"val_folds": (fold,)}))
        job = experiment_job(part, dataset, notebooks_dir=notebooks_dir)
        job_id = job.id.replace(experiment.name, f"{experiment.name}-val{fold}", 1)
        output = job.output.with_name(f"{job_id}.ipynb")
        parts.append(replace(job, id=job_id, title=f"{job.title}-val{fold}", output=output, for_others=True))
    return [*parts, whole]


def experiment_job(
    experiment: Experiment, dataset: DatasetFacts | None = None, *, notebooks_dir: Path = NOTEBOOKS_DIR
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
        kind=experiment.name,
        title=experiment.full_name,
        notebook=notebooks_dir / EXPERIMENT_NOTEBOOKS[experiment.model, experiment.protocol],
        output=experiment.runs_dir.resolve() / dataset.name / "notebooks" / f"{job_id}.ipynb",
        parameters=notebook_parameters(experiment),
        fits=fits,
        priority=start_first(experiment),
    )


def diagnosis_job(diagnosis: Diagnosis, dataset: DatasetFacts, notebooks_dir: Path = NOTEBOOKS_DIR) -> Job:
    """The job that runs a diagnosis, after all experiments."""
    fits = tuple(case.config for case in diagnosis.cases(dataset))
    job_id = f"diagnosis-seed{diagnosis.seed}-e{diagnosis.epochs}-{digest_of(fits)}"
    return Job(
        id=job_id,
        kind="diagnosis",
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
    return LONG + 1 if experiment.model == "transformer" else LONG


def jobs_at_once(jobs: Iterable[Job]) -> int:
    """How many jobs may as well run at the same time: as many as there are long ones that wait for no other."""
    long = sum(job.priority >= LONG and not job.after for job in jobs)
    return max(MIN_AT_ONCE, min(MAX_AT_ONCE, long))


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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

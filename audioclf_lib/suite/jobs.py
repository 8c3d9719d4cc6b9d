"""A plan as notebooks to run: their order, what is done, and how long the rest takes. Nothing here needs torch.

A job's id names what determines its result, so a job whose executed notebook and fits exist is done, and a changed
plan makes other jobs.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from audioclf_lib._support.choices import DeviceName
from audioclf_lib._support.cores import usable_cores
from audioclf_lib._support.digests import digest
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, NOTEBOOKS_DIR
from audioclf_lib.config import DatasetFacts, Experiment, FitConfig
from audioclf_lib.data import dataset_facts
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.ablation import ablation_experiments, ablation_parameters
from audioclf_lib.suite.notebooks import Status, is_made_from, read_status
from audioclf_lib.suite.plan import Plan, distinctions, resolve_model

DATASET_NOTEBOOK = "01_dataset.ipynb"
EXPERIMENT_NOTEBOOKS = {
    ("cnn", "kfold"): "10_cnn_kfold.ipynb",
    ("cnn", "split"): "11_cnn_split.ipynb",
    ("cnn", "rotation"): "11_cnn_split.ipynb",
    ("transformer", "kfold"): "20_transformer_kfold.ipynb",
    ("transformer", "split"): "21_transformer_split.ipynb",
    ("transformer", "rotation"): "21_transformer_split.ipynb",
}
OWN_MODEL_NOTEBOOK = "30_own_model.ipynb"
ABLATION_NOTEBOOK = "60_diagnosis.ipynb"

MAX_AT_ONCE = 16
State = Literal["done", "failed", "stopped", "trained", "not run"]


@dataclass(frozen=True)
class Job:
    """One notebook to run.

    Attributes:
        id: readable, and the same for the same result, e.g. ``cnn-kfold-seed0-tuned-e12-1a2b3c4d``.
        title: short name for progress lines, with what tells it from the others, e.g. ``cnn-kfold-test3 (8 epochs)``.
        folder: of the data set's runs.
        notebook: what is run.
        parameters: for papermill.
        fits: what it trains, if it is not trained yet.
        priority: jobs of higher priority start first.
        has_mean: the fits differ in their validation fold only, so that their mean says something.
        for_others: nothing is wanted of it but its fits, which other jobs are made of.
        after: keys of the jobs that come first.
    """

    id: str
    title: str
    folder: Path
    notebook: Path
    parameters: dict[str, Any]
    fits: tuple[FitConfig, ...]
    priority: int
    has_mean: bool = True
    for_others: bool = False
    after: tuple[str, ...] = ()

    @property
    def output(self) -> Path:
        """Where the executed notebook goes."""
        return self.folder / "notebooks" / f"{self.id}.ipynb"

    @property
    def key(self) -> str:
        """Data set and id: no other job has both."""
        return f"{self.folder.name}/{self.id}"

    @property
    def threads(self) -> int:
        """Processor threads that it computes on."""
        return int(self.parameters.get("threads", 1))

    def is_done(self, trained: Collection[str]) -> bool:
        """True if its fits exist and, unless it only trains for others, an up-to-date executed notebook.

        Args:
            trained: the fits that exist, by ``fit_key``.
        """
        if not all(fit_key(fit) in trained for fit in self.fits):
            return False
        return self.for_others or (self.output.exists() and is_made_from(self.notebook, self.output))


def suite_jobs(
    plans: Plan | Sequence[Plan], *, read: Callable[..., DatasetFacts] = dataset_facts, **options: Any
) -> list[Job]:
    """The jobs of a plan, or of plans with different data sets: see ``plan_jobs``.

    Args:
        plans: what to run.
        read: gives what is known of a data set, by its name or path and the folds ``with_folds`` that it must have.
        options: runs_dir, device and notebooks_dir, as of ``plan_jobs``.

    Raises:
        InputError: a data set that cannot be used, or a fold that it does not have.
    """
    plans = [plans] if isinstance(plans, Plan) else plans
    known = {}
    for plan in plans:
        everything = [*plan.experiments_list(), *plan.checks_list()]
        folds = {fold for each in everything for fold in each.named_folds}
        known[plan.dataset] = read(plan.dataset, with_folds=sorted(folds))
    jobs: dict[str, Job] = {}
    for plan in plans:
        for job in plan_jobs(plan, known[plan.dataset], **options):
            jobs[job.key] = job if len(plans) == 1 else replace(job, title=f"{job.title} on {job.folder.name}")
    return list(jobs.values())


def plan_jobs(
    plan: Plan,
    dataset: DatasetFacts,
    *,
    runs_dir: Path = DEFAULT_RUNS_DIR,
    device: DeviceName = "auto",
    notebooks_dir: Path = NOTEBOOKS_DIR,
) -> list[Job]:
    """One plan's jobs: a view of the data set, the experiments in the plan's order, its checks, and its ablation.

    Args:
        plan, dataset: what to run, and on what.
        runs_dir: for run folders and executed notebooks.
        device: of every fit.
        notebooks_dir: where the notebooks are.

    Raises:
        InputError: a fold that the data set does not have.
    """
    runs_dir = runs_dir.resolve()
    first = Job(
        id=f"dataset-{dataset.fingerprint[:8]}",
        title="dataset",
        folder=runs_dir / dataset.name,
        notebook=NOTEBOOKS_DIR / DATASET_NOTEBOOK,
        parameters={"dataset": plan.dataset, "runs_dir": str(runs_dir)},
        fits=(),
        priority=2,
    )
    experiments, checks = plan.experiments_list(device, runs_dir), plan.checks_list(device, runs_dir)
    everything = [*experiments, *checks]
    jobs: dict[str, Job] = {first.key: first}
    for number, (experiment, marks) in enumerate(zip(everything, distinctions(everything), strict=True)):
        is_check = number >= len(experiments)
        for job in experiment_jobs(experiment, dataset, spread_folds=plan.spread_folds and not is_check):
            priority = 0 if is_check else job.priority
            title = f"{job.title} ({marks})" if marks else job.title
            jobs.setdefault(job.key, replace(job, title=title, priority=priority))
    if plan.ablation:
        fits = tuple(each.fits(dataset)[0] for each in ablation_experiments(plan, device, runs_dir))
        last = Job(
            id=f"ablation-e{fits[0].epochs}-{digest_of(fits)}",
            title="ablation",
            folder=first.folder,
            notebook=NOTEBOOKS_DIR / ABLATION_NOTEBOOK,
            parameters=ablation_parameters(plan, device, runs_dir),
            fits=fits,
            priority=-1,
            has_mean=False,
        )
        jobs[last.key] = last
    trained_by = {fit_key(fit): job.key for job in jobs.values() if job.for_others for fit in job.fits}
    return [
        replace(job, notebook=notebooks_dir.resolve() / job.notebook.name, after=_trained_first(job, trained_by))
        for job in jobs.values()
    ]


def _trained_first(job: Job, trained_by: Mapping[str, str]) -> tuple[str, ...]:
    """Keys of the jobs that train a job's fits for it.

    After them an experiment finds its fits, and a split takes no place in which it would wait for its k-fold's.
    """
    return () if job.for_others else tuple(trained_by[key] for key in map(fit_key, job.fits) if key in trained_by)


def fit_key(fit: FitConfig) -> str:
    """Data set and id of a fit: no other fit has both."""
    return f"{fit.dataset}/{fit.fit_id}"


def distinct_fits(jobs: Iterable[Job]) -> dict[str, FitConfig]:
    """The fits of some jobs, each once, by ``fit_key``."""
    return {fit_key(fit): fit for job in jobs for fit in job.fits}


def experiment_jobs(experiment: Experiment, dataset: DatasetFacts, *, spread_folds: bool = False) -> list[Job]:
    """The job that runs an experiment; if its folds are spread, behind one for each of its fits."""
    whole = experiment_job(experiment, dataset)
    parts = []
    for val_fold, test_fold in experiment.fold_pairs(dataset.folds) if spread_folds and len(whole.fits) > 1 else []:
        which, fold = ("val", val_fold) if experiment.protocol == "kfold" else ("test", test_fold)
        job, mark = experiment_job(experiment.changed(**{f"{which}_folds": (fold,)}), dataset), f"{which}{fold}"
        job_id = job.id.replace(experiment.name, f"{experiment.name}-{mark}", 1)
        parts.append(replace(job, id=job_id, title=f"{whole.title}-{mark}", for_others=True))
    return [*parts, whole]


def experiment_job(experiment: Experiment, dataset: DatasetFacts) -> Job:
    """The job that runs an experiment.

    Raises:
        InputError: a fold that the data set does not have.
    """
    fits = tuple(experiment.fits(dataset))
    job_id = f"{experiment.name}-seed{experiment.seed}-{experiment.recipe}-e{experiment.epochs}-{digest_of(fits)}"
    return Job(
        id=job_id,
        title=experiment.full_name,
        folder=experiment.runs_dir.resolve() / dataset.name,
        notebook=NOTEBOOKS_DIR / experiment_notebook(experiment),
        parameters=notebook_parameters(experiment),
        fits=fits,
        # The longest first, so that no core waits for it in the end; a split after k-fold, which trains its fit.
        priority=1 if experiment.protocol == "split" else 3 + (experiment.entry.name != "cnn"),
    )


def experiment_notebook(experiment: Experiment) -> str:
    """Name of the notebook that runs an experiment."""
    return EXPERIMENT_NOTEBOOKS.get((experiment.entry.name, experiment.protocol), OWN_MODEL_NOTEBOOK)


def notebook_parameters(experiment: Experiment) -> dict[str, Any]:
    """An experiment as parameters of its notebook."""
    same = {"dataset", "epochs", "seed", "test_fold", "recipe", "device", "threads", "runs_dir"}
    parameters = experiment.model_dump(mode="json", include=same)
    parameters["recipe_changes"] = json.dumps(experiment.recipe_changes)
    if experiment_notebook(experiment) == OWN_MODEL_NOTEBOOK:
        parameters |= {"model": resolve_model(experiment.model), "protocol": experiment.protocol}
        parameters["model_settings"] = json.dumps(experiment.model_settings)
    else:
        parameters |= experiment.model_settings
    if experiment.log != "none":  # which older notebooks do not know
        parameters["log"] = experiment.log
    if experiment.val_folds is not None:
        parameters["val_folds"] = list(experiment.val_folds)
    if experiment.protocol == "rotation":
        parameters["test_folds"] = list(experiment.test_folds or ()) or "all"
    return parameters


def digest_of(fits: Sequence[FitConfig]) -> str:
    """Eight characters that stand for these fits."""
    return digest(" ".join(fit.fit_id for fit in fits))


def jobs_at_once(jobs: Sequence[Job], device: str) -> int:
    """Notebooks at once: one on an accelerator, which they would share; else one for each core or each group of cores.

    Each takes more than a gigabyte of memory, so they are 16 at most.
    """
    if device != "cpu":
        return 1
    return max(1, min(usable_cores() // max(job.threads for job in jobs), MAX_AT_ONCE))


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: ``done``, ``failed``, ``stopped`` (killed, or interrupted), ``trained`` (all but its notebook is there)
            or ``not run``.
        fits_done: how many of its fits exist.
        status: what the notebook's process left behind: time, failing cell and error.
        accuracy: per level (``window``, ``clip``), mean and standard deviation (n - 1) of the accuracy on the test
            fold over the fits that exist; the deviation of a single fit is None.
    """

    job: Job
    state: State
    fits_done: int
    status: Status | None
    accuracy: dict[str, tuple[float, float | None]]

    @property
    def scores(self) -> str:
        """``right on the test fold: 64.2 ± 3.1 % of windows, 70.0 ± 2.0 % of clips``; empty if there are none."""
        levels = [f"{describe_accuracy(value)} of {level}s" for level, value in self.accuracy.items()]
        return f"right on the test fold: {', '.join(levels)}" if levels else ""


def describe_accuracy(accuracy: tuple[float, float | None] | None) -> str:
    """Mean and standard deviation in per cent, e.g. ``64.2 ± 3.1 %``."""
    if accuracy is None:
        return "–"
    mean, deviation = accuracy
    return f"{100 * mean:.1f} %" if deviation is None else f"{100 * mean:.1f} ± {100 * deviation:.1f} %"


def read_outcomes(jobs: Sequence[Job], store: RunStore) -> list[Outcome]:
    """What is known of jobs, from their files; a fit that several share is held against its checksums once."""
    whole = {key for key, fit in distinct_fits(jobs).items() if store.is_whole(fit)}
    return [_outcome(job, store, whole) for job in jobs]


def _outcome(job: Job, store: RunStore, whole: Collection[str]) -> Outcome:
    status, done = read_status(job.output), [fit for fit in job.fits if fit_key(fit) in whole]
    state: State = "not run"
    if job.is_done(whole):
        state = "done"
    elif status is not None:
        state = "failed" if status.state == "failed" else "stopped"
    elif done and len(done) == len(job.fits):
        state = "trained"
    accuracy: dict[str, tuple[float, float | None]] = {}
    if done and job.has_mean:
        scores = [store.load(fit).metrics["scores"]["test"] for fit in done]
        for level in ("window", "clip"):
            values = [float(each[level]["accuracy"]) for each in scores]
            accuracy[level] = (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)
    return Outcome(job, state, len(done), status, accuracy)


def seconds_left(jobs: Iterable[Job], store: RunStore) -> float | None:
    """Training time left, by the finished fits of the same data set and architecture, or else by any.

    None if no finished fit tells.
    """
    paces: dict[tuple[str, str], list[float]] = {}
    left: list[FitConfig] = []
    for fit in distinct_fits(jobs).values():
        if store.is_whole(fit):
            pace = float(store.load(fit).history["seconds"].median())
            paces.setdefault((fit.dataset, fit.model), []).append(pace)
        else:
            left.append(fit)
    known = [pace for found in paces.values() for pace in found]
    if left and not known:
        return None
    return sum(fit.epochs * statistics.median(paces.get((fit.dataset, fit.model), known)) for fit in left)

"""Run a plan: every experiment's notebook through papermill, as jobs of a Snakemake workflow.

An experiment's split protocol shares a fit with its k-fold protocol: k-fold jobs have the higher priority, and where
both run at once, the fit's lock in ``store`` lets one of them train it. (An input dependency would leave the split out
after its k-fold failed.) Where folds are spread there is one, on the run of the one fold that trains the split's fit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from audioclf_lib._support.durations import describe_seconds
from audioclf_lib._support.errors import DamagedRunError, InputError
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, UNWRITABLE, explained, try_to_write
from audioclf_lib.config import DeviceName
from audioclf_lib.data import load_dataset
from audioclf_lib.metrics.scores import experiment_scores
from audioclf_lib.runs.locks import hold_lock
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.engine import log_path, run_snakemake, wait_for_orphan
from audioclf_lib.suite.jobs import (
    MIN_AT_ONCE,
    NOTEBOOKS_DIR,
    Job,
    distinct_fits,
    fit_key,
    jobs_at_once,
    suite_jobs,
    usable_cores,
)
from audioclf_lib.suite.plan import Plan, Sweep, save_plan
from audioclf_lib.suite.profiles import THIS_MACHINE, Profile, find_profile
from audioclf_lib.suite.status import Status, failed_path, read_status, status_path
from audioclf_lib.training.fit import choose_device

FREE_SPACE = "free space, or make it writable, and run the same command again"


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


def run_suite(
    plan: Plan | Sweep,
    *,
    runs_dir: Path = DEFAULT_RUNS_DIR,
    device: DeviceName = "auto",
    jobs: int | None = None,
    cores: int | None = None,
    on: str = THIS_MACHINE,
    notebooks_dir: Path = NOTEBOOKS_DIR,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Run all of a plan, or of a sweep's plans, that is not done yet; a failed experiment does not stop the others.

    Args:
        plan: what to run; written to ``<runs_dir>/plan.yaml``, which ``audioclf report`` reads.
        runs_dir: for run folders, executed notebooks and, in ``.suite``, the engine's files.
        device: of every fit.
        jobs: notebooks at once; on this machine each has an equal share of the cores, and ``default_jobs`` is the
            default; elsewhere the profile has it.
        cores: of this machine, all unless given.
        on: where the notebooks run: a folder in ``workflow/profiles``, or the path of another one.
        notebooks_dir: where the notebooks are.
        say: called with one line whenever a notebook starts or ends.

    Returns:
        One outcome for each job, in the plan's order.

    Raises:
        InputError: the data set, the plan or the profile cannot be used, or ``runs_dir`` cannot be written.
        KeyboardInterrupt: the user stopped it; the next call goes on.
    """
    profile = find_profile(on)
    profile.check()
    if profile.is_local:
        choose_device(device)  # raises if it is not present; other machines have other devices
    # The data sets are decoded here, once, and not by all notebooks that start together.
    todo = suite_jobs(plan, runs_dir=runs_dir, device=device, notebooks_dir=notebooks_dir, read=load_dataset)
    for job in todo:
        if not job.notebook.is_file():
            raise InputError(f"there is no notebook {job.notebook}; give the folder that has it, with --notebooks-dir")
    store = RunStore(runs_dir)
    fits = distinct_fits(todo)
    for fit in fits.values():  # raises if something else is in the place of a run folder
        with suppress(DamagedRunError):
            _ = store.exists(fit) and store.load(fit)
    folder = runs_dir.resolve() / ".suite"
    with explained(runs_dir, "choose another --runs-dir"):
        folder.mkdir(parents=True, exist_ok=True)
    with (
        explained(runs_dir, FREE_SPACE, only=UNWRITABLE),
        hold_lock(folder / "suite.lock", lambda who: say(f"{who} runs a suite in {runs_dir}; waiting for it")),
    ):
        wait_for_orphan(folder, say)
        damages = {key: what for key, fit in fits.items() if (what := store.damage(fit))}
        for key, what in damages.items():
            say(f"{what}; fit {fits[key].fit_id} is trained again")  # by its notebook, which finds the same
        save_plan(plan, runs_dir / "plan.yaml")
        trained = {key for key, fit in fits.items() if key not in damages and store.exists(fit)}
        done = {job.key for job in todo if job.is_done(trained)}
        _forget_incomplete(job for job in todo if job.key not in done)
        progress = _Progress(todo, store, say)
        threads, limits = _shares(profile, device, jobs, cores, todo)
        settings = {"jobs": _write_jobs(todo, done, folder), "runs_dir": str(runs_dir.resolve()), "threads": threads}
        code = run_snakemake(folder, settings, profile=profile.folder, limits=limits, tick=progress.update)
        progress.update()
        outcomes = [outcome(job, store) for job in todo]
        if code != 0:
            say(f"what the engine and the notebooks' processes printed: {log_path(folder)}")
            try_to_write(folder, FREE_SPACE)
            if all(result.state == "done" for result in outcomes):
                raise RuntimeError(f"the workflow engine ended with exit code {code}, see {log_path(folder)}")
    return outcomes


def default_jobs(device: DeviceName, cores: int, at_once: int = MIN_AT_ONCE) -> int:
    """Notebooks at once: one on an accelerator, which they would share; on the CPU one per core, if there are as many.

    One thread per fit wastes nothing on waiting for another thread.

    Args:
        at_once: how many can work at the same time, see ``jobs_at_once``.
    """
    return min(cores, at_once) if choose_device(device).type == "cpu" else 1


def _shares(
    profile: Profile, device: DeviceName, jobs: int | None, cores: int | None, todo: Sequence[Job]
) -> tuple[int, list[str]]:
    """Threads of a notebook, and Snakemake's options for how much runs at once.

    One thread on other machines, unless their profile says otherwise (``set-threads``): it wastes nothing.
    """
    if not profile.is_local:
        return 1, ["--jobs", str(jobs)] if jobs else []
    cores = cores or usable_cores()
    jobs = jobs or default_jobs(device, cores, jobs_at_once(todo))
    threads = max(1, cores // jobs)
    return threads, ["--cores", str(threads * jobs)]


def outcome(job: Job, store: RunStore) -> Outcome:
    """What is known of a job, from its files."""
    status = read_status(job.output)
    whole = {fit_key(fit): fit for fit in job.fits if store.is_whole(fit)}
    runs = [store.load(fit) for fit in whole.values()]
    state: Literal["done", "failed", "stopped", "not run"]
    if job.is_done(whole):
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


class _Progress:
    """Says once for each notebook that it started and how it ended."""

    def __init__(self, jobs: Sequence[Job], store: RunStore, say: Callable[[str], None]) -> None:
        self._files = [(job, str(status_path(job.output))) for job in jobs]
        self._store = store
        self._say = say
        self._stamps = {file: _stamp(file) for _, file in self._files}
        self._seen = {file: read_status(job.output) for job, file in self._files}

    def update(self) -> None:
        """Read the status files that were replaced since the last time: there may be thousands."""
        for job, file in self._files:
            stamp = _stamp(file)
            if stamp == self._stamps[file]:
                continue
            self._stamps[file] = stamp
            before, now = self._seen[file], read_status(job.output)
            if now is None or now == before:
                continue
            self._seen[file] = now
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


def _stamp(file: str) -> tuple[int, int] | None:
    """What changes whenever a file is replaced by another; None where there is none."""
    try:
        facts = os.stat(file)  # noqa: PTH116 (a path's own takes five times as long)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino


def _forget_incomplete(unfinished: Iterable[Job]) -> None:
    """Remove executed notebooks that are out of date, and what is known of earlier attempts."""
    for job in unfinished:
        for path in (job.output, status_path(job.output), failed_path(job.output)):
            path.unlink(missing_ok=True)


def _write_jobs(jobs: Sequence[Job], done: Collection[str], folder: Path) -> str:
    """The list for Snakemake; a job that only trains fits for others is left out where it is done."""
    listed = {job.key: job for job in jobs if not (job.for_others and job.key in done)}
    path = folder / "jobs.json"
    fields = {
        key: {
            "notebook": str(job.notebook),
            "output": str(job.output),
            "after": [str(listed[other].output) for other in job.after if other in listed],
            "parameters": job.parameters,
            "priority": job.priority,
        }
        for key, job in listed.items()
    }
    path.write_text(json.dumps(fields, indent=2), encoding="utf-8")
    return str(path)

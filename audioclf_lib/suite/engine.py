"""Run a plan: every experiment's notebook through papermill, as jobs of a Snakemake workflow.

An experiment's split protocol shares a fit with its k-fold protocol: k-fold jobs have the higher priority, and where
both run at once, the fit's lock lets one of them train it. (An input dependency would leave the split out after its
k-fold failed.) Where folds are spread there is one, on the run of the one fold that trains the split's fit.

Snakemake runs in a process group of its own: Ctrl-C reaches it through us, and nothing that it started outlives it
unnoticed. Its own files and its log are kept in one folder, ``<runs_dir>/.suite``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from audioclf_lib._support.choices import DeviceName
from audioclf_lib._support.durations import describe_seconds
from audioclf_lib._support.errors import InputError, quote
from audioclf_lib._support.locks import hold_lock
from audioclf_lib._support.paths import PROJECT_ROOT, SHIPPED, UNWRITABLE, explained, folder_of, try_to_write, user_path
from audioclf_lib.data import load_dataset
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.jobs import Job, Outcome, distinct_fits, jobs_at_once, read_outcomes, suite_jobs
from audioclf_lib.suite.notebooks import Status, failed_path, read_status, status_path
from audioclf_lib.suite.plan import Plan, last_plan_path, read_settings, save_plan
from audioclf_lib.training.environment import choose_device

SNAKEFILE = SHIPPED / "workflow" / "Snakefile"
PROFILES_DIR = folder_of("workflow/profiles")
# executor -> what pip installs it with
EXTRAS = {"local": "'audioclf[suite]'", "slurm": "'audioclf[slurm]'", "cluster-sync": "'audioclf[dask]'"}
FREE_SPACE = "free space, or make it writable, and run the same command again"
GRACE_SECONDS = 20.0  # a kernel may need a moment to leave a long computation
POLL_SECONDS = 0.2
ANSWER_SECONDS = 10
SLURM_RUN = re.compile(r"^SLURM run ID: (\S+)", re.MULTILINE)


def run_suite(
    plans: Plan | Sequence[Plan],
    *,
    runs_dir: Path,
    notebooks_dir: Path,
    device: DeviceName = "auto",
    jobs: int | None = None,
    on: str = "laptop",
    say: Callable[[str], None] = print,
    running: dict[str, Job] | None = None,
) -> list[Outcome]:
    """Run all of a plan, or of plans for several data sets, that is not done yet; a failure does not stop the others.

    Args:
        plans: what to run; written to ``<runs_dir>/plan.yaml``, which ``audioclf report`` reads.
        runs_dir: for run folders, executed notebooks and, in ``.suite``, the engine's files.
        notebooks_dir: where the notebooks are.
        device: of every fit.
        jobs: notebooks at once; unless given, ``jobs_at_once``, or, on other machines, what the profile says.
        on: where the notebooks run: a folder in ``workflow/profiles``, or the path of another one.
        say: called with one line whenever a notebook starts or ends.
        running: keeps the jobs whose notebooks run now while the suite does.

    Returns:
        One outcome for each job, in the plan's order.

    Raises:
        InputError: the data set, the plan or the profile cannot be used, or ``runs_dir`` cannot be written.
        KeyboardInterrupt: the user stopped it; the next call goes on.
    """
    profile, profile_settings = find_profile(on)
    check_executor(profile_settings)
    if is_local := profile_settings["executor"] == "local":
        choose_device(device)  # raises if it is not present; other machines have other devices
    # The data sets are decoded here, once, and not by all notebooks that start together.
    todo = suite_jobs(plans, runs_dir=runs_dir, device=device, notebooks_dir=notebooks_dir, read=load_dataset)
    for job in todo:
        if not job.notebook.is_file():
            raise InputError(f"there is no notebook {job.notebook}; give the folder that has it, with --notebooks-dir")
    store = RunStore(runs_dir)
    fits = distinct_fits(todo)
    store.refuse_others(fits.values())
    folder = runs_dir.resolve() / ".suite"
    with explained(runs_dir, "choose another --runs-dir"):
        folder.mkdir(parents=True, exist_ok=True)
    with (
        explained(runs_dir, FREE_SPACE, only=UNWRITABLE),
        hold_lock(folder / "suite.lock", lambda who: say(f"{who} runs a suite in {runs_dir}; waiting for it")),
    ):
        orphaned = "still runs notebooks of a suite that was killed; waiting for it"
        with hold_lock(engine_lock(folder), lambda who: say(f"{who} {orphaned}")):
            pass
        damages = {key: what for key, fit in fits.items() if (what := store.damage(fit))}
        for key, what in damages.items():
            say(f"{what}; fit {fits[key].fit_id} is trained again")  # by its notebook, which finds the same
        save_plan(plans, last_plan_path(runs_dir))
        trained = {key for key, fit in fits.items() if key not in damages and store.exists(fit)}
        left = {job.key: job for job in todo if not job.is_done(trained)}
        for job in left.values():  # what is out of date, and what is known of earlier attempts
            for path in (job.output, status_path(job.output), failed_path(job.output)):
                path.unlink(missing_ok=True)
        progress = _Progress(list(left.values()), store, say, {} if running is None else running)
        # A job that only trains fits for others is left out where it is done: its notebook may not be there.
        _write_jobs([job for job in todo if job.key in left or not job.for_others], folder)
        limits = ["--jobs", str(jobs)] if jobs else []
        if is_local:
            threads = max(job.threads for job in todo)
            at_once = jobs or jobs_at_once(todo, choose_device(device).type)
            limits = ["--cores", str(threads * at_once)]
        code = run_snakemake(folder, profile=profile, limits=limits, tick=progress.update)
        progress.update()
        outcomes = read_outcomes(todo, store)
        if code != 0:
            say(f"what the engine and the notebooks' processes printed: {log_path(folder)}")
            try_to_write(folder, FREE_SPACE)
    return outcomes


def _write_jobs(jobs: Sequence[Job], folder: Path) -> None:
    """The list for Snakemake."""
    listed = {job.key for job in jobs}
    names = "notebook", "output", "parameters", "priority", "threads"
    fields = {
        job.key: {name: getattr(job, name) for name in names}
        | {"after": [other for other in job.after if other in listed], "project": PROJECT_ROOT}
        for job in jobs
    }
    (folder / "jobs.json").write_text(json.dumps(fields, indent=2, default=str), encoding="utf-8")


class _Progress:
    """Says once for each notebook that it started and how it ended, and keeps the jobs that run."""

    def __init__(
        self, jobs: Sequence[Job], store: RunStore, say: Callable[[str], None], running: dict[str, Job]
    ) -> None:
        self._jobs, self._store, self._say, self._running = list(jobs), store, say, running
        self._last: dict[str, Status] = {}

    def update(self) -> None:
        """Read what the notebooks that are not done say now."""
        for job in self._jobs:
            status, last = read_status(job.output), self._last.get(job.key)
            if status is None or status == last:
                continue
            self._last[job.key] = status
            if last is None or last.pid != status.pid:
                self._running[job.key] = job
                self._say(f"{job.title}: started")
            if status.state != "running":
                self._running.pop(job.key, None)
                self._say(f"{job.title}: {self._ending(job, status)}")
        self._jobs = [job for job in self._jobs if job.key not in self._last or self._last[job.key].state != "done"]

    def _ending(self, job: Job, status: Status) -> str:
        time = describe_seconds(status.seconds)
        if status.state == "done":
            (outcome,) = read_outcomes([job], self._store)
            return f"done in {time}; {outcome.scores}" if outcome.scores else f"done in {time}"
        reason = f": {status.error}: {status.message}" if status.error else ""
        return f"{status.state} after {time}{reason}"


# ------------------------------------------------------------------------------------------------ where notebooks run


def find_profile(on: str) -> tuple[Path, dict[str, Any]]:
    """The folder of the profile of that name in ``workflow/profiles`` or of the user's own, and its settings.

    Raises:
        InputError: there is none, or its ``config.yaml`` cannot be read.
    """
    known = sorted(path.parent.name for path in PROFILES_DIR.glob("*/config.yaml"))
    folder = PROFILES_DIR / on if on in known else user_path(on).absolute()
    if not (folder / "config.yaml").is_file():
        raise InputError(
            f"nothing is known of running on {quote(on)}; give {', '.join(known)}, or a folder with a config.yaml of "
            "your own"
        )
    return folder, {"executor": "local"} | read_settings(folder / "config.yaml", "profile")


def check_executor(settings: Mapping[str, Any]) -> None:
    """Raise InputError if Snakemake, the plugin of a profile's executor, sbatch or the Dask scheduler is missing."""
    executor = settings["executor"]
    needed = "snakemake" if executor == "local" else f"snakemake-executor-plugin-{executor}"
    if importlib.util.find_spec(needed.replace("-", "_")) is None:
        raise InputError(f"executor {executor} needs {needed}; `pip install {EXTRAS.get(executor, needed)}` brings it")
    if executor == "slurm" and shutil.which("sbatch") is None:
        raise InputError("there is no sbatch on this machine; start the suite where Slurm's commands are installed")
    if "dask_submit" in str(settings.get("cluster-sync-submit-cmd")):
        import dask

        address = dask.config.get("scheduler-address", None) or ""  # from DASK_SCHEDULER_ADDRESS or Dask's own files
        try:
            place = urlsplit(address)
            socket.create_connection((place.hostname or "", place.port or 0), ANSWER_SECONDS).close()
        except (OSError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler answers at {quote(address)} ({error}); start one, and set DASK_SCHEDULER_ADDRESS "
                "to its address, such as tcp://HOST:8786"
            ) from None


# ----------------------------------------------------------------------------------------------------------- Snakemake


def run_snakemake(folder: Path, *, profile: Path, limits: Sequence[str], tick: Callable[[], None]) -> int:
    """Run the workflow to its end.

    Args:
        folder: Snakemake's working directory; holds ``jobs.json``, and ``suite.log``.
        profile: folder of Snakemake's own settings.
        limits: options that say how much may run at once.
        tick: called several times a second.

    Returns:
        Snakemake's exit code, negative if a signal killed it.

    Raises:
        KeyboardInterrupt: by Ctrl-C, SIGTERM or SIGHUP; everything is stopped then.
    """
    _cancel_slurm_jobs(folder)  # those of a run that was killed
    command = [sys.executable, "-m", "audioclf_lib.suite.locked_snakemake", str(engine_lock(folder))]
    command += ["--snakefile", str(SNAKEFILE), "--profile", str(profile), "--directory", str(folder)]
    command += limits
    with log_path(folder).open("wb") as log, _signals_interrupt():
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | _cache_folder(folder),
        )
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(POLL_SECONDS)
                tick()
        finally:
            _stop_group(process)
            _cancel_slurm_jobs(folder)


def _cache_folder(folder: Path) -> dict[str, str]:
    """A variable that names a cache folder for Snakemake where the user's own cannot be written."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snakemake"
        cache.mkdir(parents=True, exist_ok=True)
        try_to_write(cache, "")
    except (OSError, RuntimeError, InputError):
        return {"XDG_CACHE_HOME": str(folder / "cache")}
    return {}


def engine_lock(folder: Path) -> Path:
    """Held by Snakemake while it runs, also when the suite that started it was killed."""
    return folder / "engine.lock"


def log_path(folder: Path) -> Path:
    """All that Snakemake and its jobs printed in the last run."""
    return folder / "suite.log"


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Treat a polite kill and a closed terminal like Ctrl-C."""
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # of which some are missing on Windows, and one elsewhere
    signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.default_int_handler) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the process group, first politely, so that kernels are shut down and checkpoints kept."""
    if not hasattr(os, "killpg"):
        _stop_tree(process)
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_SECONDS
        with suppress(ProcessLookupError, PermissionError):  # nobody is left; on macOS, nobody who is not dead
            os.killpg(process.pid, number)
            while time.monotonic() < deadline:
                process.poll()  # reaps it
                os.killpg(process.pid, 0)  # only asks whether anybody is left
                time.sleep(POLL_SECONDS)


def _stop_tree(process: subprocess.Popen[bytes]) -> None:
    """On Windows, which has no process groups: Ctrl-C has reached every process; end those that do not heed it."""
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(process.pid)
        _, left = psutil.wait_procs([first, *first.children(recursive=True)], GRACE_SECONDS)
        for member in left:
            with suppress(psutil.NoSuchProcess):
                member.kill()


def _cancel_slurm_jobs(folder: Path) -> None:
    """Take out of Slurm's queue what is left there of the last run; all its jobs have the run's name.

    Snakemake cancels its jobs when it is interrupted, but not one that it is submitting or asking after just then, and
    none when it is killed.
    """
    with suppress(FileNotFoundError):  # no run yet, or no Slurm
        for name in set(SLURM_RUN.findall(log_path(folder).read_text(encoding="utf-8", errors="replace"))):
            subprocess.run(["scancel", f"--name={name}"], capture_output=True)

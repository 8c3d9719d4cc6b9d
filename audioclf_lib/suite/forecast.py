"""What a suite would do: which jobs are done, which fits are trained, and about how long the rest takes.

No torch is imported and no clip decoded, so that a plan of a thousand runs is looked at in seconds.
"""

from __future__ import annotations

import platform
import shutil
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path

from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, PUBLISHED_DIR
from audioclf_lib.config import DeviceName, FitConfig
from audioclf_lib.runs.store import Run, RunStore
from audioclf_lib.suite.jobs import NOTEBOOKS_DIR, Job, distinct_fits, fit_key, jobs_at_once, suite_jobs, usable_cores
from audioclf_lib.suite.plan import Plan, Sweep

SAMPLE = 10  # finished fits that an estimate is made from, the newest


@dataclass(frozen=True)
class Pace:
    """How long an epoch of an architecture takes on a data set.

    Attributes:
        seconds: median over the runs.
        runs: finished ones.
        source: which they are, e.g. ``finished fits of cnn``.
        device: that they were trained on, e.g. ``cpu``.
    """

    seconds: float
    runs: int
    source: str
    device: str


@dataclass(frozen=True)
class Forecast:
    """A suite before it runs.

    Attributes:
        jobs: all of them, in the suite's order.
        done: keys of those that are done.
        fits: the distinct fits of all jobs, by ``fit_key``.
        trained: keys of those fits that are there.
        paces: by data set and architecture, of those fits that are not; None where no finished fit tells.
        at_once: jobs that run at the same time.
    """

    jobs: tuple[Job, ...]
    done: frozenset[str]
    fits: dict[str, FitConfig]
    trained: frozenset[str]
    paces: dict[tuple[str, str], Pace | None]
    at_once: int

    @cached_property
    def seconds(self) -> float | None:
        """Of training that is left, where a pace is known; None if nothing is.

        All of it is shared among the jobs that run at once, but no job ends before its own fits do.
        """
        if not any(self.paces.values()):
            return None
        claimed = set(self.trained)
        times = []
        for job in sorted(self.jobs, key=lambda job: -job.priority):  # who trains what several jobs need
            fits = {key: fit for fit in job.fits if (key := fit_key(fit)) not in claimed}
            claimed |= set(fits)
            times.append(sum(self._seconds(fit) for fit in fits.values()))
        return max(sum(times) / self.at_once, *times)

    def _seconds(self, fit: FitConfig) -> float:
        pace = self.paces[fit.dataset, fit.model_label]
        return fit.epochs * pace.seconds if pace else 0.0


def forecast(
    plan: Plan | Sweep,
    *,
    runs_dir: Path = DEFAULT_RUNS_DIR,
    device: DeviceName = "auto",
    jobs: int | None = None,
    notebooks_dir: Path = NOTEBOOKS_DIR,
    published: Path = PUBLISHED_DIR,
) -> Forecast:
    """Look at a plan or a sweep, running nothing and writing nothing below ``runs_dir``.

    Args:
        plan: what would run.
        runs_dir, device, jobs, notebooks_dir: as of the suite.
        published: runs from which times are taken where ``runs_dir`` has none.

    Raises:
        InputError: a data set cannot be used, or a run folder holds another fit than it should.
    """
    planned = tuple(suite_jobs(plan, runs_dir=runs_dir, device=device, notebooks_dir=notebooks_dir))
    store, fits = RunStore(runs_dir), distinct_fits(planned)
    trained = frozenset(key for key, fit in fits.items() if store.exists(fit) and store.load(fit))
    done = frozenset(job.key for job in planned if job.is_done(trained))
    missing = {(fit.dataset, fit.model_label) for key, fit in fits.items() if key not in trained}
    paces = {what: find_pace(*what, (runs_dir, published), device) for what in sorted(missing)}
    accelerated = device in ("cuda", "mps") or any(pace and pace.device != "cpu" for pace in paces.values())
    at_once = jobs or (1 if accelerated else min(usable_cores(), jobs_at_once(planned)))
    return Forecast(planned, done, fits, trained, paces, at_once)


def find_pace(dataset: str, label: str, runs_dirs: Iterable[Path], device: DeviceName = "auto") -> Pace | None:
    """How long an epoch takes, from the newest finished fits on the data set that are nearest to an architecture.

    Those of the architecture itself come first, then those with other head counts, whose epochs take as long, then
    those of the other architecture; all of them in each of ``runs_dirs`` in turn. With ``"auto"`` fits on the device
    that will most likely be chosen here tell, and where there are none, those on another.
    """
    model = label.partition("-")[0]
    devices = dict.fromkeys((likely_device(), "cpu", "cuda", "mps")) if device == "auto" else (device,)
    for runs_dir in runs_dirs:
        for where, labels in product(devices, (label, f"{model}-*", "*")):
            runs = RunStore(runs_dir).newest(dataset, labels, SAMPLE, partial(_was_on, device=where))
            if runs:
                return _pace(runs, "published fits" if runs_dir == PUBLISHED_DIR else "finished fits")
    return None


def likely_device() -> str:
    """What ``"auto"`` will most likely choose on this machine, told without torch."""
    if shutil.which("nvidia-smi"):
        return "cuda"
    return "mps" if (platform.system(), platform.machine()) == ("Darwin", "arm64") else "cpu"


def _was_on(run: Run, device: str) -> bool:
    """Whether a run tells how long it took, on such a device."""
    there = run.environment.get("device")
    if not isinstance(run.environment.get("wall_seconds"), (int, float)) or not isinstance(there, str):
        return False
    return device == (there if there in ("cpu", "mps") else "cuda")  # of a GPU its name is given


def _pace(runs: list[Run], what: str) -> Pace:
    seconds = statistics.median(run.environment["wall_seconds"] / run.config.epochs for run in runs)
    labels = ", ".join(sorted({run.config.model_label for run in runs}))
    return Pace(seconds, len(runs), f"{what} of {labels}", str(runs[0].environment["device"]))

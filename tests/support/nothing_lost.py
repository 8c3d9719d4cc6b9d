"""A real suite that is done harm to, and the one assertion of all such tests: nothing is lost.

The suite is as small as one can be with two experiments that share a fit: its notebooks train by ``fit`` and show
nothing. They write down every epoch that was trained.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from commands import snapshot
from conftest import PROJECT_ROOT
from small_suite import make_sounds, outcomes_of
from standins import PARAMETERS, write_notebook

from audioclf_lib.runs.store import CONFIG, HISTORY, METRICS, PREDICTIONS, WEIGHTS, RunStore
from audioclf_lib.suite.jobs import DATASET_NOTEBOOK, EXPERIMENT_NOTEBOOKS
from audioclf_lib.suite.plan import load_plan

EPOCHS = 3
PLAN = f"""
dataset: ./sounds
epochs: {EPOCHS}
experiments:
  - {{model: cnn, protocol: kfold}}
  - {{model: cnn, protocol: split}}
"""
SETTING = """
import os
from audioclf_lib import Experiment, fit, load_dataset
experiment = Experiment(
    model="cnn", protocol=PROTOCOL, dataset=dataset, epochs=epochs, seed=seed, test_fold=test_fold, recipe=recipe,
    recipe_changes=recipe_changes, device=device, threads=threads, runs_dir=runs_dir,
)
data = load_dataset(experiment.dataset)
"""
TRAINING = """
def note(config, history):
    with open(TRAINED, "ab", buffering=0) as file:
        file.write(f"{config.fit_id} {len(history)} {os.getpid()}\\n".encode())

runs = [fit(each, data, runs_dir=experiment.runs_dir, device="cpu", progress=note) for each in experiment.fits(data)]
"""

# Whose file operations are counted when this one is to be struck: its own and those of what it started.
COUNTED = {
    "kernel": ["kernel"],
    "papermill": ["kernel", "papermill"],
    "snakemake": ["kernel", "papermill", "job", "snakemake"],
    "suite": ["kernel", "papermill", "job", "snakemake", "suite"],
    "everything": ["kernel", "papermill", "job", "snakemake", "suite"],
}


@dataclass(frozen=True)
class Sabotage:
    """Harm that a start of the suite is done.

    Attributes:
        target: ``kernel`` (where the fit runs), ``papermill``, ``snakemake``, ``suite`` or ``everything``.
        moment: at which of the counted file operations, from 1.
        delay: seconds from then on.
        deed: what is done: ``kill`` (send ``number``), ``fill`` the disk, ``starve`` the process whose operation it is
            of memory, or ``turn_back`` the clock of all.
        number: of the signal.
        by: a target, the operations that count for which are counted in place of those for this one.
    """

    target: str
    moment: int
    delay: float = 0.0
    deed: str = "kill"
    number: int = signal.SIGKILL
    by: str = ""


@dataclass
class Start:
    """One start of the suite, as it ended.

    Attributes:
        code: exit code, negative if a signal killed it.
        out, err: what it printed.
        struck: whether the harm was done; there may be fewer operations left to do than ``moment``.
        operations: how many were counted.
    """

    code: int
    out: str
    err: str
    struck: bool
    operations: int


@dataclass
class Workplace:
    """A folder with recordings, a plan, notebooks, and the runs of a suite that is started again and again.

    Attributes:
        folder: holds all but the runs.
        runs_dir: may be on a disk of its own.
        finished: of every run folder that was seen finished, what was in it.
    """

    folder: Path
    runs_dir: Path
    finished: dict[str, object] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, runs_dir: Path | None = None) -> Workplace:
        place = cls(folder, runs_dir or folder / "runs")
        make_sounds(folder / "sounds")
        (folder / "plan.yaml").write_text(PLAN)
        notebooks = folder / "notebooks"
        notebooks.mkdir()
        write_notebook(notebooks / DATASET_NOTEBOOK, 'dataset = ""\nruns_dir = ""')
        for protocol in ("kfold", "split"):
            names = f"PROTOCOL, TRAINED = {protocol!r}, {str(place.trained)!r}\n"
            path = notebooks / EXPERIMENT_NOTEBOOKS["cnn", protocol]
            parameters = PARAMETERS + ("val_folds = None\n" if protocol == "kfold" else "")
            write_notebook(path, parameters, names + SETTING, TRAINING)
        return place

    @property
    def trained(self) -> Path:
        """A line for every epoch whose checkpoint was written: fit, epoch, process."""
        return self.folder / "trained.txt"

    @property
    def store(self) -> RunStore:
        return RunStore(self.runs_dir)

    @property
    def home(self) -> Path:
        """The folder of the data set's runs."""
        (home,) = self.runs_dir.glob("sounds-*")
        return home

    def launch(self, sabotage: Sabotage | None = None) -> tuple[subprocess.Popen[str], Path, str]:
        """Start the suite; also where its operations are recorded, and what marks its processes."""
        token = uuid.uuid4().hex
        record = self.folder / f"operations-{token}"
        order = {
            "token": token,
            "root": str(self.runs_dir),
            "record": str(record),
            "counted": COUNTED[(sabotage.by or sabotage.target) if sabotage else "everything"],
            "target": sabotage.target if sabotage else "",
            "moment": sabotage.moment if sabotage else 0,
            "delay": sabotage.delay if sabotage else 0,
            "deed": sabotage.deed if sabotage else "kill",
            "signal": sabotage.number if sabotage else 0,
        }
        paths = [str(PROJECT_ROOT), str(PROJECT_ROOT / "tests" / "support" / "saboteur")]
        environment = os.environ | {"AUDIOCLF_SABOTAGE": json.dumps(order), "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", "audioclf_lib.cli", "suite", "--plan", "plan.yaml", "--device", "cpu"]
        command += ["--runs-dir", str(self.runs_dir), "--notebooks-dir", "notebooks", "--jobs", "1"]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=stay_on_one_core,
        )
        return process, record, token

    def start(self, sabotage: Sabotage | None = None) -> Start:
        """Run the suite until it ends or is ended, and see that nothing of it is left running."""
        process, record, token = self.launch(sabotage)
        out, err = process.communicate(timeout=600)
        assert wait_for_end(token), "processes of the suite outlive it"
        self.note()
        operations = record.stat().st_size // 300 if record.exists() else 0
        return Start(process.returncode, out, err, Path(f"{record}.struck").exists(), operations)

    def note(self) -> None:
        """Look at what is finished: each is whole, and stays as it was when it was first seen."""
        for run in self.store.find():
            run.verify()
            run.check()
            assert run.weights()
            self.finished.setdefault(run.path.name, facts(run.path))

    def finish(self) -> None:
        """Start the suite again, with no harm done, as often as a user would: once."""
        end = self.start()
        assert end.code == 0, f"{end.out}\n{end.err}"


def stay_on_one_core() -> None:
    """So that tests side by side do not make threads of theirs wait for each other."""
    cores = sorted(os.sched_getaffinity(0))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {cores[worker % len(cores)]})


def facts(folder: Path) -> object:
    """What a folder would not share with one that was written anew, even with the same content."""
    return folder.stat().st_ino, folder.stat().st_mtime_ns, snapshot(folder)


def wait_for_end(token: str, seconds: float = 60) -> bool:
    """Whether all processes that carry the mark end; a kernel may need a moment to see that its parent is gone."""
    left = []
    for process in psutil.process_iter():
        try:
            if token in process.environ().get("AUDIOCLF_SABOTAGE", "") and process.pid != os.getpid():
                left.append(process)
        except psutil.Error:
            pass
    return not psutil.wait_procs(left, timeout=seconds)[1]


def assert_nothing_lost(place: Workplace, undisturbed: Workplace, redone: Collection[str] = ()) -> None:
    """Everything is finished, nothing was done twice, nothing is half there, and the results are the same.

    * Every notebook and every fit of the plan is there, and nothing else that could be taken for one.
    * No epoch of which there was a checkpoint was trained again, nor any finished fit; run folders are those that were
      seen first.
    * Every artefact is what was written, and is readable.
    * Configuration, history (but for seconds), predictions, scores and weights are those of the undisturbed suite, bit
      for bit.

    Args:
        redone: fits that had to be trained again, since their files were damaged.
    """
    plan = load_plan(place.folder / "plan.yaml")
    outcomes = outcomes_of(plan, place.runs_dir, notebooks_dir=place.folder / "notebooks")
    assert {outcome.job.title: outcome.state for outcome in outcomes} == {
        "dataset": "done",
        "cnn-kfold": "done",
        "cnn-split": "done",
    }
    for outcome in outcomes:
        nbformat.validate(nbformat.read(outcome.job.output, as_version=4))
    expected = sorted(path for path in undisturbed.home.iterdir() if (path / CONFIG).exists())
    home = place.home
    left = {path.name for path in home.iterdir() if not path.name.endswith(".lock")}
    assert left - {"damaged"} == {"notebooks", *(path.name for path in expected)}, "leftovers"
    assert not [*home.glob("notebooks/*.part.ipynb"), *home.glob("notebooks/*.failed.ipynb")]

    epochs = Counter(tuple(line.split()[:2]) for line in place.trained.read_text().splitlines())
    assert [epoch for epoch, times in epochs.items() if times > 1 and epoch[0] not in redone] == []
    for name, seen in place.finished.items():
        assert name in redone or facts(home / name) == seen, f"{name} is not the folder that was there"

    for path in expected:
        run = place.store.load(next(fit for outcome in outcomes for fit in outcome.job.fits if fit.fit_id == path.name))
        run.verify()
        run.check()
        assert run.weights()
        for name in (CONFIG, PREDICTIONS, METRICS, WEIGHTS):
            assert (run.path / name).read_bytes() == (path / name).read_bytes(), name
        one, other = (pd.read_csv(folder / HISTORY, dtype=str).drop(columns="seconds") for folder in (run.path, path))
        pd.testing.assert_frame_equal(one, other)


def draw_moments(seed: int, number: int, most: int) -> list[tuple[int, float]]:
    """Moments and delays: exactly between two operations, in the midst of one, or in the computation that follows."""
    generator = random.Random(seed)
    return [
        (
            generator.randint(1, most),
            generator.choice([0.0, 10 ** generator.uniform(-4, -1.5), generator.uniform(0, 0.5)]),
        )
        for _ in range(number)
    ]


def strike_in_a_row(places: Iterator[Workplace], undisturbed: Workplace, sabotages: Sequence[Sabotage]) -> list[Start]:
    """Start a suite and do it harm, start it again and do it harm, until it is finished; then go on with the next one.

    Every suite is left to finish at last, and has lost nothing.
    """
    todo, starts = list(sabotages), []
    while todo:
        place = next(places)
        while todo:
            start = place.start(todo[0])
            if not start.struck:  # all was done before
                assert start.code == 0, start.err
                break
            starts.append(start)
            todo.pop(0)
        place.finish()
        assert_nothing_lost(place, undisturbed)
    return starts


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own, in memory, while the block runs."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root: run `make faults` as root")
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)

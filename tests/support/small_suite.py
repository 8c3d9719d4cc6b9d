"""A suite on nine short clips, run once for all tests that look at it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
import pandas as pd
import soundfile as sf
from audio_files import tone
from nbformat import NotebookNode

from audioclf_lib._support.paths import PROJECT_ROOT
from audioclf_lib.runs.store import Run, RunStore
from audioclf_lib.suite.jobs import Outcome, read_outcomes, suite_jobs
from audioclf_lib.suite.plan import Plan, load_plan

CLASSES = ("low_hum", "mid * tone", "high | $x$ note")  # users' names hold what Markdown and TeX take for markup
PLAN = """
dataset: ./My Sounds
epochs: 1
ablation: {epochs: 1}
experiments:
  - {model: cnn, protocol: kfold}
  - {model: cnn, protocol: split}
  - {model: transformer, num_heads: 4, protocol: split}
"""


def outcomes_of(plan: Plan, runs_dir: Path, **options: Path) -> list[Outcome]:
    """What is known of a plan's jobs from their files; the options are those of ``suite_jobs``."""
    return read_outcomes(suite_jobs(plan, runs_dir=runs_dir, **options), RunStore(runs_dir))


@dataclass(frozen=True)
class SmallSuite:
    """A finished suite.

    Attributes:
        folder: holds ``My Sounds``, ``small.yaml``, ``runs`` and ``figures``.
        suite: the command as it ended.
    """

    folder: Path
    suite: subprocess.CompletedProcess[str]

    @property
    def sounds(self) -> Path:
        return self.folder / "My Sounds"

    @property
    def runs_dir(self) -> Path:
        return self.folder / "runs"

    @property
    def dataset(self) -> str:
        """Name of the data set, which ends with the beginning of its fingerprint."""
        (name,) = {run.config.dataset for run in self.runs()}
        return name

    def runs(self) -> list[Run]:
        return RunStore(self.runs_dir).find()

    def notebooks(self) -> dict[str, NotebookNode]:
        """Executed notebooks by short name: ``dataset``, ``cnn-kfold``, ..."""
        jobs = suite_jobs(load_plan(self.folder / "small.yaml"), runs_dir=self.runs_dir)
        return {job.title: nbformat.read(job.output, as_version=4) for job in jobs}


@cache
def small_suite(folder: Path) -> SmallSuite:
    """Run the suite in ``folder``; the second call gives what the first one made."""
    make_sounds(folder / "My Sounds")
    (folder / "small.yaml").write_text(PLAN)
    arguments = ["suite", "--plan", "small.yaml", "--runs-dir", "runs", "--jobs", "2"]
    return SmallSuite(folder, run_program("audioclf", *arguments, folder=folder))


def run_program(name: str, *arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment in ``folder``; figures go to its ``figures``, not to the project's."""
    command = [str(Path(sys.executable).with_name(name)), *map(str, arguments)]
    environment = os.environ | {"AUDIOCLF_FIGURES": str(folder / "figures")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def make_sounds(folder: Path) -> None:
    """A clip of each class in each of three folds; those of the last class end in a second of padding."""
    folder.mkdir(parents=True)
    rows = []
    for fold in (1, 2, 3):
        for number, label in enumerate(CLASSES):
            name = f"{number}-{fold}.wav"
            seconds = 1.0 if label == CLASSES[-1] else 2.5
            sf.write(folder / name, tone(seconds, frequency=200 * 3**number + fold), 16_000)
            rows.append({"filename": name, "label": label, "fold": fold})
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)


def notebook_path(name: str) -> Path:
    return PROJECT_ROOT / "notebooks" / f"{name}.ipynb"

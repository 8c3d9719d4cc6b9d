"""Small notebooks in place of the real ones: they train nothing, but say that they ran, fail or wait when told to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd
import torch
from nbformat.v4 import new_code_cell, new_notebook

from audioclf_lib.config import FitConfig
from audioclf_lib.data import Dataset
from audioclf_lib.runs.checksums import sum_of
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.ablation import ablation_experiments
from audioclf_lib.suite.jobs import ABLATION_NOTEBOOK, DATASET_NOTEBOOK, EXPERIMENT_NOTEBOOKS, Job, plan_jobs
from audioclf_lib.suite.notebooks import Status, status_path
from audioclf_lib.suite.plan import Plan

KERNELSPEC = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}

PARAMETERS = """
dataset = "demo"  # data set
epochs = 1
seed = 0
test_fold = 1
recipe = "tuned"
recipe_changes = "{}"
device = "auto"
threads = 1
runs_dir = ""
"""

BODY = """
import json, time
from pathlib import Path
folder = Path(SCENE)
with (folder / "calls").open("a") as calls:
    calls.write(NAME + "\\n")
wish = json.loads((folder / "wishes.json").read_text()).get(NAME)
if wish == "wait":
    (folder / f"{NAME}.waits").touch()
    while not (folder / "release").exists():
        time.sleep(0.05)
"""

FAILURE = """
if wish == "fail":
    raise ValueError("asked to fail")
"""


class Scene:
    """A folder of stand-in notebooks and a record of which of them ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notebooks = folder / "notebooks"
        self.runs_dir = folder / "my runs"  # users' folders have spaces
        self.notebooks.mkdir(parents=True)
        self.wish({})
        names = {DATASET_NOTEBOOK: "dataset", ABLATION_NOTEBOOK: "ablation"} | {
            file: "-".join(experiment)
            for experiment, file in EXPERIMENT_NOTEBOOKS.items()
            if "rotation" not in experiment
        }
        for file, name in names.items():
            write_notebook(self.notebooks / file, self.parameters(name), self.setting(name) + BODY, FAILURE)

    @staticmethod
    def parameters(name: str) -> str:
        if name == "dataset":
            return 'dataset = "demo"\nruns_dir = ""'
        if name == "ablation":
            return PARAMETERS + "seeds = [0]\n"
        parameters = PARAMETERS + ("num_heads = 1\n" if name.startswith("transformer") else "")
        return parameters + ("val_folds = None\n" if name.endswith("kfold") else "")

    def setting(self, name: str) -> str:
        """A run of some folds has them in its name: ``cnn-kfold-val3``."""
        folds = " + ''.join(f'-val{fold}' for fold in val_folds or [])" if name.endswith("kfold") else ""
        return f"SCENE, NAME = {str(self.folder)!r}, {name!r}{folds}"

    def wish(self, wishes: dict[str, str]) -> None:
        """Make notebooks ``fail`` or ``wait`` (until ``release``)."""
        (self.folder / "wishes.json").write_text(json.dumps(wishes))

    def release(self) -> None:
        (self.folder / "release").touch()

    def waits(self, name: str) -> bool:
        return (self.folder / f"{name}.waits").exists()

    def calls(self) -> list[str]:
        """Which notebooks ran, in order, since the last time this was asked."""
        record = self.folder / "calls"
        names = record.read_text().split() if record.exists() else []
        record.unlink(missing_ok=True)
        return names

    def look(self, plan: Plan, dataset: Dataset) -> None:
        """Have the look at the data set done, as if its notebook had been run."""
        mark_done(plan_jobs(plan, dataset, runs_dir=self.runs_dir, notebooks_dir=self.notebooks)[0])

    def train(self, plan: Plan, dataset: Dataset) -> list[FitConfig]:
        """Put the run folders in place that the plan's notebooks would write."""
        fits = {
            fit.fit_id: fit
            for experiment in [*plan.experiments_list(), *plan.checks_list(), *ablation_experiments(plan)]
            for fit in experiment.fits(dataset)
        }
        store = RunStore(self.runs_dir)
        for fit in fits.values():
            if not store.exists(fit):
                score = {"accuracy": fit.val_fold / 10, "macro_f1": 0.5, "auc": {"micro": 0.5, "macro": 0.5}}
                store.save(
                    fit,
                    history=pd.DataFrame({"epoch": [1], "seconds": [1.0]}),
                    predictions=pd.DataFrame({"split": ["test"]}),
                    metrics={"scores": {"test": {"window": score, "clip": score}}},
                    weights={"weight": torch.zeros(1)},
                    environment={},
                )
        return list(fits.values())


def mark_done(job: Job) -> None:
    """Leave what a notebook that was run leaves, but for its cells."""
    job.output.parent.mkdir(parents=True, exist_ok=True)
    job.output.touch()
    status = Status(state="done", host="", pid=0, notebook=sum_of(job.notebook.read_bytes()))
    status_path(job.output).write_text(status.model_dump_json())


def write_notebook(path: Path, parameters: str, *cells: str) -> Path:
    """Write a notebook with a cell of parameters and further code cells."""
    first = new_code_cell(parameters.strip(), metadata={"tags": ["parameters"]})
    code = [new_code_cell(cell.strip()) for cell in cells]
    nbformat.write(new_notebook(cells=[first, *code], metadata={"kernelspec": KERNELSPEC}), path)
    return path


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait for something that another process does; fail loudly if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.05)

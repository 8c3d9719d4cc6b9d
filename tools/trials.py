"""For maintainers: train the trials of ``tools/trials.yaml``, from which the tuned recipe was chosen.

    python tools/trials.py

A trial is one fit of at most 30 epochs, scored on its validation fold; the test fold is never scored. A row of
``report/published/trials.csv`` holds a trial's window accuracy, clip accuracy and loss on the validation fold: the
means of its last five epochs, and those of the epoch that its rule keeps. What is trained is not trained again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, PROJECT_ROOT, PUBLISHED_DIR
from audioclf_lib.config import Experiment
from audioclf_lib.data import Dataset, load_dataset
from audioclf_lib.runs.store import Run
from audioclf_lib.suite.plan import resolve_model
from audioclf_lib.training.parallel import fit_all

TRIALS = PROJECT_ROOT / "tools" / "trials.yaml"
SCORES = ("accuracy", "clip_accuracy", "loss")


def train_trial(trial: dict[str, Any], dataset: Dataset, runs_dir: Path, processes: int) -> list[dict[str, Any]]:
    """Train one variant on each of its validation folds; returns a row for each."""
    settings = {name: value for name, value in trial.items() if name not in ("folds", "change")}
    settings["model"] = resolve_model(settings["model"], PROJECT_ROOT)
    experiments = [Experiment(**settings, dataset="esc10", val_folds=[fold]) for fold in trial["folds"]]
    configs = [experiment.tuning_fit(dataset) for experiment in experiments]
    runs = fit_all(configs, dataset, runs_dir=runs_dir, device="cpu", processes=processes)
    return [{"change": trial["change"]} | row_of(run) for run in runs]


def row_of(run: Run) -> dict[str, Any]:
    """What a finished trial scored on its validation fold."""
    last, kept = run.history.tail(5), run.history.set_index("epoch").loc[run.metrics["chosen"]["epoch"]]
    what = {"model": run.config.model_label, "val_fold": run.config.val_fold, "epochs": run.config.epochs}
    means = {f"last5_{score}": round(last[f"validation_{score}"].mean(), 4) for score in SCORES}
    return what | means | {f"kept_{score}": round(kept[f"validation_{score}"], 4) for score in SCORES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-dir", type=Path, default=DEFAULT_RUNS_DIR, help="where run folders are kept")
    parser.add_argument("--processes", type=int, default=2, help="fits at once")
    parser.add_argument("--to", type=Path, default=PUBLISHED_DIR / "trials.csv", help="the table that is written")
    given = parser.parse_args()
    dataset = load_dataset("esc10")
    given.to.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for trial in yaml.safe_load(TRIALS.read_text()):
        new = train_trial(trial, dataset, given.runs_dir, given.processes)
        print(pd.DataFrame(new).to_string(index=False), flush=True)
        rows += new
        pd.DataFrame(rows).to_csv(given.to, index=False)


if __name__ == "__main__":
    main()

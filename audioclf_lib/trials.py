"""Tuning trials: short fits that a recipe's settings are chosen by, and the record of every one of them.

A trial says all that it changes of the recipe ``as-written``, so it means the same when ``tuned`` changes later. It is
scored on one validation fold, the list's unless it names another; its test fold is never scored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, model_validator

from audioclf_lib.config import PROJECT_ROOT, Experiment, FitConfig, ModelName, StrictModel
from audioclf_lib.datasets import Dataset
from audioclf_lib.errors import InputError
from audioclf_lib.plan import read_settings
from audioclf_lib.store import Run, RunStore
from audioclf_lib.training import Progress, fit

TRIALS_FILE = PROJECT_ROOT / "workflow" / "trials.yaml"
RECORD = "trials.csv"
# Each further trial fits the settings a little more to the one validation fold.
MAX_TRIALS = 30

COLUMNS = {
    **{"trial": "str", "why": "str", "model": "str", "num_heads": "Int64", "epochs": "int64", "val_fold": "int64"},
    **{"kept_epoch": "int64", "validation_window_accuracy": "float64", "validation_clip_accuracy": "float64"},
    **{"validation_loss": "float64", "last_window_accuracy": "float64", "last_clip_accuracy": "float64"},
    **{"minutes": "float64", "settings": "str", "fit": "str"},
}


class Trial(StrictModel):
    """One trial.

    Attributes:
        name: short and unique.
        why: one line on what it is to show.
        model, num_heads, epochs: as in ``Experiment``.
        val_fold: another one than the list's.
        settings: all that differs from the recipe ``as-written``.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    why: str = Field(min_length=1)
    model: ModelName
    num_heads: int | None = None
    epochs: int
    val_fold: int | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class Trials(StrictModel):
    """The trials and what they have in common.

    Raises:
        InputError: an unknown or impossible setting, a name or a configuration that is there twice, or too many trials.
    """

    dataset: str = "esc10"
    val_fold: int = 2
    test_fold: int = 1
    seed: int = 0
    trials: tuple[Trial, ...] = ()

    @model_validator(mode="after")
    def _few_and_possible(self) -> Trials:
        _check_number(len(self.trials))
        for index, trial in enumerate(self.trials):
            for other in self.trials[:index]:
                if other.name == trial.name:
                    raise ValueError(f"two trials have the name {trial.name!r}; give each its own")
                if other.model_dump(exclude={"name", "why"}) == trial.model_dump(exclude={"name", "why"}):
                    raise ValueError(f"trials {other.name!r} and {trial.name!r} are the same; leave one out")
            try:
                self.experiment(trial)
            except InputError as error:
                raise ValueError(f"trial {trial.name!r}: {error}") from None
        return self

    def experiment(self, trial: Trial) -> Experiment:
        """The k-fold experiment with the trial's one validation fold."""
        return Experiment(
            model=trial.model,
            num_heads=trial.num_heads,
            protocol="kfold",
            dataset=self.dataset,
            epochs=trial.epochs,
            seed=self.seed,
            test_fold=self.test_fold,
            val_folds=(self.val_fold if trial.val_fold is None else trial.val_fold,),
            recipe="as-written",
            recipe_changes=trial.settings,
        )

    def config(self, trial: Trial, dataset: Dataset) -> FitConfig:
        """The trial's fit, which never scores the test fold."""
        return self.experiment(trial).tuning_fit(dataset)


def _check_number(number: int) -> None:
    if number > MAX_TRIALS:
        raise InputError(
            f"{number} trials are more than the {MAX_TRIALS} allowed, as each fits the settings a little more to the "
            "validation fold; leave some out"
        )


def load_trials(path: Path | str = TRIALS_FILE) -> Trials:
    """Read the list of trials.

    Raises:
        InputError: no such file, unreadable YAML, or trials that cannot be run.
    """
    values = read_settings(Path(path), "list of trials")
    try:
        return Trials(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_record(path: Path) -> pd.DataFrame:
    """The record of trials, a row for each; none if there is no such file.

    Columns: trial, why, model, num_heads, epochs, val_fold; scores on the validation fold at the kept epoch and at the
    last one; minutes of training; settings as a JSON object; fit, the name of the run folder.
    """
    record = RunStore(path.parent).read_table(path.name, COLUMNS)
    return _table([]) if record is None else record


def run_trials(
    trials: Trials,
    dataset: Dataset,
    *,
    runs_dir: Path,
    record: Path,
    only: Sequence[str] = (),
    device: str = "auto",
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Train the trials that are not done, one after another, and record each as it finishes.

    A trial is done if its run folder is there, or if it is recorded: it was trained on another machine then.

    Args:
        trials: the list.
        dataset: the one it names.
        runs_dir: where run folders are kept.
        record: CSV file; what it tells of trials whose run folders are not at hand, or that left the list, is kept.
        only: names of the trials to train; all unless given.
        device, progress: see :func:`audioclf_lib.training.fit`.

    Returns:
        The record.

    Raises:
        InputError: an unknown name in ``only``, a recorded trial that was changed, or more trials than are allowed.
    """
    known = [trial.name for trial in trials.trials]
    for name in only:
        if name not in known:
            raise InputError(f"there is no trial {name!r}; the list has {', '.join(known) or 'none'}")
    configs = {trial.name: trials.config(trial, dataset) for trial in trials.trials}
    done = read_record(record)
    _check_record(done, configs, record)
    store = RunStore(runs_dir)
    for name, config in configs.items():
        if (not only or name in only) and name not in set(done["trial"]):
            fit(config, dataset, runs_dir=runs_dir, device=device, progress=progress)
            _update(record, trials, configs, store)
    return _update(record, trials, configs, store)


def _check_record(record: pd.DataFrame, configs: dict[str, FitConfig], path: Path) -> None:
    """A trial must not change after it was recorded, and those that left the list count too."""
    fits = dict(zip(record["trial"], record["fit"], strict=True))
    names = {fit: name for name, fit in fits.items()}
    for name, config in configs.items():
        if fits.get(name, config.fit_id) != config.fit_id:
            raise InputError(f"trial {name!r} is in {path} with other settings; give the changed one another name")
        if names.get(config.fit_id, name) != name:
            raise InputError(f"trial {name!r} is in {path} as {names[config.fit_id]!r}; leave it out")
    _check_number(len({*fits, *configs}))


def _update(path: Path, trials: Trials, configs: dict[str, FitConfig], store: RunStore) -> pd.DataFrame:
    """Write the record anew, in the list's order; what it told of trials without a run folder stays."""
    before: list[Any] = read_record(path).to_dict(orient="records")
    rows: dict[str, dict[str, Any]] = {row["trial"]: row for row in before}
    for trial in trials.trials:
        if store.exists(configs[trial.name]):
            rows[trial.name] = _row(trial, store.load(configs[trial.name]))
    listed = [trial.name for trial in trials.trials if trial.name in rows]
    table = _table([rows[name] for name in [*listed, *(name for name in rows if name not in listed)]])
    if rows:
        RunStore(path.parent).write_table(path.name, table)
    return table


def _row(trial: Trial, run: Run) -> dict[str, Any]:
    kept_epoch = int(run.metrics["chosen"]["epoch"])
    kept, last = run.history.iloc[kept_epoch - 1], run.history.iloc[-1]
    return {
        "trial": trial.name,
        "why": " ".join(trial.why.split()),
        "model": trial.model,
        "num_heads": run.config.num_heads,
        "epochs": trial.epochs,
        "val_fold": run.config.val_fold,
        "kept_epoch": kept_epoch,
        "validation_window_accuracy": kept["validation_accuracy"],
        "validation_clip_accuracy": kept["validation_clip_accuracy"],
        "validation_loss": kept["validation_loss"],
        "last_window_accuracy": last["validation_accuracy"],
        "last_clip_accuracy": last["validation_clip_accuracy"],
        "minutes": run.environment["wall_seconds"] / 60,
        "settings": json.dumps(trial.settings, sort_keys=True),
        "fit": run.config.fit_id,
    }


def _table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)

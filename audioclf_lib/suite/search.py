"""Studies: settings searched by Optuna, by any number of workers that share a folder.

A study is described by a small YAML file (those of the project are ``workflow/studies/<name>.yaml``) and recorded in
one SQLite file, ``<runs_dir>/<dataset>/studies/<study id>.sqlite3``. Its fits are ordinary run folders.

Optuna's database storage is used, not its journal, since only the database has a heartbeat: a trial whose worker was
killed is found by it and trained by another one with the same settings, from the checkpoint of its fit.

SQLite relies on the file system's locks. On one computer they work; on a network folder (NFS) they may not, and
workers on several computers may then damage the record. The run folders are not affected, and a study that is begun
anew reuses them.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field, ValidationInfo, field_validator, model_validator

from audioclf_lib._support.digests import digest
from audioclf_lib._support.errors import InputError, quote
from audioclf_lib._support.extras import extra
from audioclf_lib._support.locks import hold_lock
from audioclf_lib._support.paths import folder_of
from audioclf_lib.config import DatasetFacts, Experiment, FitConfig, Recipe, StrictModel
from audioclf_lib.data import Dataset
from audioclf_lib.models.registry import RECIPE_SETTINGS
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.plan import read_settings, resolve_dataset, resolve_model, settings_file
from audioclf_lib.training.environment import choose_device
from audioclf_lib.training.epochs import DivergedError
from audioclf_lib.training.trainer import fit

with extra("tune"):
    import optuna
    from optuna.trial import FrozenTrial, Trial, TrialState
    from sqlalchemy.exc import SQLAlchemyError

STUDIES_DIR = folder_of("workflow/studies")
# Settings of the recipe that reach a model through a method of its class, and change nothing where it has none.
METHOD_FOR = {"time_pull": "pull_over_time", "encoder_lr_scale": "parameter_groups"}
HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 60  # a worker that was silent for the latter is taken for dead

COMPLETE = "complete"
COLUMNS = ("trial", "state", "epochs", "accuracy", "clip_accuracy", "loss", "fit")


class SearchedSetting(StrictModel):
    """The values that one setting may take: all from ``low`` to ``high``, or those listed.

    Attributes:
        low, high: both ends, which belong to it.
        log: whether values are drawn evenly by their logarithm, as suits a rate that may differ by powers of ten.
        choices: the values, for a setting that is no number or where few numbers make sense.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[bool | int | float | str, ...] | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_what_pydantic_would_take(cls, value: Any, info: ValidationInfo) -> Any:
        """Choices may be truth values; the recipe and the model say which of their settings are."""
        if info.field_name != "log" and isinstance(value, bool):
            raise ValueError("true and false are no value for it; write a number")
        return value

    @model_validator(mode="after")
    def _range_or_choices(self) -> SearchedSetting:
        if (self.choices is None) == (self.low is None) or (self.low is None) != (self.high is None):
            raise ValueError("write low and high, as {low: 0.1, high: 0.5}, or {choices: [0.1, 0.2]}")
        if self.choices is not None and len(set(self.choices)) < max(2, len(self.choices)):
            raise ValueError(f"choices = {quote(self.choices)} must be two or more different values; correct them")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}; put them in order")
        if self.low is not None and self.log and self.low <= 0:
            raise ValueError(f"low = {self.low:g} has no logarithm; raise it above 0, or leave log out")
        return self

    @property
    def values(self) -> tuple[Any, ...]:
        """The choices, or both ends of the range."""
        return self.choices or (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """True if ``value`` is one that the search may choose."""
        return value in self.choices if self.choices is not None else bool(self.values[0] <= value <= self.values[1])

    def draw(self, trial: Trial, name: str, kind: type) -> Any:
        """The trial's value for this setting: the one that it has already, or a new one.

        Numbers are rounded to three digits, so that what is shown can be typed and is exactly what was trained.
        """
        if self.choices is not None:
            return trial.suggest_categorical(name, list(self.choices))
        low, high = self.values
        if kind is int:
            return trial.suggest_int(name, int(low), int(high), log=self.log)
        drawn = trial.suggest_float(name, low, high, log=self.log)
        return min(max(float(f"{drawn:.3g}"), low), high)


class StudyConfig(StrictModel):
    """A study: many fits that differ in a few settings of the recipe or of the model, scored on one validation fold.

    Attributes:
        name: short; the study's file is named after it.
        experiment: what the trials have in common. Its settings (``model``, those of the model, ``dataset``,
            ``epochs``, 10 unless given, ``seed``, also of the search, ``test_fold``, ``recipe``, ``recipe_changes``,
            ``device``, ``threads``, ``runs_dir``) are given beside those of the study.
        val_fold: all that the settings are chosen by; the test fold is never scored.
        trials: how many fits there are in all, by all workers.
        startup: so many trials are drawn at random before the search learns from their scores, and so many must be done
            before one is pruned.
        prune_after: share of the epochs that every trial trains; one whose best validation score is then below the
            median of the others is pruned (1: none is). A half, since a one-cycle schedule is at its height before.
        search: setting of the recipe or of the model -> its values.

    Raises:
        InputError: an unknown or impossible setting, one that is both fixed and searched, or one without effect.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)
    experiment: Experiment
    val_fold: int = 2
    trials: int = Field(20, ge=1, le=10_000)
    startup: int = Field(8, ge=1)
    prune_after: float = Field(0.5, gt=0, le=1)
    search: dict[str, SearchedSetting] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _gather_experiment(cls, values: dict[str, Any]) -> dict[str, Any]:
        """What is no setting of the study is one of its experiment."""
        own = {key: value for key, value in values.items() if key in cls.model_fields}
        others = {key: value for key, value in values.items() if key not in own}
        if "val_folds" in others:
            raise ValueError("a study has one validation fold; give val_fold instead of val_folds")
        val_fold = own.get("val_fold", cls.model_fields["val_fold"].default)
        try:
            return own | {"experiment": Experiment(**{"epochs": 10} | others | {"val_folds": (val_fold,)})}
        except InputError as error:
            known = f"; those of a study are {', '.join(cls.model_fields)}" if "unknown setting" in str(error) else ""
            raise ValueError(f"{str(error).removeprefix('experiment: ')}{known}") from None

    @model_validator(mode="after")
    def _can_be_searched(self) -> StudyConfig:
        entry = self.experiment.entry
        known, checked = [*Recipe.model_fields, *entry.setting_names], dict(self.search)
        for name, setting in self.search.items():
            if name not in known:
                raise ValueError(f"unknown setting {quote(name)}; known are {', '.join(known)}")
            if name in self.experiment.recipe_changes:
                raise ValueError(f"{name} is both searched and fixed in recipe_changes; take it out of one of them")
            reaches_no_model = name in METHOD_FOR and not hasattr(entry.load(), METHOD_FOR[name])
            if reaches_no_model or (name in RECIPE_SETTINGS and name not in entry.arguments):
                raise ValueError(f"{name} changes nothing in model {entry.name}; take it out of the search")
            made = tuple(self._made_of(name, value) for value in setting.values)
            if setting.choices is not None:
                checked[name] = SearchedSetting(choices=made)  # YAML takes 1e-3 for a text
            elif not {type(value) for value in made} <= {int, float}:
                raise ValueError(f"{name} is no number and has no range; give its choices")
        object.__setattr__(self, "search", checked)
        return self

    def _made_of(self, name: str, value: Any) -> Any:
        """What the recipe or the model makes of a value; raises InputError for one that is not possible."""
        return _all_settings(self.with_settings({name: value}))[name]

    def changed(self, **changes: Any) -> StudyConfig:
        """The study with other settings, its own or its experiment's; a change to None is none."""
        fixed = self.experiment.model_dump(exclude={"protocol", "val_folds"})
        own = {name: getattr(self, name) for name in StudyConfig.model_fields if name != "experiment"}
        return StudyConfig(**fixed | own | {key: value for key, value in changes.items() if value is not None})

    def with_settings(self, settings: dict[str, Any]) -> Experiment:
        """The experiment with values of searched settings, each where it belongs: in the recipe or in the model."""
        of_recipe = {name: value for name, value in settings.items() if name in Recipe.model_fields}
        of_model = {name: value for name, value in settings.items() if name not in of_recipe}
        return self.experiment.changed(
            recipe_changes=self.experiment.recipe_changes | of_recipe,
            model_settings=self.experiment.model_settings | of_model,
        )

    def draw(self, trial: Trial) -> dict[str, Any]:
        """The trial's settings: those that it has already, or new ones."""
        return {
            name: each.draw(trial, name, type(self._made_of(name, each.values[0])))
            for name, each in self.search.items()
        }

    def as_it_stands(self) -> dict[str, Any] | None:
        """The experiment's own values of the searched settings; None if the search leaves one of them out."""
        own = _all_settings(self.experiment)
        settings = {name: own[name] for name in self.search}
        return settings if all(self.search[name].holds(value) for name, value in settings.items()) else None

    def study_id(self, dataset: DatasetFacts) -> str:
        """Readable and the same for the same study of the same recordings, e.g. ``cnn-seed0-e20-1a2b3c4d``.

        As with the names of run folders, whatever changes what the scores mean changes the name, and makes another
        study. The number of trials does not: a study may be made longer.
        """
        values = self.model_dump(mode="json", include={"startup", "prune_after", "search"})
        values["fit"] = self.experiment.tuning_fit(dataset).fit_id
        return f"{self.name}-seed{self.experiment.seed}-e{self.experiment.epochs}-{digest(values)}"

    def record_path(self, dataset: DatasetFacts) -> Path:
        """Where the study is recorded: beside the run folders of its fits."""
        return self.experiment.runs_dir / dataset.name / "studies" / f"{self.study_id(dataset)}.sqlite3"


def _all_settings(experiment: Experiment) -> dict[str, Any]:
    return experiment.recipe_settings.model_dump() | experiment.model_settings


def load_study(name_or_path: str | Path) -> StudyConfig:
    """Read a study by its name (``cnn``, ``transformer``) or from a YAML file, after which it is called by default.

    A data set or a model given in the file as a relative path is looked for beside the file.

    Raises:
        InputError: no such study, unreadable YAML, unknown or impossible settings.
    """
    path = settings_file(name_or_path, STUDIES_DIR, "study")
    values = {"name": path.stem, "dataset": "demo"} | read_settings(path, "study")
    values["dataset"] = resolve_dataset(str(values["dataset"]), path.parent)
    values["model"] = resolve_model(values.get("model", ""), path.parent)
    try:
        return StudyConfig(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


# ------------------------------------------------------------------------------------------------------ the search


@dataclass(frozen=True)
class StudyResult:
    """What is known of a study.

    Attributes:
        config: what it searches.
        study: as Optuna has it, for ``optuna.visualization``.
    """

    config: StudyConfig
    study: optuna.Study

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per trial: the columns of ``COLUMNS`` and one for each searched setting.

        Those trained to the end come first, the best in front: by accuracy, then by loss, then the earlier one. The
        scores are those on the validation fold at the epoch kept; ``accuracy`` of other trials is that of their last
        epoch. ``fit`` names the run folder.
        """
        rows = [_row(trial) for trial in counted(self.study)]
        rows.sort(key=lambda row: (0, -row["accuracy"], row["loss"]) if row["state"] == COMPLETE else (1, 0, 0))
        return pd.DataFrame(rows, columns=[*COLUMNS, *self.config.search], dtype=object)

    @property
    def done(self) -> pd.DataFrame:
        """The trials that were trained to the end, the best first."""
        return self.table[self.table["state"] == COMPLETE]

    @property
    def best(self) -> Experiment | None:
        """The experiment with the best trial's settings; None if no trial was trained to the end."""
        if self.done.empty:
            return None
        number = int(self.done["trial"].iloc[0])
        return self.config.with_settings(self.study.get_trials(deepcopy=False)[number].user_attrs["settings"])


def run_study(config: StudyConfig, dataset: Dataset, *, say: Callable[[str], None] = print) -> StudyResult:
    """Work on a study until it has all its trials; other processes may work on it at the same time.

    What is scored is the window accuracy on the validation fold at the epoch kept: the rule by which a fit chooses its
    epoch. Clip accuracy moves in steps of a clip and ties often, and the loss blames mixing and smoothed labels for the
    modest probabilities that they are meant to bring; both are recorded, and the loss decides between equals.

    The random numbers of a trial follow from the study's seed and from how many trials there are before it, so a single
    worker that is interrupted and started anew makes the same study. After ``kill -9`` it may not: until the killed
    trial is taken for dead, others are drawn without knowing its score.

    Args:
        config: what is searched.
        dataset: the one that it names.
        say: called with one line for each trial that ended.

    Returns:
        The study when all its trials have ended.

    Raises:
        InputError: a fold or a device that is not there, a damaged record, or a full disk.
    """
    choose_device(config.experiment.device)  # raises if it is not present
    path = config.record_path(dataset)  # raises for a fold that is not there
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # the heartbeat is one for Optuna
            study = _open_study(config, path)
            _Worker(config, dataset, study, say).work()
        return StudyResult(config, study)
    except (OSError, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error.__cause__ or error).split("\n")[0][:100]
        raise InputError(
            f"cannot use study {path} ({reason}); free space or choose another runs_dir, or remove the file if it is "
            "damaged (what was trained is not trained again)"
        ) from None


optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # the line for each trial comes from the worker


def _queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Let a trial go on later, with the same settings and so from the checkpoint of its fit."""
    optuna.storages.RetryHeartbeatStaleTrialCallback()(study, trial)


def _open_study(config: StudyConfig, path: Path) -> optuna.Study:
    with hold_lock(path.with_name(f".{path.name}.lock")):  # two that create the tables at once would collide
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path}",
            engine_kwargs={"connect_args": {"timeout": 60}},  # seconds to wait while other workers write
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=_queue_again,
        )
        pruner = optuna.pruners.MedianPruner(config.startup, math.ceil(config.prune_after * config.experiment.epochs))
        study = optuna.create_study(
            study_name=path.stem, storage=storage, pruner=pruner, direction="maximize", load_if_exists=True
        )
        # The first trial is the recipe as it stands: what every other one has to beat.
        as_it_stands = config.as_it_stands()
        if as_it_stands is not None and not study.get_trials(deepcopy=False):
            study.enqueue_trial(as_it_stands)
        return study


class _SurplusTrialError(Exception):
    """Two workers began the last trial at once."""


@dataclass(frozen=True)
class _Worker:
    """One process at work on a study."""

    config: StudyConfig
    dataset: Dataset
    study: optuna.Study
    say: Callable[[str], None]

    def work(self) -> None:
        """Carry out trials until all have ended; when all have begun, wait for those of others, which may die."""
        while True:
            optuna.storages.fail_stale_trials(self.study)  # those of dead workers, which are queued again
            trials = counted(self.study)
            states = [trial.state for trial in trials]
            if len(trials) < self.config.trials or TrialState.WAITING in states:
                self.study.optimize(self._objective, 1, catch=(_SurplusTrialError,), callbacks=[self._tell_end])
            elif TrialState.RUNNING in states:
                time.sleep(HEARTBEAT_SECONDS)
            else:
                return

    def _objective(self, trial: Trial) -> float:
        trial.set_user_attr("began", trial.number)
        earlier = [other for other in counted(self.study) if other.number < trial.number]
        if len(earlier) >= self.config.trials:
            raise _SurplusTrialError
        seed = int(np.random.SeedSequence([self.config.experiment.seed, len(earlier)]).generate_state(1)[0])
        # Tree-structured Parzen estimators (Bergstra et al. 2011).
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.config.startup)
        try:
            return self._train(trial, self.config.draw(trial))
        except (Exception, KeyboardInterrupt) as end:
            if not isinstance(end, (optuna.TrialPruned, optuna.exceptions.UpdateFinishedTrialError)):
                _queue_again(self.study, self.study.get_trials()[trial.number])  # for when the study is started anew
            raise

    def _train(self, trial: Trial, settings: dict[str, Any]) -> float:
        experiment = self.config.with_settings(settings)
        config = experiment.tuning_fit(self.dataset)
        trial.set_user_attr("settings", settings)
        trial.set_user_attr("fit", config.fit_id)
        reported: set[int] = set()

        def report(_: FitConfig, history: list[dict[str, float]]) -> None:
            for row in history[len(reported) :]:
                trial.report(row["validation_accuracy"], step=int(row["epoch"]))
                reported.add(int(row["epoch"]))
            if len(history) < config.epochs and trial.should_prune():
                raise optuna.TrialPruned

        try:
            run = fit(config, self.dataset, runs_dir=experiment.runs_dir, device=experiment.device, progress=report)
        except (optuna.TrialPruned, DivergedError) as end:
            if isinstance(end, DivergedError):
                trial.set_user_attr("reason", str(end))
            RunStore(experiment.runs_dir).drop_checkpoint(config)  # nothing asks for the rest of it
            # Recorded as pruned, a trial that diverged teaches the search to keep away from its values.
            raise optuna.TrialPruned from None
        history: list[Any] = run.history.to_dict(orient="records")
        report(config, history)  # of a fit that had been trained before, nothing was reported yet
        row = history[int(run.metrics["chosen"]["epoch"]) - 1]
        trial.set_user_attr("kept", {name: row[f"validation_{name}"] for name in ("accuracy", "clip_accuracy", "loss")})
        return float(row["validation_accuracy"])

    def _tell_end(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if trial.state == TrialState.FAIL:
            return
        row, found = _row(trial), StudyResult(self.config, study)
        ended = sum(each.state.is_finished() for each in counted(study))
        settings = ", ".join(f"{name} {row[name]}" for name in self.config.search)
        line = f"trial {trial.number} ({ended} of {max(ended, self.config.trials)} ended): {settings}: {row['state']}"
        reached = f" after epoch {row['epochs']}, {100 * row['accuracy']:.1f} % of the windows"
        line += f", {trial.user_attrs['reason']}" if "reason" in trial.user_attrs else reached
        best = not found.done.empty and found.done["trial"].iloc[0] == trial.number
        self.say(f"{line}; the best so far" if best else line)


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of a study that are trained or will be.

    Those that failed were queued again, or were one too many. A trial whose worker was killed before its first
    heartbeat is never found dead by Optuna, and is left out as well.
    """
    limit = datetime.now() - timedelta(seconds=GRACE_SECONDS)
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]
    silent = [
        trial for trial in trials if trial.state == TrialState.RUNNING and trial.user_attrs.get("began") != trial.number
    ]
    lost = {trial.number for trial in silent if trial.datetime_start and trial.datetime_start < limit}
    return [trial for trial in trials if trial.number not in lost]


def _row(trial: FrozenTrial) -> dict[str, Any]:
    reached = trial.intermediate_values
    row: dict[str, Any] = {
        "trial": trial.number,
        "state": "diverged" if "reason" in trial.user_attrs else trial.state.name.lower(),
        "epochs": len(reached),
        "accuracy": reached[max(reached)] if reached else math.nan,
        "fit": trial.user_attrs.get("fit", ""),
    }
    return {**row, **trial.user_attrs.get("settings", {}), **trial.user_attrs.get("kept", {})}

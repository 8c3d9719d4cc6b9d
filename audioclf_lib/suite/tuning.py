"""Studies: settings searched by Optuna, by any number of workers that share a folder.

A study is one journal file, ``<runs_dir>/<dataset>/studies/<study id>.journal``, which every worker reads and appends
to. A trial's fit is an ordinary run folder, named by its settings. Who works on a trial holds a lease on it, since a
journal does not know whether its writers live: a trial that is running there and whose lease is free was left by a
worker that is gone, and the next worker goes on with it under its number, from the checkpoint of its fit.

The random numbers of a trial follow from the study's seed and the trial's number, so it does not matter which worker
begins it. One worker, interrupted or not, always makes the same study; several at once know other scores when they
choose, and make another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.exceptions import UpdateFinishedTrialError
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import explained
from audioclf_lib.config import DatasetFacts, FitConfig
from audioclf_lib.data import Dataset
from audioclf_lib.runs.locks import hold_lock
from audioclf_lib.runs.store import Run, RunStore
from audioclf_lib.suite.search import StudyConfig, is_whole
from audioclf_lib.training.fit import DivergedError, choose_device, fit

# With fewer trials the forest behind the importances has next to nothing to learn from.
FEWEST_FOR_IMPORTANCE = 10
# Drawn values are rounded, so that what is shown can be typed and is exactly what was trained.
DIGITS = 3

DONE, PRUNED, DIVERGED, RUNNING, WAITING = "done", "pruned", "diverged", "running", "waiting"
STATES = {TrialState.COMPLETE: DONE, TrialState.PRUNED: PRUNED, TrialState.RUNNING: RUNNING}
KEPT, REASON = "kept", "reason"  # attributes of a trial: what was kept of its fit, and why it has no score

_explained = partial(explained, remedy="free space or choose another runs_dir", fault="cannot use study")

COLUMNS = {
    **{"trial": "int64", "state": "str", "epochs": "int64", "accuracy": "float64", "clip_accuracy": "float64"},
    **{"loss": "float64", "kept_epoch": "Int64", "reason": "str", "fit": "str"},
}


@dataclass(frozen=True)
class Study:
    """What is known of a study.

    Attributes:
        config: what it searches.
        study_id: its name, and that of its journal.
        trials: a row per trial with the columns of ``COLUMNS`` and one for each searched setting: number, state, epochs
            trained, scores on the validation fold at the epoch kept (of a pruned trial the accuracy of its last epoch),
            why a diverged one has none, name of the run folder.
        importances: setting -> share of the variance of the accuracy; empty if there are too few trials to tell.
        best_run: the best trial's run folder, None if no trial is done or the folder is gone.
    """

    config: StudyConfig
    study_id: str
    trials: pd.DataFrame
    importances: dict[str, float] = field(default_factory=dict)
    best_run: Run | None = None

    @property
    def done(self) -> pd.DataFrame:
        """The trials that were trained to the end."""
        return self.trials[self.trials["state"] == DONE]

    @property
    def ended(self) -> pd.DataFrame:
        """The trials that nobody works on any more."""
        return self.trials[self.trials["state"].isin([DONE, PRUNED, DIVERGED])]

    @property
    def ranked(self) -> pd.DataFrame:
        """Those done, the best first: by the rule that chooses a fit's epoch, then the earlier one."""
        return self.done.sort_values(["accuracy", "loss", "trial"], ascending=[False, True, True])

    @property
    def sorted_trials(self) -> pd.DataFrame:
        """All trials: those done, the best first, then the others."""
        others = self.trials[self.trials["state"] != DONE]
        return pd.concat([self.ranked, others], ignore_index=True)

    @cached_property
    def best_settings(self) -> dict[str, Any] | None:
        """What ``recipe_changes`` must say to train as the best trial did; None if none is done."""
        if self.done.empty:
            return None
        row = self.ranked.iloc[0]
        return self.config.recipe_changes | {name: row[name] for name in self.config.search}


def run_study(config: StudyConfig, dataset: Dataset, *, say: Callable[[str], None] = print) -> Study:
    """Work on a study until it has all its trials; others may work on it at the same time.

    What is scored is the window accuracy on the validation fold at the epoch kept: the rule by which a fit chooses its
    epoch. Clip accuracy moves in steps of a clip and ties often, and the loss blames mixing and smoothed labels for the
    modest probabilities that they are meant to bring; both are recorded, and the loss decides between equals.

    Args:
        config: what is searched.
        dataset: the one that it names.
        say: told in a line how each trial ended.

    Returns:
        The study as it is then.

    Raises:
        InputError: a fold or a device that is not there, a damaged journal, or a full disk.
    """
    choose_device(config.device)  # raises if it is not present
    config.fit({}, dataset)  # raises for a fold that is not there
    return _Worker(config, dataset, say).work()


def read_study(config: StudyConfig, dataset: DatasetFacts) -> Study:
    """What is known of a study; nothing is trained or written.

    Raises:
        InputError: its journal is damaged.
    """
    study_id, path = config.study_id(dataset), journal_path(config, dataset)
    if not path.exists():
        return Study(config, study_id, _tabulate(config, []))
    with _explained(path):
        storage = _open_journal(path)
        if not _holds(storage, study_id):
            return Study(config, study_id, _tabulate(config, []))
        return _describe(config, dataset, optuna.load_study(study_name=study_id, storage=storage))


def journal_path(config: StudyConfig, dataset: DatasetFacts) -> Path:
    """Where a study is kept: beside the run folders of its fits."""
    return config.runs_dir / dataset.name / "studies" / f"{config.study_id(dataset)}.journal"


class _Worker:
    """One process at work on a study."""

    def __init__(self, config: StudyConfig, dataset: Dataset, say: Callable[[str], None]) -> None:
        self.config, self.dataset, self.say = config, dataset, say
        self.store = RunStore(config.runs_dir)
        self.path = journal_path(config, dataset)
        with _explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._alone():
                self.storage = _open_journal(self.path)
                self.study = self._join()

    def work(self) -> Study:
        with _explained(self.path):
            while True:
                with ExitStack() as stack:
                    trial = self._claim(stack)
                    if trial is None:
                        break
                    try:
                        self._train(trial)
                    except UpdateFinishedTrialError:
                        continue  # this process slept so long that another one took the trial over, and was faster
                self._tell_end(trial.number)
            return _describe(self.config, self.dataset, self.study)

    # ------------------------------------------------------------------------------------------- who does which trial

    def _join(self) -> optuna.Study:
        pruner = MedianPruner(
            n_startup_trials=self.config.startup,
            n_warmup_steps=math.ceil(self.config.prune_after * self.config.epochs),
        )
        name = self.path.stem
        if _holds(self.storage, name):
            study = optuna.load_study(study_name=name, storage=self.storage, pruner=pruner)
        else:
            study = optuna.create_study(study_name=name, storage=self.storage, pruner=pruner, direction="maximize")
        # The first trial is the recipe as it stands: what every other one has to beat.
        as_it_stands = self.config.as_it_stands()
        if as_it_stands is not None and not study.get_trials(deepcopy=False):
            study.enqueue_trial(as_it_stands)
        return study

    def _claim(self, stack: ExitStack) -> Trial | None:
        """The next trial, with a lease on it that ``stack`` holds; None when all are finished.

        One that was left is taken first, then a new one. When all have begun and others work on the rest, wait for
        them: one of them may die.
        """
        while True:
            with self._alone():
                trials = self.study.get_trials(deepcopy=False)
                running = [trial.number for trial in trials if trial.state == TrialState.RUNNING]
                for number in running:
                    if self._is_left(number, stack):
                        return self._resume(number)
                if len(trials) < self.config.trials or any(trial.state == TrialState.WAITING for trial in trials):
                    return self._begin(len(trials), stack)
            if not running:
                return None
            with hold_lock(self._marker(running[0]), partial(self._tell_waiting, running[0])):
                pass

    def _is_left(self, number: int, stack: ExitStack) -> bool:
        """Whether no process works on the trial; then ``stack`` holds its lease."""
        try:
            stack.enter_context(hold_lock(self._marker(number), _refuse_to_wait))
        except _HeldError:
            return False
        return True

    def _begin(self, number: int, stack: ExitStack) -> Trial:
        self.study.sampler = self._sampler(number)
        trial = self.study.ask()
        stack.enter_context(hold_lock(self._marker(trial.number)))
        _suggest(trial, self.config)  # before others ask, who then keep away from these values
        return trial

    def _resume(self, number: int) -> Trial:
        self.study.sampler = self._sampler(number)
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        return Trial(self.study, self.storage.get_trial_id_from_study_id_trial_number(study_id, number))

    def _sampler(self, number: int) -> TPESampler:
        """Tree-structured Parzen estimators (Bergstra et al. 2011), with random numbers of the trial's own."""
        seed = int(np.random.SeedSequence([self.config.seed, number]).generate_state(1)[0])
        return TPESampler(seed=seed, n_startup_trials=self.config.startup)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One worker at a time looks what there is to do and takes it, so that there is no trial too many."""
        with hold_lock(self.path.with_name(f".{self.path.stem}.lock")):
            yield

    def _marker(self, number: int) -> Path:
        return self.path.with_name(f".{self.path.stem}.trial{number}.lock")

    # ------------------------------------------------------------------------------------------------------ one trial

    def _train(self, trial: Trial) -> None:
        config = self.config.fit(_suggest(trial, self.config), self.dataset)
        trial.set_user_attr("fit", config.fit_id)

        def report(_: FitConfig, history: list[dict[str, float]]) -> None:
            self._report(trial, history)
            if len(history) < config.epochs and trial.should_prune():
                raise optuna.TrialPruned

        try:
            # One that was left may have been judged already, or be trained to its end.
            if not self.store.exists(config) and trial.should_prune():
                raise optuna.TrialPruned
            run = fit(config, self.dataset, runs_dir=self.config.runs_dir, device=self.config.device, progress=report)
        except (optuna.TrialPruned, DivergedError) as end:
            if isinstance(end, DivergedError):
                trial.set_user_attr(REASON, str(end))
            # Told as pruned, a trial that diverged teaches the search to keep away from its values.
            self.study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
            self.store.drop_checkpoint(config)  # nobody asks for the rest of it
            return
        history: list[Any] = run.history.to_dict(orient="records")
        self._report(trial, history)  # of a fit that had been trained before, nothing was told yet
        kept = _kept(run)
        trial.set_user_attr(KEPT, kept)
        self.study.tell(trial, kept["accuracy"], skip_if_finished=True)

    def _report(self, trial: Trial, history: list[dict[str, float]]) -> None:
        known = self._look(trial.number).intermediate_values
        for row in history:
            if int(row["epoch"]) not in known:
                trial.report(row["validation_accuracy"], step=int(row["epoch"]))

    def _look(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _tell_end(self, number: int) -> None:
        trials = self.study.get_trials(deepcopy=False)
        self.say(describe_trial(Study(self.config, self.path.stem, _tabulate(self.config, trials)), number))

    def _tell_waiting(self, number: int, holder: str) -> None:
        self.say(f"all trials have begun; waiting for trial {number} of {holder}")


class _HeldError(Exception):
    """Somebody else holds the lease."""


def _refuse_to_wait(holder: str) -> None:
    raise _HeldError(holder)


def _suggest(trial: Trial, config: StudyConfig) -> dict[str, Any]:
    """The trial's settings: those it has already, or new ones."""
    settings: dict[str, Any] = {}
    for name, searched in config.search.items():
        if searched.choices is not None:
            settings[name] = trial.suggest_categorical(name, list(searched.choices))
        elif is_whole(name):
            settings[name] = trial.suggest_int(name, int(searched.low or 0), int(searched.high or 0), log=searched.log)
        else:
            settings[name] = trial.suggest_float(name, searched.low or 0.0, searched.high or 0.0, log=searched.log)
    return _rounded(settings, config)


def _rounded(settings: dict[str, Any], config: StudyConfig) -> dict[str, Any]:
    """Drawn numbers as they are trained and shown; the ends of a range stay its ends."""
    rounded = dict(settings)
    for name, value in settings.items():
        searched = config.search[name]
        if searched.choices is None and not is_whole(name):
            rounded[name] = min(max(float(f"{value:.{DIGITS}g}"), searched.low or 0.0), searched.high or 0.0)
    return rounded


def _kept(run: Run) -> dict[str, float]:
    """Scores on the validation fold at the epoch kept."""
    epoch = int(run.metrics["chosen"]["epoch"])
    row = run.history.iloc[epoch - 1]
    return {
        "accuracy": float(row["validation_accuracy"]),
        "clip_accuracy": float(row["validation_clip_accuracy"]),
        "loss": float(row["validation_loss"]),
        "kept_epoch": epoch,
    }


# -------------------------------------------------------------------------------------------------------- the journal


def _open_journal(path: Path) -> JournalStorage:
    """Read a journal; a last line that a full disk or a dying machine cut short is taken out.

    The lock is a file made by ``open`` with ``O_EXCL``, as a lease's marker is, which NFS knows since version 3. The
    other one that Optuna offers, a symbolic link, is for version 2, and not every file system has links.

    Raises:
        InputError: it is damaged otherwise.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line per trial is ours to say
    lock = JournalFileOpenLock(str(path))
    backend = JournalFileBackend(str(path), lock_obj=lock)  # makes the file
    if not path.read_bytes().endswith(b"\n") and path.stat().st_size:
        lock.acquire()
        try:
            content = path.read_bytes()
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
        finally:
            lock.release()
    try:
        return JournalStorage(backend)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise InputError(
            f"{path} is damaged ({str(error)[:100]}); restore it, or remove it to begin the study anew (what was "
            "trained is not trained again)"
        ) from None


def _holds(storage: JournalStorage, study_id: str) -> bool:
    return study_id in [study.study_name for study in storage.get_all_studies()]


# --------------------------------------------------------------------------------------------------------- the record


def _describe(config: StudyConfig, dataset: DatasetFacts, study: optuna.Study) -> Study:
    table = _tabulate(config, study.get_trials(deepcopy=False))
    known = Study(config, study.study_name, table, _importances(study))
    if known.best_settings is None:
        return known
    store, best = RunStore(config.runs_dir), config.fit(known.best_settings, dataset)
    return replace(known, best_run=store.load(best) if store.exists(best) else None)


def _tabulate(config: StudyConfig, trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    # As objects, settings keep their types: a whole number beside a missing one would become another kind.
    rows = [_row(config, trial) for trial in trials]
    return pd.DataFrame(rows, columns=[*COLUMNS, *config.search], dtype=object).astype(COLUMNS)


def _row(config: StudyConfig, trial: FrozenTrial) -> dict[str, Any]:
    state = STATES.get(trial.state, WAITING)
    reached = trial.intermediate_values
    kept = trial.user_attrs.get(KEPT, {}) if state == DONE else {}
    if REASON in trial.user_attrs and state == PRUNED:
        state = DIVERGED
    return {
        "trial": trial.number,
        "state": state,
        "epochs": len(reached),
        "accuracy": kept.get("accuracy", reached[max(reached)] if reached else math.nan),
        "clip_accuracy": kept.get("clip_accuracy", math.nan),
        "loss": kept.get("loss", math.nan),
        "kept_epoch": kept.get("kept_epoch", pd.NA),
        "reason": trial.user_attrs.get(REASON, ""),
        "fit": trial.user_attrs.get("fit", ""),
    } | _rounded(trial.params, config)


def _importances(study: optuna.Study) -> dict[str, float]:
    """Share of the variance of the accuracy that each setting explains by itself (fANOVA, Hutter et al. 2014)."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < FEWEST_FOR_IMPORTANCE or len({trial.value for trial in done}) == 1:
        return {}
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))


def describe_trial(study: Study, number: int) -> str:
    """One line: which trial, its settings, how it ended, and whether it is the best so far."""
    row = study.trials.iloc[number]
    settings = ", ".join(f"{name} {row[name]}" for name in study.config.search)
    ended = len(study.ended)
    head = f"trial {number} ({ended} of {max(ended, study.config.trials)} ended): {settings}: "
    if row["state"] == DIVERGED:
        return head + f"diverged, {row['reason']}"
    if row["state"] == PRUNED:
        return head + f"pruned after epoch {row['epochs']} at {100 * row['accuracy']:.1f} % of the windows"
    best = "; the best so far" if study.ranked.iloc[0]["trial"] == number else ""
    shares = f"{100 * row['accuracy']:.1f} % of the windows, {100 * row['clip_accuracy']:.1f} % of the clips"
    return head + f"{shares} at epoch {row['kept_epoch']}{best}"

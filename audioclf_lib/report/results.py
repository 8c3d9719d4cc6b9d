"""Gathers run folders: which fits of an experiment or a plan are there, which are missing, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import pandas as pd

from audioclf_lib.config import (
    DatasetFacts,
    Experiment,
    FitConfig,
    KnownDataset,
    Recipe,
    architecture_title,
    make_recipe,
)
from audioclf_lib.data import dataset_slug, has_slug
from audioclf_lib.metrics.scores import Level, Scores, best_fit, evaluate, experiment_scores
from audioclf_lib.metrics.uncertainty import (
    Answers,
    Calibration,
    Interval,
    PairTest,
    bootstrap_interval,
    calibrate_windows,
    compare_averages,
    gather_answers,
)
from audioclf_lib.runs.store import CONFIG, Run, RunStore
from audioclf_lib.suite.plan import Plan
from audioclf_lib.suite.variants import Case, planned_diagnosis, read_cases


@dataclass(frozen=True)
class ExperimentResult:
    """An experiment with its finished fits.

    Attributes:
        experiment: what was asked for.
        runs: the finished fits, by validation fold.
        missing: configurations of fits that are not there; None if not even the data set's folds are known.
    """

    experiment: Experiment
    runs: tuple[Run, ...]
    missing: tuple[FitConfig, ...] | None = ()

    @property
    def name(self) -> str:
        """Unique among the experiments of a report: ``cnn-kfold``, ``cnn-kfold-seed1``, ``cnn-split-test3``."""
        return self.experiment.full_name

    @property
    def architecture_and_seed(self) -> str:
        """Unique among the experiments of one protocol: with a seed other than 0 ``CNN, seed 1``."""
        return self.architecture + (f", seed {self.experiment.seed}" if self.experiment.seed else "")

    @property
    def title(self) -> str:
        """Heading, e.g. ``Transformer, 2 heads: 4-fold cross-validation``."""
        n_fits = len(self.runs) + len(self.missing or ())
        protocol = "train-test split"
        if self.experiment.protocol == "kfold":
            protocol = f"{n_fits}-fold cross-validation" if n_fits else "k-fold cross-validation"
        return f"{self.architecture}: {protocol}" + (f" ({', '.join(self.particulars)})" if self.particulars else "")

    @property
    def short_title(self) -> str:
        """For tables and axes, e.g. ``Transformer, 2 heads, k-fold``."""
        protocol = "k-fold" if self.experiment.protocol == "kfold" else "split"
        return ", ".join([self.architecture, protocol, *self.particulars])

    @property
    def architecture(self) -> str:
        """``CNN``, ``Transformer, 2 heads``."""
        return architecture_title(self.experiment.model, self.experiment.num_heads)

    @property
    def particulars(self) -> list[str]:
        """Test fold and seed where they are not the defaults, e.g. ``["test fold 3"]``."""
        return [f"{key.replace('_', ' ')} {value}" for key, value in self.experiment.particulars.items()]

    @property
    def is_complete(self) -> bool:
        return bool(self.runs) and not self.missing

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.runs[0].config.class_names

    @property
    def dataset(self) -> str:
        return self.runs[0].config.dataset

    @cached_property
    def best(self) -> Run:
        """The fit that is best on its own validation fold, shown in full."""
        return best_fit(self.runs)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Test scores of every fit at both levels, see :func:`audioclf_lib.metrics.scores.experiment_scores`."""
        return experiment_scores(self.runs)

    def scores(self, level: Level = "window") -> Scores:
        """Test scores of the best fit."""
        return evaluate(self.best.predictions, self.class_names, level=level)

    def values(self, level: Level, score: str = "accuracy") -> list[float]:
        """A score of every fit on the test fold."""
        return [float(value) for value in self.table.loc[self.table["level"] == level, score]]

    @cached_property
    def answers(self) -> Answers:
        """What all fits answer to the test clips."""
        return gather_answers(self.runs)

    @cached_property
    def intervals(self) -> dict[Level, Interval]:
        """95 % intervals of the mean accuracies over the fits, by bootstrap over the test clips."""
        return {
            "window": bootstrap_interval(self.answers.window_shares),
            "clip": bootstrap_interval(self.answers.clip_shares),
        }

    @property
    def is_averaged(self) -> bool:
        """Whether the fits' probabilities are averaged per clip: in a k-fold experiment with all of its fits."""
        return self.experiment.protocol == "kfold" and self.is_complete and len(self.runs) > 1

    @property
    def averaged_accuracy(self) -> float:
        """Of the clips, by the mean of the fits' probabilities."""
        return float(self.answers.averaged_right.mean())

    @cached_property
    def averaged_interval(self) -> Interval:
        return bootstrap_interval(self.answers.averaged_right)

    @cached_property
    def calibration(self) -> Calibration:
        """Of the answers of all fits to the test windows."""
        return calibrate_windows(self.answers)

    def histories(self) -> dict[str, pd.DataFrame]:
        """History of every fit under a label for legends."""
        return {fit_label(run): run.history for run in self.runs}

    def chosen_epochs(self) -> dict[str, int]:
        return {fit_label(run): int(run.metrics["chosen"]["epoch"]) for run in self.runs}


def fit_label(run: Run) -> str:
    return f"validation fold {run.config.val_fold}"


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation where there are two values or more."""
    series = pd.Series(list(values), dtype=float)
    return float(series.mean()), float(series.std()) if len(series) > 1 else None


def gather(plan: Plan, runs_dir: Path | str) -> list[ExperimentResult]:
    """The results of a plan's experiments, in its order: exactly its fits, with those that are missing.

    Only run folders are read; the data set need not be there.
    """
    return _gather_all(plan.experiments_list(runs_dir=runs_dir), plan, runs_dir)


def gather_checks(plan: Plan, runs_dir: Path | str) -> list[ExperimentResult]:
    """The results of a plan's checks, as :func:`gather` gives those of its experiments."""
    return _gather_all(plan.checks_list(runs_dir=runs_dir), plan, runs_dir)


def _gather_all(experiments: list[Experiment], plan: Plan, runs_dir: Path | str) -> list[ExperimentResult]:
    store = RunStore(runs_dir)
    known = known_dataset(store, dataset_slug(plan.dataset))
    return [gather_experiment(experiment, store, known) for experiment in experiments]


def compare_kfold(results: Sequence[ExperimentResult]) -> list[PairTest]:
    """Exact tests of all pairs of complete k-fold experiments with the same seed and test fold, in one family.

    A split is in no pair, since its fit is one of the k-fold fits; nor are two seeds of one architecture.
    """
    there = {result.name: result for result in results if result.is_averaged}

    def trained_alike(pair: tuple[ExperimentResult, ExperimentResult]) -> bool:
        return len({(result.experiment.seed, result.experiment.test_fold) for result in pair}) == 1

    pairs = [pair for pair in combinations(there.values(), 2) if trained_alike(pair)]
    return compare_averages(
        {name: result.answers for name, result in there.items()}, [(one.name, other.name) for one, other in pairs]
    )


def gather_diagnosis(plan: Plan, runs_dir: Path | str) -> list[Case] | None:
    """What is there of a plan's diagnosis: None if it has none, nothing if not even the data set's folds are known."""
    diagnosis = planned_diagnosis(plan, runs_dir=runs_dir)
    if diagnosis is None:
        return None
    known = known_dataset(RunStore(runs_dir), dataset_slug(plan.dataset))
    return read_cases(diagnosis, known) if known else []


def split_beside_kfold(split: Experiment, dataset: DatasetFacts) -> tuple[ExperimentResult, ExperimentResult]:
    """The k-fold experiment with that one of its fits that has the split's validation fold, and the split.

    Raises:
        InputError: the fit has not been trained.
    """
    kfold = Experiment(**(split.model_dump() | {"protocol": "kfold"}))
    (config,) = split.fits(dataset)
    (partner,) = (fit for fit in kfold.fits(dataset) if fit.val_fold == config.val_fold)
    store = RunStore(split.runs_dir)
    return ExperimentResult(kfold, (store.load(partner),)), ExperimentResult(split, (store.load(config),))


def recipe_of(results: Sequence[ExperimentResult], model: str) -> Recipe:
    """The recipe settings of an architecture: the plan's, also where the plan leaves the architecture out."""
    for result in results:
        if result.experiment.model == model:
            return result.experiment.recipe_settings
    return make_recipe(results[0].experiment.recipe, model)


def head_counts(results: Sequence[ExperimentResult]) -> list[int]:
    """The Transformers' head counts in a plan; those of the assignment where it has none."""
    counts = {result.experiment.num_heads for result in results if result.experiment.num_heads}
    return sorted(counts) or [1, 2, 4]


def number_of_classes(results: Sequence[ExperimentResult]) -> int:
    """As the runs say; ten before there is a run."""
    return next((len(result.class_names) for result in results if result.runs), 10)


def gather_experiment(experiment: Experiment, store: RunStore, known: KnownDataset | None) -> ExperimentResult:
    if known is None:
        return ExperimentResult(experiment, (), None)
    configs = experiment.fits(known)
    runs = tuple(store.load(config) for config in configs if store.exists(config))
    return ExperimentResult(experiment, runs, tuple(config for config in configs if not store.exists(config)))


def known_dataset(store: RunStore, slug: str) -> KnownDataset | None:
    """The data set of that slug as its run folders describe it; where its content changed, the newest version."""
    runs = [run for run in store.find() if has_slug(run.config.dataset, slug)]
    if not runs:
        return None
    newest = max(runs, key=lambda run: (run.path / CONFIG).stat().st_mtime).config
    folds = tuple(sorted({*newest.train_folds, newest.val_fold, newest.test_fold}))
    return KnownDataset(newest.dataset, newest.fingerprint, folds, newest.class_names)

"""An experiment with its finished fits, and the scores that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import pandas as pd

from audioclf_lib._support.digests import digest
from audioclf_lib.config import Experiment, FitConfig, slug
from audioclf_lib.metrics.scores import LEVELS, Level, Scores, best_fit, evaluate
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
from audioclf_lib.runs.store import Run

SPLIT_TITLES = {"train": "Training", "validation": "Validation", "test": "Test"}
PROTOCOL_TITLES = {"kfold": "k-fold", "split": "split"}


@dataclass(frozen=True)
class ExperimentResult:
    """An experiment with its finished fits.

    Attributes:
        experiment: what was asked for.
        runs: the finished fits, by validation fold.
        missing: configurations of fits that are not there.
        mark: what else tells it from other experiments: ``8 epochs``, the name of a change in an ablation.
    """

    experiment: Experiment
    runs: tuple[Run, ...]
    missing: tuple[FitConfig, ...] = ()
    mark: str = ""

    @property
    def name(self) -> str:
        """Short name with what differs from the defaults: ``cnn-kfold``, ``cnn-split-test3-as-written``."""
        return slug(self.experiment.full_name, self.mark)

    @property
    def architecture(self) -> str:
        """``CNN``, ``Transformer, 2 heads``, ``My net, width 32``."""
        return self.experiment.title

    @property
    def title(self) -> str:
        """Heading, e.g. ``Transformer, 2 heads: 4-fold cross-validation``."""
        n_fits = len(self.configs)
        protocol = "train-test split"
        if self.experiment.protocol == "kfold":
            protocol = f"{n_fits}-fold cross-validation" if n_fits else "k-fold cross-validation"
        return f"{self.architecture}: {protocol}" + (f" ({', '.join(self.differences)})" if self.differences else "")

    @property
    def short_title(self) -> str:
        """For tables and axes, e.g. ``Transformer, 2 heads, k-fold``."""
        return ", ".join([self.architecture, PROTOCOL_TITLES[self.experiment.protocol], *self.differences])

    @property
    def differences(self) -> list[str]:
        """What is not the default, and the mark: ``["test fold 3", "as-written", "learning rate 0.003"]``."""
        return list(dict.fromkeys(filter(None, [*self.experiment.differences, self.mark])))

    @property
    def configs(self) -> list[FitConfig]:
        """Of all fits, finished or missing, by validation fold."""
        return sorted([*(run.config for run in self.runs), *self.missing], key=lambda config: config.val_fold)

    @property
    def folder(self) -> str:
        """Folder of this result's figures: no other data set, recipe or setting has the same."""
        fits = digest(" ".join(config.fit_id for config in self.configs))
        return f"{self.dataset}/{self.name}-e{self.experiment.epochs}-{fits}"

    @property
    def is_complete(self) -> bool:
        return bool(self.runs) and not self.missing

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.configs[0].class_names

    @property
    def dataset(self) -> str:
        return self.configs[0].dataset

    @cached_property
    def best(self) -> Run:
        """The fit that is best on its own validation fold, shown in full."""
        return best_fit(self.runs)

    def scores(self, level: Level = "window") -> Scores:
        """Test scores of the best fit."""
        return evaluate(self.best.predictions, self.class_names, level=level)

    def confusion(self, level: Level = "window") -> pd.DataFrame:
        """Confusion matrix of the best fit on the test fold: rows are true classes, columns the answers."""
        return self.scores(level).confusion_table

    def fits_table(self, level: Level = "clip") -> pd.DataFrame:
        """A row per fit and, for several fits, their mean and sample standard deviation.

        Returns:
            DataFrame, index *Validated on*; columns *Epoch* (kept), and with the weights of that epoch, without dropout
            and augmentation, *Training*, *Validation*, *Test* (accuracy at ``level``), *Training loss*, *Validation
            loss*, *Test loss* (over windows), and *Balanced*, *Macro F1*, *AUC* (macro) on the test fold at ``level``.
        """
        rows = {}
        for run in self.runs:
            scores, test = run.metrics["scores"], run.metrics["scores"]["test"][level]
            rows[f"fold {run.config.val_fold}"] = {
                "Epoch": run.metrics["chosen"]["epoch"],
                **{title: scores[split][level]["accuracy"] for split, title in SPLIT_TITLES.items()},
                **{f"{title} loss": run.metrics["losses"][split] for split, title in SPLIT_TITLES.items()},
                "Balanced": test["balanced_accuracy"],
                "Macro F1": test["macro_f1"],
                "AUC": test["auc"]["macro"],
            }
        table = pd.DataFrame.from_dict(rows, orient="index")
        if len(rows) > 1:
            summary = table.drop(columns="Epoch").agg(["mean", "std"]).rename({"std": "deviation"})
            table = pd.concat([table, summary])
        return table.astype({"Epoch": "Int64"}).rename_axis("Validated on")

    def values(self, level: Level, score: str = "accuracy") -> list[float]:
        """A score of every fit on the test fold: ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``auc_macro``."""
        tests = [run.metrics["scores"]["test"][level] for run in self.runs]
        found = [test["auc"]["macro"] if score == "auc_macro" else test[score] for test in tests]
        return [float("nan") if value is None else value for value in found]

    def mean(self, level: Level, score: str = "accuracy") -> float:
        """Mean of a score over the fits."""
        return float(pd.Series(self.values(level, score)).mean())

    def std(self, level: Level, score: str = "accuracy") -> float:
        """Sample standard deviation of a score over the fits; NaN for one fit."""
        return float(pd.Series(self.values(level, score)).std())

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
        """True if the fits' probabilities are averaged per clip: in a k-fold experiment with all of its fits."""
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
        return {f"validation fold {run.config.val_fold}": run.history for run in self.runs}

    def chosen_epochs(self) -> dict[str, int]:
        """The epoch that each fit kept, under the labels of ``histories``."""
        return {f"validation fold {run.config.val_fold}": int(run.metrics["chosen"]["epoch"]) for run in self.runs}


def comparison_table(results: Sequence[ExperimentResult]) -> pd.DataFrame:
    """Accuracies on the test fold: a row per experiment and level; an experiment without runs has no numbers.

    Returns:
        DataFrame with columns experiment, level, mean, std (over the fits), low, high (95 % interval of the mean) and
        fits (list of the accuracies).
    """
    rows = []
    for result in results:
        for level in LEVELS:
            row: dict[str, Any] = {"experiment": result.short_title, "level": level}
            if result.runs:
                row |= result.intervals[level]._asdict()
                row |= {"mean": result.mean(level), "std": result.std(level), "fits": result.values(level)}
            rows.append(row)
    return pd.DataFrame(rows, columns=["experiment", "level", "mean", "std", "low", "high", "fits"])


def compare_kfold(results: Sequence[ExperimentResult]) -> list[PairTest]:
    """Exact tests of all pairs of complete k-fold experiments with the same seed, test fold and recipe, in one family.

    A split is in no pair, since its fit is one of the k-fold fits; nor are two seeds of one architecture.
    """
    there = {result.short_title: result for result in results if result.is_averaged}

    def trained_alike(pair: tuple[ExperimentResult, ExperimentResult]) -> bool:
        return len({(each.experiment.seed, each.experiment.test_fold, each.experiment.recipe) for each in pair}) == 1

    pairs = [pair for pair in combinations(there.values(), 2) if trained_alike(pair)]
    return compare_averages(
        {name: result.answers for name, result in there.items()},
        [(one.short_title, other.short_title) for one, other in pairs],
    )

"""An experiment with its finished fits, and the scores that follow from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import pandas as pd

from audioclf_lib._support.digests import digest
from audioclf_lib.config import Experiment, FitConfig, slug
from audioclf_lib.metrics.scores import FloatArray, Level, Scores, best_fit, evaluate, rows_of_test
from audioclf_lib.metrics.uncertainty import (
    Answers,
    Calibration,
    Contrast,
    Interval,
    bootstrap_interval,
    calibrate,
    calibrate_windows,
    compare_pairs,
    gather_answers,
)
from audioclf_lib.runs.store import Run

SPLIT_TITLES = {"train": "Training", "validation": "Validation", "test": "Test"}
PROTOCOL_TITLES = {"kfold": "k-fold", "split": "split", "rotation": "rotation"}


@dataclass(frozen=True)
class ExperimentResult:
    """An experiment with its finished fits.

    Attributes:
        experiment: what was asked for.
        runs: the finished fits, by validation fold; of a rotation by test fold.
        missing: configurations of fits that are not there.
        mark: what else tells it from other experiments: ``8 epochs``, the name of a change in an ablation.
    """

    experiment: Experiment
    runs: tuple[Run, ...]
    missing: tuple[FitConfig, ...] = ()
    mark: str = ""
    _scores: dict[tuple[Level, bool], Scores] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Short name with what differs from the defaults: ``cnn-kfold``, ``cnn-split-test3-as-written``."""
        return slug(self.experiment.full_name, self.mark)

    @property
    def architecture(self) -> str:
        """``CNN``, ``Transformer, 2 heads``, ``My net, width 32``."""
        return self.experiment.title

    @cached_property
    def n_parameters(self) -> int:
        """Of the architecture with its settings."""
        model = self.experiment.create_model(len(self.class_names))
        return sum(parameter.numel() for parameter in model.parameters())

    @property
    def title(self) -> str:
        """Heading, e.g. ``Transformer, 2 heads: 4-fold cross-validation``."""
        n_fits = len(self.configs)
        protocol = {
            "kfold": f"{n_fits or 'k'}-fold cross-validation",
            "split": "train-test split",
            "rotation": f"rotation over {n_fits or 'all'} test folds",
        }[self.experiment.protocol]
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
        """Of all fits, finished or missing, by test fold and validation fold."""
        configs = [*(run.config for run in self.runs), *self.missing]
        return sorted(configs, key=lambda config: (config.test_fold, config.val_fold))

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

    @property
    def is_rotation(self) -> bool:
        return self.experiment.protocol == "rotation"

    @cached_property
    def best(self) -> Run:
        """The fit that is best on its own validation fold: its weights are shown and kept."""
        return best_fit(self.runs)

    @property
    def shown(self) -> str:
        """Whose answers ``scores`` and ``confusion`` are of, for captions."""
        if len(self.runs) > 1:
            return f"{len(self.runs)} {'test folds' if self.is_rotation else 'fits'} pooled"
        config = self.best.config
        if self.is_rotation:
            return f"the fit tested on fold {config.test_fold}"
        return f"the fit validated on fold {config.val_fold}"

    def scores(self, level: Level = "window", *, heard: bool = False) -> Scores:
        """Test scores of all fits' answers put together; under k-fold each clip is answered by every fit.

        Args:
            heard: without the silent windows. All of them get one answer, which says nothing of a class.
        """
        key = level, heard
        if key not in self._scores:
            rows = pd.concat([rows_of_test(run) for run in self.runs], keys=range(len(self.runs)))
            rows["clip_id"] += rows.index.get_level_values(0).map(" of fit {}".format)  # every fit answers each clip
            rows = rows[~rows["silent"].astype(bool)] if heard else rows
            self._scores[key] = evaluate(rows, self.class_names, level=level)
        return self._scores[key]

    def confusion(self, level: Level = "window", *, heard: bool = False) -> pd.DataFrame:
        """Confusion matrix of ``scores``: rows are true classes, columns the answers."""
        names, counts = list(self.class_names), self.scores(level, heard=heard).confusion
        return pd.DataFrame(counts, pd.Index(names, name="true"), pd.Index(names, name="answer"))

    def fits_table(self, level: Level = "clip") -> pd.DataFrame:
        """A row per fit and, for several fits, their mean and sample standard deviation.

        Returns:
            DataFrame, index *Validated on*, of a rotation *Tested on*; columns *Epoch* (kept), and with the weights of
            that epoch, without dropout and augmentation, *Training*, *Validation*, *Test* (accuracy at ``level``),
            *Training loss*, *Validation loss*, *Test loss* (over windows), and *Balanced*, *Macro F1*, *AUC* (macro)
            on the test fold at ``level``.
        """
        by = "test_fold" if self.is_rotation else "val_fold"
        rows = {}
        for run in self.runs:
            scores, test = run.metrics["scores"], run.metrics["scores"]["test"][level]
            rows[f"fold {getattr(run.config, by)}"] = {
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
        return table.astype({"Epoch": "Int64"}).rename_axis("Tested on" if self.is_rotation else "Validated on")

    def values(self, level: Level, score: str = "accuracy") -> list[float]:
        """A score of every fit on the test fold: ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``auc_macro``."""
        tests = [run.metrics["scores"]["test"][level] for run in self.runs]
        found = [test["auc"]["macro"] if score == "auc_macro" else test[score] for test in tests]
        return [float("nan") if value is None else value for value in found]

    def mean(self, level: Level, score: str = "accuracy") -> float:
        """Mean of a score over the fits; of a rotation the score of all fits' predictions put together."""
        if self.is_rotation:
            pooled = self.scores(level)
            return pooled.auc["macro"] if score == "auc_macro" else float(getattr(pooled, score))
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
        """95 % intervals of the accuracies that ``mean`` gives, by bootstrap over the recordings of the test clips."""
        answers = self.answers
        shares: dict[Level, FloatArray] = {"window": answers.window_shares, "clip": answers.clip_shares}
        return {level: bootstrap_interval(each, answers.sources) for level, each in shares.items()}

    @cached_property
    def calibration(self) -> Calibration:
        """Of the answers of all fits to the heard test windows."""
        return calibrate_windows(self.answers)

    @cached_property
    def clip_calibration(self) -> Calibration:
        """Of the answers to test clips, the fits' probabilities averaged."""
        return calibrate(self.answers.y_true, self.answers.averaged)

    def histories(self) -> dict[str, pd.DataFrame]:
        """History of every fit under a label for legends."""
        return {self._label(run): run.history for run in self.runs}

    def chosen_epochs(self) -> dict[str, int]:
        """The epoch that each fit kept, under the labels of ``histories``."""
        return {self._label(run): int(run.metrics["chosen"]["epoch"]) for run in self.runs}

    def _label(self, run: Run) -> str:
        config = run.config
        return f"test fold {config.test_fold}" if self.is_rotation else f"validation fold {config.val_fold}"


def compare_declared(
    results: Sequence[ExperimentResult], declared: Sequence[tuple[str, str]], seed: int, instead: int | None = None
) -> list[Contrast]:
    """Test the contrasts of two architectures that a plan declares, for one seed and as one family.

    Both architectures' rotations are compared where they are complete and alike but for the architecture, else their
    complete k-fold experiments. A contrast that has neither is left out, and still counts as declared.

    Args:
        results: of a plan.
        declared: labels of two architectures each, as ``("cnn", "transformer-h2")``.
        seed: of both experiments.
        instead: seed of one of the two, where the other alone has ``seed``.
    """
    pairs, seeds = {}, [(seed, seed)] if instead is None else [(seed, seed), (seed, instead), (instead, seed)]
    for labels in declared:
        if found := next(_pairs_of(results, labels, seeds), None):
            pairs[found[0].short_title, found[1].short_title] = (found[0].answers, found[1].answers)
    return compare_pairs(pairs, len(declared))


def _pairs_of(
    results: Sequence[ExperimentResult], labels: tuple[str, str], seeds: Sequence[tuple[int, int]]
) -> Iterator[tuple[ExperimentResult, ExperimentResult]]:
    """Pairs of complete experiments of two architectures that differ in nothing else but their seeds."""
    alike = {"test_fold", "test_folds", "val_folds", "recipe", "recipe_changes", "epochs"}
    complete = [each for each in results if each.is_complete]
    for protocol, both, one, other in product(("rotation", "kfold"), seeds, complete, complete):
        found = [(each.experiment.label, each.experiment.protocol, each.experiment.seed) for each in (one, other)]
        same = [each.experiment.model_dump(include=alike) for each in (one, other)]
        if found == [(label, protocol, seed) for label, seed in zip(labels, both, strict=True)] and same[0] == same[1]:
            yield one, other

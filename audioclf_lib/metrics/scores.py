"""Predictions -> scores, at window level and at clip level, by scikit-learn.

Window level scores every window with its clip's label, silent ones included. Clip level averages the probabilities of
a clip's non-silent windows and scores the clip once. ROC curves come from probabilities, never from arg-max labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import auc, confusion_matrix, precision_recall_fscore_support, roc_curve

from audioclf_lib._support.errors import InputError
from audioclf_lib.data.windowing import clip_probabilities
from audioclf_lib.runs.store import Run

Level = Literal["window", "clip"]
LEVELS: tuple[Level, ...] = ("window", "clip")
SPLITS = ("train", "validation", "test")

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """Scores of one split at one level; all follow from the labels and the class probabilities.

    Attributes:
        level: ``"window"`` or ``"clip"``.
        class_names: in label order.
        y_true: (n,) labels.
        probabilities: (n, n_classes).
        accuracy_without_silence: window accuracy over the windows that are not silent (None at clip level).
    """

    level: Level
    class_names: tuple[str, ...]
    y_true: IntArray
    probabilities: FloatArray
    accuracy_without_silence: float | None = None

    @property
    def n(self) -> int:
        """Number of windows or clips."""
        return len(self.y_true)

    @cached_property
    def confusion(self) -> IntArray:
        """(n_classes, n_classes) counts, rows are true classes."""
        counts: IntArray = confusion_matrix(self.y_true, self.probabilities.argmax(1), labels=self._labels)
        return counts

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """Index class names; columns precision, recall, f1, support, auc."""
        answers = self.probabilities.argmax(1)
        of_answers = precision_recall_fscore_support(self.y_true, answers, labels=self._labels, zero_division=0)
        columns = dict(zip(("precision", "recall", "f1", "support"), of_answers, strict=True))
        columns["auc"] = [self.auc[name] for name in self.class_names]
        return pd.DataFrame(columns, index=pd.Index(self.class_names, name="class"))

    @cached_property
    def roc(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        """One-versus-rest ROC curves: false and true positive rates, per class and for ``"micro"`` and ``"macro"``.

        ``micro`` pools every (sample, class) pair; ``macro`` averages the classes' curves at common false positive
        rates (Fawcett 2006, section 7). Classes without positives or without negatives have no curve and are left out.
        """
        is_class = self.y_true[:, None] == self._labels
        curves: dict[str, tuple[FloatArray, FloatArray]] = {}
        for index, name in enumerate(self.class_names):
            if 0 < is_class[:, index].sum() < self.n:
                curves[name] = roc_curve(is_class[:, index], self.probabilities[:, index])[:2]
        if curves:
            macro = _mean_curve(list(curves.values()))
            curves |= {"micro": roc_curve(is_class.ravel(), self.probabilities.ravel())[:2], "macro": macro}
        return curves

    @cached_property
    def auc(self) -> dict[str, float]:
        """Area under each ROC curve; NaN where a class is missing from the split."""
        areas = {name: float(auc(*curve)) for name, curve in self.roc.items()}
        return {name: areas.get(name, float("nan")) for name in (*self.class_names, "micro", "macro")}

    @property
    def _labels(self) -> IntArray:
        return np.arange(len(self.class_names))

    @property
    def n_correct(self) -> int:
        """Sum of the confusion matrix's diagonal."""
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        return self.n_correct / self.n

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that occur: every class counts the same, however many windows or clips it has."""
        occurs = self.per_class["support"] > 0
        return float(self.per_class.loc[occurs, "recall"].mean())

    @property
    def chance(self) -> float:
        """Accuracy of a model that always answers the commonest class: the share of that class."""
        return float(self.per_class["support"].max()) / self.n

    @property
    def macro_f1(self) -> float:
        """Unweighted mean of the classes' F1 scores."""
        return float(self.per_class["f1"].mean())

    def summary(self) -> dict[str, Any]:
        """The scores as JSON values (curves left out; they follow from the predictions)."""
        values: dict[str, Any] = {
            "n": self.n,
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "auc": {name: _json_number(value) for name, value in self.auc.items()},
            "per_class": {
                str(name): {key: _json_number(value) for key, value in row.items()}
                for name, row in self.per_class.to_dict(orient="index").items()
            },
            "confusion": self.confusion.tolist(),
        }
        if self.accuracy_without_silence is not None:
            values["accuracy_without_silence"] = self.accuracy_without_silence
        return values


def evaluate(
    predictions: pd.DataFrame, class_names: Sequence[str], *, level: Level = "window", split: str | None = "test"
) -> Scores:
    """Score the predictions of one split.

    Args:
        predictions: one row per window: split, clip_id, window_index, silent, y_true, p_0 ... p_(classes-1).
        class_names: in label order.
        level: ``"window"`` or ``"clip"``.
        split: which rows to score; None takes all.

    Raises:
        InputError: unknown level, or no row of that split.
    """
    if level not in LEVELS:
        raise InputError(f"unknown level {level!r}; choose one of {', '.join(LEVELS)}")
    rows = predictions if split is None else predictions[predictions["split"] == split]
    if rows.empty:
        raise InputError(f"the predictions hold no {split!r} rows; choose one of {sorted(set(predictions['split']))}")
    without_silence = None
    if level == "window":
        y_true, probabilities = rows["y_true"].to_numpy(np.int64), class_probabilities(rows)
        heard = ~rows["silent"].to_numpy(bool)
        if heard.any():
            without_silence = float((probabilities.argmax(1) == y_true)[heard].mean())
    else:
        y_true, probabilities = to_clips(rows, len(class_names))
    return Scores(level, tuple(class_names), y_true, probabilities, without_silence)


def _mean_curve(curves: list[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    """Mean of ROC curves over the false positive rate; its area is the mean of their areas.

    A curve rises in steps, so it is read just before and just after each step of any of them.
    """
    steps = np.unique(np.concatenate([fpr for fpr, _ in curves]))
    grid = np.sort(np.concatenate([np.nextafter(steps, -1.0), np.nextafter(steps, 2.0)])).clip(0.0, 1.0)
    mean = np.mean([np.interp(grid, fpr, tpr) for fpr, tpr in curves], axis=0)
    return np.concatenate([[0.0], grid]), np.concatenate([[0.0], mean])


def to_clips(rows: pd.DataFrame, n_classes: int) -> tuple[IntArray, FloatArray]:
    """Window predictions of one split -> labels (n_clips,) and mean probabilities (n_clips, n_classes) per clip.

    Silent windows have no vote, see :func:`audioclf_lib.data.windowing.clip_probabilities`.
    """
    rows = rows.sort_values(["clip_id", "window_index"])
    n_clips = rows["clip_id"].nunique()
    votes = class_probabilities(rows).reshape(n_clips, -1, n_classes)
    silent = rows["silent"].to_numpy(bool, copy=True).reshape(n_clips, -1)
    y_true = rows["y_true"].to_numpy(np.int64).reshape(n_clips, -1)[:, 0]
    return y_true, clip_probabilities(votes, silent).numpy()


def evaluate_all(predictions: pd.DataFrame, class_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Summaries of every split in the predictions at both levels: ``{split: {level: summary}}``."""
    splits = [split for split in SPLITS if (predictions["split"] == split).any()]
    return {
        split: {level: evaluate(predictions, class_names, level=level, split=split).summary() for level in LEVELS}
        for split in splits
    }


def best_fit(runs: Sequence[Run]) -> Run:
    """The fit that is best on its own validation fold: by window accuracy, then by lower loss.

    The test fold has no say in it.
    """
    return max(runs, key=lambda run: (run.metrics["chosen"]["accuracy"], -run.metrics["chosen"]["loss"]))


def rows_of_test(run: Run) -> pd.DataFrame:
    """The predictions of a fit's test fold, by clip and window.

    Raises:
        InputError: it holds none, as a tuning trial.
    """
    rows = run.predictions[run.predictions["split"] == "test"]
    if rows.empty:
        raise InputError(f"fit {run.config.fit_id} holds no predictions of the test fold; train it again with them")
    return rows.sort_values(["clip_id", "window_index"], ignore_index=True)


def class_probabilities(rows: pd.DataFrame) -> FloatArray:
    """The columns p_0 ... p_(classes-1) as an array (n, classes)."""
    return rows.filter(regex=r"^p_\d+$").to_numpy(np.float64, copy=True)


def _json_number(value: float) -> float | None:
    return None if np.isnan(value) else value

"""The values that texts may name: one for each number of the report, found in run folders and never typed.

A value of several experiments has arguments, as ``accuracy("cnn", "rotation", "clip")``. All are computed beforehand,
so a placeholder is looked up and nothing in a text is ever run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from audioclf_lib.data.windowing import HOP_SIZE, WINDOW_SIZE
from audioclf_lib.metrics.baselines import TITLES, baseline_answers
from audioclf_lib.metrics.results import ExperimentResult
from audioclf_lib.metrics.scores import LEVELS, SPLITS, rows_of_test
from audioclf_lib.metrics.uncertainty import Contrast, chance_p, p_value
from audioclf_lib.report.gather import Gathered
from audioclf_lib.runs.store import Run

DATASET_TITLES = {"demo": "the demo set of generated sounds", "esc10": "ESC-10", "esc50": "ESC-50"}
NOT_TRAINED = "(not trained)"
UNDEFINED = "(undefined)"
SHARE = ".1%"


@dataclass(frozen=True)
class Value:
    """A number or a word, how it is written unless a text says otherwise, and what to know of it.

    Attributes:
        content: None: the fits that it is made from are missing.
        spec: format specification.
        note: written behind it, such as ``3 of 5 fits``.
    """

    content: float | int | str | None
    spec: str = ""
    note: str = ""

    def write(self, spec: str = "") -> str:
        """As it stands in a text.

        Raises:
            ValueError: a format that it does not have.
        """
        if self.content is None:
            return NOT_TRAINED
        if isinstance(self.content, float) and np.isnan(self.content):
            return UNDEFINED
        shown = format(self.content, spec or self.spec).replace("%", "\N{NO-BREAK SPACE}%").replace("-", "−")
        shown = self.content if isinstance(self.content, str) else shown
        return f"{shown} ({self.note})" if self.note else shown


def report_values(found: Gathered) -> dict[str, Value]:
    """Every value by its name, with arguments as ``accuracy("cnn", "rotation", "clip")``."""
    values = dict(data_values(found.results[0].best)) | dict(_of_all(found))
    for result in found.experiments:
        values |= _of_experiment(result)
    of_label = {result.experiment.label: result for result in found.experiments}
    for label, each in of_label.items():
        values[_call("parameters", label)] = Value(each.n_parameters, ",")
        values[_call("trials", label)] = Value(len(found.trials_of(each)), ",")
    if found.baselines is not None:
        for result, name in product(found.results, TITLES):
            pairs = [(config.val_fold, config.test_fold) for config in result.configs]
            right = baseline_answers(found.baselines, name, pairs)["right"].mean()
            values[_call("accuracy", name, protocol_of(result), "clip")] = Value(float(right), SHARE)
    tested = {tuple(map(_without_protocol, contrast.names)): contrast for contrast in found.contrasts}
    for one, other in found.declared:
        titles = (of_label[label].architecture if label in of_label else "" for label in (one, other))
        values |= _of_contrast((one, other), tested.get(tuple(titles)))
    return values


def key_result(results: Sequence[ExperimentResult]) -> ExperimentResult:
    """The experiment that the report leads with: the highest clip accuracy of the rotations, else of several fits.

    Complete experiments come before others, since a part of the folds may be an easy part.
    """
    return max(results, key=lambda each: (each.is_complete, each.is_rotation, len(each.runs) > 1, each.mean("clip")))


def protocol_of(result: ExperimentResult) -> str:
    """The protocol as values name it, with what is not the default: ``rotation``, ``rotation, seed 1``."""
    return ", ".join([result.experiment.protocol, *result.differences])


def _call(name: str, *arguments: str) -> str:
    return f"{name}({', '.join(f'{chr(34)}{argument}{chr(34)}' for argument in arguments)})"


def data_values(run: Run) -> Iterator[tuple[str, Value]]:
    """What is known of the data from the predictions of a run."""
    rows = run.predictions
    n_windows = int(rows["window_index"].max()) + 1
    yield "dataset", Value(DATASET_TITLES.get(run.config.dataset, run.config.dataset))
    for name, column in {"n_clips": "clip_id", "n_recordings": "source", "n_folds": "fold"}.items():
        yield name, Value(rows[column].nunique(), ",")
    sizes = {"n_windows": n_windows, "n_samples": WINDOW_SIZE + (n_windows - 1) * HOP_SIZE}
    for name, size in {**sizes, "window_size": WINDOW_SIZE, "hop_size": HOP_SIZE}.items():
        yield name, Value(size, ",")


def _of_all(found: Gathered) -> Iterator[tuple[str, Value]]:
    results = found.results
    best, runs = key_result(results), {run.config.fit_id: run for result in results for run in result.runs}
    scores = best.scores("clip")
    low, high = best.intervals["clip"]
    epochs = " or ".join(map(str, sorted({result.experiment.epochs for result in results})))
    counts = {"experiment": str(len(results)), "fit": str(len(runs)), "epoch": epochs}
    shown = [f"{count} {what}{'s' * (count != '1')}" for what, count in counts.items()]
    yield "n_experiments", Value(len(results))
    yield "n_fits", Value(len(runs))
    yield "epochs", Value(epochs)
    yield "extent", Value("{} with {} of {}".format(*shown))
    yield "n_classes", Value(len(best.class_names))
    yield "n_test_clips", Value(len(best.answers.clip_ids), ",")
    yield "chance", Value(scores.chance, SHARE)
    yield "best", Value(best.title)
    yield "best_accuracy", Value(best.mean("clip"), SHARE, fits_note(best))
    yield "best_low", Value(low, SHARE)
    yield "best_high", Value(high, SHARE)
    test = pd.concat([rows_of_test(run) for run in best.runs]).drop_duplicates(["clip_id", "window_index"])
    silent = test[test["silent"].astype(bool)]
    most = int(silent.value_counts(["fold", "y_true"]).groupby("fold").max().sum())  # one answer on each test fold
    yield "n_silent", Value(len(silent), ",")
    yield "silence_most", Value(most, ",")
    yield "silence_ceiling", Value(1 - (len(silent) - most) / len(test), SHARE)
    for split in SPLITS:
        clean = [run.metrics["scores"][split]["clip"]["accuracy"] for run in runs.values()]
        yield f"mean_{split}", Value(float(np.mean(clean)), SHARE)
    # The original report's CNN has 66 of 720 test windows right on the split: 9.16 %, among ten classes.
    yield "p_below", Value(chance_p(66, 720, 1 / 10, "less"), ".2f")


def _of_experiment(result: ExperimentResult) -> dict[str, Value]:
    key = result.experiment.label, protocol_of(result)
    names = {"accuracy": "accuracy", "f1": "macro_f1", "auc": "auc_macro", "balanced": "balanced_accuracy"}
    values: dict[str, Value] = {_call("fits", *key): Value(f"{len(result.runs)} of {len(result.configs)}")}
    confidence = float(result.answers.averaged.max(1).mean()) if result.runs else None
    values[_call("confidence", *key, "clip")] = Value(confidence, SHARE, fits_note(result))
    for level in LEVELS:
        interval = result.intervals[level] if result.runs else None
        for name, score in names.items():
            number = result.mean(level, score) if interval else None
            spec = ".2f" if name in ("f1", "auc") else SHARE
            values[_call(name, *key, level)] = Value(number, spec, fits_note(result))
        for name, end in zip(("low", "high"), interval or (None, None), strict=True):
            values[_call(name, *key, level)] = Value(end, SHARE)
        for split in ("train", "validation"):
            shares = [run.metrics["scores"][split][level]["accuracy"] for run in result.runs]
            mean = float(np.mean(shares)) if shares else None
            values[_call("accuracy", *key, level, split)] = Value(mean, SHARE, fits_note(result))
    return values


def _of_contrast(labels: tuple[str, str], contrast: Contrast | None) -> dict[str, Value]:
    """Of a declared contrast; differences are in percentage points, the first less the second."""
    specs = {"difference": "+.1f", "difference_low": ".1f", "difference_high": ".1f", "detectable": ".1f"}
    specs |= {"p": "", "verdict": ""}
    numbers: dict[str, float | str] = {}
    if contrast is not None:
        points = (100 * each for each in (contrast.difference, *contrast.interval, contrast.detectable))
        numbers = dict(zip(specs, points, strict=False)) | {"p": p_value(contrast.p_holm), "verdict": verdict(contrast)}
    return {_call(name, *labels): Value(numbers.get(name), spec) for name, spec in specs.items()}


def verdict(contrast: Contrast) -> str:
    """What a contrast's test says, in words."""
    if contrast.is_real:
        return f"{_without_protocol(contrast.names[int(contrast.difference < 0)])} is better"
    if np.isnan(contrast.detectable):
        return "no difference found (too few answers differ for any)"
    return f"no difference found (one of {100 * contrast.detectable:.1f} points would have been)"


def fits_note(result: ExperimentResult) -> str:
    """``3 of 5 fits`` of an incomplete experiment, else nothing."""
    return f"{len(result.runs)} of {len(result.configs)} fits" if result.missing else ""


def _without_protocol(name: str) -> str:
    return name.rpartition(", ")[0] or name

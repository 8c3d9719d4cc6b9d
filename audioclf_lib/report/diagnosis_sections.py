"""The parts of the diagnosis notebook, and its section in the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from audioclf_lib import figures
from audioclf_lib.report import diagnosis_observations as readings
from audioclf_lib.report import observations, phrases
from audioclf_lib.report.original import ORIGINAL
from audioclf_lib.report.results import ExperimentResult
from audioclf_lib.report.show import show_figure, show_table, show_text
from audioclf_lib.suite.variants import VARIANTS, Case

FOLDER = "diagnosis"  # of its figures


def show_claims() -> None:
    """What the original report states, and what of it cannot be so."""
    rows = [
        {
            "Experiment": name,
            "Training": result.train_accuracy,
            "Validation": result.validation_accuracy,
            "Test": result.accuracy,
            "AUC": result.auc,
            "Remark": result.remark,
        }
        for name, result in ORIGINAL.items()
    ]
    show_table(
        pd.DataFrame(rows),
        caption="What the original report states: window accuracies, and the area under the ROC curve.",
        label="tbl:claims",
        formats={"Training": ".0%", "Validation": ".0%", "Test": ".1%", "AUC": ".2f"},
    )
    show_text(f"{observations.tell_original()} {readings.read_claims()}")


def show_variants() -> None:
    """What is tried, as settings, and why."""
    rows = [
        {"Variant": variant.name, "Settings changed": describe_changes(variant.changes), "Why": variant.reason}
        for variant in VARIANTS
    ]
    show_table(
        pd.DataFrame(rows),
        caption="The recipe as written, and what is changed of it, one thing at a time.",
        label="tbl:variants",
    )


def describe_changes(changes: dict[str, object]) -> str:
    """``dropout = 0.2, activation = relu``."""
    return ", ".join(f"{name} = {json.dumps(value).strip(chr(34))}" for name, value in changes.items()) or "none"


def show_diagnosis(cases: Sequence[Case] | None, heading_level: int = 1) -> None:
    """The report's section: one figure, one table, their reading, and the inside of the Transformer.

    Args:
        cases: of the plan's diagnosis; None if it has none, and then nothing is shown.
        heading_level: of the section.
    """
    if cases is None:
        return
    show_text(f"{'#' * heading_level} Why the original failed")
    if any(case.run for case in cases):
        show_text(
            "The original report's recipe is trained as it is written, and with one change at a time. "
            f"{readings.read_length(cases)}"
        )
    show_curves(cases)
    show_scores(cases)
    show_readings(cases)
    show_internals(cases)


def show_length(cases: Sequence[Case]) -> None:
    """How long the fits are, and on which folds."""
    show_text(readings.read_length(cases))


def show_curves(cases: Sequence[Case]) -> None:
    """Window accuracy over the epochs, all variants beside as written; what is missing is named."""
    if missing := readings.read_missing_cases(cases):
        show_text(missing)
    histories: dict[str, dict[str, pd.DataFrame]] = {}
    for case in cases:
        if case.run is not None:
            histories.setdefault(readings.model_title(case), {})[case.variant.name] = case.run.history
    if not histories:
        return
    config = cases[0].config
    show_figure(
        figures.plot_variants(
            histories, chance=1 / len(config.class_names), names=[variant.name for variant in VARIANTS]
        ),
        caption="The recipe as written beside the same recipe with one change at a time: window accuracy over the "
        f"epochs; validation fold {config.val_fold}, test fold {config.test_fold}.",
        label="fig:diagnosis-curves",
        name="curves",
        dataset=config.dataset,
        experiment=FOLDER,
        width="100%",
    )


def show_scores(cases: Sequence[Case]) -> None:
    """Scores of the kept weights of every variant, as they are and with statistics re-estimated."""
    scores = readings.score_cases(cases)
    if not scores:
        return
    columns = {
        "model": "Architecture",
        "variant": "Variant",
        "train": "Training",
        "validation": "Validation",
        "test": "Test",
        "again_test": "Test, re-estimated",
        "test_clip": "Test clips",
        "answer_share": "One answer",
    }
    shown = pd.DataFrame(map(asdict, scores))[list(columns)].rename(columns=columns)
    shown["Architecture"] = shown["Architecture"].mask(shown["Architecture"].duplicated(), "")
    show_table(
        shown,
        caption="Accuracy of the weights kept of every variant, of windows unless clips are named; *re-estimated*: the "
        "same weights after batch norm's statistics were re-estimated; *one answer*: share of the most frequent answer "
        "on test windows.",
        label="tbl:diagnosis-scores",
        formats=dict.fromkeys(list(columns.values())[2:], ".1%"),
    )


def show_readings(cases: Sequence[Case]) -> None:
    """What the figure and the table say."""
    for text in (readings.read_as_written(cases), readings.read_remedies(cases), readings.read_high_rate(cases)):
        if text:
            show_text(text)


def show_internals(cases: Sequence[Case]) -> None:
    """Gradients, attention and CLS outputs in the first steps of the traced variants."""
    traced = [case for case in cases if case.is_traced and case.trace is not None]
    if not traced:
        return
    traces = {case.variant.name: case.trace for case in traced if case.trace is not None}
    epochs = phrases.count(max(int(trace["epoch"].max()) for trace in traces.values()), "epoch")
    show_figure(
        figures.plot_inside_training(traces),
        caption=f"Inside the {readings.model_title(traced[0])} in the first {epochs}: norm of the gradient by part of "
        "the model; entropy of CLS's attention in both encoder layers, in their colours; mean cosine of the outputs at "
        "CLS of two windows.",
        label="fig:diagnosis-inside",
        name="inside",
        dataset=traced[0].config.dataset,
        experiment=FOLDER,
        width="100%",
    )
    show_text(readings.read_internals(cases))


def show_one_fit(pairs: Sequence[tuple[ExperimentResult, ExperimentResult]]) -> None:
    """The split beside the k-fold fit with its validation fold, for each pair (k-fold, split) of experiments."""
    rows = [
        {
            "Experiment": result.short_title,
            "Fit": f"`{result.best.config.fit_id}`",
            "Test windows right": result.scores().n_correct,
            "Window accuracy": result.scores().accuracy,
        }
        for pair in pairs
        for result in pair
    ]
    show_table(
        pd.DataFrame(rows),
        caption="The fit of the split, and the k-fold fit with the same validation fold.",
        label="tbl:one-fit",
        formats={"Window accuracy": ".2%"},
        markdown=["Fit"],
    )
    show_text(" ".join([*(readings.read_one_fit(*pair) for pair in pairs), readings.read_evaluation_error()]))

"""How sure the numbers are, for notebooks and the report: tested differences and calibration, with their readings.

Intervals stand beside the scores they belong to, in ``sections``; the sentences are made in ``verdicts``.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from audioclf_lib import figures
from audioclf_lib.metrics.uncertainty import N_BINS
from audioclf_lib.report import verdicts
from audioclf_lib.report.phrases import NBSP, p_value
from audioclf_lib.report.results import ExperimentResult, compare_kfold
from audioclf_lib.report.show import escape_markdown, show_equation, show_figure, show_table, show_text

RELIABILITY = (
    f"accuracy of the answers in {N_BINS} bins of confidence (bars), its distance from their mean confidence (lines "
    "to the diagonal), and the number of answers in each bin (grey, the largest in figures)"
)
PANELS_PER_PAGE = 16


def show_method() -> None:
    """What intervals, tests and the calibration error are."""
    show_text(verdicts.tell_method())
    show_equation(verdicts.ECE_LATEX, "eq:ece")


def show_differences(results: Sequence[ExperimentResult]) -> None:
    """Every tested pair of cross-validated experiments, and which differences are real."""
    tests, named = compare_kfold(results), verdicts.by_name(results)
    rows = []
    for test in tests:
        first, second = (named[name].architecture_and_seed for name in test.names)
        rows.append(
            {
                "First": first,
                "Second": second,
                "Right": ratio(test.right),
                "Only one right": ratio(test.only),
                "p": p_value(test.p),
                "p (Holm)": p_value(test.p_holm),
                "Better": named[test.ranked[0]].architecture_and_seed if test.is_real else "not shown",
            }
        )
    if rows:
        show_table(
            pd.DataFrame(rows),
            caption="Cross-validated experiments in pairs, the probabilities of each one's fits averaged: how many of "
            f"the {tests[0].n_clips} test clips the first and the second classify correctly, and how many only one of "
            "them does; McNemar's exact p, alone and corrected for all pairs.",
            label="tbl:differences",
        )
    show_text(verdicts.read_differences(results))


def ratio(counts: tuple[int, int]) -> str:
    return f"{counts[0]}{NBSP}:{NBSP}{counts[1]}"


def show_calibration(result: ExperimentResult) -> None:
    """Reliability diagram of one experiment and its reading."""
    pooled = ", all fits pooled" if len(result.runs) > 1 else ""
    show_figure(
        figures.plot_reliability(result.calibration),
        caption=f"{escape_markdown(result.title)}: reliability diagram of the test windows{pooled}: {RELIABILITY}.",
        label=f"fig:{result.name}-reliability",
        name="reliability",
        dataset=result.dataset,
        experiment=result.name,
        width="48%",
    )
    show_text(verdicts.read_calibration(result))


def show_calibrations(results: Sequence[ExperimentResult]) -> None:
    """Reliability diagrams of all experiments, a page of panels in a figure, and their reading."""
    # The k-folds in front of the splits, so that like stands beside like.
    there = sorted((result for result in results if result.runs), key=lambda result: result.experiment.protocol)
    if not there:
        show_text("No fit has been trained yet, so there are no confidences to look at.")
    elif len(there) == 1:
        show_calibration(there[0])
    else:
        for start in range(0, len(there), PANELS_PER_PAGE):
            show_panels(there[start : start + PANELS_PER_PAGE], f"reliability-{start}" if start else "reliability")
        show_text(verdicts.read_calibrations(there))


def show_panels(results: Sequence[ExperimentResult], name: str) -> None:
    show_figure(
        figures.plot_reliabilities({panel_title(result): result.calibration for result in results}),
        caption=f"Reliability diagrams of the test windows, all fits of an experiment pooled: {RELIABILITY}. Fewer "
        "answers make the ECE larger by chance alone, so splits are not to be compared with cross-validations.",
        label=f"fig:{name}",
        name=name,
        dataset=results[0].dataset,
        width=f"{23 * min(4, len(results))}%",
    )


def panel_title(result: ExperimentResult) -> str:
    """One part a line: model, seed where it is not 0, protocol."""
    seed = f"seed {result.experiment.seed}\n" if result.experiment.seed else ""
    return f"{result.architecture}\n{seed}{'k-fold' if result.experiment.protocol == 'kfold' else 'split'}"

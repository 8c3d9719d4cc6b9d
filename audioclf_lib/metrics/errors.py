"""Which test clips the fits get wrong: single clips, recordings and classes, and what is answered to silence.

Everything is counted at clip level, one row per fit and test clip (``answers_of_fits``); only ``answers_to_silence``
is about windows. The fits may share their test clips, as those of a k-fold experiment do, or each have test clips of
its own, as in a rotation over the test folds. Shares are from 0 to 1. They describe these fits on these clips; tests of
differences are in ``uncertainty``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from audioclf_lib._support.errors import InputError
from audioclf_lib.metrics.scores import class_probabilities, evaluate, rows_of_test, to_clips
from audioclf_lib.runs.store import Run

# A recording stands out from its class if it has at least MIN_CLIPS clips, and the share of right answers to them
# differs by MIN_GAP or more from that to the clips of the class's other recordings.
MIN_CLIPS = 3
MIN_GAP = 0.5


def answers_of_fits(runs: Iterable[Run]) -> pd.DataFrame:
    """What every fit answers to its test clips; silent windows have no vote (``scores.to_clips``).

    Args:
        runs: fits of one data set. A fit that several experiments share counts once. Fits with the same title, such as
            one architecture with two recipes, are not told apart below: pass those that belong together.

    Returns:
        DataFrame (n_fits * n_clips, 9), a row per fit and clip: architecture (``config.model_title``), fit_id, clip_id,
        source, fold, y_true and answer (categories: the class names in label order), confidence (the mean probability
        of the answer), right (bool).

    Raises:
        InputError: no fit, a fit without test predictions, or fits of two data sets.
    """
    tables = []
    for run, rows in _test_predictions(runs):
        y_true, probabilities = to_clips(rows, len(run.config.class_names))
        answer = probabilities.argmax(1)
        names = pd.CategoricalDtype(list(run.config.class_names))
        clips = rows.groupby("clip_id", as_index=False)[["source", "fold"]].first()  # in the order of to_clips
        clips.insert(0, "architecture", run.config.model_title)
        clips.insert(1, "fit_id", run.config.fit_id)
        clips["y_true"] = pd.Categorical.from_codes(y_true, dtype=names)
        clips["answer"] = pd.Categorical.from_codes(answer, dtype=names)
        tables.append(clips.assign(confidence=probabilities.max(1), right=answer == y_true))
    return pd.concat(tables, ignore_index=True)


def hard_clips(answers: pd.DataFrame) -> pd.DataFrame:
    """The clips that more than half of their fits get wrong.

    Args:
        answers: of ``answers_of_fits``.

    Returns:
        DataFrame, index clip_id; columns source, class, fits (how many answered), right (share of them), wrong_answer
        (the commonest one, among equals the first in label order), confidence (mean of the wrong answers), and for each
        architecture the share of its fits that are right (NaN where it did not answer). The fewest right answers come
        first; among equals, the most confident wrong ones.
    """
    by_clip = answers.groupby("clip_id")
    table = by_clip.agg(source=("source", "first"), fits=("right", "size"), right=("right", "mean"))
    table.insert(1, "class", by_clip["y_true"].first())
    wrong = answers[~answers["right"]].groupby("clip_id")
    table["wrong_answer"] = wrong["answer"].agg(lambda given: given.mode()[0])
    table["confidence"] = wrong["confidence"].mean()
    table = table.join(_right_by_architecture(answers, "clip_id"))
    return table[table["right"] < 0.5].sort_values(["right", "confidence"], ascending=[True, False])


def accuracy_by_source(answers: pd.DataFrame) -> pd.DataFrame:
    """How many of the answers to each recording's clips are right, and which recordings stand out from their class.

    A recording stands out if it has ``MIN_CLIPS`` clips or more and its share of right answers is ``MIN_GAP`` or more
    above or below that of its class's other recordings. A class's accuracy then says more about this recording than
    about the class. This is a declared limit, no test. Every clip counts the same, however many fits answered.

    Args:
        answers: of ``answers_of_fits``.

    Returns:
        DataFrame, a row per class and source, classes in label order, the recordings with most clips first: class,
        source, n_clips, right (share), others (share of the class's other recordings; NaN if there are none),
        stands_out (bool).
    """
    keys = ["y_true", "source"]
    clips = answers.groupby([*keys, "clip_id"], observed=True)["right"].mean().groupby(keys, observed=True)
    table = pd.DataFrame({"n_clips": clips.size(), "right": clips.mean()})
    sums = pd.DataFrame({"n": table["n_clips"], "right": table["n_clips"] * table["right"]})
    others = sums.groupby("y_true", observed=True).transform("sum") - sums
    table["others"] = others["right"] / others["n"]
    gap = (table["right"] - table["others"]).abs().round(9)  # shares of thirds add up to a hair less
    table["stands_out"] = (table["n_clips"] >= MIN_CLIPS) & (gap >= MIN_GAP)
    table = table.reset_index().sort_values(["y_true", "n_clips", "source"], ascending=[True, False, True])
    return table.rename(columns={"y_true": "class"}).reset_index(drop=True)


def recall_by_class(answers: pd.DataFrame) -> pd.DataFrame:
    """Share of each class's clips that each architecture has right, over all of its fits.

    With the eight clips that a class of ESC-10 has in a fold, one clip is 12.5 points of a fit's recall.

    Args:
        answers: of ``answers_of_fits``.

    Returns:
        DataFrame, index class; a column per architecture (NaN where it was given no clip of the class).
    """
    return _right_by_architecture(answers, "y_true").rename_axis("class")


def answers_to_silence(runs: Iterable[Run]) -> pd.DataFrame:
    """What each fit answers to the silent test windows, and what these do to its window accuracy.

    Args:
        runs: fits of one data set; a fit that is given twice counts once.

    Returns:
        DataFrame, index fit_id; columns architecture, n_silent (windows), n_right of them, accuracy (of all test
        windows), accuracy_without_silence (NaN if all are silent), and under each class's name the number of silent
        windows that the fit gives this answer.

    Raises:
        InputError: no fit, a fit without test predictions, or fits of two data sets.
    """
    table = []
    for run, rows in _test_predictions(runs):
        names, silent = run.config.class_names, rows[rows["silent"].astype(bool)]
        scores, answers = evaluate(rows, names), class_probabilities(silent).argmax(1)
        row = {
            "fit_id": run.config.fit_id,
            "architecture": run.config.model_title,
            "n_silent": len(silent),
            "n_right": int((answers == silent["y_true"]).sum()),
            "accuracy": scores.accuracy,
            "accuracy_without_silence": scores.accuracy_without_silence,
        }
        table.append(row | dict(zip(names, np.bincount(answers, minlength=len(names)), strict=True)))
    return pd.DataFrame(table).set_index("fit_id").astype({"accuracy_without_silence": float})


def _test_predictions(runs: Iterable[Run]) -> Iterator[tuple[Run, pd.DataFrame]]:
    """Each different fit with the predictions of its test fold."""
    fits = list({run.config.fit_id: run for run in runs}.values())
    if not fits:
        raise InputError("there is no fit to take answers from; train one with `audioclf suite`")
    for run in fits:
        if run.config.known_dataset != fits[0].config.known_dataset:
            raise InputError(
                f"fits {fits[0].config.fit_id} and {run.config.fit_id} are of different data sets; analyse those of "
                "one data set at a time"
            )
        yield run, rows_of_test(run)


def _right_by_architecture(answers: pd.DataFrame, key: str) -> pd.DataFrame:
    """Share of right answers: a row per value of ``key``, a column per architecture in the order of the answers."""
    shares = answers.groupby([key, "architecture"], observed=True)["right"].mean().unstack()
    return shares[answers["architecture"].unique()].rename_axis(columns=None)

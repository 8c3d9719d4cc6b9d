"""Scores of the baselines of ``training.baselines``, on the folds that a model has.

A table of baselines has a row per baseline, (validation fold, test fold) and test clip: baseline, val_fold, test_fold,
clip_id, source, fold, y_true, p_0 ... p_(classes-1). ``pairs`` choose from it: ``config.rotation(folds)``, or the
(``val_fold``, ``test_fold``) of an experiment's fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from audioclf_lib._support.errors import InputError, quote
from audioclf_lib.config import rotation
from audioclf_lib.metrics.scores import Scores, class_probabilities

TITLES = {"majority": "Commonest class", "forest": "Random forest"}

Pair = tuple[int, int]  # validation fold, test fold


def baseline_rows(table: pd.DataFrame, baseline: str, pairs: Iterable[Pair] | None = None) -> pd.DataFrame:
    """The rows of one baseline for some pairs, in their order; of the rotation unless given, which has every clip once.

    Raises:
        InputError: the table does not hold the baseline, or not for one of the pairs.
    """
    there = dict(list(table[table["baseline"] == baseline].groupby(["val_fold", "test_fold"])))
    wanted = list(rotation(table["test_fold"]) if pairs is None else pairs)
    for val_fold, test_fold in wanted:
        if (val_fold, test_fold) not in there:
            has = f"it has the baselines {', '.join(sorted(set(table['baseline'])))} and {len(there)} pairs of folds"
            raise InputError(
                f"the table of baselines has no {quote(baseline)} with validation fold {val_fold} and test fold "
                f"{test_fold}; choose others ({has})"
            )
    return pd.concat([there[pair] for pair in wanted], ignore_index=True)


def baseline_scores(
    table: pd.DataFrame, class_names: Sequence[str], baseline: str, pairs: Iterable[Pair] | None = None
) -> Scores:
    """Scores of one baseline at clip level, the test clips of all pairs pooled; of the rotation unless given.

    Over pairs with the same test fold, the pooled accuracy is the mean of the fits' accuracies.

    Raises:
        InputError: as of ``baseline_rows``.
    """
    rows = baseline_rows(table, baseline, pairs)
    probabilities = class_probabilities(rows)
    return Scores("clip", tuple(class_names), rows["y_true"].to_numpy(np.int64), probabilities)


def baseline_answers(table: pd.DataFrame, baseline: str, pairs: Iterable[Pair] | None = None) -> pd.DataFrame:
    """A row per test clip, what intervals are resampled from; of the rotation unless pairs are given.

    Returns:
        DataFrame, index clip_id in ascending order; columns source and right, the share of the pairs that test the clip
        in which the answer is its class (0 or 1 in the rotation).

    Raises:
        InputError: as of ``baseline_rows``.
    """
    rows = baseline_rows(table, baseline, pairs)
    rows = rows.assign(right=class_probabilities(rows).argmax(1) == rows["y_true"])
    return rows.groupby("clip_id").agg(source=("source", "first"), right=("right", "mean"))


def baseline_table(table: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """Clip accuracies of the rotation, a row per test fold and one for all.

    Returns:
        DataFrame, index *Test fold*; columns *Clips* and a title of ``TITLES`` for each baseline.
    """
    pairs = rotation(table["test_fold"])
    parts = {str(test_fold): [(val_fold, test_fold)] for val_fold, test_fold in pairs} | {"all": pairs}
    rows = {}
    for part, chosen in parts.items():
        scores = {title: baseline_scores(table, class_names, name, chosen) for name, title in TITLES.items()}
        rows[part] = {"Clips": scores[TITLES["majority"]].n, **{title: each.accuracy for title, each in scores.items()}}
    return pd.DataFrame.from_dict(rows, orient="index").astype({"Clips": int}).rename_axis("Test fold")

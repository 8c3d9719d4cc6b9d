"""Sentences about a study, every number in them from its record or from the best trial's run folder."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from audioclf_lib.metrics.scores import FloatArray, answers_to_windows
from audioclf_lib.metrics.uncertainty import bootstrap_interval
from audioclf_lib.report.phrases import between, count, describe_dataset_name, enumerate_words, percent
from audioclf_lib.runs.store import Run
from audioclf_lib.suite.search import StudyConfig
from audioclf_lib.suite.tuning import DIVERGED, FEWEST_FOR_IMPORTANCE, PRUNED, RUNNING, WAITING, Study

# Of so many of the best trials it is told where their settings lie, if there are at least twice as many.
BEST_FEW = 5


def read_progress(study: Study, dataset: str) -> str:
    """How far the study is."""
    states = study.trials["state"].value_counts()
    parts = [f"{len(study.done)} trained to the end"]
    kinds = {PRUNED: "pruned", DIVERGED: "diverged", RUNNING: "running or left unfinished", WAITING: "not begun"}
    parts += [f"{states[state]} {text}" for state, text in kinds.items() if state in states]
    config = study.config
    return (
        f"Study `{study.study_id}` on {describe_dataset_name(dataset)}: of {count(config.trials, 'trial')}, "
        f"{len(study.trials)} {'is' if len(study.trials) == 1 else 'are'} recorded: {enumerate_words(parts)}. "
        f"Each trains {count(config.epochs, 'epoch')} and is scored on validation fold {config.val_fold}; test fold "
        f"{config.test_fold} is never scored."
    )


def read_history(study: Study) -> str:
    """What the search found, beside the recipe as it stands."""
    if study.done.empty:
        return "No trial has been trained to the end yet, so there is nothing to choose from."
    best = study.ranked.iloc[0]
    text = (
        f"The best of {count(len(study.done), 'trial')} trained to the end is trial {best['trial']}, with "
        f"{percent(best['accuracy'])} of the validation windows and {percent(best['clip_accuracy'])} of the clips."
    )
    first = study.done[study.done["trial"] == 0]
    if first.empty or not _is_as_it_stands(study.config, first.iloc[0]):
        return text
    if best["trial"] == 0:
        return f"{text} That is the recipe as it stands: the search has not found better settings."
    gain = 100 * (best["accuracy"] - first.iloc[0]["accuracy"])
    return (
        f"{text} Trial 0, the recipe as it stands, reaches {percent(first.iloc[0]['accuracy'])} of the windows: "
        f"{gain:.1f} points less."
    )


def read_importances(study: Study) -> str:
    """Which settings matter, or why that cannot be told."""
    if not study.importances:
        if len(study.done) >= FEWEST_FOR_IMPORTANCE:
            return "All trials reach the same accuracy, so no setting matters more than another."
        return (
            f"How much each setting matters is told from {FEWEST_FOR_IMPORTANCE} trials trained to the end on; "
            f"there {'is' if len(study.done) == 1 else 'are'} {len(study.done)}."
        )
    name, share = max(study.importances.items(), key=lambda item: item[1])
    return (
        f"Of the variance of the accuracy that single settings explain, `{name}` has {percent(share, 0)}. The shares "
        f"come from a random forest fitted to {count(len(study.done), 'trial')}; they are rough, and say nothing of "
        "values that were not searched."
    )


def read_best_few(study: Study) -> str:
    """Where the settings of the best trials lie."""
    if len(study.done) < 2 * BEST_FEW:
        return ""
    few = study.ranked.head(BEST_FEW)
    parts = []
    for name, searched in study.config.search.items():
        values = list(few[name])
        if searched.choices is not None:
            named = [json.dumps(choice).strip('"') for choice in searched.choices if choice in values]
            parts.append(f"`{name}` {' or '.join(named)}")
        else:
            parts.append(f"`{name}` {min(values):g} to {max(values):g}")
    return f"The best {BEST_FEW} trials have {enumerate_words(parts)}."


def read_certainty(study: Study) -> str:
    """How far the best score can be trusted."""
    if study.done.empty:
        return ""
    text = (
        "The best of many trials is chosen for its score on one validation fold, so that score is too good: with every "
        "further trial more of it is luck with these clips. What the settings are worth shows on folds that did not "
        "choose them: train them under cross-validation and look at the test fold, once, when the search is over."
    )
    if study.best_run is None:
        return text
    interval = bootstrap_interval(window_shares(study.best_run))
    others = study.ranked.iloc[1:]
    within = int((others["accuracy"] >= interval.low).sum())
    n_clips = len(window_shares(study.best_run))
    told = (
        f"Its 95 % interval over the {count(n_clips, 'validation clip')}, without regard to the choice, is "
        f"{between(interval)} of the windows"
    )
    if len(others):
        told += (
            f"; {within} of the other {len(others)} trials trained to the end {'lies' if within == 1 else 'lie'} within"
        )
    return f"{told}. {text}"


def window_shares(run: Run) -> FloatArray:
    """(n_clips,) share of right windows of each validation clip."""
    rows = run.predictions[run.predictions["split"] == "validation"]
    shares = (rows["y_true"] == answers_to_windows(rows)).groupby(rows["clip_id"]).mean()
    return np.asarray(shares, dtype=np.float64)


def _is_as_it_stands(config: StudyConfig, row: Any) -> bool:
    settings = config.as_it_stands()
    return settings is not None and all(row[name] == value for name, value in settings.items())

"""Readings: sentences computed from numbers, so that no text can contradict its figure.

Every function returns Markdown. Percentages are of windows unless a sentence says clips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from audioclf_lib.metrics.scores import Scores, answers_to_windows
from audioclf_lib.report.original import ORIGINAL
from audioclf_lib.report.phrases import (
    are,
    between,
    count,
    describe_dataset_name,
    enumerate_words,
    in_words,
    percent,
    percent_with_std,
    quote,
    span,
    times,
)
from audioclf_lib.report.results import ExperimentResult, compare_kfold, mean_and_std
from audioclf_lib.report.show import escape_markdown
from audioclf_lib.report.verdicts import (
    by_name,
    read_averaging,
    read_differences,
    read_reach,
    read_trained_fits,
    tell_verdict,
)
from audioclf_lib.runs.store import Run

# A gap between training and validation accuracy up to this is called small.
SMALL_GAP = 0.10


def above_chance(n_correct: float, n: int, n_classes: int) -> bool:
    """Whether guessing would get as many right in fewer than 5 of 100 cases (exact binomial test, one-sided)."""
    return float(stats.binomtest(round(n_correct), n, 1 / n_classes, alternative="greater").pvalue) < 0.05


# -------------------------------------------------------------------------------------------------- one experiment


def read_fits(result: ExperimentResult) -> str:
    """Mean and spread of an experiment's fits on the test fold."""
    fold, n = result.experiment.test_fold, len(result.runs)
    text = (
        f"On test fold {fold}, {percent_with_std(result.values('window'))} of the windows and "
        f"{percent_with_std(result.values('clip'))} of the clips are classified correctly"
    )
    if n > 1:
        text += f" (mean ± standard deviation over {n} fits, all scored on the same test fold)"
    return text + f"; guessing would give {percent(1 / len(result.class_names), 0)}."


def read_missing(result: ExperimentResult) -> str:
    """Says which fits are not there."""
    name = quote(result.title)
    if result.missing is None:
        return f"**Missing:** no fit of {name} has been trained yet."
    folds = [str(config.val_fold) for config in result.missing]
    which = f"the fit with validation fold {folds[0]} has"
    if len(folds) > 1:
        which = f"the fits with validation folds {enumerate_words(folds)} have"
    return f"**Missing:** of {name}, {which} not been trained yet."


def read_curves(result: ExperimentResult) -> str:
    """How the curves of the fit shown in full run, and how far training lies from validation."""
    run, n_classes = result.best, len(result.class_names)
    history, chosen = run.history, int(run.metrics["chosen"]["epoch"])
    first, last, kept = history.iloc[0], history.iloc[-1], history.iloc[chosen - 1]
    course = f"the training loss is {first['train_loss']:.2f} after its only epoch"
    if len(history) > 1:
        course = (
            f"the training loss goes from {first['train_loss']:.2f} in the first epoch to {last['train_loss']:.2f} in "
            f"epoch {len(history)}"
        )
    lowest = history.iloc[int(history["validation_loss"].argmin())]
    text = (
        f"In the fit with validation fold {run.config.val_fold}, {course} (guessing costs "
        f"$\\ln {n_classes} = {math.log(n_classes):.2f}$); the validation loss is lowest, "
        f"{lowest['validation_loss']:.2f}, in epoch {int(lowest['epoch'])}. Epoch {chosen} is kept, with "
        f"{percent(kept['validation_accuracy'])} of the validation windows right; there the fit has "
        f"{percent(kept['train_accuracy'])} on training and {percent(kept['test_accuracy'])} on test windows."
    )
    return f"{text} {read_gap(result, kept)} {read_training_scores(run)}"


def read_gap(result: ExperimentResult, kept: pd.Series) -> str:
    """What the distance between training and validation accuracy says."""
    validation, chance = kept["validation_accuracy"], 1 / len(result.class_names)
    gap = kept["train_accuracy"] - validation
    n_clips = max(1, round(result.scores("clip").n))
    if not above_chance(validation * n_clips, n_clips, len(result.class_names)):
        return f"On so few clips, that is not distinguishable from guessing ({percent(chance, 0)})."
    if gap > SMALL_GAP:
        return f"Training lies {100 * gap:.0f} points higher: the model fits the clips it was trained on better."
    if gap < -SMALL_GAP:
        return (
            f"Training lies {-100 * gap:.0f} points lower, which dropout and augmentation explain: they make the "
            "training windows harder than the others."
        )
    return f"Training and validation differ by {abs(100 * gap):.0f} points: there is no sign of overfitting there."


def read_training_scores(run: Run) -> str:
    recipe = run.config.recipe_settings
    how = [
        phrase
        for phrase, used in (
            ("with dropout", recipe.dropout > 0),
            ("on shifted windows", recipe.random_crops),
            ("on mixtures of two windows", recipe.mixup_alpha > 0),
        )
        if used
    ]
    if not how:
        return ""
    return f"Training scores are taken while training, {enumerate_words(how)}; the other curves without all that."


def accuracy_latex(scores: Scores) -> str:
    """Accuracy written out: the confusion matrix's diagonal over its sum."""
    diagonal = [int(value) for value in np.diag(scores.confusion)]
    terms = diagonal if len(diagonal) <= 12 else [*diagonal[:5], r"\cdots", *diagonal[-3:]]
    numerator = " + ".join(map(str, terms))
    return (
        rf"\mathrm{{accuracy}} = \frac{{{numerator}}}{{{scores.n}}} = \frac{{{scores.n_correct}}}{{{scores.n}}} "
        rf"= {scores.accuracy:.4f}"
    )


def read_confusion(scores: Scores) -> str:
    """Best and worst class, the most frequent confusion, and the favourite answer."""
    matrix, names = scores.confusion, scores.class_names
    totals = matrix.sum(1)
    recall = np.diag(matrix) / np.maximum(totals, 1)

    def share(label: int) -> str:
        return f"{quote(names[label])} ({int(matrix[label, label])} of {int(totals[label])}"

    best, worst = int(recall.argmax()), int(recall.argmin())
    if recall[best] > recall[worst]:
        text = f"Recognised best is {share(best)} {scores.level}s), worst {share(worst)})."
    else:
        text = f"All classes are recognised equally often, such as {share(best)} {scores.level}s)."
    wrong = matrix - np.diag(np.diag(matrix))
    if wrong.any():
        true, predicted = np.unravel_index(int(wrong.argmax()), wrong.shape)
        text += (
            f" The most frequent confusion takes {quote(names[true])} for {quote(names[predicted])} "
            f"({times(int(wrong[true, predicted]))})."
        )
    favourite = int(matrix.sum(0).argmax())
    return (
        f"{text} No class is answered more often than {quote(names[favourite])}, with "
        f"{percent(matrix[:, favourite].sum() / matrix.sum())} of the answers where it makes up "
        f"{percent(totals[favourite] / matrix.sum())} of the data."
    )


def read_silence(scores: Scores, run: Run) -> str:
    """What silent windows do to the window score."""
    test = run.predictions[run.predictions["split"] == "test"]
    silent = int(test["silent"].sum())
    if not silent:
        return "No test window is silent."
    if scores.accuracy_without_silence is None:
        return "All test windows are silent."
    right = silent_hits(test)
    return (
        f"{silent} of the {scores.n} test windows {are(silent)} silent padding, of which {right} "
        f"{are(right)} counted right by luck; without them the window accuracy is "
        f"{percent(scores.accuracy_without_silence)}."
    )


def read_roc(scores: Scores) -> str:
    """Which classes are separated best and worst, and the averages."""
    areas = pd.Series({name: scores.auc[name] for name in scores.class_names}).dropna()
    text = (
        f"The macro average of the areas is {scores.auc['macro']:.3f}, the micro average {scores.auc['micro']:.3f} "
        "(0.5 is guessing)."
    )
    if areas.max() > areas.min():
        return (
            f"{text} Separated best from the rest is {quote(areas.idxmax())} ({areas.max():.3f}), "
            f"worst {quote(areas.idxmin())} ({areas.min():.3f})."
        )
    return f"{text} All classes are separated alike."


def read_f1(scores: Scores) -> str:
    """Best and worst F1, and classes that are never found."""
    f1 = scores.per_class["f1"]
    text = f"The macro F1 is {scores.macro_f1:.3f}"
    if f1.max() > f1.min():
        text += (
            f"; the highest F1 is that of {quote(f1.idxmax())} ({f1.max():.2f}), the lowest that of "
            f"{quote(f1.idxmin())} ({f1.min():.2f}). "
        )
    else:
        text += "; all classes have the same F1. "
    lost = [quote(name) for name in f1.index[f1 == 0]]
    return (text + (f"Never found: {enumerate_words(lost)}." if lost else "")).strip()


# ------------------------------------------------------------------------------------------------- all experiments


def write_abstract(results: Sequence[ExperimentResult]) -> str:
    """The report in a few sentences, from its numbers."""
    there = [result for result in results if result.runs]
    task = (
        "One-second windows of recordings are classified by a one-dimensional convolutional network, and by the same "
        "convolutions in front of a Transformer encoder with a CLS token."
    )
    if not there:
        return f"{task} No fit has been trained yet, so this report holds the method and no results."
    epochs = sorted({result.experiment.epochs for result in there})
    length = enumerate_words([f"{number:,}" for number in epochs]) + (" epoch" if epochs == [1] else " epochs")
    n_fits = len({run.config.fit_id for result in there for run in result.runs})
    sentences = [
        task,
        f"This report shows {count(len(there), 'experiment')} with {count(n_fits, 'fit')} of {length} on "
        f"{describe_dataset_name(there[0].dataset)}.",
        *(read_architecture(there, model) for model in ("cnn", "transformer")),
        read_reach(there),
        summarise_differences(there),
    ]
    missing = sum(not result.is_complete for result in results)
    if missing:
        sentences.append(
            f"{missing} of the {len(results)} experiments {are(missing)} incomplete; what is missing is named."
        )
    return " ".join(sentence for sentence in sentences if sentence)


def summarise_differences(results: Sequence[ExperimentResult]) -> str:
    """Which architectures or head counts are better than others, in one sentence."""
    tests = compare_kfold(results)
    if not tests:
        return ""
    verdict = tell_verdict(tests, by_name(results), brief=True)
    return f"By McNemar's exact test on averaged fits, with Holm's correction, {verdict}."


def read_plan(results: Sequence[ExperimentResult]) -> str:
    """Which architectures and protocols the plan has."""
    head_counts = sorted({r.experiment.num_heads for r in results if r.experiment.num_heads is not None})
    models = ["the CNN"] if any(result.experiment.model == "cnn" for result in results) else []
    if head_counts:
        heads = enumerate_words([str(number) for number in head_counts])
        models.append(f"the Transformer with {heads} attention {'head' if head_counts == [1] else 'heads'}")
    names = {"kfold": "$k$-fold cross-validation", "split": "a train-test split"}
    protocols = [name for key, name in names.items() if any(r.experiment.protocol == key for r in results)]
    return (
        f"This report is about {count(len(results), 'experiment')}: {enumerate_words(models)}, under "
        f"{enumerate_words(protocols)}."
    )


def read_architecture(results: Sequence[ExperimentResult], model: str) -> str:
    """Range of an architecture's mean accuracies over its experiments."""
    chosen = [result for result in results if result.experiment.model == model and result.runs]
    if not chosen:
        return ""
    name = "The CNN" if model == "cnn" else "The Transformer"
    windows = [mean_and_std(result.values("window"))[0] for result in chosen]
    clips = [mean_and_std(result.values("clip"))[0] for result in chosen]
    return f"{name} classifies {span(windows)} of the test windows and {span(clips)} of the test clips correctly."


def read_comparison(results: Sequence[ExperimentResult]) -> str:
    """The range at clip level, what one clip is worth, how far the intervals reach, and what ema_decay fits gains."""
    there = [result for result in results if result.runs]
    means = pd.Series([mean_and_std(result.values("clip"))[0] for result in there], dtype=float)
    n_clips = there[0].answers.n_clips
    best, worst = there[int(means.argmax())].title, there[int(means.argmin())].title
    if percent(means.max()) == percent(means.min()):
        text = f"At clip level all experiments reach {percent(means.max())}."
    else:
        text = (
            f"At clip level the experiments range from {percent(means.min())} ({escape_markdown(worst)}) to "
            f"{percent(means.max())} ({escape_markdown(best)})."
        )
    text += f" One of the {n_clips} test clips is worth {100 / n_clips:.2f} points. {read_reach(there)}"
    return f"{text} {read_averaging(there)}".strip()


def read_split_against_kfold(results: Sequence[ExperimentResult]) -> str:
    """The split's fit is one of the k-fold fits: their scores must agree."""
    by_name = {result.name: result for result in results if result.runs}
    shared = 0
    for name, result in by_name.items():
        partner = by_name.get(name.replace("-split", "-kfold"))
        if result.experiment.protocol == "split" and partner is not None:
            shared += result.runs[0].config.fit_id in [run.config.fit_id for run in partner.runs]
    if not shared:
        return ""
    kfold, split = ORIGINAL["cnn-kfold"].accuracy, ORIGINAL["cnn-split"].accuracy
    assert kfold is not None and split is not None
    return (
        f"In {count(shared, 'architecture')} both protocols are there. The split's fit is the k-fold fit with the same "
        "validation fold, trained once: where the two protocols differ, it is because a mean over several fits differs "
        f"from one of them. A distance such as the original's, {percent(kfold)} against {percent(split)} with the "
        "latter below chance, is out of that reach."
    )


def read_check(check: ExperimentResult, planned: ExperimentResult | None) -> str:
    """A check beside the same experiment on the plan's test fold: how far apart, and whether chance may explain it."""
    text = "" if check.is_complete else read_missing(check)
    if not check.runs:
        return text
    windows, clips = mean_accuracies(check)
    text += (
        f" {describe_experiment(check)} classifies {percent(windows)} of the windows and {percent(clips)} of "
        f"the clips of test fold {check.experiment.test_fold} correctly"
    )
    if planned is None or not planned.runs:
        return f"{text}.".strip()
    windows_before, clips_before = mean_accuracies(planned)
    text += (
        f", and {percent(windows_before)} and {percent(clips_before)} of those of fold {planned.experiment.test_fold}."
    )
    points = round(100 * (clips - clips_before), 1)
    if not points:
        return text.strip()
    n, n_before = check.scores("clip").n, planned.scores("clip").n
    right, right_before = round(clips * n), round(clips_before * n_before)
    p = float(stats.fisher_exact([[right, n - right], [right_before, n_before - right_before]]).pvalue)
    verdict = "is more than the choice of clips explains" if p < 0.05 else "the choice of clips alone may explain"
    return (
        f"{text} That is {abs(points):.1f} points {'more' if points > 0 else 'fewer'} of the clips, which {verdict} "
        f"(Fisher's exact test, {p_value(p)})."
    ).strip()


def mean_accuracies(result: ExperimentResult) -> tuple[float, float]:
    """Window and clip accuracy, mean over an experiment's fits."""
    return mean_and_std(result.values("window"))[0], mean_and_std(result.values("clip"))[0]


def describe_experiment(result: ExperimentResult) -> str:
    """To begin a sentence: ``The CNN under the train-test split``."""
    heads = result.experiment.num_heads
    model = "The CNN" if heads is None else f"The Transformer with {count(heads, 'head')}"
    protocol = "the train-test split" if result.experiment.protocol == "split" else "cross-validation"
    return f"{model} under {protocol}"


def p_value(p: float) -> str:
    """``p = 0.43``, ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2f}" if p >= 0.01 else f"p = {p:.3f}"


def tell_original() -> str:
    """What the original report's own numbers say of it."""
    kfold, split = ORIGINAL["cnn-kfold"], ORIGINAL["cnn-split"]
    transformer = ORIGINAL["transformer-h1-kfold"].accuracy
    assert kfold.accuracy and kfold.train_accuracy and kfold.validation_accuracy and split.accuracy and transformer
    return (
        f"The original's CNN ended at {percent(kfold.train_accuracy, 0)} of its training, "
        f"{percent(kfold.validation_accuracy, 0)} of its validation and {percent(kfold.accuracy, 0)} of its test "
        f"windows under cross-validation, and at {percent(split.accuracy, 2)} of the test windows on the split; every "
        f"Transformer stayed at {percent(transformer, 0)}, and Xavier initialisation of the encoder did not help. "
        "Two of these numbers cannot stand together: the split is one of the four cross-validation fits, and a share "
        "below chance is no property of a split but the mark of an error in the evaluation. Validation far above test "
        "points the same way, since one model that is trained through all rotating folds has seen its validation "
        f"windows. And a loss around zero, as described for the Transformers, does not go with "
        f"{percent(transformer, 0)}: guessing among ten classes costs $\\ln 10 = {math.log(10):.2f}$."
    )


def read_original(results: Sequence[ExperimentResult]) -> str:
    """Our window accuracies beside the original's, for a data set where both were measured."""
    lines = []
    for result in results:
        theirs = ORIGINAL.get(result.experiment.name)
        if theirs is None or theirs.accuracy is None or not result.runs:
            continue
        ours, _ = mean_and_std(result.values("window"))
        points = 100 * (ours - theirs.accuracy)
        direction = "above" if points >= 0 else "below"
        interval = result.intervals["window"]
        where = "inside" if interval.low <= theirs.accuracy <= interval.high else "outside"
        lines.append(
            f"{escape_markdown(result.title)}: {percent(ours)}, {abs(points):.1f} points {direction} the original, "
            f"which lies {where} our interval of {between(interval)}"
        )
    return "; ".join(lines) + "." if lines else ""


def discuss(results: Sequence[ExperimentResult]) -> str:
    """What the numbers show, paragraph by paragraph."""
    there = [result for result in results if result.runs]
    if not there:
        return "There is nothing to discuss before the first fit has been trained."
    paragraphs = [discuss_learning(there), discuss_architectures(there), discuss_silence(there)]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def discuss_learning(results: Sequence[ExperimentResult]) -> str:
    """Which experiments are above chance, and how training compares with test."""
    n_classes, n_clips = len(results[0].class_names), results[0].scores("clip").n
    # Clips, not windows: the windows of a clip are not independent.
    learnt = [r for r in results if above_chance(mean_and_std(r.values("clip"))[0] * n_clips, n_clips, n_classes)]
    chosen = f"{len(learnt)} {'classifies' if len(learnt) == 1 else 'classify'}"
    gaps = []
    for result in results:
        kept = result.best.history.iloc[int(result.best.metrics["chosen"]["epoch"]) - 1]
        gaps.append(kept["train_accuracy"] - kept["test_accuracy"])
    widest = int(np.argmax(np.abs(gaps)))
    side = "above" if gaps[widest] >= 0 else "below"
    return (
        f"Of {count(len(results), 'experiment')}, {chosen} more of the {count(n_clips, 'test clip')} correctly than "
        f"guessing would in 95 of 100 cases (exact binomial test). At the epochs kept, training and test accuracy are "
        f"farthest apart for {escape_markdown(results[widest].title)}, where training lies "
        f"{abs(100 * gaps[widest]):.0f} points {side} test."
    )


def discuss_architectures(results: Sequence[ExperimentResult]) -> str:
    """CNN against Transformer, and head counts among themselves, under cross-validation."""
    tests, named = compare_kfold(results), by_name(results)
    if not tests:
        return read_differences(results)
    averaged = [result for result in results if result.is_averaged]
    rights = [f"{int(result.answers.averaged_right.sum())} by {in_words(result)}" for result in averaged]
    text = (
        "Under cross-validation, with the probabilities of each experiment's fits averaged, this many of the "
        f"{count(tests[0].n_clips, 'test clip')} are classified correctly: {enumerate_words(rights)}."
    )
    across = [test for test in tests if "cnn" in {named[name].experiment.model for name in test.names}]
    among = [test for test in tests if test not in across]
    if across:
        text += f" Between the CNN and Transformers, {tell_verdict(across, named, brief=True)}."
    if among:
        text += (
            f" Between head counts, {tell_verdict(among, named, brief=True)}; the number of parameters is the same for "
            "all of them, since heads divide the projections and add none."
        )
    return f"{text} {read_trained_fits(results)}"


def discuss_silence(results: Sequence[ExperimentResult]) -> str:
    """What silent windows cost at window level, how far they part the fits, and why clips are the fairer unit."""
    runs = {run.config.fit_id: run for result in results for run in result.runs}
    tests = [run.predictions.query("split == 'test'") for run in runs.values()]
    silent, n_windows = tests[0].loc[tests[0]["silent"], "y_true"], len(tests[0])
    if silent.empty:
        return ""
    most, hits = int(silent.value_counts().max()), [silent_hits(test) for test in tests]
    return (
        f"{len(silent)} of the {n_windows} test windows hold nothing but padding. With one answer for all of them, "
        f"{most} at most {are(most)} right, and window accuracy ends at "
        f"{percent(1 - (len(silent) - most) / n_windows)}. {_compare_silence(hits, n_windows)} Clip accuracy leaves "
        "such windows out of the vote, and is the number to compare models by."
    )


def _compare_silence(hits: Sequence[int], n_windows: int) -> str:
    low, high = min(hits), max(hits)
    if low == high:
        return f"{'The fit has' if len(hits) == 1 else f'Each of the {len(hits)} fits has'} {low} of them right."
    return (
        f"Of the {len(hits)} fits one has {high} of them right and another {low}: by these windows alone their window "
        f"accuracies differ by {100 * (high - low) / n_windows:.1f} points."
    )


def silent_hits(test: pd.DataFrame) -> int:
    """How many silent windows among predictions are given their clip's class."""
    right = test["y_true"] == answers_to_windows(test)
    return int(right[test["silent"]].sum())

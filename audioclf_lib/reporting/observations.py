"""Readings: sentences computed from numbers, so that no text can contradict its figure.

Every function returns Markdown. Percentages are of windows unless a sentence says clips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from audioclf_lib.evaluation import Scores
from audioclf_lib.reporting.display import escape_markdown
from audioclf_lib.reporting.original import ORIGINAL
from audioclf_lib.reporting.results import ExperimentResult, mean_and_std
from audioclf_lib.store import Run

# A gap between training and validation accuracy above this is called overfitting.
OVERFITTING_GAP = 0.10


def percent(value: float, decimals: int = 1) -> str:
    """``61.1 %`` with a space that does not break."""
    return f"{100 * value:.{decimals}f}\N{NO-BREAK SPACE}%"


def percent_with_std(values: Sequence[float]) -> str:
    """``61.1 ± 2.3 %``, or the value alone where there is one."""
    mean, std = mean_and_std(values)
    if std is None:
        return percent(mean)
    return f"{100 * mean:.1f} ± {100 * std:.1f}\N{NO-BREAK SPACE}%"


def quote(class_name: str) -> str:
    return f"*{escape_markdown(class_name.replace('_', ' '))}*"


def enumerate_words(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def read_curves(result: ExperimentResult) -> str:
    """How the curves of the fit shown in full run, and whether it overfits."""
    run = result.best
    history, chosen = run.history, int(run.metrics["chosen"]["epoch"])
    first, last, kept = history.iloc[0], history.iloc[-1], history.iloc[chosen - 1]
    chance = 1 / len(result.class_names)
    sentences = [
        f"In the fit with validation fold {run.config.val_fold}, the training loss goes from {first['train_loss']:.2f} "
        f"in the first epoch to {last['train_loss']:.2f} in epoch {len(history)} "
        f"(guessing costs $\\ln {len(result.class_names)} = {math.log(len(result.class_names)):.2f}$), "
        f"and the validation loss is lowest, {history['validation_loss'].min():.2f}, "
        f"in epoch {int(history['epoch'].iloc[int(history['validation_loss'].argmin())])}.",
        f"Epoch {chosen} is kept, with {percent(kept['validation_accuracy'])} of the validation windows right; "
        f"there the fit has {percent(kept['train_accuracy'])} on training and {percent(kept['test_accuracy'])} "
        "on test windows.",
    ]
    gap = kept["train_accuracy"] - kept["validation_accuracy"]
    if kept["validation_accuracy"] < 1.5 * chance:
        sentences.append(f"That is little above chance ({percent(chance, 0)}): the model has hardly learnt the task.")
    elif gap > OVERFITTING_GAP:
        sentences.append(
            f"Training lies {100 * gap:.0f} points above validation: the model fits its training clips better than "
            "new ones."
        )
    else:
        sentences.append(
            "Training and validation stay within "
            f"{100 * OVERFITTING_GAP:.0f} points of each other, so there is no sign of overfitting at that epoch."
        )
    if run.config.recipe_settings.dropout > 0 or run.config.recipe_settings.mixing > 0:
        sentences.append(
            "Training scores are taken while training, with dropout"
            + (" and mixed, augmented windows" if run.config.recipe_settings.mixing > 0 else "")
            + ", and are therefore lower than the same windows would score afterwards."
        )
    return " ".join(sentences)


def read_confusion(scores: Scores) -> str:
    """Best and worst class, and the most frequent confusion."""
    matrix, names = scores.confusion, scores.class_names
    recall = np.diag(matrix) / np.maximum(matrix.sum(1), 1)
    best, worst = int(recall.argmax()), int(recall.argmin())
    sentences = [
        f"Recognised best is {quote(names[best])} ({int(matrix[best, best])} of {int(matrix[best].sum())} "
        f"{scores.level}s), worst {quote(names[worst])} ({int(matrix[worst, worst])} of {int(matrix[worst].sum())})."
    ]
    wrong = matrix - np.diag(np.diag(matrix))
    if wrong.any():
        true, predicted = np.unravel_index(int(wrong.argmax()), wrong.shape)
        sentences.append(
            f"The most frequent confusion takes {quote(names[true])} for {quote(names[predicted])} "
            f"({int(wrong[true, predicted])} times)."
        )
    share = matrix.sum(0) / matrix.sum()
    favourite = int(share.argmax())
    sentences.append(
        f"The class named most often is {quote(names[favourite])}, with {percent(share[favourite])} of all answers "
        f"where it makes up {percent(matrix[favourite].sum() / matrix.sum())} of the data."
    )
    return " ".join(sentences)


def read_silence(scores: Scores, run: Run) -> str:
    """What silent windows do to the window score."""
    test = run.predictions[run.predictions["split"] == "test"]
    silent = int(test["silent"].sum())
    if not silent or scores.accuracy_without_silence is None:
        return "No test window is silent."
    right = (test["y_true"] == test.filter(regex=r"^p_\d+$").to_numpy().argmax(1))[test["silent"]].sum()
    return (
        f"{silent} of the {scores.n} test windows are silent padding, of which {int(right)} are counted right by luck; "
        f"without them the window accuracy is {percent(scores.accuracy_without_silence)}."
    )


def accuracy_latex(scores: Scores) -> str:
    """Accuracy written out: the confusion matrix's diagonal over its sum."""
    diagonal = [int(value) for value in np.diag(scores.confusion)]
    terms = diagonal if len(diagonal) <= 12 else [*diagonal[:5], r"\cdots", *diagonal[-3:]]
    numerator = " + ".join(map(str, terms))
    return (
        rf"\mathrm{{accuracy}} = \frac{{{numerator}}}{{{scores.n}}} = \frac{{{scores.n_correct}}}{{{scores.n}}} "
        rf"= {scores.accuracy:.4f}"
    )


def read_roc(scores: Scores) -> str:
    """Which classes are separated best and worst, and the averages."""
    areas = pd.Series({name: scores.auc[name] for name in scores.class_names}).dropna()
    return (
        f"The macro average of the areas is {scores.auc['macro']:.3f}, the micro average {scores.auc['micro']:.3f} "
        f"(0.5 is guessing). Separated best from the rest is {quote(str(areas.idxmax()))} ({areas.max():.3f}), "
        f"worst {quote(str(areas.idxmin()))} ({areas.min():.3f})."
    )


def read_f1(scores: Scores) -> str:
    """Best and worst F1, and classes that are never found."""
    f1 = scores.per_class["f1"]
    text = (
        f"The macro F1 is {scores.macro_f1:.3f}; the highest F1 is that of {quote(str(f1.idxmax()))} "
        f"({f1.max():.2f}), the lowest that of {quote(str(f1.idxmin()))} ({f1.min():.2f})."
    )
    lost = [quote(str(name)) for name in f1.index[f1 == 0]]
    return text + (f" Never found: {enumerate_words(lost)}." if lost else "")


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
    name = escape_markdown(result.title)
    if result.missing is None:
        return f"**Missing:** no fit of *{name}* has been trained yet."
    folds = enumerate_words([str(config.val_fold) for config in result.missing])
    return f"**Missing:** of *{name}*, the fit with validation fold {folds} has not been trained yet."


def read_comparison(results: Sequence[ExperimentResult]) -> str:
    """Who leads at clip level, by how much, and what one clip is worth."""
    there = [result for result in results if result.runs]
    means = pd.Series({result.title: mean_and_std(result.values("clip"))[0] for result in there})
    n_clips = there[0].scores("clip").n
    best, worst = str(means.idxmax()), str(means.idxmin())
    spread = means.max() - means.min()
    text = (
        f"At clip level the experiments range from {percent(means.min())} ({escape_markdown(worst)}) to "
        f"{percent(means.max())} ({escape_markdown(best)}). One of the {n_clips} test clips is worth "
        f"{100 / n_clips:.2f} points, so the whole range is {spread * n_clips:.0f} clips. "
    )
    # Standard error of a share of n independent clips, at its largest.
    error = 1.96 * math.sqrt(0.25 / n_clips)
    text += (
        f"A share of {n_clips} clips has a 95 % interval of up to ± {100 * error:.0f} points, so differences "
        f"{'below that, and that is all of them here,' if spread < error else 'well below that'} must not be read as "
        "one architecture being better than another."
    )
    return text


def read_split_against_kfold(results: Sequence[ExperimentResult]) -> str:
    """The split's fit is one of the k-fold fits: their scores must agree."""
    by_name = {result.name: result for result in results if result.runs}
    same = 0
    for name, result in by_name.items():
        partner = by_name.get(name.replace("split", "kfold"))
        if "split" in name and partner is not None:
            same += result.runs[0].config.fit_id in [run.config.fit_id for run in partner.runs]
    if not same:
        return ""
    return (
        f"For {same} of the architectures both protocols are there. The split protocol's fit is the k-fold fit with "
        "the same validation fold, trained once, so its score *is* that fit's score; a large difference between the "
        "two protocols, such as the original's 42 % and 9.16 %, can only come from an error in the evaluation."
    )


def read_original(results: Sequence[ExperimentResult]) -> str:
    """Our window accuracies beside the original's, for a data set where both were measured."""
    lines = []
    for result in results:
        theirs = ORIGINAL.get(result.name)
        if theirs is None or theirs.accuracy is None or not result.runs:
            continue
        ours, _ = mean_and_std(result.values("window"))
        points = 100 * (ours - theirs.accuracy)
        direction = "above" if points >= 0 else "below"
        lines.append(
            f"{escape_markdown(result.title)}: {percent(ours)}, {abs(points):.1f} points {direction} the original"
        )
    return "; ".join(lines) + "." if lines else ""


def write_abstract(results: Sequence[ExperimentResult]) -> str:
    """The report in a few sentences, from its numbers."""
    there = [result for result in results if result.runs]
    task = (
        "Two architectures classify one-second windows of environmental recordings: a one-dimensional convolutional "
        "network, and the same convolutions in front of a Transformer encoder with a CLS token."
    )
    if not there:
        return f"{task} No fit has been trained yet, so this report holds the method and no results."
    epochs = sorted({result.experiment.epochs for result in there})
    n_fits = len({run.config.fit_id for result in there for run in result.runs})
    sentences = [
        task,
        f"{len(there)} experiments with {n_fits} fits of {enumerate_words([str(number) for number in epochs])} epochs "
        f"were run on {describe_dataset_name(there[0].dataset)}.",
        *(read_architecture(there, model) for model in ("cnn", "transformer")),
    ]
    missing = sum(not result.is_complete for result in results)
    if missing:
        sentences.append(f"{missing} of the {len(results)} experiments are incomplete; what is missing is named below.")
    return " ".join(sentence for sentence in sentences if sentence)


def describe_dataset_name(name: str) -> str:
    known = {"demo": "the demo set of generated sounds", "esc10": "ESC-10", "esc50": "ESC-50"}
    return known.get(name, f"the data set *{escape_markdown(name)}*")


def read_architecture(results: Sequence[ExperimentResult], model: str) -> str:
    """Range of an architecture's mean accuracies over its experiments."""
    chosen = [result for result in results if result.experiment.model == model and result.runs]
    if not chosen:
        return ""
    name = "The CNN" if model == "cnn" else "The Transformer"
    windows = [mean_and_std(result.values("window"))[0] for result in chosen]
    clips = [mean_and_std(result.values("clip"))[0] for result in chosen]
    return f"{name} classifies {span(windows)} of the test windows and {span(clips)} of the test clips correctly."


def span(values: Sequence[float]) -> str:
    """``61.1 %``, or ``55.0 to 61.1 %``."""
    low, high = min(values), max(values)
    if f"{100 * low:.1f}" == f"{100 * high:.1f}":
        return percent(low)
    return f"{100 * low:.1f} to {percent(high)}"


def discuss(results: Sequence[ExperimentResult]) -> str:
    """What the numbers show, paragraph by paragraph."""
    there = [result for result in results if result.runs]
    if not there:
        return "There is nothing to discuss before the first fit has been trained."
    paragraphs = [discuss_learning(there), discuss_architectures(there), discuss_silence(there)]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def discuss_learning(results: Sequence[ExperimentResult]) -> str:
    """Which experiments are above chance, and how far training lies above validation."""
    chance = 1 / len(results[0].class_names)
    n_windows = results[0].scores("window").n
    # Far enough above chance for a share of the clips, not the windows, since windows of a clip are not independent.
    n_clips = results[0].scores("clip").n
    limit = chance + 1.64 * math.sqrt(chance * (1 - chance) / n_clips)
    learnt = [result for result in results if mean_and_std(result.values("clip"))[0] > limit]
    text = (
        f"Of {len(results)} experiments, {len(learnt)} classify more clips correctly than guessing would in 95 of 100 "
        f"cases ({percent(limit)} of the {n_clips} test clips; {n_windows} windows)."
    )
    gaps = []
    for result in results:
        kept = result.best.history.iloc[int(result.best.metrics["chosen"]["epoch"]) - 1]
        gaps.append(kept["train_accuracy"] - kept["test_accuracy"])
    widest = results[int(np.argmax(gaps))]
    return text + (
        f" At the epoch kept, training accuracy lies between {100 * min(gaps):.0f} and {100 * max(gaps):.0f} points "
        f"above test accuracy, most for {escape_markdown(widest.title)}."
    )


def discuss_architectures(results: Sequence[ExperimentResult]) -> str:
    """CNN against Transformer, and head counts among themselves, under cross-validation."""
    kfold = [result for result in results if result.experiment.protocol == "kfold"]
    cnn = next((result for result in kfold if result.experiment.model == "cnn"), None)
    transformers = [result for result in kfold if result.experiment.model == "transformer"]
    if cnn is None or not transformers:
        return ""
    cnn_mean, cnn_std = mean_and_std(cnn.values("clip"))
    means = [mean_and_std(result.values("clip"))[0] for result in transformers]
    best = transformers[int(np.argmax(means))]
    difference = max(means) - cnn_mean
    spread = max(cnn_std or 0.0, mean_and_std(best.values("clip"))[1] or 0.0)
    text = (
        f"Under cross-validation the best Transformer ({escape_markdown(best.title)}) classifies "
        f"{abs(100 * difference):.1f} points {'more' if difference >= 0 else 'less'} of the clips correctly than the "
        f"CNN. The fits of one experiment differ with a standard deviation of up to {100 * spread:.1f} points, "
        + ("so this difference is within the spread" if abs(difference) <= spread else "so this difference exceeds it")
        + "; one seed and one test fold cannot say more."
    )
    if len(means) > 1:
        text += (
            f" Between the head counts the means differ by {100 * (max(means) - min(means)):.1f} points; "
            "the number of parameters is the same for all of them, since heads divide the projections and add none."
        )
    return text


def discuss_silence(results: Sequence[ExperimentResult]) -> str:
    """What silent windows cost at window level, and why clips are the fairer unit."""
    silent = int(results[0].best.predictions.query("split == 'test'")["silent"].sum())
    n_windows = results[0].scores("window").n
    if not silent:
        return ""
    return (
        f"{silent} of the {n_windows} test windows hold nothing but padding. No model can know their class, so about "
        f"{percent(1 - silent / n_windows)} is the most that window accuracy can reach but for luck. Clip accuracy "
        "leaves such windows out of the vote, and is the number to compare models by."
    )

"""Readings of the diagnosis: sentences computed from its fits and traces; what the numbers do not show is not said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from audioclf_lib.config import architecture_title
from audioclf_lib.metrics.scores import answers_to_windows
from audioclf_lib.report.observations import above_chance
from audioclf_lib.report.original import ORIGINAL
from audioclf_lib.report.phrases import NBSP, count, enumerate_words, percent, quote, with_heads
from audioclf_lib.report.results import ExperimentResult
from audioclf_lib.runs.store import Run
from audioclf_lib.suite.variants import ALL_REMEDIES, AS_WRITTEN, HIGH_RATE, REMEDIES, Case

ORIGINAL_TEST_WINDOWS = 720
ALIKE = 0.99  # mean cosine of CLS outputs, or share of one answer, from which windows count as alike
STATISTICS = REMEDIES[0]


def model_title(case: Case) -> str:
    """``CNN``, ``Transformer, 1 head``."""
    return architecture_title(case.model, case.config.num_heads)


@dataclass(frozen=True)
class CaseScores:
    """What the kept weights of a trained case score.

    Attributes:
        model: as titled; variant: its name; epoch: that was kept.
        train, validation, test, test_clip: accuracies, of windows unless clips are named.
        again_test: of the same weights with statistics re-estimated; NaN if not scored.
        answer, answer_share: the most frequent answer on test windows and its share.
        learns, guesses: whether the last epoch's training clips, and no test clips, are told from guessing.
    """

    model: str
    variant: str
    epoch: int
    train: float
    validation: float
    test: float
    test_clip: float
    again_test: float
    answer: str
    answer_share: float
    learns: bool
    guesses: bool


def score_cases(cases: Sequence[Case]) -> list[CaseScores]:
    """The scores of all cases that are trained."""
    return [score_case(case, case.run) for case in cases if case.run is not None]


def score_case(case: Case, run: Run) -> CaseScores:
    epoch = int(run.metrics["chosen"]["epoch"])
    kept = run.history.iloc[epoch - 1]
    answer, share = favourite_answer(run)
    return CaseScores(
        model=model_title(case),
        variant=case.variant.name,
        epoch=epoch,
        train=float(kept["train_accuracy"]),
        validation=float(kept["validation_accuracy"]),
        test=float(kept["test_accuracy"]),
        test_clip=float(kept["test_clip_accuracy"]),
        again_test=math.nan if case.rescored is None else float(case.rescored["accuracy"]["test"]),
        answer=answer,
        answer_share=share,
        learns=not is_guessing(run, "train", run.history["train_clip_accuracy"].iloc[-1]),
        guesses=is_guessing(run, "test", kept["test_clip_accuracy"]),
    )


def favourite_answer(run: Run) -> tuple[str, float]:
    """The class that is answered most often on the test windows, and its share of the answers."""
    test = run.predictions[run.predictions["split"] == "test"]
    counts = np.bincount(answers_to_windows(test), minlength=len(run.config.class_names))
    return run.config.class_names[counts.argmax()], float(counts.max() / counts.sum())


def is_guessing(run: Run, split: str, clip_accuracy: float) -> bool:
    """Whether guessing would get as many clips right; not windows, since those of a clip are not independent."""
    n = int(run.metrics["scores"][split]["clip"]["n"])
    return not above_chance(clip_accuracy * n, n, len(run.config.class_names))


# ------------------------------------------------------------------------------------------------------ what was tried


def read_claims() -> str:
    """What in the original's score on the split is mere arithmetic."""
    split = ORIGINAL["cnn-split"].accuracy
    assert split is not None
    return (
        f"{percent(split, 2)} of {ORIGINAL_TEST_WINDOWS} test windows are {round(split * ORIGINAL_TEST_WINDOWS)}; a "
        f"network that gives every window the same answer gets {ORIGINAL_TEST_WINDOWS // 10} right."
    )


def read_length(cases: Sequence[Case]) -> str:
    """How long the fits are, on which folds and with which seed."""
    config = cases[0].config
    return (
        f"Every fit of the diagnosis has {count(config.epochs, 'epoch')} and seed {config.seed}; it is validated on "
        f"fold {config.val_fold} and tested on fold {config.test_fold}. That is enough to show an effect and too short "
        "for a final score."
    )


def read_missing_cases(cases: Sequence[Case]) -> str:
    """Which fits are not there, or not looked into; nothing if all are."""
    untrained = [case for case in cases if case.run is None]
    if len(untrained) == len(cases):
        return "**Missing:** no fit of the diagnosis has been trained yet."
    unseen = [case for case in cases if case.run is not None and not case.is_complete]
    texts = []
    for what, missing in (("trained", untrained), ("looked into", unseen)):
        if missing:
            names = enumerate_words([f"{quote(case.variant.name)} ({model_title(case)})" for case in missing])
            texts.append(f"**Missing:** not yet {what}: {names}.")
    return " ".join(texts)


def read_as_written(cases: Sequence[Case]) -> str:
    """How far each architecture gets by the recipe as written, and whether that is more than guessing."""
    sentences = []
    for case in cases:
        if case.variant.name != AS_WRITTEN.name or case.run is None:
            continue
        scores, last = score_case(case, case.run), case.run.history.iloc[-1]
        verdict = "is not to be told from guessing" if scores.guesses else "is more than guessing gives"
        sentences.append(
            f"As written, the {with_heads(scores.model)} has {percent(last['train_accuracy'])} of the training windows "
            f"right in epoch {int(last['epoch'])}. With the weights of epoch {scores.epoch}, which are kept, "
            f"{percent(scores.validation)} of the validation and {percent(scores.test)} of the test windows are right; "
            f"{percent(scores.test_clip)} of the test clips are, which {verdict}. On test windows, "
            f"{percent(scores.answer_share)} of the answers are {quote(scores.answer)}."
        )
    return " ".join(sentences)


# ----------------------------------------------------------------------------------------------------------- remedies


def read_remedies(cases: Sequence[Case]) -> str:
    """A paragraph per architecture: what the evaluation has to do with it, and what the remedies change."""
    paragraphs = []
    for model in dict.fromkeys(scores.model for scores in score_cases(cases)):
        own = [case for case in cases if model_title(case) == model]
        by_variant = {scores.variant: scores for scores in score_cases(own)}
        if AS_WRITTEN.name in by_variant:
            texts = [read_statistics(by_variant[AS_WRITTEN.name]), read_same_training(own)]
            texts += [read_single(by_variant), read_together(by_variant)]
            paragraphs.append(f"*{model}.* " + " ".join(text for text in texts if text))
    if paragraphs:
        paragraphs.append(read_resolution(cases))
    return "\n\n".join(paragraphs)


def read_statistics(written: CaseScores) -> str:
    """What wrong statistics cost the weights as written."""
    before, after = written.test, written.again_test
    if math.isnan(after):
        return ""
    if percent(before) == percent(after):
        return f"Re-estimating batch norm's statistics leaves the weights as written at {percent(after)}."
    verdict = "training had found more than the evaluation showed"
    if after < before:
        verdict = "here the statistics gathered in training were no hindrance"
    elif written.answer_share >= ALIKE and written.learns:
        verdict = "one answer for every window can come from the evaluation alone, while training learns"
    return (
        f"The weights kept of the fit as written, none of them changed, have {percent(after)} instead of "
        f"{percent(before)} of the test windows right once batch norm's statistics are re-estimated without dropout: "
        f"{verdict}."
    )


def read_same_training(cases: Sequence[Case]) -> str:
    """Re-estimation trains nothing: the losses of the two fits say so."""
    runs = {case.variant.name: case.run for case in cases if case.run is not None}
    written, again = runs.get(AS_WRITTEN.name), runs.get(STATISTICS.name)
    if written is None or again is None or not written.history["train_loss"].equals(again.history["train_loss"]):
        return ""
    best = [run.history["validation_accuracy"].max() for run in (written, again)]
    return (
        "The fit that re-estimates them after every epoch has the very same training losses; its best validation "
        f"accuracy is {percent(best[1])}, that of the fit as written {percent(best[0])}."
    )


def read_single(by_variant: Mapping[str, CaseScores]) -> str:
    """What each of the other remedies changes, all scored with re-estimated statistics."""
    base = by_variant[AS_WRITTEN.name].again_test
    names = [remedy.name for remedy in REMEDIES if remedy.name != STATISTICS.name and remedy.name in by_variant]
    gains = {name: 100 * (by_variant[name].again_test - base) for name in names}
    if len(gains) < 2 or any(math.isnan(gain) for gain in gains.values()):
        return ""
    shown = [f"{quote(name)} {signed(gains[name])}" for name in sorted(gains, key=lambda name: -gains[name])]
    return (
        "With statistics re-estimated in both, the other remedies, one at a time, change the share of test windows by "
        f"{enumerate_words(shown)} points."
    )


def signed(points: float) -> str:
    """``+3.1``, ``−0.4``, ``±0.0``."""
    text = f"{abs(points):.1f}"
    return f"±{text}" if text == "0.0" else f"{'+' if points > 0 else '−'}{text}"


def read_together(by_variant: Mapping[str, CaseScores]) -> str:
    if ALL_REMEDIES.name not in by_variant:
        return ""
    together, written = by_variant[ALL_REMEDIES.name], by_variant[AS_WRITTEN.name]
    return (
        f"With {ALL_REMEDIES.name}, {percent(together.test)} of the test windows and {percent(together.test_clip)} of "
        f"the test clips are right; as written, {percent(written.test)} and {percent(written.test_clip)} are."
    )


def read_resolution(cases: Sequence[Case]) -> str:
    """How small a difference can be seen at all on so few clips."""
    run = next(case.run for case in cases if case.run is not None)
    n_clips = int(run.metrics["scores"]["test"]["clip"]["n"])
    interval = stats.binomtest(n_clips // 2, n_clips).proportion_ci(method="wilson")
    return (
        f"A share of {count(n_clips, 'test clip')} near one half has a 95{NBSP}% interval of "
        f"± {50 * (interval.high - interval.low):.0f} points (Wilson), and there is one seed: smaller differences rank "
        "no remedy above another."
    )


def read_high_rate(cases: Sequence[Case]) -> str:
    """Whether a higher learning rate gives what the original shows of its Transformers."""
    case = next((case for case in cases if case.variant.name == HIGH_RATE.name), None)
    if case is None or case.run is None:
        return ""
    scores, last = score_case(case, case.run), case.run.history.iloc[-1]
    n_classes = len(case.run.config.class_names)
    text = (
        f"At a rate of {HIGH_RATE.changes['learning_rate']:g}, ten times as high, the {with_heads(scores.model)} ends "
        f"with {percent(last['train_accuracy'])} of the training windows right and a training loss of "
        f"{last['train_loss']:.2f} (guessing costs $\\ln {n_classes} = {math.log(n_classes):.2f}$). With the weights "
        f"kept, {percent(scores.test)} of the test windows are right; {percent(scores.answer_share)} of the answers "
        f"are {quote(scores.answer)}."
    )
    if not scores.learns and scores.guesses and scores.answer_share >= ALIKE:
        return (
            f"{text} Guessing in training and in testing, with one answer for every window, is what the original "
            "reports of all its Transformers. It does not say at what rate they were trained: one as high as this is "
            "enough to explain it."
        )
    return (
        f"{text} The original's Transformers guessed in training too, with one answer: this rate does not explain it."
    )


# ---------------------------------------------------------------------------------------------- inside the Transformer


def read_internals(cases: Sequence[Case]) -> str:
    """Gradients, attention and CLS outputs at the end of the traced steps, and what that means."""
    traces = {case.variant.name: case.trace for case in cases if case.is_traced and case.trace is not None}
    if not traces:
        return ""
    ends = pd.DataFrame({name: trace_end(trace) for name, trace in traces.items()}).T

    def each(column: str, spec: str) -> str:
        return enumerate_words([f"{value:{spec}} ({name})" for name, value in ends[column].items()])

    text = (
        f"After {count(int(ends['step'].max()), 'step')}, the CLS outputs of two windows have a mean cosine of "
        f"{each('similarity', '.3f')}. CLS begins as a token of zeros that asks by its bias alone, so its attention in "
        f"layer 1 starts uniform, at $\\ln 33 = {math.log(33):.2f}$ nats; by then its entropy is "
        f"{each('entropy_layer1', '.2f')}, in layer 2 {each('entropy_layer2', '.2f')}. The gradient that reaches the "
        f"convolutions has a norm of {each('gradient_base', '.2g')}, the median of the last quarter of these steps."
    )
    alike = [quote(name) for name in ends.index[ends["similarity"] >= ALIKE]]
    if not alike:
        return f"{text} In none of them do all windows get the same CLS output."
    return (
        f"{text} Where the cosine is 1, the classifier is given the same vector for every window and can tell none "
        f"from another: so it is in {enumerate_words(alike)}."
    )


def trace_end(trace: pd.DataFrame) -> dict[str, float]:
    """The last probe of a trace, its last step, and the median gradient norm at the base in its last quarter."""
    probe = trace.dropna(subset=["similarity"])
    end = {name: float(probe[name].iloc[-1]) for name in ("similarity", "entropy_layer1", "entropy_layer2")}
    last_quarter = trace["gradient_base"].iloc[-math.ceil(len(trace) / 4) :]
    return end | {"gradient_base": float(last_quarter.median()), "step": int(trace["step"].iloc[-1])}


# -------------------------------------------------------------------------------------------------- split and k-fold


def read_one_fit(kfold: ExperimentResult, split: ExperimentResult) -> str:
    """That the split's score is the score of the k-fold fit with the same validation fold.

    Args:
        kfold: the k-fold experiment with that one of its fits.
        split: the split experiment with its fit.
    """
    one, other = kfold.scores(), split.scores()
    same_fit = kfold.best.config.fit_id == split.best.config.fit_id and kfold.best.path == split.best.path
    if not same_fit or one.n_correct != other.n_correct:
        return f"The split's fit of {quote(split.title)} is not the k-fold fit: {one.n_correct} and {other.n_correct}."
    return (
        f"{split.title.split(':')[0]}: the split's fit and the k-fold fit validated on fold "
        f"{split.best.config.val_fold} have one configuration, hence one name and one run folder. Scored for either "
        f"protocol, {one.n_correct} of {one.n} test windows are right, {percent(one.accuracy, 2)}."
    )


def read_evaluation_error() -> str:
    """What follows for the original's two scores."""
    kfold, split = ORIGINAL["cnn-kfold"].accuracy, ORIGINAL["cnn-split"].accuracy
    assert kfold is not None and split is not None
    return (
        f"One model has one score on the same windows. The original's {percent(kfold)} under cross-validation and "
        f"{percent(split, 2)} on the split lie {100 * (kfold - split):.0f} points apart on the same test fold, the "
        "latter below chance: at least one of the two was not evaluated on the model that was trained."
    )

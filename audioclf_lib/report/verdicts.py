"""Readings of the statistics: how sure the scores are, which differences are real, whether confidences can be trusted.

Every function returns Markdown; as in ``observations``, every sentence is computed from its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from audioclf_lib.metrics.uncertainty import ALPHA, CONFIDENCE, N_BINS, N_RESAMPLES, PairTest, clips_needed
from audioclf_lib.report.phrases import (
    are,
    between,
    count,
    enumerate_words,
    equals,
    in_words,
    percent,
)
from audioclf_lib.report.results import ExperimentResult, compare_kfold, mean_and_std
from audioclf_lib.report.show import escape_markdown

# Mean confidence and accuracy that differ by less are said to agree.
SMALL_BIAS = 0.01
FEW_CLIPS = 20  # the bootstrap's intervals are somewhat too narrow below this

Named = Mapping[str, ExperimentResult]


def tell_method() -> str:
    """What intervals, tests and calibration are in this report, for its method section."""
    return (
        f"*Intervals.* The {percent(CONFIDENCE, 0)} intervals come from drawing the test clips {N_RESAMPLES:,} times "
        "with replacement (bootstrap, BCa), each clip with all its windows and the answers of all fits: the windows of "
        "one clip are alike, so drawing windows would make the intervals too narrow. They say how far a score may be "
        "from that on other clips of the same kind. The standard deviation over fits says something else: how much it "
        "matters which folds a fit is trained and validated on.\n\n"
        "*Differences.* Architectures and head counts are compared under cross-validation, with the probabilities of "
        "an experiment's fits averaged per clip. McNemar's exact test asks whether the clips that only one of two "
        "experiments classifies correctly could be divided like that by tossing a coin; Holm's correction for all "
        f"pairs keeps the chance of any false finding below {percent(ALPHA, 0)}. A difference is called real if its "
        f"corrected p is below {ALPHA:.2f}. Cross-validation is never tested against the split, whose fit is one of "
        "its own.\n\n"
        "*Calibration.* The confidence of an answer is the probability that the model gives to it. If confidences can "
        "be trusted, of all answers with a confidence of 70 in 100, 70 in 100 are right. The expected calibration "
        f"error (ECE) sorts the $n$ answers by confidence into {N_BINS} bins $B_m$ of equal width and averages the "
        "distance between accuracy and mean confidence:"
    )


ECE_LATEX = (
    r"\mathrm{ECE} = \sum_m \frac{\left|B_m\right|}{n} \left|\mathrm{accuracy}(B_m) - \mathrm{confidence}(B_m)\right|"
)


# ------------------------------------------------------------------------------------------------------- intervals


def read_intervals(result: ExperimentResult) -> str:
    """The intervals of one experiment, and what ema_decay its fits makes of the clips."""
    n = result.answers.n_clips
    text = (
        f"Drawing the {count(n, 'test clip')} anew gives {percent(CONFIDENCE, 0)} intervals of "
        f"{between(result.intervals['window'])} for windows and {between(result.intervals['clip'])} for clips."
    )
    if n < FEW_CLIPS:
        text += " From so few clips they are rough, and rather too narrow than too wide."
    if result.is_averaged:
        text += (
            f" With the probabilities of the {len(result.runs)} fits averaged, {percent(result.averaged_accuracy)} of "
            f"the clips are classified correctly ({between(result.averaged_interval)})."
        )
    return text


def read_reach(results: Sequence[ExperimentResult]) -> str:
    """How far the clip accuracies' intervals reach, at most."""
    below, above = 0.0, 0.0
    for result in results:
        mean = float(result.answers.clip_shares.mean())
        below = max(below, mean - result.intervals["clip"].low)
        above = max(above, result.intervals["clip"].high - mean)
    down, up = f"{100 * below:.0f}", f"{100 * above:.0f}"
    how_far = f"{up} points to either side of" if down == up else f"{down} points below and {up} points above"
    return f"The {percent(CONFIDENCE, 0)} intervals of the clip accuracies reach up to {how_far} them."


def read_averaging(results: Sequence[ExperimentResult]) -> str:
    """What ema_decay the fits' probabilities gains over a single fit."""
    gains = [r.averaged_accuracy - mean_and_std(r.values("clip"))[0] for r in results if r.is_averaged]
    if not gains:
        return ""
    low, high = (f"{round(100 * gain, 1) + 0.0:+.1f}".replace("-", "−") for gain in (min(gains), max(gains)))
    changes = f"{low} to {high}" if low != high else low
    return (
        "Averaging the probabilities of an experiment's fits, rather than the fits' scores, changes the share of clips "
        f"that are classified correctly by {changes} points."
    )


# ----------------------------------------------------------------------------------------------------- differences


def read_differences(results: Sequence[ExperimentResult]) -> str:
    """Which differences between cross-validated experiments are real, and how large one must be to be found."""
    tests = compare_kfold(results)
    kfold = [result for result in results if result.experiment.protocol == "kfold"]
    untested = [in_words(result) for result in kfold if not result.is_averaged]
    if not tests:
        return (
            "No two architectures or head counts have been cross-validated with all of their fits and the same seed, "
            "so no difference is tested."
        )
    text = f"By McNemar's exact test with Holm's correction, {tell_verdict(tests, by_name(results))}."
    text = f"{text} {read_power(tests)}".strip()
    if untested:
        text += f" Not tested, since fits are missing: {enumerate_words(untested)}."
    return text


def by_name(results: Sequence[ExperimentResult]) -> Named:
    return {result.name: result for result in results}


def tell_verdict(tests: Sequence[PairTest], named: Named, *, brief: bool = False) -> str:
    """Which of these differences are real, as part of a sentence; if it is to be brief, at most two one by one."""
    real = [test for test in tests if test.is_real]
    if not real:
        return tell_chance(tests, named, brief=brief)
    which = f"{len(real)} of the {len(tests)} differences {are(len(real))} real"
    if len(real) == len(tests):
        everything = {1: "the difference is", 2: "both differences are"}
        which = f"{everything.get(len(tests), f'all {len(tests)} differences are')} real"
    if brief and len(real) > 2:
        return f"{which}{tell_favour(real, named)}"
    return f"{which}: {'; '.join(tell_difference(test, named) for test in real)}"


def tell_favour(real: Sequence[PairTest], named: Named) -> str:
    """Who is better in all of these, if it is always the same one or always a Transformer than the CNN."""
    better, worse = ({test.ranked[place] for test in real} for place in (0, 1))
    if len(better) == 1:
        return f", each in favour of {in_words(named[better.pop()])}"
    models = [{named[name].experiment.model for name in side} for side in (better, worse)]
    return ", each in favour of a Transformer over the CNN" if models == [{"transformer"}, {"cnn"}] else ""


def tell_chance(tests: Sequence[PairTest], named: Named, *, brief: bool) -> str:
    """That no difference is real, and which comes closest."""
    closest = min(tests, key=lambda test: (test.p_holm, test.p))
    first, second = (in_words(named[name]) for name in closest.names)
    scores = f"{tell_scores(closest)}, {equals(closest.p_holm)}"
    if len(tests) == 1:
        return f"the difference between {first} and {second} cannot be told from chance ({scores})"
    text = f"none of the {len(tests)} differences can be told from chance"
    if brief:
        return text
    if closest.p_holm == 1:
        return f"{text} (each has {equals(1)})"
    return f"{text}; the one with the lowest p is that between {first} and {second} ({scores})"


def tell_difference(test: PairTest, named: Named) -> str:
    """Who is better than whom, by how much."""
    better, worse = (in_words(named[name]) for name in test.ranked)
    return f"{better} is better than {worse} ({tell_scores(test, best_first=True)}, {equals(test.p_holm)})"


def tell_scores(test: PairTest, *, best_first: bool = False) -> str:
    first, second = sorted(test.right, reverse=True) if best_first else test.right
    points = f"{100 * abs(test.difference):.1f} points"
    return f"{first} against {second} of the {count(test.n_clips, 'test clip')}, {points}"


def read_power(tests: Sequence[PairTest]) -> str:
    """The smallest difference that could have been found beside those that were."""
    real = sum(test.is_real for test in tests)
    if real == len(tests):
        return ""
    needed, n_clips = clips_needed(len(tests) - real), tests[0].n_clips
    another = "Another difference" if real else "A difference"
    if needed > n_clips:
        return (
            f"{another} could not have been found, however large: it takes at least {needed} clips that only one of "
            f"two experiments classifies correctly, and there are {n_clips}."
        )
    return (
        f"{another} of fewer than {needed} clips ({100 * needed / n_clips:.1f} points) could not have been found, so "
        "one may be there unseen."
    )


def read_trained_fits(results: Sequence[ExperimentResult]) -> str:
    """The spread of the fits, which the tests know nothing of."""
    deviations = [mean_and_std(result.values("clip"))[1] for result in results if result.is_averaged]
    widest = max((deviation for deviation in deviations if deviation is not None), default=0.0)
    return (
        "The tests speak of these fits on clips of this kind. What training itself leaves to chance shows in the "
        f"spread of single fits, whose clip accuracies have standard deviations of up to {100 * widest:.1f} points "
        "within an experiment."
    )


# ----------------------------------------------------------------------------------------------------- calibration


def read_calibration(result: ExperimentResult) -> str:
    """Whether an experiment's confidences can be trusted."""
    calibration = result.calibration
    bias = calibration.confidence - calibration.accuracy
    verdict = "on average the model is as sure as it should be"
    if abs(bias) >= SMALL_BIAS:
        verdict = f"the model is {'too sure' if bias > 0 else 'not sure enough'} of its answers"
    fits = f"the {len(result.runs)} fits" if len(result.runs) > 1 else "the fit"
    return (
        f"Over the answers of {fits} to all test windows, the mean confidence is {percent(calibration.confidence)} and "
        f"the accuracy {percent(calibration.accuracy)}: {verdict}. The expected calibration error is "
        f"{calibration.ece:.3f}."
    )


def read_calibrations(results: Sequence[ExperimentResult]) -> str:
    """Calibration of all experiments: who is too sure, and the range of the errors under each protocol."""
    biases = [result.calibration.confidence - result.calibration.accuracy for result in results]
    too_sure, too_modest = (sum(sign * bias >= SMALL_BIAS for bias in biases) for sign in (1, -1))
    text = (
        f"Of {count(len(results), 'experiment')}, {too_sure} {are(too_sure)} too sure of the answers (mean confidence "
        f"at least {100 * SMALL_BIAS:.0f} point above accuracy) and {too_modest} not sure enough."
    )
    for protocol, name in (("kfold", "Under cross-validation"), ("split", "On the split")):
        errors = {r.architecture_and_seed: r.calibration.ece for r in results if r.experiment.protocol == protocol}
        if len(errors) > 1:
            low, high = (pick(errors, key=lambda key: errors[key]) for pick in (min, max))
            text += (
                f" {name}, the ECE goes from {errors[low]:.3f} ({escape_markdown(low)}) to {errors[high]:.3f} "
                f"({escape_markdown(high)})."
            )
    return text

"""How sure the scores are: intervals, tests of differences, power and calibration, by scipy and statsmodels.

The unit that is resampled is the source recording. The windows of a clip are not independent of each other, nor are
clips cut from one recording, and all fits of an experiment are scored on the same clips; so a recording is drawn, or
has its sign flipped, with all its clips and windows and the answers of all fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import confusion_matrix
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from audioclf_lib._support.errors import InputError
from audioclf_lib.metrics.scores import FloatArray, IntArray, class_probabilities, rows_of_test, to_clips
from audioclf_lib.runs.store import Run

BoolArray = NDArray[np.bool_]

CONFIDENCE = 0.95
ALPHA = 0.05  # a difference is called real when its corrected p, as it is printed, is below this
POWER = 0.8  # of a difference that "would have been found"
N_RESAMPLES = 9_999
N_BINS = 15  # as in the tables of Guo et al. (2017)


# -------------------------------------------------------------------------------------------- answers to the same clips


@dataclass(frozen=True)
class Answers:
    """What one or several fits answer to the same test clips.

    Attributes:
        clip_ids: the n_clips clips, in ascending order.
        sources: the recording that each was cut from.
        y_true: (n_clips,) labels.
        silent: (n_clips, n_windows).
        windows: (n_fits, n_clips, n_windows, n_classes) probabilities; of a rotation, whose every fit has other test
            clips, n_fits is 1.
        clips: (n_fits, n_clips, n_classes) probabilities; silent windows have no vote.
    """

    clip_ids: tuple[str, ...]
    sources: tuple[str, ...]
    y_true: IntArray
    silent: BoolArray
    windows: FloatArray
    clips: FloatArray

    @cached_property
    def window_shares(self) -> FloatArray:
        """(n_clips,) share of right answers among a clip's windows in all fits; their mean is the window accuracy."""
        return np.asarray((self.windows.argmax(3) == self.y_true[:, None]).mean(axis=(0, 2)))

    @cached_property
    def clip_shares(self) -> FloatArray:
        """(n_clips,) share of the fits that classify a clip correctly; their mean is the clip accuracy."""
        return np.asarray((self.clips.argmax(2) == self.y_true).mean(axis=0))

    @cached_property
    def averaged(self) -> FloatArray:
        """(n_clips, n_classes) mean of the fits' probabilities."""
        return np.asarray(self.clips.mean(axis=0))


def gather_answers(runs: Sequence[Run]) -> Answers:
    """The answers of an experiment's fits to their test clips; those of fits with other test folds are put together.

    Raises:
        InputError: no fit, a fit without test predictions, or fits of one test fold that were scored on other clips.
    """
    if not runs:
        raise InputError("there is no fit to take answers from; train one with `audioclf suite`")
    names, n_classes = runs[0].config.class_names, len(runs[0].config.class_names)
    by_fold: dict[int, list[pd.DataFrame]] = {}
    for run in runs:
        rows = by_fold.setdefault(run.config.test_fold, [])
        rows.append(rows_of_test(run))
        if run.config.class_names != names or not _same_clips(rows[0], rows[-1]):
            raise InputError(
                f"fits {runs[0].config.fit_id} and {run.config.fit_id} were scored on different test clips; "
                "compare fits of one data set and one test fold"
            )
    n_fits = len(next(iter(by_fold.values())))
    if any(len(rows) != n_fits for rows in by_fold.values()):
        counts = ", ".join(f"{len(rows)} on fold {fold}" for fold, rows in by_fold.items())
        raise InputError(f"the fits were scored on different test clips ({counts}); give as many of each test fold")
    pooled = [pd.concat([rows[index] for rows in by_fold.values()]) for index in range(n_fits)]
    tables = [table.sort_values(["clip_id", "window_index"], ignore_index=True) for table in pooled]
    clips = tables[0].drop_duplicates("clip_id")
    shape = (len(clips), -1, n_classes)
    return Answers(
        clip_ids=tuple(map(str, clips["clip_id"])),
        sources=tuple(map(str, clips["source"])),
        y_true=clips["y_true"].to_numpy(np.int64),
        silent=tables[0]["silent"].to_numpy(bool).reshape(len(clips), -1),
        windows=np.stack([class_probabilities(rows).reshape(shape) for rows in tables]),
        clips=np.stack([to_clips(rows, n_classes)[1] for rows in tables]),
    )


def _same_clips(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    columns = ["clip_id", "window_index", "silent", "y_true"]
    return one[columns].equals(other[columns])


# ------------------------------------------------------------------------------------------------------------ intervals


class Interval(NamedTuple):
    """Both ends of a 95 % interval."""

    low: float
    high: float


def bootstrap_interval(values: FloatArray | BoolArray, sources: Sequence[str], lowest: float = 0.0) -> Interval:
    """95 % interval of a mean over clips, by resampling the recordings that they were cut from (BCa, Efron 1987).

    BCa rather than percentiles, since shares near 0 or 1 are skewed and percentiles then miss on one side. The seed is
    fixed and the order of the clips does not matter: the same values have the same interval.

    Where all clips score alike, resampling shows no spread. But recordings of a kind that makes up a share q of all are
    absent among n with probability (1 - q)^n, so with q = 1 - 0.025^(1/n) they may be, and may score anything: the
    interval reaches at least from (1 - q) mean + q lowest to (1 - q) mean + q. At means of 0 and 1 these are the ends
    of the exact binomial interval (Clopper and Pearson 1934). From few recordings (under about 20) the interval is
    somewhat too narrow.

    Args:
        values: (n_clips,) at most 1, for instance the share of right windows; of all fits, if there are several.
        sources: (n_clips,) the recording of each clip.
        lowest: the least that a clip can score: -1 for a difference of shares.
    """
    per_source = pd.DataFrame({"source": sources, "value": np.asarray(values, dtype=np.float64)}).groupby("source")
    table = per_source["value"].agg(["sum", "count"]).sort_values(["sum", "count"])
    sums, counts = table["sum"].to_numpy(), table["count"].to_numpy(np.float64)
    mean = float(sums.sum() / counts.sum())
    unseen = 1 - ((1 - CONFIDENCE) / 2) ** (1 / len(sums))
    low, high = (1 - unseen) * mean + unseen * lowest, (1 - unseen) * mean + unseen
    if np.ptp(sums / counts) > 1e-12:
        found = stats.bootstrap(
            (sums, counts),
            lambda total, number, axis=-1: total.sum(axis) / number.sum(axis),
            paired=True,
            vectorized=True,
            n_resamples=N_RESAMPLES,
            batch=1_000,
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval
        low, high = np.fmin(low, found.low), np.fmax(high, found.high)  # BCa is NaN where hardly any resample differs
    return Interval(float(low), float(high))


# ---------------------------------------------------------------------------------------------------------- differences


@dataclass(frozen=True)
class Contrast:
    """The difference of two experiments that a plan declares, on the test clips that both have.

    Attributes:
        names: of both.
        difference: clip accuracy of the first minus that of the second; of several fits the mean over them.
        interval: 95 %, by resampling recordings.
        only: clips that one classifies correctly, the fits' probabilities averaged, and the other does not.
        p_mcnemar: of McNemar's exact test of ``only``, which takes clips for independent.
        p: of the sign-flip test by recording, two-sided, of this contrast alone.
        p_holm: corrected for all contrasts that are declared together.
        detectable: the difference that would have been found in 80 of 100 cases; NaN if even all disagreement to one
            side is too little.
    """

    names: tuple[str, str]
    difference: float
    interval: Interval
    only: tuple[int, int]
    p_mcnemar: float
    p: float
    p_holm: float
    detectable: float

    @property
    def is_real(self) -> bool:
        """True if the corrected p, as ``p_value`` prints it, is below 0.05: 0.0496 prints as 0.050 and is not."""
        return float(f"{self.p_holm:.2g}") < ALPHA


def p_value(p: float) -> str:
    """Two significant digits: ``0.046``, ``<0.001``."""
    return f"{p:#.2g}" if p >= 0.001 else "<0.001"


def compare_pairs(pairs: Mapping[tuple[str, str], tuple[Answers, Answers]], n_declared: int = 0) -> list[Contrast]:
    """Test the declared differences, corrected by Holm (1979) for all of them and for nothing else.

    Args:
        pairs: by the names of both experiments, their answers. Experiments that share a fit are no pair to test.
        n_declared: contrasts in all, if more than ``pairs``. Those that are not there count with p = 1, so no
            ``p_holm`` rises when they are.

    Raises:
        InputError: the experiments of a pair were scored on different test clips.
    """
    if not pairs:
        return []
    for names, (one, other) in pairs.items():
        if one.clip_ids != other.clip_ids or not np.array_equal(one.y_true, other.y_true):
            raise InputError(
                f"{names[0]} and {names[1]} were scored on different test clips; compare experiments of one data set "
                "and the same test folds"
            )
    per_source = [_source_differences(one, other) for one, other in pairs.values()]
    p_values = [sign_flip_p(each) for each in per_source]
    n_declared = max(n_declared, len(pairs))
    family = [*p_values, *[1.0] * (n_declared - len(pairs))]
    corrected = multipletests(family, alpha=ALPHA, method="holm")[1][: len(pairs)]
    contrasts = []
    for (names, (one, other)), sums, p, p_holm in zip(pairs.items(), per_source, p_values, corrected, strict=True):
        right = [each.averaged.argmax(1) == each.y_true for each in (one, other)]
        table: IntArray = confusion_matrix(*right, labels=[True, False])
        shares = one.clip_shares - other.clip_shares
        contrasts.append(
            Contrast(
                names=names,
                difference=float(shares.mean()),
                interval=bootstrap_interval(shares, one.sources, lowest=-1.0),
                only=(int(table[0, 1]), int(table[1, 0])),
                p_mcnemar=float(mcnemar(table, exact=True).pvalue),
                p=p,
                p_holm=float(p_holm),
                detectable=detectable_difference(sums, len(shares), ALPHA / n_declared),
            )
        )
    return contrasts


def _source_differences(one: Answers, other: Answers) -> FloatArray:
    """(n_sources,) by how many clips, shares of fits counted, the first is ahead on each recording."""
    ahead = pd.Series(one.clip_shares - other.clip_shares).groupby(list(one.sources)).sum()
    return np.asarray(ahead, dtype=np.float64)


def sign_flip_p(differences: FloatArray) -> float:
    """Two-sided p of a paired sign-flip test of a sum (Fisher 1935): exact where signs are few, else 9,999 draws.

    If neither experiment is better, each recording's difference has either sign with the same probability.

    Args:
        differences: (n_sources,).
    """
    disagreeing = np.sort(differences[np.abs(differences) > 1e-12])
    if len(disagreeing) < 2:
        return 1.0  # either sign of a single one is as far from 0
    test = stats.permutation_test(
        (disagreeing,),
        lambda x, axis=-1: x.sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=N_RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def detectable_difference(differences: FloatArray, n_clips: int, alpha: float) -> float:
    """The difference of clip accuracies that a sign-flip test finds in 80 of 100 cases, by simulation.

    The recordings keep by how much both experiments disagree on them, and each goes to the better one with a
    probability that is raised from 1/2 until 80 % of 4,000 simulated sums are beyond what 1 - ``alpha`` of them reach
    when neither is better.

    Args:
        differences: (n_sources,) observed, in clips.
        n_clips: all test clips.
        alpha: level of the test, corrected for the others.

    Returns:
        The difference of the shares; NaN if even disagreement that is all to one side is too little.
    """
    sizes = np.abs(differences[np.abs(differences) > 1e-12])
    if not len(sizes):
        return float("nan")
    uniform = np.random.default_rng(0).random((4_000, len(sizes)))

    def sums(probability: float) -> FloatArray:
        return np.asarray(np.where(uniform < probability, sizes, -sizes).sum(axis=1))

    beyond = float(np.quantile(np.abs(sums(0.5)), 1 - alpha)) + 1e-9
    for probability in np.linspace(0.5, 1, 101):
        if (np.abs(sums(probability)) > beyond).mean() >= POWER:
            return float((2 * probability - 1) * sizes.sum() / n_clips)
    return float("nan")


def chance_p(n_correct: int, n: int, chance: float, alternative: Literal["greater", "less"]) -> float:
    """One-sided p of so many right answers (or so few) among ``n`` if each is right with probability ``chance``."""
    return float(stats.binomtest(n_correct, n, min(1.0, chance), alternative=alternative).pvalue)


# ---------------------------------------------------------------------------------------------------------- calibration


@dataclass(frozen=True)
class Calibration:
    """How well confidence, the probability of the answer that is given, predicts whether that answer is right.

    Attributes:
        ece: expected calibration error: mean distance of accuracy and confidence over the bins, weighted by count.
        bins: a row per bin: low, high (ends of the bin), count, and the means confidence and accuracy, NaN where empty.
    """

    ece: float
    bins: pd.DataFrame


def calibrate(y_true: IntArray, probabilities: FloatArray, n_bins: int = N_BINS) -> Calibration:
    r"""Expected calibration error and the table behind a reliability diagram (Guo et al. 2017, arXiv:1706.04599).

    :math:`\mathrm{ECE} = \sum_m \frac{|B_m|}{n} |\mathrm{acc}(B_m) - \mathrm{conf}(B_m)|` over bins of equal width,
    :math:`B_m` holding the answers with confidence in :math:`((m-1)/M, m/M]`.

    Args:
        y_true: (n,) labels.
        probabilities: (n, n_classes).
        n_bins: M.
    """
    confidence = probabilities.max(1).clip(0, 1)  # sums of single precision may exceed 1 by a hair
    edges = np.linspace(0, 1, n_bins + 1)
    answers = pd.DataFrame({"confidence": confidence, "accuracy": probabilities.argmax(1) == y_true})
    of_bins = answers.groupby(np.digitize(confidence, edges[1:-1], right=True))
    means = of_bins.mean().reindex(range(n_bins))
    bins = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": of_bins.size(), **means}, means.index)
    bins = bins.fillna({"count": 0}).astype({"count": int})
    gaps = (bins["accuracy"] - bins["confidence"]).abs()
    return Calibration(float((gaps * bins["count"]).sum() / len(confidence)), bins)


def calibrate_windows(answers: Answers) -> Calibration:
    """Calibration of the answers to the heard test windows, those of all fits pooled.

    Silent windows are left out: they hold no class, and what a model answers to them is no matter of confidence.
    """
    heard = ~answers.silent
    y_true = np.broadcast_to(answers.y_true[:, None], answers.silent.shape)[heard]
    n_fits = len(answers.windows)
    return calibrate(np.tile(y_true, n_fits), np.concatenate([each[heard] for each in answers.windows]))

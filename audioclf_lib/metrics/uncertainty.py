"""How sure the scores are: intervals, exact tests between experiments, and calibration, by scipy and statsmodels.

The unit is the clip. The windows of a clip are not independent of each other, and all fits of an experiment are scored
on the same clips; so what is resampled and counted here is always a test clip, with all its windows and the answers of
all fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import confusion_matrix
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from audioclf_lib._support.errors import InputError
from audioclf_lib.metrics.scores import FloatArray, IntArray, class_probabilities, to_clips
from audioclf_lib.runs.store import Run

BoolArray = NDArray[np.bool_]

CONFIDENCE = 0.95
ALPHA = 0.05  # a difference is called real when its corrected p, as it is printed, is below this
N_RESAMPLES = 9_999
N_BINS = 15  # as in the tables of Guo et al. (2017)


# -------------------------------------------------------------------------------------------- answers to the same clips


@dataclass(frozen=True)
class Answers:
    """What one or several fits answer to the same test clips.

    Attributes:
        clip_ids: the n_clips clips, in ascending order.
        y_true: (n_clips,) labels.
        windows: (n_fits, n_clips, n_windows, n_classes) probabilities.
        clips: (n_fits, n_clips, n_classes) probabilities; silent windows have no vote.
    """

    clip_ids: tuple[str, ...]
    y_true: IntArray
    windows: FloatArray
    clips: FloatArray

    @property
    def n_clips(self) -> int:
        return len(self.clip_ids)

    @cached_property
    def window_shares(self) -> FloatArray:
        """(n_clips,) share of right answers among a clip's windows in all fits; their mean is the window accuracy."""
        return np.asarray((self.windows.argmax(3) == self.y_true[:, None]).mean(axis=(0, 2)))

    @cached_property
    def clip_shares(self) -> FloatArray:
        """(n_clips,) share of the fits that classify a clip correctly; their mean is the clip accuracy."""
        return np.asarray((self.clips.argmax(2) == self.y_true).mean(axis=0))

    @cached_property
    def averaged_right(self) -> BoolArray:
        """(n_clips,) whether a clip is classified correctly by the mean of the fits' probabilities."""
        return np.asarray(self.clips.mean(axis=0).argmax(1) == self.y_true)


def gather_answers(runs: Sequence[Run]) -> Answers:
    """The answers of an experiment's fits to their test clips.

    Raises:
        InputError: no fit, a fit without test predictions, or fits that were scored on different test clips.
    """
    if not runs:
        raise InputError("there is no fit to take answers from; train one with `audioclf suite`")
    tables = [_test_rows(run) for run in runs]
    first, names = tables[0], runs[0].config.class_names
    for run, rows in zip(runs, tables, strict=True):
        if run.config.class_names != names or not _same_clips(rows, first):
            raise InputError(
                f"fits {runs[0].config.fit_id} and {run.config.fit_id} were scored on different test clips; "
                "compare fits of one data set and one test fold"
            )
    clip_ids = first["clip_id"].unique()
    shape = (len(clip_ids), -1, len(names))
    per_clip = [to_clips(rows, len(names)) for rows in tables]
    return Answers(
        clip_ids=tuple(map(str, clip_ids)),
        y_true=per_clip[0][0],
        windows=np.stack([class_probabilities(rows, len(names)).reshape(shape) for rows in tables]),
        clips=np.stack([probabilities for _, probabilities in per_clip]),
    )


def _test_rows(run: Run) -> pd.DataFrame:
    rows = run.predictions[run.predictions["split"] == "test"]
    if rows.empty:
        raise InputError(f"fit {run.config.fit_id} holds no predictions of the test fold; train it again with them")
    return rows.sort_values(["clip_id", "window_index"], ignore_index=True)


def _same_clips(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    columns = ["clip_id", "window_index", "silent", "y_true"]
    return one[columns].equals(other[columns])


# ------------------------------------------------------------------------------------------------------------ intervals


class Interval(NamedTuple):
    """Both ends of a 95 % interval."""

    low: float
    high: float


def bootstrap_interval(shares: FloatArray | BoolArray) -> Interval:
    """95 % interval of a mean over clips, by resampling the clips (BCa, Efron 1987).

    BCa rather than percentiles, since shares near 0 or 1 are skewed and percentiles then miss on one side. The seed is
    fixed and the order of the clips does not matter: the same shares have the same interval. Where all clips have the
    same share, resampling shows no spread; the exact binomial interval (Clopper and Pearson 1934) stands in, as wide as
    that many clips allow. From few clips (under about 20) the bootstrap's interval is somewhat too narrow.

    Args:
        shares: (n_clips,) from 0 to 1, for instance the share of right windows; of all fits, if there are several.
    """
    values = np.sort(np.asarray(shares, dtype=np.float64))
    if np.ptp(values) < 1e-12:
        exact = stats.binomtest(round(values.sum()), len(values)).proportion_ci(CONFIDENCE, method="exact")
        return Interval(float(exact.low), float(exact.high))
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=N_RESAMPLES,
        batch=1_000,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(interval.low), float(interval.high))


# ---------------------------------------------------------------------------------------------------------- differences


@dataclass(frozen=True)
class PairTest:
    """McNemar's exact test between two experiments, each with its fits' probabilities averaged per clip.

    Attributes:
        names: of both.
        n_clips: test clips.
        right: clips that each classifies correctly.
        only: of these, the clips that the other one gets wrong.
        p: two-sided, of this pair alone.
        p_holm: corrected for all pairs that were tested together.
    """

    names: tuple[str, str]
    n_clips: int
    right: tuple[int, int]
    only: tuple[int, int]
    p: float
    p_holm: float

    @property
    def is_real(self) -> bool:
        """True if the corrected p, as it is printed, is below 0.05."""
        return is_significant(self.p_holm)

    @property
    def ranked(self) -> tuple[str, str]:
        """The names, the one with more clips right first."""
        first, second = self.names
        return (second, first) if self.right[1] > self.right[0] else (first, second)


def p_value(p: float) -> str:
    """Two significant digits: ``0.046``, ``<0.001``."""
    return f"{p:#.2g}" if p >= 0.001 else "<0.001"


def is_significant(p: float) -> bool:
    """True if p, rounded as ``p_value`` prints it, is below 0.05: 0.0496 prints as 0.050 and is not."""
    return float(f"{p:.2g}") < ALPHA


def compare_averages(answers: Mapping[str, Answers], pairs: Sequence[tuple[str, str]]) -> list[PairTest]:
    """Test pairs of experiments on the clips that only one of both classifies correctly (McNemar 1947, exact).

    If neither is better, each such clip is as likely to be one's as the other's. All pairs are one family, for which
    Holm's correction (1979) keeps the probability of any false finding below 5 %.

    Args:
        answers: by name of the experiment.
        pairs: names. Experiments that share a fit, as a k-fold experiment and its split do, are no pair to test.

    Raises:
        InputError: the experiments of a pair were scored on different test clips.
    """
    if not pairs:
        return []
    tables = [_contingency(answers, pair) for pair in pairs]
    p_values = [float(mcnemar(table, exact=True).pvalue) for table in tables]
    corrected = multipletests(p_values, alpha=ALPHA, method="holm")[1]
    return [
        PairTest(
            names=pair,
            n_clips=int(table.sum()),
            right=(int(table[0].sum()), int(table[:, 0].sum())),
            only=(int(table[0, 1]), int(table[1, 0])),
            p=p,
            p_holm=float(p_holm),
        )
        for pair, table, p, p_holm in zip(pairs, tables, p_values, corrected, strict=True)
    ]


def _contingency(answers: Mapping[str, Answers], pair: tuple[str, str]) -> IntArray:
    """(2, 2) counts of clips: right and wrong by the first (rows) and by the second (columns)."""
    one, other = (answers[name] for name in pair)
    if one.clip_ids != other.clip_ids or not np.array_equal(one.y_true, other.y_true):
        raise InputError(
            f"{pair[0]} and {pair[1]} were scored on different test clips; compare experiments of one data set and one "
            "test fold"
        )
    counts: IntArray = confusion_matrix(one.averaged_right, other.averaged_right, labels=[True, False])
    return counts


def exceeds_chance(n_correct: int, n: int, chance: float) -> bool:
    """True if so many right answers would come by chance alone in fewer than 5 of 100 cases (exact binomial test).

    Args:
        n_correct: right answers among ``n`` clips.
        chance: accuracy of answering the commonest class always, see ``Scores.chance``.
    """
    return is_significant(stats.binomtest(n_correct, n, min(1.0, chance), alternative="greater").pvalue)


def clips_needed(n_pairs: int) -> int:
    """On how many clips two experiments must disagree, if always to the same side, for one of ``n_pairs`` to be real.

    That is the smallest difference which the test can find at all: :math:`2 n_{pairs} / 2^d < 0.05`.
    """
    return next(d for d in count(1) if is_significant(n_pairs * mcnemar([[0, d], [0, 0]], exact=True).pvalue))


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
    right = probabilities.argmax(1) == y_true
    edges = np.linspace(0, 1, n_bins + 1)
    bin_of = np.digitize(confidence, edges[1:-1], right=True)
    answers = pd.DataFrame({"confidence": confidence, "accuracy": right.astype(float)}).groupby(bin_of)
    means = answers.mean().reindex(range(n_bins))
    counts = answers.size().reindex(range(n_bins), fill_value=0)
    bins = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": counts, **means})
    gaps = (bins["accuracy"] - bins["confidence"]).abs()
    return Calibration(float((gaps * counts).sum() / counts.sum()), bins)


def calibrate_windows(answers: Answers) -> Calibration:
    """Calibration of the answers to all test windows, those of all fits pooled: silent windows count."""
    n_classes = answers.windows.shape[-1]
    y_true = np.broadcast_to(answers.y_true[:, None], answers.windows.shape[:3])
    return calibrate(y_true.ravel(), answers.windows.reshape(-1, n_classes))

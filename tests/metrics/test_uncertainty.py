"""Intervals, exact tests and calibration: held against independent references and against what they must guarantee."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from synthetic import DEMO, write_run

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Experiment
from audioclf_lib.metrics.uncertainty import (
    Answers,
    PairTest,
    bootstrap_interval,
    calibrate,
    calibrate_windows,
    clips_needed,
    compare_averages,
    gather_answers,
    is_significant,
    p_value,
)
from audioclf_lib.runs.checksums import write_sums
from audioclf_lib.runs.store import ARTEFACTS, PREDICTIONS, Run, RunStore

seeds = st.integers(0, 10_000)


def replace_predictions(run: Run, predictions: pd.DataFrame) -> None:
    """As if the fit had made others."""
    predictions.to_parquet(run.path / PREDICTIONS)
    write_sums(run.path, ARTEFACTS)


@pytest.fixture(autouse=True, scope="module")
def little_garbage() -> Iterator[None]:
    """statsmodels collects garbage with every correction, which takes half a second among torch's many objects."""
    gc.freeze()
    yield
    gc.unfreeze()


def write_fits(folder: Path, *, n_fits: int = 3, **options: Any) -> list[Run]:
    """The first fits of a k-fold experiment, with three clips of each of ten classes in the test fold."""
    configs = Experiment(model="cnn").fits(DEMO)[:n_fits]
    return [
        write_run(RunStore(folder), config, **{"n_windows": 4, "clips_per_class": 3} | options) for config in configs
    ]


def make_answers(right: Sequence[bool], n_classes: int = 3) -> Answers:
    """One fit with one window per clip that answers as told; as many clips have the same labels every time."""
    random = np.random.default_rng(0)
    y_true = random.integers(0, n_classes, len(right))
    answer = np.where(right, y_true, (y_true + random.integers(1, n_classes, len(right))) % n_classes)
    probabilities = random.dirichlet(np.ones(n_classes), len(right))
    probabilities[np.arange(len(right)), answer] += 1
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    names = tuple(f"clip{number:05}" for number in range(len(right)))
    return Answers(names, y_true, probabilities[None, :, None], probabilities[None])


# ------------------------------------------------------------------------------------------- answers to the same clips


def test_the_shares_of_right_answers_average_to_the_accuracies_of_the_fits(tmp_path: Path) -> None:
    runs = write_fits(tmp_path)
    answers = gather_answers(runs)
    for shares, level in ((answers.window_shares, "window"), (answers.clip_shares, "clip")):
        assert shares.shape == (30,)
        accuracies = [run.metrics["scores"]["test"][level]["accuracy"] for run in runs]
        assert shares.mean() == pytest.approx(np.mean(accuracies))


def test_an_average_gives_every_fit_and_every_window_with_sound_the_same_weight(tmp_path: Path) -> None:
    runs = write_fits(tmp_path, silent_windows=2, skill=0.1)
    columns = [f"p_{label}" for label in range(10)]
    expected = {}
    for run in runs:
        test = run.predictions.query("split == 'test' and not silent")
        for clip, rows in test.groupby("clip_id"):
            expected.setdefault(clip, []).append(rows[columns].mean().to_numpy())
    labels = runs[0].predictions.groupby("clip_id")["y_true"].first()
    answers = gather_answers(runs)
    assert answers.clip_ids == tuple(sorted(expected))
    for position, clip in enumerate(answers.clip_ids):
        np.testing.assert_allclose(answers.clips[:, position], expected[clip])
    right = [np.mean(expected[clip], axis=0).argmax() == labels[clip] for clip in answers.clip_ids]
    assert answers.averaged_right.tolist() == right
    assert 0 < sum(right) < 30, "neither is trivial"


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    (run,) = write_fits(tmp_path, n_fits=1)
    before = gather_answers([run])
    replace_predictions(run, run.predictions.sample(frac=1, random_state=0))
    after = gather_answers([Run(run.path, run.config)])
    assert after.clip_ids == before.clip_ids
    np.testing.assert_array_equal(after.windows, before.windows)
    np.testing.assert_array_equal(after.clips, before.clips)


def test_fits_of_different_test_clips_are_not_put_together(tmp_path: Path) -> None:
    one, other = write_fits(tmp_path, n_fits=2)
    renamed = other.predictions.replace({"clip_id": {"1-0-0.wav": "1-0-9.wav"}})
    replace_predictions(other, renamed)
    other = Run(other.path, other.config)
    with pytest.raises(InputError, match=rf"{one.config.fit_id} and {other.config.fit_id} .* different test clips"):
        gather_answers([one, other])


def test_fits_of_different_test_folds_or_classes_are_not_put_together(tmp_path: Path) -> None:
    (one,) = write_fits(tmp_path, n_fits=1)
    (config,) = Experiment(model="cnn", test_fold=2, val_folds=(3,)).fits(DEMO)
    elsewhere = write_run(RunStore(tmp_path), config, n_windows=4, clips_per_class=3)
    other_names = replace(DEMO, class_names=DEMO.class_names[::-1], fingerprint="f" * 16)
    config = Experiment(model="cnn").fits(other_names)[1]
    other_classes = write_run(RunStore(tmp_path), config, n_windows=4, clips_per_class=3)
    for other in (elsewhere, other_classes):
        with pytest.raises(InputError, match="different test clips"):
            gather_answers([one, other])


def test_without_answers_to_test_clips_there_is_nothing_to_gather(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no fit"):
        gather_answers([])
    (run,) = write_fits(tmp_path, n_fits=1)
    replace_predictions(run, run.predictions.query("split != 'test'"))
    with pytest.raises(InputError, match=rf"{run.config.fit_id} holds no predictions of the test fold"):
        gather_answers([Run(run.path, run.config)])


# ----------------------------------------------------------------------------------------------------------- intervals


def test_with_many_clips_the_interval_is_the_normal_one() -> None:
    right = np.random.default_rng(0).random(3_000) < 0.7
    deviation = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / len(right))
    low, high = bootstrap_interval(right)
    assert (low, high) == pytest.approx((right.mean() - deviation, right.mean() + deviation), abs=0.002)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from([0, 0.25, 0.5, 1]), min_size=1, max_size=30), seeds)
def test_an_interval_is_of_the_shares_alone_holds_their_mean_and_stays_between_0_and_1(
    shares: list[float], seed: int
) -> None:
    interval = bootstrap_interval(np.array(shares))
    shuffled = np.random.default_rng(seed).permutation(shares)
    assert bootstrap_interval(shuffled) == interval
    assert 0 <= interval.low <= np.mean(shares) <= interval.high <= 1
    assert interval.low < interval.high


@pytest.mark.parametrize("n_clips", [1, 3, 80])
def test_clips_that_are_all_right_or_all_wrong_have_the_exact_binomial_interval(n_clips: int) -> None:
    """All right with probability p^n: the lower end is the p with which that happens in 2.5 % of all cases."""
    assert bootstrap_interval(np.ones(n_clips)) == pytest.approx((0.025 ** (1 / n_clips), 1))
    assert bootstrap_interval(np.zeros(n_clips)) == pytest.approx((0, 1 - 0.025 ** (1 / n_clips)))


def test_intervals_over_clips_hold_the_truth_as_often_as_they_say_and_intervals_over_windows_do_not() -> None:
    """80 clips of nine windows: clips are easy or hard, so windows of one clip are alike."""
    random = np.random.default_rng(1)
    difficulty = random.beta(1.4, 0.6, size=(25, 80))  # mean 0.7
    windows = random.random((25, 80, 9)) < difficulty[:, :, None]
    over_clips = [bootstrap_interval(clips.mean(axis=1)) for clips in windows]
    naive = [bootstrap_interval(clips.ravel()) for clips in windows]
    assert np.mean([high - low for low, high in over_clips]) > 1.5 * np.mean([high - low for low, high in naive])
    holds, naively = (np.mean([low <= 0.7 <= high for low, high in each]) for each in (over_clips, naive))
    assert holds >= 0.9
    assert naively <= 0.75


# ---------------------------------------------------------------------------------------------------------- differences


def pair_with(only_first: int, only_second: int, both: int = 2, neither: int = 1) -> dict[str, Answers]:
    cells = [(True, False)] * only_first + [(False, True)] * only_second
    cells += [(True, True)] * both + [(False, False)] * neither
    first, second = zip(*cells, strict=True)
    return {"one": make_answers(first), "other": make_answers(second)}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 40), st.integers(0, 40))
def test_p_is_that_of_tossing_a_coin_for_each_clip_on_which_they_differ(only_first: int, only_second: int) -> None:
    (test,) = compare_averages(pair_with(only_first, only_second), [("one", "other")])
    n_different = only_first + only_second
    coin = stats.binomtest(only_first, n_different, 0.5).pvalue if n_different else 1.0
    assert test.p == pytest.approx(coin)
    assert test.p_holm == test.p, "one pair needs no correction"
    assert (test.only, test.right) == ((only_first, only_second), (only_first + 2, only_second + 2))
    assert test.n_clips == n_different + 3
    assert test.ranked[0] == ("other" if only_second > only_first else "one")


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 20), st.integers(0, 20))
def test_a_pair_turned_round_has_the_same_p(only_first: int, only_second: int) -> None:
    answers = pair_with(only_first, only_second)
    there, back = (compare_averages(answers, [pair])[0] for pair in (("one", "other"), ("other", "one")))
    assert there.p == back.p
    assert there.only == back.only[::-1]
    assert there.right == back.right[::-1]


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_holms_correction_by_hand(seed: int) -> None:
    """The smallest of m values times m, the next times m - 1, ...; never less than the one before, never above 1."""
    random = np.random.default_rng(seed)
    answers = {name: make_answers(random.random(40) < random.random()) for name in "abcd"}
    pairs = [(a, b) for a in "abcd" for b in "abcd" if a < b]
    tests = sorted(compare_averages(answers, pairs), key=lambda test: test.p)
    expected = 0.0
    for rank, test in enumerate(tests):
        expected = min(1, max(expected, (len(tests) - rank) * test.p))
        assert test.p_holm == pytest.approx(expected)
        assert test.is_real == (expected < 0.05)


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_the_names_and_order_of_classes_do_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    answers = pair_with(*random.integers(0, 15, 2).tolist())
    order = random.permutation(3)
    renamed = {
        name: Answers(each.clip_ids, np.argsort(order)[each.y_true], each.windows[..., order], each.clips[..., order])
        for name, each in answers.items()
    }
    assert compare_averages(renamed, [("one", "other")]) == compare_averages(answers, [("one", "other")])


def test_fits_are_averaged_before_they_are_compared() -> None:
    """Two of three fits get the clip wrong, but hesitate; the third is sure: together they are right."""
    clips = np.array([[[0.45, 0.55]], [[0.45, 0.55]], [[0.9, 0.1]]])
    answers = Answers(("clip",), np.array([0]), clips[:, :, None], clips)
    assert answers.clip_shares.tolist() == [pytest.approx(1 / 3)]
    assert answers.averaged_right.tolist() == [True]


def test_without_pairs_there_is_nothing_to_test() -> None:
    assert compare_averages({}, []) == []


@given(st.floats(0, 1))
@example(0.046)
@example(0.0494999)
@example(0.0495001)
@example(0.0499)
@example(0.05)
def test_the_digits_that_are_printed_decide_whether_a_difference_is_real(p: float) -> None:
    """0.046 is not printed as 0.05, and 0.0499, which is printed as 0.050, is not below it."""
    printed = p_value(p)
    test = PairTest(("one", "other"), n_clips=10, right=(5, 5), only=(1, 1), p=p, p_holm=p)
    assert test.is_real == is_significant(p) == (printed == "<0.001" or float(printed) < 0.05)
    assert printed == "<0.001" if p < 0.001 else float(printed) == pytest.approx(p, rel=0.05)


def test_a_p_value_has_two_significant_digits() -> None:
    assert [p_value(p) for p in (0.046, 0.0499, 0.4, 1.0, 0.0009)] == ["0.046", "0.050", "0.40", "1.0", "<0.001"]


def test_experiments_of_different_test_clips_are_not_compared() -> None:
    answers = {"one": make_answers([True] * 5), "other": make_answers([True] * 6)}
    with pytest.raises(InputError, match="one and other were scored on different test clips"):
        compare_averages(answers, [("one", "other")])


def test_experiments_that_are_equally_good_are_seldom_told_apart() -> None:
    """Three experiments that toss coins: a false finding among their pairs in at most 5 of 100 cases."""
    random, false_findings = np.random.default_rng(0), 0
    for _ in range(200):
        answers = {name: make_answers(random.random(40) < 0.6) for name in "abc"}
        tests = compare_averages(answers, [("a", "b"), ("a", "c"), ("b", "c")])
        false_findings += any(test.is_real for test in tests)
    assert false_findings <= 10


@pytest.mark.parametrize("n_pairs", [1, 3, 6, 12])
def test_the_smallest_difference_that_can_be_found_is_found_and_no_smaller_one(n_pairs: int) -> None:
    needed = clips_needed(n_pairs)
    for n_clips, found in ((needed, True), (needed - 1, False)):
        answers = pair_with(n_clips, 0)
        alike = [("one", "one")] * (n_pairs - 1)
        test = compare_averages(answers, [("one", "other"), *alike])[0]
        assert test.is_real == found


# ---------------------------------------------------------------------------------------------------------- calibration


def draw(seed: int, n: int = 200, n_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, n_classes, n), random.dirichlet(np.full(n_classes, 0.4), n)


@settings(deadline=None, max_examples=20)
@given(seeds, st.sampled_from([1, 2, 10, 15]))
def test_the_calibration_error_by_a_plain_loop(seed: int, n_bins: int) -> None:
    y_true, probabilities = draw(seed)
    calibration = calibrate(y_true, probabilities, n_bins)
    edges = np.linspace(0, 1, n_bins + 1)
    error = 0.0
    for (low, high), row in zip(pairwise(edges), calibration.bins.to_dict("records"), strict=True):
        inside = [p for p in range(200) if low < probabilities[p].max() <= high]
        assert (row["low"], row["high"], row["count"]) == (low, high, len(inside))
        if not inside:
            assert np.isnan(row["confidence"]) and np.isnan(row["accuracy"])
            continue
        confidence = np.mean([probabilities[p].max() for p in inside])
        accuracy = np.mean([probabilities[p].argmax() == y_true[p] for p in inside])
        assert (row["confidence"], row["accuracy"]) == pytest.approx((confidence, accuracy))
        error += len(inside) / 200 * abs(accuracy - confidence)
    assert calibration.ece == pytest.approx(error)


def test_the_calibration_error_by_hand() -> None:
    """Two answers with 0.9, one of them right; two with 0.6, both right: (0.4 + 0.4) / 2."""
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.4, 0.6]])
    assert calibrate(np.array([0, 0, 0, 1]), probabilities).ece == pytest.approx(0.4)


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_the_error_is_no_less_than_the_gap_of_the_means_and_no_more_than_one(seed: int) -> None:
    y_true, probabilities = draw(seed)
    calibration = calibrate(y_true, probabilities)
    gap = probabilities.max(1).mean() - (probabilities.argmax(1) == y_true).mean()
    assert abs(gap) - 1e-12 <= calibration.ece <= 1


def test_answers_drawn_from_their_probabilities_are_calibrated() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(4, 0.4), 20_000)
    y_true = (probabilities.cumsum(1) < random.random((20_000, 1))).sum(1)
    assert calibrate(y_true, probabilities).ece < 0.02
    surer = probabilities**3 / (probabilities**3).sum(1, keepdims=True)
    assert calibrate(y_true, surer).ece > 0.1


def test_a_confidence_on_the_edge_belongs_to_the_lower_bin_and_one_above_1_to_the_last() -> None:
    probabilities = np.array([[0.5, 0.5], [1.0000001, 0.0], [1.0, 0.0]])
    bins = calibrate(np.zeros(3, dtype=int), probabilities, n_bins=2).bins
    assert bins["count"].tolist() == [1, 2]
    assert bins["confidence"].tolist() == [0.5, 1.0]


def test_the_windows_of_all_fits_are_pooled(tmp_path: Path) -> None:
    runs = write_fits(tmp_path, n_fits=2)
    columns = [f"p_{label}" for label in range(10)]
    test = [run.predictions.query("split == 'test'") for run in runs]
    pooled = calibrate(
        np.concatenate([rows["y_true"] for rows in test]), np.concatenate([rows[columns] for rows in test])
    )
    calibration = calibrate_windows(gather_answers(runs))
    assert calibration.bins["count"].sum() == 2 * 30 * 4
    assert calibration.ece == pytest.approx(pooled.ece)

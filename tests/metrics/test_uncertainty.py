"""Intervals, exact tests and calibration: held against independent references and against what they must guarantee."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, product
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
    Contrast,
    Interval,
    bootstrap_interval,
    calibrate,
    calibrate_windows,
    chance_p,
    compare_pairs,
    detectable_difference,
    gather_answers,
    p_value,
    sign_flip_p,
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


def make_answers(right: Sequence[bool], n_classes: int = 3, sources: Sequence[str] | None = None) -> Answers:
    """One fit with one window per clip that answers as told; as many clips have the same labels every time.

    Every clip is of a recording of its own unless ``sources`` are given.
    """
    random = np.random.default_rng(0)
    y_true = random.integers(0, n_classes, len(right))
    answer = np.where(right, y_true, (y_true + random.integers(1, n_classes, len(right))) % n_classes)
    probabilities = random.dirichlet(np.ones(n_classes), len(right))
    probabilities[np.arange(len(right)), answer] += 1
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    names = tuple(f"clip{number:05}" for number in range(len(right)))
    silent = np.zeros((len(right), 1), dtype=bool)
    return Answers(names, tuple(sources or names), y_true, silent, probabilities[None, :, None], probabilities[None])


def interval_of(values: Any) -> Interval:
    """Every clip is of a recording of its own."""
    return bootstrap_interval(np.asarray(values), [str(number) for number in range(len(values))])


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
    assert (answers.averaged.argmax(1) == answers.y_true).tolist() == right
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


def test_fits_of_other_classes_and_an_uneven_number_of_test_folds_are_not_put_together(tmp_path: Path) -> None:
    one, other = write_fits(tmp_path, n_fits=2)
    (config,) = Experiment(model="cnn", test_fold=2, val_folds=(3,)).fits(DEMO)
    elsewhere = write_run(RunStore(tmp_path), config, n_windows=4, clips_per_class=3)
    with pytest.raises(InputError, match=r"different test clips \(2 on fold 1, 1 on fold 2\)"):
        gather_answers([one, other, elsewhere])
    other_names = replace(DEMO, class_names=DEMO.class_names[::-1], fingerprint="f" * 16)
    config = Experiment(model="cnn").fits(other_names)[1]
    with pytest.raises(InputError, match="different test clips"):
        gather_answers([one, write_run(RunStore(tmp_path), config, n_windows=4, clips_per_class=3)])


def test_a_rotation_answers_every_clip_once_as_the_fit_that_tested_it(tmp_path: Path) -> None:
    configs = Experiment(model="cnn", protocol="rotation").fits(DEMO)
    runs = [write_run(RunStore(tmp_path), config, n_windows=4, clips_per_class=3, skill=0.3) for config in configs]
    answers = gather_answers(runs)
    rows = pd.concat([run.predictions.query("split == 'test'") for run in runs]).sort_values(
        ["clip_id", "window_index"]
    )
    assert answers.clip_ids == tuple(rows["clip_id"].unique()) and len(answers.clip_ids) == 30 * len(configs)
    expected = rows[[f"p_{label}" for label in range(10)]].to_numpy()
    np.testing.assert_array_equal(answers.windows.reshape(-1, 10), expected)
    assert answers.sources == tuple(rows.drop_duplicates("clip_id")["source"])
    np.testing.assert_array_equal(answers.silent.ravel(), rows["silent"])


def test_without_answers_to_test_clips_there_is_nothing_to_gather(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no fit"):
        gather_answers([])
    (run,) = write_fits(tmp_path, n_fits=1)
    replace_predictions(run, run.predictions.query("split != 'test'"))
    with pytest.raises(InputError, match=rf"{run.config.fit_id} holds no predictions of the test fold"):
        gather_answers([Run(run.path, run.config)])


# ----------------------------------------------------------------------------------------------------------- intervals


def bca_over_recordings(values: np.ndarray, sources: list[str], resamples: int = 9_999) -> tuple[float, float]:
    """Efron's formulas (1987, section 3) written out, with whole recordings drawn and left out."""
    groups = [values[[each == source for each in sources]] for source in dict.fromkeys(sources)]
    random = np.random.default_rng(7)
    mean = values.mean()
    drawn = np.empty(resamples)
    for number in range(resamples):
        drawn[number] = np.concatenate([groups[g] for g in random.integers(0, len(groups), len(groups))]).mean()
    shift = stats.norm.ppf(((drawn < mean).mean() + (drawn <= mean).mean()) / 2)
    left_out = np.array([np.concatenate(groups[:g] + groups[g + 1 :]).mean() for g in range(len(groups))])
    distance = left_out.mean() - left_out
    acceleration = (distance**3).sum() / (6 * (distance**2).sum() ** 1.5)
    ends = [shift + stats.norm.ppf(each) for each in (0.025, 0.975)]
    low, high = (np.quantile(drawn, stats.norm.cdf(shift + end / (1 - acceleration * end))) for end in ends)
    return float(low), float(high)


@pytest.mark.parametrize("seed", range(3))
def test_intervals_over_recordings_agree_with_efrons_formulas_written_out(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.choice([1, 1, 1, 2, 6], 60)
    sources = [f"recording {number}" for number, size in enumerate(sizes) for _ in range(size)]
    right = np.repeat(random.random(60), sizes) > random.random(len(sources)) * 0.7
    ours = bootstrap_interval(right.astype(float), sources)
    assert tuple(ours) == pytest.approx(bca_over_recordings(right.astype(float), sources), abs=0.01)


def test_with_many_clips_the_interval_is_the_normal_one() -> None:
    right = np.random.default_rng(0).random(3_000) < 0.7
    deviation = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / len(right))
    low, high = interval_of(right)
    assert (low, high) == pytest.approx((right.mean() - deviation, right.mean() + deviation), abs=0.002)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from([0, 0.25, 0.5, 1]), min_size=1, max_size=30), seeds)
def test_an_interval_is_of_the_shares_alone_holds_their_mean_and_stays_between_0_and_1(
    shares: list[float], seed: int
) -> None:
    interval = interval_of(shares)
    assert interval_of(np.random.default_rng(seed).permutation(shares)) == interval
    assert 0 <= interval.low <= np.mean(shares) <= interval.high <= 1
    assert interval.low < interval.high


@pytest.mark.parametrize("n_clips", [1, 3, 80])
def test_clips_that_are_all_right_or_all_wrong_have_the_exact_binomial_interval(n_clips: int) -> None:
    """All right with probability p^n: the lower end is the p with which that happens in 2.5 % of all cases."""
    assert interval_of(np.ones(n_clips)) == pytest.approx((0.025 ** (1 / n_clips), 1))
    assert interval_of(np.zeros(n_clips)) == pytest.approx((0, 1 - 0.025 ** (1 / n_clips)))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n_clips", [16, 80])
def test_an_interval_does_not_jump_when_one_window_more_is_right_or_wrong(share: float, n_clips: int) -> None:
    alike = np.full(n_clips, share)
    other = alike.copy()
    other[0] += 1 / 9 if share < 1 else -1 / 9
    assert tuple(interval_of(other)) == pytest.approx(tuple(interval_of(alike)), abs=0.02)


def test_copies_of_clips_from_the_same_recordings_do_not_make_an_interval_narrower() -> None:
    right = (np.random.default_rng(3).random(60) < 0.7).astype(float)
    names = [str(number) for number in range(60)]
    assert bootstrap_interval(np.tile(right, 4), names * 4) == pytest.approx(bootstrap_interval(right, names))
    apart = bootstrap_interval(np.tile(right, 4), [str(number) for number in range(240)])
    assert apart.high - apart.low < 0.6 * (interval_of(right).high - interval_of(right).low)


def test_intervals_over_clips_hold_the_truth_as_often_as_they_say_and_intervals_over_windows_do_not() -> None:
    """80 clips of nine windows: clips are easy or hard, so windows of one clip are alike."""
    random = np.random.default_rng(1)
    difficulty = random.beta(1.4, 0.6, size=(25, 80))  # mean 0.7
    windows = random.random((25, 80, 9)) < difficulty[:, :, None]
    over_clips = [interval_of(clips.mean(axis=1)) for clips in windows]
    naive = [interval_of(clips.ravel()) for clips in windows]
    assert np.mean([high - low for low, high in over_clips]) > 1.5 * np.mean([high - low for low, high in naive])
    holds, naively = (np.mean([low <= 0.7 <= high for low, high in each]) for each in (over_clips, naive))
    assert holds >= 0.9
    assert naively <= 0.75


# ---------------------------------------------------------------------------------------------------------- differences


def pair_with(only_first: int, only_second: int, both: int = 2, neither: int = 1) -> tuple[Answers, Answers]:
    cells = [(True, False)] * only_first + [(False, True)] * only_second
    cells += [(True, True)] * both + [(False, False)] * neither
    first, second = zip(*cells, strict=True)
    return make_answers(first), make_answers(second)


def contrast_with(only_first: int, only_second: int) -> Contrast:
    return compare_pairs({("one", "other"): pair_with(only_first, only_second)})[0]


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 12), st.integers(0, 12))
def test_where_every_clip_is_its_own_recording_both_tests_toss_a_coin_for_each_clip_that_differs(
    only_first: int, only_second: int
) -> None:
    test, n_different = contrast_with(only_first, only_second), only_first + only_second
    coin = stats.binomtest(only_first, n_different, 0.5).pvalue if n_different else 1.0
    assert test.p_mcnemar == pytest.approx(coin)
    # Up to 13 signs are flipped in all ways, more of them 9,999 times by lot.
    assert test.p == pytest.approx(coin, abs=1e-9 if n_different <= 13 else 0.02)
    assert test.p_holm == test.p, "one contrast needs no correction"
    assert test.only == (only_first, only_second)
    assert test.difference == pytest.approx((only_first - only_second) / (n_different + 3))
    assert test.interval.low <= test.difference <= test.interval.high


def test_clips_of_one_recording_count_as_one_sign() -> None:
    """Ten clips of one recording that only the first has right: p = 1, where ten recordings have p = 2/1024."""
    first, second = pair_with(10, 0)
    assert compare_pairs({("one", "other"): (first, second)})[0].p == pytest.approx(2 / 2**10)
    sources = ["field"] * 10 + ["a", "b", "c"]
    pair = replace(first, sources=tuple(sources)), replace(second, sources=tuple(sources))
    (test,) = compare_pairs({("one", "other"): pair})
    assert test.p == 1
    assert test.p_mcnemar == pytest.approx(2 / 2**10), "McNemar's test takes clips for independent"
    assert test.interval.low < 0, "one recording proves nothing"


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from([-2.0, -1.0, -0.25, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=9))
def test_the_sign_flip_p_by_flipping_all_signs(differences: list[float]) -> None:
    values = np.array(differences)
    sums = [abs((values * signs).sum()) for signs in product([-1, 1], repeat=len(values))]
    expected = np.mean([each >= abs(values.sum()) - 1e-9 for each in sums])
    assert sign_flip_p(values) == pytest.approx(expected)
    assert sign_flip_p(-values) == pytest.approx(expected)


@settings(deadline=None, max_examples=5)
@given(seeds)
def test_holms_correction_by_hand(seed: int) -> None:
    """The smallest of m values times m, the next times m - 1, ...; never less than the one before, never above 1."""
    random = np.random.default_rng(seed)
    answers = {name: make_answers(random.random(40) < random.random()) for name in "abcd"}
    pairs = {(a, b): (answers[a], answers[b]) for a in "abcd" for b in "abcd" if a < b}
    tests = sorted(compare_pairs(pairs), key=lambda test: test.p)
    expected = 0.0
    for rank, test in enumerate(tests):
        expected = min(1, max(expected, (len(tests) - rank) * test.p))
        assert test.p_holm == pytest.approx(expected)
        assert test.is_real == (expected < 0.0495)


@settings(deadline=None, max_examples=5)
@given(seeds)
def test_the_names_and_order_of_classes_do_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    pair = pair_with(*random.integers(0, 15, 2).tolist())
    order = random.permutation(3)
    renamed = [
        replace(
            each, y_true=np.argsort(order)[each.y_true], windows=each.windows[..., order], clips=each.clips[..., order]
        )
        for each in pair
    ]
    assert str(compare_pairs({("a", "b"): (renamed[0], renamed[1])})) == str(compare_pairs({("a", "b"): pair}))


def test_fits_are_averaged_before_mcnemars_test() -> None:
    """Two of three fits get the clip wrong, but hesitate; the third is sure: together they are right."""
    clips = np.array([[[0.45, 0.55]], [[0.45, 0.55]], [[0.9, 0.1]]])
    answers = Answers(("clip",), ("clip",), np.array([0]), np.array([[False]]), clips[:, :, None], clips)
    assert answers.clip_shares.tolist() == [pytest.approx(1 / 3)]
    assert answers.averaged.argmax(1).tolist() == [0]


def test_without_contrasts_there_is_nothing_to_test() -> None:
    assert compare_pairs({}) == []


def test_experiments_that_are_equally_good_are_seldom_told_apart() -> None:
    """Two experiments that are right on recordings of two clips at random: p < 0.05 in at most about 5 of 100 cases."""
    random = np.random.default_rng(0)
    differences = (random.random((200, 2, 30, 2)) < 0.6).sum(axis=3)  # (case, experiment, recording)
    found = [sign_flip_p((one - other).astype(float)) < 0.05 for one, other in differences]
    assert np.mean(found) <= 0.07


def test_the_detectable_difference_is_found_in_80_of_100_cases_by_the_test_itself() -> None:
    random = np.random.default_rng(5)
    sizes = random.choice([1.0, 1.0, 2.0], 60)
    detectable = detectable_difference(sizes, 400, 0.05)
    towards = (detectable * 400 / sizes.sum() + 1) / 2
    cases = np.where(random.random((80, 60)) < towards, sizes, -sizes)
    assert np.mean([sign_flip_p(case) < 0.05 for case in cases]) == pytest.approx(0.8, abs=0.1)
    assert detectable_difference(sizes, 400, 0.05 / 3) > detectable, "several contrasts need a larger one"
    assert detectable_difference(np.tile(sizes, 4), 1_600, 0.05) < detectable, "more recordings find a smaller one"


def test_where_hardly_anything_disagrees_no_difference_can_be_found() -> None:
    assert np.isnan(detectable_difference(np.array([1.0, -1.0, 0.0]), 80, 0.05))
    assert np.isnan(detectable_difference(np.zeros(10), 80, 0.05))


def test_66_of_720_windows_are_no_fewer_than_chance_gives() -> None:
    """What the original report takes for worse than guessing among ten classes."""
    assert chance_p(66, 720, 0.1, "less") == pytest.approx(0.25, abs=0.005)
    assert chance_p(30, 720, 0.1, "less") < 0.001


@given(st.floats(0, 1))
@example(0.046)
@example(0.0494999)
@example(0.0495001)
@example(0.0499)
@example(0.05)
def test_the_digits_that_are_printed_decide_whether_a_difference_is_real(p: float) -> None:
    """0.046 is not printed as 0.05, and 0.0499, which is printed as 0.050, is not below it."""
    printed = p_value(p)
    test = Contrast(("one", "other"), 0.0, Interval(-1.0, 1.0), (1, 1), p, p, p, 0.1)
    assert test.is_real == (printed == "<0.001" or float(printed) < 0.05)
    assert printed == "<0.001" if p < 0.001 else float(printed) == pytest.approx(p, rel=0.05)


def test_a_p_value_has_two_significant_digits() -> None:
    assert [p_value(p) for p in (0.046, 0.0499, 0.4, 1.0, 0.0009)] == ["0.046", "0.050", "0.40", "1.0", "<0.001"]


def test_experiments_of_different_test_clips_are_not_compared() -> None:
    with pytest.raises(InputError, match="one and other were scored on different test clips"):
        compare_pairs({("one", "other"): (make_answers([True] * 5), make_answers([True] * 6))})


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


def test_the_heard_windows_of_all_fits_are_pooled(tmp_path: Path) -> None:
    runs = write_fits(tmp_path, n_fits=2, silent_windows=5)
    columns = [f"p_{label}" for label in range(10)]
    test = [run.predictions.query("split == 'test' and not silent") for run in runs]
    pooled = calibrate(
        np.concatenate([rows["y_true"] for rows in test]), np.concatenate([rows[columns] for rows in test])
    )
    calibration = calibrate_windows(gather_answers(runs))
    assert calibration.bins["count"].sum() == sum(map(len, test)) < 2 * 30 * 4
    assert calibration.ece == pytest.approx(pooled.ece)

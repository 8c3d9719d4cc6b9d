"""Scores against scikit-learn's own summaries and against counting by hand, at window and at clip level."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score
from tiny import make_dataset, make_fit

from audioclf_lib._support.errors import InputError
from audioclf_lib.metrics.scores import Scores, best_fit, evaluate, evaluate_all
from audioclf_lib.metrics.uncertainty import chance_p
from audioclf_lib.runs.store import Run, RunStore

NAMES = ("dog", "rain", "rooster", "fire")
SPLITS = ("train", "validation", "test")


def draw(
    seed: int = 0, *, n_clips: int = 24, n_windows: int = 5, split: str = "test", sharpness: float = 1.0
) -> pd.DataFrame:
    """Predictions of a model that is right more often than not; a third of the windows is silent."""
    generator = np.random.default_rng(seed)
    n, classes = n_clips * n_windows, len(NAMES)
    y_true = np.repeat(np.arange(n_clips) % classes, n_windows)
    logits = generator.normal(0, 1, (n, classes)) + sharpness * np.eye(classes)[y_true]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = pd.DataFrame(
        {
            "split": split,
            "clip_id": np.repeat([f"{split}{clip:03}" for clip in range(n_clips)], n_windows),
            "fold": 1,
            "window_index": np.tile(np.arange(n_windows), n_clips),
            "silent": generator.random(n) < 1 / 3,
            "y_true": y_true,
        }
    )
    return rows.assign(**{f"p_{c}": probabilities[:, c].astype(np.float32) for c in range(classes)})


def probabilities_of(rows: pd.DataFrame) -> np.ndarray:
    return rows[[f"p_{c}" for c in range(len(NAMES))]].to_numpy(np.float64)


def scored(y_true: Sequence[int], probabilities: Any, names: Sequence[str] = NAMES) -> Scores:
    return Scores("window", tuple(names), np.asarray(y_true), np.asarray(probabilities, dtype=float))


# --- window level --------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_window_scores_agree_with_scikit_learn(seed: int) -> None:
    rows = draw(seed)
    scores = evaluate(rows, NAMES)
    y_true, probabilities = rows["y_true"].to_numpy(), probabilities_of(rows)
    y_pred, one_hot = probabilities.argmax(1), np.eye(len(NAMES))[y_true]
    rescaled = probabilities / probabilities.sum(axis=1, keepdims=True)  # scikit-learn insists on sums of exactly 1

    assert scores.n == len(rows)
    assert scores.accuracy == pytest.approx(accuracy_score(y_true, y_pred))
    assert scores.macro_f1 == pytest.approx(f1_score(y_true, y_pred, average="macro"))
    macro = roc_auc_score(y_true, rescaled, average="macro", multi_class="ovr")
    assert scores.auc["macro"] == pytest.approx(macro, abs=1e-6)
    assert scores.auc["micro"] == pytest.approx(roc_auc_score(one_hot, probabilities, average="micro"))
    per_class = {
        "precision": precision_score(y_true, y_pred, average=None, zero_division=0),
        "recall": recall_score(y_true, y_pred, average=None),
        "f1": f1_score(y_true, y_pred, average=None),
        "auc": roc_auc_score(one_hot, probabilities, average=None),
        "support": np.bincount(y_true),
    }
    for column, expected in per_class.items():
        np.testing.assert_allclose(scores.per_class[column], expected)
    assert scores.per_class.index.tolist() == list(NAMES)
    assert [scores.auc[name] for name in NAMES] == scores.per_class["auc"].tolist()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_confusion_matrix_counts_true_classes_in_rows_and_its_diagonal_is_the_accuracy(seed: int) -> None:
    rows = draw(seed)
    scores = evaluate(rows, NAMES)
    counted = np.zeros((4, 4), dtype=int)
    for true, predicted in zip(rows["y_true"], probabilities_of(rows).argmax(1), strict=True):
        counted[true, predicted] += 1
    assert np.array_equal(scores.confusion, counted)
    assert scores.n_correct == np.trace(counted)
    assert scores.accuracy == np.trace(counted) / counted.sum()


def test_scores_by_hand() -> None:
    """Classes 0, 0, 1, 1; predicted 0, 1, 1, 1."""
    scores = scored([0, 0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]], ("dog", "rain"))
    assert scores.confusion.tolist() == [[1, 1], [0, 2]]
    assert scores.accuracy == 0.75
    assert scores.per_class["precision"].tolist() == [1, pytest.approx(2 / 3)]
    assert scores.per_class["recall"].tolist() == [0.5, 1]
    assert scores.per_class["f1"].tolist() == [pytest.approx(2 / 3), pytest.approx(0.8)]
    assert scores.macro_f1 == pytest.approx((2 / 3 + 0.8) / 2)
    assert scores.auc == dict.fromkeys(("dog", "rain", "micro", "macro"), 1.0) | {"micro": pytest.approx(15 / 16)}


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_roc_curves_count_by_hand_at_every_threshold(seed: int) -> None:
    """Of each class, and of all pairs of sample and class for micro."""
    rows = draw(seed, n_clips=8)
    scores = evaluate(rows, NAMES)
    is_class, probabilities = np.eye(4, dtype=bool)[rows["y_true"]], probabilities_of(rows)
    cases = {name: (is_class[:, c], probabilities[:, c]) for c, name in enumerate(NAMES)}
    for name, (positive, values) in (cases | {"micro": (is_class.ravel(), probabilities.ravel())}).items():
        fpr, tpr = scores.roc[name]
        points = {((values >= t)[~positive].mean(), (values >= t)[positive].mean()) for t in [*values, np.inf]}
        assert set(zip(fpr.tolist(), tpr.tolist(), strict=True)) <= points
        pairs = values[positive][:, None] - values[~positive]
        assert scores.auc[name] == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean()), "Mann and Whitney's U"


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_curves_rise_from_corner_to_corner_and_macro_is_the_mean_of_the_classes(seed: int) -> None:
    scores = evaluate(draw(seed), NAMES)
    assert set(scores.roc) == {*NAMES, "micro", "macro"}
    for fpr, tpr in scores.roc.values():
        assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
        assert (np.diff(fpr) >= 0).all()
        assert (np.diff(tpr) >= -1e-12).all()
    assert scores.auc["macro"] == pytest.approx(np.mean([scores.auc[name] for name in NAMES]))
    between = np.random.default_rng(seed).random(50)  # no curve has a step there
    mean = np.mean([np.interp(between, *scores.roc[name]) for name in NAMES], axis=0)
    np.testing.assert_allclose(np.interp(between, *scores.roc["macro"]), mean, atol=1e-9)


def test_curves_come_from_probabilities_not_from_predicted_labels() -> None:
    """Every window is taken for rain, yet the probabilities rank all of them rightly: the area is 1, not 1/2."""
    y_true = [0, 0, 0, 1, 1, 1]
    dog = np.array([0.40, 0.42, 0.44, 0.10, 0.12, 0.14])
    scores = scored(y_true, np.column_stack([dog, 1 - dog]), ("dog", "rain"))
    assert scores.confusion[:, 0].sum() == 0
    assert scores.auc["dog"] == scores.auc["rain"] == scores.auc["macro"] == 1
    labels = np.eye(2)[[1] * 6]
    assert scored(y_true, labels, ("dog", "rain")).auc["macro"] == 0.5, "what labels would give"


def test_a_curve_has_more_points_than_labels_could_give() -> None:
    fpr, _ = evaluate(draw(), NAMES).roc["dog"]
    assert len(fpr) > 3


@given(seed=st.integers(0, 1_000))
@settings(max_examples=10, deadline=None)
def test_curves_depend_on_the_order_of_probabilities_only(seed: int) -> None:
    rows = draw(seed)
    squeezed = rows.assign(p_2=rows["p_2"].astype(np.float64) ** 3 / 7)
    one, other = evaluate(rows, NAMES), evaluate(squeezed, NAMES)
    assert one.auc["rooster"] == other.auc["rooster"]


def test_silent_windows_count_at_window_level_and_the_score_without_them_is_given_beside() -> None:
    rows = draw()
    right = probabilities_of(rows).argmax(1) == rows["y_true"]
    scores = evaluate(rows, NAMES)
    assert scores.accuracy == pytest.approx(right.mean())
    assert scores.accuracy_without_silence == pytest.approx(right[~rows["silent"]].mean())
    assert scores.accuracy != scores.accuracy_without_silence
    assert evaluate(rows.assign(silent=True), NAMES).accuracy_without_silence is None
    assert evaluate(rows, NAMES, level="clip").accuracy_without_silence is None


# --- missing classes -----------------------------------------------------------------------------------------------


def test_a_class_that_is_missing_from_the_split_has_no_area_and_spoils_no_other() -> None:
    rows = draw()
    rows = rows[rows["y_true"] != 2]
    for level in ("window", "clip"):
        scores = evaluate(rows, NAMES, level=level)
        assert np.isnan(scores.auc["rooster"])
        assert np.isnan(scores.per_class.loc["rooster", "auc"])
        assert scores.per_class.loc["rooster", "support"] == 0
        assert "rooster" not in scores.roc
        others = [scores.auc[name] for name in NAMES if name != "rooster"]
        assert scores.auc["macro"] == pytest.approx(np.mean(others))
        assert scores.confusion.shape == (4, 4)
        assert json.loads(json.dumps(scores.summary(), allow_nan=False))["auc"]["rooster"] is None


def test_a_split_of_one_class_has_accuracy_but_no_curves() -> None:
    rows = draw()
    scores = evaluate(rows[rows["y_true"] == 1], NAMES)
    assert 0 < scores.accuracy < 1
    assert scores.roc == {}
    assert all(np.isnan(area) for area in scores.auc.values())
    json.dumps(scores.summary(), allow_nan=False)


def test_a_class_that_is_never_predicted_has_no_precision_and_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    scores = scored([0, 1, 2, 3], np.eye(4)[[0, 0, 0, 0]])
    assert scores.per_class["precision"].tolist() == [0.25, 0, 0, 0]
    assert scores.macro_f1 == pytest.approx(0.4 / 4)
    assert not recwarn.list


# --- classes of different size -------------------------------------------------------------------------------------


def test_chance_is_the_share_of_the_commonest_class_and_always_answering_it_is_no_better_than_chance() -> None:
    """50 clips of one class, 1 of the other: 98 % right are worth nothing, and the balanced accuracy says so."""
    scores = scored([0] * 50 + [1], [[0.9, 0.1]] * 51, ("rain", "dog"))
    assert scores.accuracy == scores.chance == 50 / 51
    assert scores.balanced_accuracy == 0.5
    assert chance_p(scores.n_correct, scores.n, scores.chance, "greater") > 0.05
    assert chance_p(scores.n_correct, scores.n, 1 / 2, "greater") < 0.001, "what one class in two would have said"
    assert scores.summary()["balanced_accuracy"] == 0.5


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_occur() -> None:
    scores = scored([0, 0, 0, 1], np.eye(4)[[0, 0, 1, 1]])
    assert scores.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert scored([0, 1, 2, 3], np.eye(4)).balanced_accuracy == 1


# --- clip level ----------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_clip_is_scored_once_by_the_mean_of_its_windows_with_sound(seed: int) -> None:
    rows = draw(seed)
    scores = evaluate(rows, NAMES, level="clip")
    expected, labels = [], []
    for _, windows in rows.groupby("clip_id", sort=True):
        heard = windows[~windows["silent"]]
        votes = heard if len(heard) else windows  # a silent clip has no other votes
        expected.append(probabilities_of(votes).mean(axis=0))
        labels.append(windows["y_true"].iloc[0])
    assert scores.n == 24
    assert scores.level == "clip"
    np.testing.assert_allclose(scores.probabilities, expected)
    assert scores.y_true.tolist() == labels
    assert scores.accuracy == pytest.approx(np.mean(np.argmax(expected, axis=1) == labels))


def test_a_silent_window_has_no_vote_and_a_silent_clip_has_all() -> None:
    rows = pd.DataFrame(
        {
            "split": "test",
            "clip_id": ["a", "a", "b", "b"],
            "window_index": [0, 1, 0, 1],
            "silent": [True, False, True, True],
            "y_true": [1, 1, 0, 0],
            "p_0": [1.0, 0.2, 0.9, 0.5],
            "p_1": [0.0, 0.8, 0.1, 0.5],
        }
    )
    scores = evaluate(rows, ("dog", "rain"), level="clip")
    np.testing.assert_allclose(scores.probabilities, [[0.2, 0.8], [0.7, 0.3]])
    assert scores.accuracy == 1


def test_scoring_leaves_the_predictions_as_they_are() -> None:
    rows = draw().sample(frac=1, random_state=0)
    before = rows.copy()
    for level in ("window", "clip"):
        evaluate(rows, NAMES, level=level)
    pd.testing.assert_frame_equal(rows, before)


# --- splits and summaries ------------------------------------------------------------------------------------------


def test_only_the_split_asked_for_is_scored() -> None:
    parts = {split: draw(seed, split=split, n_clips=8 + seed) for seed, split in enumerate(SPLITS)}
    together = pd.concat(parts.values())
    for split, rows in parts.items():
        for level in ("window", "clip"):
            expected = evaluate(rows, NAMES, level=level, split=None)
            assert evaluate(together, NAMES, level=level, split=split).summary() == expected.summary()
    assert evaluate(together, NAMES).n == len(parts["test"]), "the test split unless told otherwise"


def test_all_scores_cover_every_split_there_is_at_both_levels() -> None:
    both = pd.concat([draw(0, split="train"), draw(1, split="validation")])
    everything = evaluate_all(both, NAMES)
    assert list(everything) == ["train", "validation"]
    assert {level for scores in everything.values() for level in scores} == {"window", "clip"}
    assert everything["train"]["clip"] == evaluate(both, NAMES, level="clip", split="train").summary()
    assert json.loads(json.dumps(everything, allow_nan=False)) == everything


def test_what_cannot_be_scored_is_told_with_what_can() -> None:
    with pytest.raises(InputError, match="unknown level 'frame'; choose one of window, clip"):
        evaluate(draw(), NAMES, level="frame")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"no 'test' rows; choose one of \['train'\]"):
        evaluate(draw(split="train"), NAMES)


# --- experiments ---------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Three fits: the third is best on its validation fold by a lower loss, the first on the test fold by far."""
    dataset = make_dataset(folds=4)
    store = RunStore(tmp_path)
    on_validation = {2: (0.5, 0.9), 3: (0.7, 0.8), 4: (0.7, 0.6)}
    found = []
    for val_fold, (accuracy, loss) in on_validation.items():
        predictions = pd.concat(
            [draw(val_fold, split="validation"), draw(val_fold, sharpness=3.0 if val_fold == 2 else 0.1)]
        )
        run = store.save(
            make_fit(dataset, val_fold=val_fold),
            history=pd.DataFrame({"epoch": [1]}),
            predictions=predictions,
            metrics={
                "chosen": {"epoch": 1, "accuracy": accuracy, "loss": loss, "rule": "validation"},
                "scores": evaluate_all(predictions, NAMES),
            },
            weights={},
            environment={},
        )
        found.append(run)
    return found


def test_the_best_fit_is_best_on_its_validation_fold_whatever_the_test_fold_says(runs: list[Run]) -> None:
    on_test = {run.config.val_fold: run.metrics["scores"]["test"]["window"]["accuracy"] for run in runs}
    assert max(on_test, key=lambda fold: on_test[fold]) == 2
    assert best_fit(runs).config.val_fold == 4
    assert best_fit(runs[::-1]).config.val_fold == 4
    assert best_fit(runs[:2]).config.val_fold == 3

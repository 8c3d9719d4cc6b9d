"""An experiment with its fits: which is shown in full, its tables, and which experiments are compared."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from synthetic import DEMO as TEN_CLASSES
from synthetic import write_run

from audioclf_lib.config import Experiment
from audioclf_lib.metrics.results import ExperimentResult, compare_declared
from audioclf_lib.metrics.scores import evaluate
from audioclf_lib.runs.store import RunStore

DEMO = replace(TEN_CLASSES, class_names=TEN_CLASSES.class_names[:3])


def result_of(
    folder: Path, *, without: tuple[int, ...] = (), skill: float = 0.6, **settings: object
) -> ExperimentResult:
    """An experiment of two epochs with drawn predictions, but for the fits that validate on the folds ``without``."""
    experiment = Experiment(**{"model": "cnn", "epochs": 2} | settings)
    store, configs = RunStore(folder), experiment.fits(DEMO)
    there = [config for config in configs if config.val_fold not in without]
    runs = tuple(
        store.load(config) if store.exists(config) else write_run(store, config, skill=skill) for config in there
    )
    return ExperimentResult(experiment, runs, tuple(config for config in configs if config not in there))


def test_the_fit_shown_in_full_is_best_in_validation_whatever_its_test_score(tmp_path: Path) -> None:
    validation = {2: 0.4, 3: 0.5, 4: 0.8, 5: 0.8}
    loss = {2: 1.0, 3: 1.0, 4: 1.2, 5: 1.1}
    experiment = Experiment(model="cnn", epochs=2)
    runs = [
        write_run(
            RunStore(tmp_path),
            config,
            skill={2: 0.2, 3: 0.9, 4: 0.5, 5: 0.6}[config.val_fold],
            validation_accuracy=validation[config.val_fold],
            validation_loss=loss[config.val_fold],
        )
        for config in experiment.fits(DEMO)
    ]
    best = ExperimentResult(experiment, tuple(runs)).best
    assert best.config.val_fold == 5, "among equals the lower loss decides"


def test_the_table_of_fits_has_the_scores_of_their_predictions(tmp_path: Path) -> None:
    result = result_of(tmp_path)
    table = result.fits_table("window")
    assert list(table.index) == ["fold 2", "fold 3", "fold 4", "fold 5", "mean", "deviation"]
    for run in result.runs:
        row = table.loc[f"fold {run.config.val_fold}"]
        rows = run.predictions
        right = rows[[f"p_{label}" for label in range(3)]].to_numpy().argmax(1) == rows["y_true"]
        for split, column in (("train", "Training"), ("validation", "Validation"), ("test", "Test")):
            assert row[column] == pytest.approx(right[rows["split"] == split].mean())
            assert row[f"{column} loss"] == run.metrics["losses"][split]
        recall = right[rows["split"] == "test"].groupby(rows["y_true"]).mean()
        assert row["Balanced"] == pytest.approx(recall.mean())
    tests = result.values("window")
    assert table.loc["mean", "Test"] == pytest.approx(statistics.mean(tests))
    assert table.loc["deviation", "Test"] == pytest.approx(statistics.stdev(tests))


def test_one_fit_has_no_mean(tmp_path: Path) -> None:
    assert list(result_of(tmp_path, protocol="split").fits_table().index) == ["fold 2"]


def test_missing_fits_count_in_the_title(tmp_path: Path) -> None:
    result = result_of(tmp_path, without=(3, 4))
    assert result.title == "CNN: 4-fold cross-validation"
    assert [config.val_fold for config in result.configs] == [2, 3, 4, 5]
    assert not result.is_complete


def test_a_mark_is_part_of_names_and_titles(tmp_path: Path) -> None:
    result = replace(result_of(tmp_path, protocol="split", seed=3), mark="8 epochs")
    assert result.name == "cnn-split-seed3-8-epochs"
    assert result.short_title == "CNN, split, seed 3, 8 epochs"


def test_names_titles_and_figure_folders_tell_recipes_and_their_changes_apart(tmp_path: Path) -> None:
    settings: list[dict[str, object]] = [
        {},
        {"recipe": "as-written"},
        {"recipe_changes": {"learning_rate": 0.002}},
        {"recipe_changes": {"learning_rate": 0.01, "drop_silent": False}},
        {"recipe": "as-written", "recipe_changes": {"optimizer": "adamw"}, "test_fold": 2},
    ]
    results = [result_of(tmp_path, **{"model": "transformer", "protocol": "split"} | each) for each in settings]
    assert [result.short_title.removeprefix("Transformer, 1 head, ") for result in results] == [
        "split",
        "split, as-written",
        "split, learning rate 0.002",
        "split, learning rate 0.01, drop silent no",
        "split, test fold 2, as-written, optimizer adamw",
    ]
    assert [result.name.removeprefix("transformer-h1-") for result in results] == [
        "split",
        "split-as-written",
        "split-learning-rate-0-002",
        "split-learning-rate-0-01-drop-silent-no",
        "split-test2-as-written-optimizer-adamw",
    ]
    assert results[2].title == "Transformer, 1 head: train-test split (learning rate 0.002)"
    assert len({result.folder for result in results}) == len(results)
    assert len({replace(results[0], mark=mark).name for mark in ("", "8 epochs")}) == 2


DECLARED = [("cnn", "transformer-h2"), ("transformer-h1", "transformer-h2")]


def names_of(results: list[ExperimentResult], seed: int = 0) -> list[tuple[str, str]]:
    return [contrast.names for contrast in compare_declared(results, DECLARED, seed)]


def test_declared_architectures_alone_are_compared_by_their_rotations_where_both_are_complete(tmp_path: Path) -> None:
    two, one = {"model": "transformer", "num_heads": 2}, {"model": "transformer", "num_heads": 1}
    kfold = [result_of(tmp_path), result_of(tmp_path, **two), result_of(tmp_path, **one)]
    more = [result_of(tmp_path, model="transformer", num_heads=4), result_of(tmp_path, protocol="split")]
    by_kfold = [
        ("CNN, k-fold", "Transformer, 2 heads, k-fold"),
        ("Transformer, 1 head, k-fold", "Transformer, 2 heads, k-fold"),
    ]
    assert names_of([*kfold, *more]) == by_kfold
    rotations = [result_of(tmp_path, protocol="rotation"), result_of(tmp_path, protocol="rotation", **two)]
    incomplete = result_of(tmp_path, protocol="rotation", without=(3,), **one)
    assert names_of([*kfold, *rotations, incomplete]) == [
        ("CNN, rotation", "Transformer, 2 heads, rotation"),
        by_kfold[1],
    ]
    assert names_of([*more, *rotations[:1]]) == []


def test_experiments_that_differ_in_more_than_the_architecture_are_not_compared(tmp_path: Path) -> None:
    cnn = result_of(tmp_path)
    for settings in ({"seed": 5}, {"recipe": "as-written"}, {"test_fold": 2}, {"epochs": 3}, {"val_folds": (2, 3)}):
        other = result_of(tmp_path, model="transformer", num_heads=2, **settings)
        assert names_of([cnn, other]) == [], settings
    both = [result_of(tmp_path, seed=5), result_of(tmp_path, model="transformer", num_heads=2, seed=5)]
    assert names_of([cnn, *both], seed=5) == [("CNN, k-fold, seed 5", "Transformer, 2 heads, k-fold, seed 5")]


def test_the_declared_contrasts_are_one_family(tmp_path: Path) -> None:
    """Each p is corrected for as many as are declared, trained or not, and for no other pair."""
    heads = [result_of(tmp_path, model="transformer", num_heads=number) for number in (1, 2, 4)]
    results = [result_of(tmp_path, skill=0.9), *heads]
    tests = compare_declared(results, DECLARED, 0)
    lowest = min(tests, key=lambda test: test.p)
    assert lowest.p_holm == pytest.approx(min(1, 2 * lowest.p))
    (alone,) = compare_declared(results[:1] + heads[1:], DECLARED, 0)
    assert alone.p_holm == pytest.approx(min(1, 2 * alone.p)), "the other one is declared and not trained"
    assert alone.p_holm >= next(test for test in tests if test.names == alone.names).p_holm


def test_another_seed_is_compared_if_only_one_architecture_has_it(tmp_path: Path) -> None:
    two = {"model": "transformer", "num_heads": 2, "protocol": "rotation"}
    again = [result_of(tmp_path, protocol="rotation", seed=1)]
    results = [result_of(tmp_path, protocol="rotation"), result_of(tmp_path, **two), *again]
    names = [each.names for each in compare_declared(results, DECLARED, 1, instead=0)]
    assert names == [("CNN, rotation, seed 1", "Transformer, 2 heads, rotation")]
    both = [*results, result_of(tmp_path, seed=1, **two)]
    names = [each.names for each in compare_declared(both, DECLARED, 1, instead=0)]
    assert names == [("CNN, rotation, seed 1", "Transformer, 2 heads, rotation, seed 1")]


def test_scores_count_the_answers_of_all_fits(tmp_path: Path) -> None:
    result = result_of(tmp_path)
    tested = [run.predictions.query("split == 'test'") for run in result.runs]
    probabilities = pd.concat(tested).filter(regex=r"^p_").to_numpy()
    y_true, heard = pd.concat(tested)["y_true"].to_numpy(), ~pd.concat(tested)["silent"].to_numpy(bool)
    for shown, which in ((False, slice(None)), (True, heard)):
        scores = result.scores("window", heard=shown)
        assert scores.accuracy == pytest.approx((probabilities.argmax(1) == y_true)[which].mean())
        assert scores.n == len(y_true[which])
        matrix = pd.crosstab(y_true[which], probabilities.argmax(1)[which]).to_numpy()
        assert (result.confusion("window", heard=shown).to_numpy() == matrix).all()
    assert 0 < heard.sum() < len(heard)
    assert result.scores("clip").n == sum(rows["clip_id"].nunique() for rows in tested)
    assert result.scores("clip").accuracy == pytest.approx(result.mean("clip"))
    assert result.shown == "4 fits pooled"


def test_a_rotation_scores_all_test_folds_together(tmp_path: Path) -> None:
    result = result_of(tmp_path, protocol="rotation")
    tested = pd.concat([run.predictions.query("split == 'test'") for run in result.runs])
    assert [run.config.test_fold for run in result.runs] == [1, 2, 3, 4, 5]
    for level in ("window", "clip"):
        pooled = evaluate(tested, DEMO.class_names, level=level)
        assert result.mean(level) == pooled.accuracy == result.scores(level).accuracy
        assert result.mean(level, "macro_f1") == pytest.approx(pooled.macro_f1)
        assert result.mean(level, "auc_macro") == pytest.approx(pooled.auc["macro"])
        assert result.confusion(level).to_numpy().sum() == (15 if level == "clip" else 15 * 9)
        interval = result.intervals[level]
        assert interval.low <= result.mean(level) <= interval.high
    assert result.clip_calibration.bins["count"].sum() == 15
    table = result.fits_table("clip")
    assert table.index.name == "Tested on"
    assert list(table.index) == ["fold 1", "fold 2", "fold 3", "fold 4", "fold 5", "mean", "deviation"]
    assert list(result.histories()) == list(result.chosen_epochs()) == [f"test fold {fold}" for fold in range(1, 6)]
    assert (result.title, result.short_title) == ("CNN: rotation over 5 test folds", "CNN, rotation")


def test_a_rotations_fits_are_those_of_the_splits(tmp_path: Path) -> None:
    rotation = Experiment(model="cnn", protocol="rotation").fits(DEMO)
    splits = [Experiment(model="cnn", protocol="split", test_fold=fold).fits(DEMO)[0] for fold in DEMO.folds]
    assert rotation == splits
    assert len({clip for config in rotation for clip in [config.test_fold]}) == len(DEMO.folds)
    assert rotation[0] in Experiment(model="cnn").fits(DEMO), "the k-fold fit with the following validation fold"


def test_a_score_is_that_of_every_fit_on_the_test_fold(tmp_path: Path) -> None:
    result = result_of(tmp_path)
    for level in ("window", "clip"):
        scores = [evaluate(run.predictions, run.config.class_names, level=level) for run in result.runs]
        for name in ("accuracy", "balanced_accuracy", "macro_f1"):
            assert result.values(level, name) == pytest.approx([getattr(each, name) for each in scores])
        assert result.values(level, "auc_macro") == pytest.approx([each.auc["macro"] for each in scores])
        assert result.mean(level) == pytest.approx(statistics.mean(each.accuracy for each in scores))

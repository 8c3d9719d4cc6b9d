"""An experiment with its fits: which is shown in full, its tables, and which experiments are compared."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import DEMO as TEN_CLASSES
from synthetic import write_run

from audioclf_lib.config import Experiment
from audioclf_lib.figures import plot_comparison
from audioclf_lib.metrics.results import ExperimentResult, compare_kfold, comparison_table
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


def test_the_comparison_has_a_row_for_each_experiment_and_level(tmp_path: Path) -> None:
    kfold, nothing = result_of(tmp_path), result_of(tmp_path, protocol="split", without=(2,))
    table = comparison_table([kfold, nothing]).set_index(["experiment", "level"])
    row = table.loc[("CNN, k-fold", "clip")]
    assert row["fits"] == kfold.values("clip")
    assert row["mean"] == pytest.approx(statistics.mean(row["fits"]))
    assert row["std"] == pytest.approx(statistics.stdev(row["fits"]))
    assert row["low"] <= row["mean"] <= row["high"]
    assert table.loc[("CNN, split", "window"), ["mean", "low"]].isna().all()


def test_a_single_fit_is_not_drawn_as_missing(tmp_path: Path) -> None:
    one, nothing = result_of(tmp_path, protocol="split"), result_of(tmp_path, seed=1, without=(2, 3, 4, 5))
    drawn = plot_comparison(comparison_table([one, nothing]))
    assert [text.get_position()[1] for text in drawn.texts if text.get_text() == "missing"] == [1]


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


def test_complete_cross_validations_with_the_same_seed_are_compared_and_never_a_split(tmp_path: Path) -> None:
    heads = {"model": "transformer", "num_heads": 2}
    results = [
        *(result_of(tmp_path, **model) for model in ({}, heads)),
        *(result_of(tmp_path, seed=5, **model) for model in ({}, heads)),
        result_of(tmp_path, protocol="split"),
        result_of(tmp_path, model="transformer", num_heads=4, without=(3,)),
    ]
    assert [test.names for test in compare_kfold(results)] == [
        ("CNN, k-fold", "Transformer, 2 heads, k-fold"),
        ("CNN, k-fold, seed 5", "Transformer, 2 heads, k-fold, seed 5"),
    ]


def test_all_pairs_are_one_family(tmp_path: Path) -> None:
    """Head counts are compared with each other too, and each p is corrected for all pairs."""
    heads = [result_of(tmp_path, model="transformer", num_heads=number) for number in (1, 2, 4)]
    tests = compare_kfold([result_of(tmp_path, skill=0.9), *heads])
    assert len({frozenset(test.names) for test in tests}) == len(tests) == 6
    lowest = min(tests, key=lambda test: test.p)
    assert lowest.p_holm == pytest.approx(min(1, 6 * lowest.p))


def test_a_score_is_that_of_every_fit_on_the_test_fold(tmp_path: Path) -> None:
    result = result_of(tmp_path)
    for level in ("window", "clip"):
        scores = [evaluate(run.predictions, run.config.class_names, level=level) for run in result.runs]
        for name in ("accuracy", "balanced_accuracy", "macro_f1"):
            assert result.values(level, name) == pytest.approx([getattr(each, name) for each in scores])
        assert result.values(level, "auc_macro") == pytest.approx([each.auc["macro"] for each in scores])
        assert result.mean(level) == pytest.approx(statistics.mean(each.accuracy for each in scores))

"""What is gathered from run folders: exactly a plan's fits, with those that are missing."""

from __future__ import annotations

import os
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import DEMO as TEN_CLASSES
from synthetic import write_run
from synthetic import write_runs as write_runs_of

from audioclf_lib.config import Experiment
from audioclf_lib.report.results import (
    ExperimentResult,
    KnownDataset,
    compare_kfold,
    gather,
    gather_checks,
    known_dataset,
    mean_and_std,
)
from audioclf_lib.runs.store import CONFIG, Run, RunStore
from audioclf_lib.suite.plan import Plan, load_plan

DEMO = replace(TEN_CLASSES, class_names=TEN_CLASSES.class_names[:3])

PLAN = Plan(
    name="small",
    epochs=2,
    experiments=(
        {"model": "cnn", "protocol": "kfold"},
        {"model": "cnn", "protocol": "split"},
        {"model": "transformer", "num_heads": 2, "protocol": "kfold"},
    ),
)


def write_runs(store: RunStore, plan: Plan, dataset: KnownDataset = DEMO) -> list[Run]:
    return write_runs_of(store, plan, dataset)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def fit_ids(results: list[ExperimentResult]) -> list[list[str]]:
    return [[run.config.fit_id for run in result.runs] for result in results]


def planned(plan: Plan) -> list[list[str]]:
    return [[config.fit_id for config in experiment.fits(DEMO)] for experiment in plan.experiments_list()]


def test_exactly_the_plans_fits_in_its_order(store: RunStore) -> None:
    write_runs(store, PLAN)
    results = gather(PLAN, store.runs_dir)
    assert fit_ids(results) == planned(PLAN)
    assert [len(result.runs) for result in results] == [4, 1, 4]
    assert all(result.is_complete and result.missing == () for result in results)


def test_the_split_is_the_kfold_fit_that_validates_on_the_next_fold(store: RunStore) -> None:
    written = write_runs(store, PLAN)
    kfold, split, _ = gather(PLAN, store.runs_dir)
    assert len(written) == 8, "nine fits are planned, one of them twice"
    assert split.runs[0].path == kfold.runs[0].path
    assert split.runs[0].config.val_fold == 2


@pytest.mark.parametrize(
    "other",
    [
        {"seeds": (1,)},
        {"epochs": 3},
        {"recipe": "as-written"},
        {"recipe_changes": {"dropout": 0.4}},
        {"test_fold": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_are_not_mixed_in(store: RunStore, other: dict[str, object]) -> None:
    changed = PLAN.changed(**other)
    write_runs(store, changed)
    assert fit_ids(gather(PLAN, store.runs_dir)) == [[], [], []]
    write_runs(store, PLAN)
    assert fit_ids(gather(PLAN, store.runs_dir)) == planned(PLAN)
    assert fit_ids(gather(changed, store.runs_dir)) == planned(changed)


def test_other_data_sets_are_not_mixed_in(store: RunStore, tmp_path: Path) -> None:
    write_runs(store, PLAN, replace(DEMO, name="my-sounds-01234567"))
    assert fit_ids(gather(PLAN, store.runs_dir)) == [[], [], []]
    own = PLAN.changed(dataset=str(tmp_path / "My Sounds"))
    assert [len(runs) for runs in fit_ids(gather(own, store.runs_dir))] == [4, 1, 4], "the folder itself is not needed"


def test_missing_fits_are_known_by_their_configuration(store: RunStore) -> None:
    write_runs(store, PLAN)
    lost = PLAN.experiments_list()[0].fits(DEMO)[1:3]
    for config in lost:
        shutil.rmtree(store.path(config))
    kfold, split, transformer = gather(PLAN, store.runs_dir)
    assert [config.val_fold for config in kfold.missing or ()] == [3, 4]
    assert kfold.missing == tuple(lost)
    assert not kfold.is_complete
    assert kfold.title == "CNN: 4-fold cross-validation", "what is missing is counted"
    assert split.is_complete
    assert transformer.is_complete


def test_without_any_run_everything_is_missing_and_the_folds_are_unknown(store: RunStore) -> None:
    results = gather(PLAN, store.runs_dir)
    assert [(result.runs, result.missing, result.is_complete) for result in results] == [((), None, False)] * 3
    assert results[0].title == "CNN: k-fold cross-validation"


def test_a_whole_experiment_can_be_missing(store: RunStore) -> None:
    write_runs(store, PLAN.changed(experiments=PLAN.experiments[:2]))
    transformer = gather(PLAN, store.runs_dir)[2]
    assert [config.val_fold for config in transformer.missing or ()] == [2, 3, 4, 5]
    assert transformer.runs == ()


def test_of_changed_data_the_newest_version_counts_and_none_of_the_old_one(store: RunStore) -> None:
    changed = replace(DEMO, fingerprint="fedcba9876543210", folds=(1, 2, 3))
    old, new = write_runs(store, PLAN), write_runs(store, PLAN, changed)
    for seconds, runs in ((1000, old), (2000, new)):
        for run in runs:
            os.utime(run.path / CONFIG, (seconds, seconds))
    results = gather(PLAN, store.runs_dir)
    assert {run.config.fingerprint for result in results for run in result.runs} == {changed.fingerprint}
    assert [len(result.runs) for result in results] == [2, 1, 2]
    known = known_dataset(store, "demo")
    assert known is not None
    assert (known.folds, known.class_names) == ((1, 2, 3), DEMO.class_names)


def test_drafts_and_strangers_folders_are_no_runs(store: RunStore) -> None:
    write_runs(store, PLAN)
    (store.runs_dir / "demo" / "notebooks").mkdir()
    run = store.find()[0]
    shutil.copytree(run.path, run.path.with_name(f".{run.path.name}.draft"))
    assert fit_ids(gather(PLAN, store.runs_dir)) == planned(PLAN)


def test_the_fit_shown_in_full_is_best_in_validation_whatever_its_test_score(store: RunStore) -> None:
    experiment = PLAN.experiments_list()[0]
    skills = {2: 0.2, 3: 0.9, 4: 0.5, 5: 0.6}
    validation = {2: 0.4, 3: 0.5, 4: 0.8, 5: 0.8}
    loss = {2: 1.0, 3: 1.0, 4: 1.2, 5: 1.1}
    for config in experiment.fits(DEMO):
        fold = config.val_fold
        write_run(
            store,
            config,
            skill=skills[fold],
            validation_accuracy=validation[fold],
            validation_loss=loss[fold],
        )
    result = gather(PLAN, store.runs_dir)[0]
    assert result.best.config.val_fold == 5, "among equals the lower loss decides"


def test_checks_are_gathered_apart_with_those_that_are_missing(store: RunStore) -> None:
    split = {"model": "cnn", "protocol": "split"}
    plan = PLAN.changed(checks=[split | {"test_fold": 3}, split | {"test_fold": 5}])
    assert [result.missing for result in gather_checks(plan, store.runs_dir)] == [None, None]
    write_runs(store, PLAN)
    first, _ = plan.checks_list()
    write_run(store, first.fits(DEMO)[0])
    done, missing = gather_checks(plan, store.runs_dir)
    assert (done.name, done.short_title) == ("cnn-split-test3", "CNN, split, test fold 3")
    assert [(run.config.test_fold, run.config.val_fold) for run in done.runs] == [(3, 4)]
    assert missing.title == "CNN: train-test split (test fold 5)"
    assert [(config.test_fold, config.val_fold) for config in missing.missing or ()] == [(5, 1)]
    assert fit_ids(gather(plan, store.runs_dir)) == planned(PLAN), "the experiments stay what they are"


def test_scores_of_all_fits_are_those_of_their_predictions(store: RunStore) -> None:
    write_runs(store, PLAN)
    result = gather(PLAN, store.runs_dir)[0]
    by_hand = []
    for run in result.runs:
        test = run.predictions[run.predictions["fold"] == 1]
        answers = test[[f"p_{label}" for label in range(3)]].to_numpy().argmax(1)
        by_hand.append(float((answers == test["y_true"]).mean()))
    assert result.values("window") == pytest.approx(by_hand)
    assert result.scores().accuracy == pytest.approx(by_hand[result.runs.index(result.best)])
    assert result.scores("clip").n == 3


def test_mean_and_sample_deviation() -> None:
    values = [0.1, 0.4, 0.35, 0.8]
    assert mean_and_std(values) == pytest.approx((statistics.mean(values), statistics.stdev(values)))
    assert mean_and_std([0.3]) == (0.3, None)


def test_titles_and_names_are_unique_in_a_plan_with_seeds() -> None:
    results = [
        ExperimentResult(experiment, ()) for experiment in load_plan("demo").changed(seeds=(0, 1)).experiments_list()
    ]
    assert len({result.name for result in results}) == 16
    assert len({result.title for result in results}) == 16
    assert len({result.short_title for result in results}) == 16
    assert ExperimentResult(Experiment(model="transformer", seed=1), ()).name == "transformer-h1-kfold-seed1"


def test_complete_cross_validations_with_the_same_seed_are_compared_and_never_a_split(store: RunStore) -> None:
    plan = PLAN.changed(seeds=(0, 5))
    write_runs(store, plan)
    pairs = [test.names for test in compare_kfold(gather(plan, store.runs_dir))]
    assert pairs == [
        ("cnn-kfold", "transformer-h2-kfold"),
        ("cnn-kfold-seed5", "transformer-h2-kfold-seed5"),
    ]
    (fit,) = store.find(model="cnn", seed=5, val_fold=4)
    shutil.rmtree(fit.path)
    pairs = [test.names for test in compare_kfold(gather(plan, store.runs_dir))]
    assert pairs == [("cnn-kfold", "transformer-h2-kfold")], "one fit of the other is missing"


def test_all_pairs_of_a_plan_are_one_family(store: RunStore) -> None:
    """Head counts are compared with each other too, and each p is corrected for all pairs."""
    kfold = [{"model": "cnn"}, *({"model": "transformer", "num_heads": heads} for heads in (1, 2, 4))]
    plan = Plan(name="heads", epochs=1, experiments=tuple(each | {"protocol": "kfold"} for each in kfold))
    write_runs(store, plan)
    tests = compare_kfold(gather(plan, store.runs_dir))
    assert len({frozenset(test.names) for test in tests}) == len(tests) == 6
    lowest = min(tests, key=lambda test: test.p)
    assert lowest.p_holm == pytest.approx(min(1, 6 * lowest.p))

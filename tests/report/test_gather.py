"""What is gathered from run folders: exactly a plan's fits on exactly its data set, and what is wrong with others."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audio_files import make_folder
from own_models import write_model
from synthetic import DEMO as TEN_CLASSES
from synthetic import write_run, write_runs

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Experiment, KnownDataset
from audioclf_lib.data import dataset_facts
from audioclf_lib.metrics.results import ExperimentResult
from audioclf_lib.report.gather import Gathered, describe_findings, gather
from audioclf_lib.runs.store import CONFIG, HISTORY, Run, RunStore
from audioclf_lib.suite.plan import Plan, save_plan

DEMO = replace(TEN_CLASSES, class_names=TEN_CLASSES.class_names[:3])
SPLIT = {"model": "cnn", "protocol": "split"}
EXPERIMENTS = (
    {"model": "cnn", "protocol": "kfold"},
    SPLIT,
    {"model": "transformer", "num_heads": 2, "protocol": "kfold"},
)
PLAN = Plan(name="small", epochs=2, experiments=EXPERIMENTS)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def fit_ids(results: tuple[ExperimentResult, ...]) -> list[list[str]]:
    return [[run.config.fit_id for run in result.runs] for result in results]


def planned(plan: Plan, dataset: KnownDataset = DEMO) -> list[list[str]]:
    return [[config.fit_id for config in experiment.fits(dataset)] for experiment in plan.experiments_list()]


def date(runs: list[Run], seconds: int) -> None:
    """Have the fits trained at a time, in seconds since 1970."""
    for run in runs:
        os.utime(run.path / CONFIG, (seconds, seconds))


# ------------------------------------------------------------------------------------------------------ a plan's fits


def test_exactly_the_plans_fits_in_its_order(store: RunStore) -> None:
    write_runs(store, PLAN, DEMO)
    write_runs(store, Plan(name="other", epochs=3, experiments=EXPERIMENTS), DEMO)
    found = gather(PLAN, store.runs_dir)
    assert fit_ids(found.experiments) == planned(PLAN)
    assert [len(result.runs) for result in found.experiments] == [4, 1, 4]
    assert all(result.is_complete for result in found.experiments)
    assert (found.plan, found.dataset.fingerprint, found.problems) == (PLAN, DEMO.fingerprint, ())


def test_the_split_is_the_kfold_fit_that_validates_on_the_next_fold(store: RunStore) -> None:
    written = write_runs(store, PLAN, DEMO)
    kfold, split, _ = gather(PLAN, store.runs_dir).experiments
    assert len(written) == 8, "nine fits are planned, one of them twice"
    assert split.runs[0] is kfold.runs[0], "it is read once"
    assert split.runs[0].config.val_fold == 2


@pytest.mark.parametrize(
    "other",
    [{"seeds": (1,)}, {"epochs": 3}, {"recipe": "as-written"}, {"recipe_changes": {"dropout": 0.4}}, {"test_fold": 2}],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_are_not_mixed_in(store: RunStore, other: dict[str, Any]) -> None:
    plan = Plan(name="plain", epochs=2, experiments=(SPLIT,))
    changed = Plan(**{"name": "changed", "epochs": 2, "experiments": (SPLIT,)} | other)
    write_runs(store, changed, DEMO)
    with pytest.raises(InputError, match="no fit of plan plain"):
        gather(plan, store.runs_dir)
    write_runs(store, plan, DEMO)
    assert fit_ids(gather(plan, store.runs_dir).experiments) == planned(plan)
    assert fit_ids(gather(changed, store.runs_dir).experiments) == planned(changed)


def test_missing_fits_are_known_by_their_configuration_and_named(store: RunStore) -> None:
    write_runs(store, PLAN, DEMO)
    lost = PLAN.experiments_list()[0].fits(DEMO)[1:3]
    for config in lost:
        shutil.rmtree(store.path(config))
    found = gather(PLAN, store.runs_dir)
    kfold, split, transformer = found.experiments
    assert kfold.missing == tuple(lost)
    assert kfold.title == "CNN: 4-fold cross-validation", "what is missing is counted"
    assert (kfold.is_complete, split.is_complete, transformer.is_complete) == (False, True, True)
    assert describe_findings(found) == [
        "plan small on demo: 6 of 8 fits are there",
        "missing of CNN: 4-fold cross-validation: validation folds 3, 4",
    ]


def test_a_whole_experiment_can_be_missing(store: RunStore) -> None:
    write_runs(store, Plan(name="part", epochs=2, experiments=EXPERIMENTS[:2]), DEMO)
    found = gather(PLAN, store.runs_dir)
    assert [config.val_fold for config in found.experiments[2].missing] == [2, 3, 4, 5]
    assert len(found.results) == 2


def test_checks_are_gathered_apart_with_those_that_are_missing(store: RunStore) -> None:
    plan = Plan(name="checked", epochs=2, experiments=(*EXPERIMENTS, *(SPLIT | {"test_fold": fold} for fold in (3, 5))))
    write_runs(store, PLAN, DEMO)
    write_run(store, plan.checks_list()[0].fits(DEMO)[0])
    found = gather(plan, store.runs_dir)
    done, missing = found.checks
    assert (done.name, done.short_title) == ("cnn-split-test3", "CNN, split, test fold 3")
    assert [(run.config.test_fold, run.config.val_fold) for run in done.runs] == [(3, 4)]
    assert [(config.test_fold, config.val_fold) for config in missing.missing] == [(5, 1)]
    assert fit_ids(found.experiments) == planned(PLAN), "the experiments stay what they are"


def test_experiments_of_one_name_are_told_apart_in_titles_and_labels(store: RunStore) -> None:
    plan = Plan(name="rates", epochs=2, recipe=["tuned", "as-written"], experiments=(SPLIT,))
    write_runs(store, plan, DEMO)
    results = gather(plan, store.runs_dir).experiments
    for names in ([each.name for each in results], [each.title for each in results], [each.folder for each in results]):
        assert len(set(names)) == 2
    assert "as-written" in results[1].short_title


# --------------------------------------------------------------------------------------------------- of the data set


@pytest.fixture
def two_birds(tmp_path: Path, store: RunStore) -> tuple[Path, Path]:
    """Two folders of one base name and different recordings, with the runs of a plan on each."""
    folders = make_folder(tmp_path / "a" / "birds"), make_folder(tmp_path / "b" / "birds", folds=(1, 2, 3, 4))
    for folder in folders:
        write_runs(
            store, Plan(name="birds", epochs=2, dataset=str(folder), experiments=(SPLIT,)), dataset_facts(folder)
        )
    return folders


def test_a_data_set_of_the_same_name_is_never_shown(two_birds: tuple[Path, Path], store: RunStore) -> None:
    for folder in two_birds:
        found = gather(Plan(name="birds", epochs=2, dataset=str(folder), experiments=(SPLIT,)), store.runs_dir)
        facts = dataset_facts(folder)
        assert [run.config.fingerprint for run in found.experiments[0].runs] == [facts.fingerprint]


def test_without_recordings_one_data_set_of_the_name_is_taken_and_two_are_named(
    two_birds: tuple[Path, Path], store: RunStore
) -> None:
    names = [dataset_facts(folder).name for folder in two_birds]
    for folder in two_birds:
        shutil.rmtree(folder)
    plan = Plan(name="birds", epochs=2, dataset=str(two_birds[0]), experiments=(SPLIT,))
    with pytest.raises(InputError) as caught:
        gather(plan, store.runs_dir)
    assert all(name in str(caught.value) for name in names)
    shutil.rmtree(store.runs_dir / names[1])
    assert gather(plan, store.runs_dir).dataset.name == names[0]


def test_changed_recordings_have_no_runs_yet(two_birds: tuple[Path, Path], store: RunStore) -> None:
    table = two_birds[0] / "labels.csv"
    table.write_text(table.read_text().replace("low,", "deep,"))
    with pytest.raises(InputError, match=r"no fit of plan birds .* finished fits are 1 of birds-"):
        gather(Plan(name="birds", epochs=2, dataset=str(two_birds[0]), experiments=(SPLIT,)), store.runs_dir)


# ------------------------------------------------------------------------------------------------ what cannot be read


def test_a_damaged_folder_is_named_and_only_what_needs_it_is_missing(store: RunStore) -> None:
    write_runs(store, PLAN, DEMO)
    config = PLAN.experiments_list()[0].fits(DEMO)[2]
    with (store.path(config) / HISTORY).open("a") as file:
        file.write("x")
    found = gather(PLAN, store.runs_dir)
    assert [result.missing for result in found.experiments] == [(config,), (), ()]
    (problem,) = found.problems
    assert config.fit_id in problem
    assert HISTORY in problem
    assert describe_findings(found)[-1] == problem


@pytest.mark.parametrize("version", [1, 99])
def test_folders_of_another_version_stop_nothing(store: RunStore, version: int) -> None:
    runs = write_runs(store, PLAN, DEMO)
    stranger = runs[0].path.with_name("cnn-val2-test1-seed0-tuned-e9-00000000")
    shutil.copytree(runs[0].path, stranger)
    values = json.loads((stranger / CONFIG).read_text()) | {"schema_version": version, "unheard_of": True}
    (stranger / CONFIG).write_text(json.dumps(values))
    assert fit_ids(gather(PLAN, store.runs_dir).experiments) == planned(PLAN)
    found = gather("", store.runs_dir)
    assert sum(len(result.runs) for result in found.experiments) == 8
    assert any(stranger.name in problem for problem in found.problems)


def test_drafts_and_strangers_folders_are_no_runs(store: RunStore) -> None:
    runs = write_runs(store, PLAN, DEMO)
    (store.runs_dir / "demo" / "notebooks").mkdir()
    shutil.copytree(runs[0].path, runs[0].path.with_name(f".{runs[0].path.name}.draft"))
    found = gather("", store.runs_dir)
    assert found.problems == ()
    assert sum(len(result.runs) for result in found.experiments) == 8


# -------------------------------------------------------------------------------------------------------- without any


@pytest.mark.parametrize("plan", ["", PLAN])
def test_where_nothing_was_found_one_sentence_says_so_and_nothing_is_made(store: RunStore, plan: Plan | str) -> None:
    with pytest.raises(InputError, match=r"holds no finished fit; train some with `audioclf suite"):
        gather(plan, store.runs_dir)
    assert not store.runs_dir.exists()


def test_runs_of_no_experiment_of_the_plan_are_counted_with_the_command_that_shows_them(store: RunStore) -> None:
    write_runs(store, PLAN, replace(DEMO, name="frogs-00000000"))
    with pytest.raises(InputError) as caught:
        gather(PLAN, store.runs_dir)
    assert "8 of frogs-00000000" in str(caught.value)
    assert f"`audioclf report --runs-dir {store.runs_dir}`" in str(caught.value)


# --------------------------------------------------------------------------------------------------- without any plan


def found_by(found: Gathered) -> dict[str, list[int]]:
    return {result.name: [run.config.val_fold for run in result.runs] for result in found.experiments}


def test_experiments_are_found_from_their_runs(store: RunStore) -> None:
    experiments = (
        {"model": "cnn", "protocol": "kfold"},
        {"model": "transformer", "num_heads": 4, "protocol": "split"},
        {"model": "cnn", "protocol": "split", "test_fold": 3},
    )
    changes = {"dropout": 0.3, "mixup_alpha": 0.0}
    plan = Plan(name="x", epochs=2, seeds=(7,), recipe_changes=changes, experiments=experiments)
    runs = write_runs(store, plan, replace(DEMO, name="frogs-00000000"))
    shutil.rmtree(next(run.path for run in runs if run.config.val_fold == 4 and run.config.test_fold == 1))
    found = gather("", store.runs_dir)
    names = [experiment.full_name for experiment in plan.experiments_list()]
    assert found_by(found) == {names[0]: [2, 3, 5], names[1]: [2]}
    assert [config.val_fold for config in found.experiments[0].missing] == [4]
    assert [result.name for result in found.checks] == [experiment.full_name for experiment in plan.checks_list()]
    assert found.experiments[0].experiment.recipe_changes == changes
    assert describe_findings(found)[0] == "the experiments found on frogs-00000000: 5 of 6 fits are there"


ROTATION = {"model": "cnn", "protocol": "rotation"}


def test_splits_on_all_test_folds_are_found_as_a_rotation(store: RunStore) -> None:
    """As a notebook makes them with ``test_folds = "all"``."""
    transformer = {"model": "transformer", "protocol": "split", "test_fold": 3}
    write_runs(store, Plan(name="x", epochs=2, experiments=(ROTATION, transformer)), DEMO)
    found = gather("", store.runs_dir)
    assert found_by(found) == {"cnn-rotation": [2, 3, 4, 5, 1], "transformer-h1-split-test3": [4]}
    assert not found.checks
    assert found.results[0].scores("clip").n == len(found.results[0].answers.clip_ids), "every clip is tested once"


def test_a_k_fold_experiment_stays_beside_the_rotation_that_shares_a_fit_with_it(store: RunStore) -> None:
    write_runs(store, Plan(name="x", epochs=2, experiments=(ROTATION, EXPERIMENTS[0])), DEMO)
    assert found_by(gather("", store.runs_dir)) == {"cnn-rotation": [2, 3, 4, 5, 1], "cnn-kfold": [2, 3, 4, 5]}


@pytest.mark.parametrize(
    "change", [{"epochs": 3}, {"seed": 1}, {"recipe": "as-written"}], ids=["epochs", "seed", "recipe"]
)
def test_splits_that_are_not_alike_are_no_rotation(store: RunStore, change: dict[str, Any]) -> None:
    """Nor are four of five: which fold is missing is not to be told from run folders."""
    alike = [SPLIT | {"test_fold": fold} for fold in (1, 2, 3, 4)]
    write_runs(store, Plan(name="x", epochs=2, experiments=(*alike, SPLIT | {"test_fold": 5} | change)), DEMO)
    found = gather("", store.runs_dir)
    assert {each.experiment.protocol for each in (*found.experiments, *found.checks)} == {"split"}
    assert len(found.experiments) + len(found.checks) == 5


def test_a_missing_fit_of_a_rotation_is_named_by_its_test_fold(store: RunStore) -> None:
    plan = Plan(name="turned", epochs=2, experiments=(ROTATION,))
    lost = next(run for run in write_runs(store, plan, DEMO) if run.config.test_fold == 4)
    shutil.rmtree(lost.path)
    assert describe_findings(gather(plan, store.runs_dir))[1:] == [
        "missing of CNN: rotation over 5 test folds: test fold 4"
    ]


def test_clips_are_compared_over_complete_rotations_and_over_all_fits_if_there_is_none(store: RunStore) -> None:
    """One fit of another architecture must not shrink the comparison to the clips of its fold."""
    models = ({"model": "cnn"}, {"model": "transformer", "num_heads": 2})
    plan = Plan(name="whole", epochs=2, experiments=[model | {"protocol": "rotation"} for model in models])
    runs = write_runs(store, plan, DEMO)
    shutil.rmtree(runs[-1].path)
    assert [run.config for run in gather(plan, runs_dir=store.runs_dir).runs_compared] == [
        run.config for run in runs if run.config.model == "cnn"
    ]
    shutil.rmtree(runs[0].path)
    assert {run.config.fit_id for run in gather(plan, runs_dir=store.runs_dir).runs_compared} == {
        run.config.fit_id for run in runs[1:-1]
    }


def test_of_several_trainings_and_data_sets_the_last_is_shown_and_the_others_are_named(store: RunStore) -> None:
    """The name of a data set chooses another one."""
    date(write_runs(store, Plan(name="x", epochs=2, experiments=(SPLIT,)), DEMO), 1000)
    date(write_runs(store, Plan(name="x", epochs=3, experiments=(SPLIT,)), DEMO), 2000)
    date(write_runs(store, Plan(name="x", epochs=2, experiments=(SPLIT,)), replace(DEMO, name="frogs-00000000")), 500)
    found = gather("", store.runs_dir)
    assert [run.config.epochs for run in found.experiments[0].runs] == [3]
    assert found.problems == (
        "runs of frogs-00000000 are there too",
        "fits of other epochs, threads or versions than the last are not shown: 1",
    )
    assert gather("", store.runs_dir, "frogs-00000000").dataset.name == "frogs-00000000"


def test_other_recipes_are_other_experiments(store: RunStore) -> None:
    for rate in (0.002, 0.004):
        plan = Plan(name="x", epochs=2, recipe_changes={"learning_rate": rate}, experiments=(SPLIT,))
        write_runs(store, plan, DEMO)
    found = gather("", store.runs_dir)
    rates = [result.experiment.recipe_settings.learning_rate for result in found.experiments]
    assert sorted(rates) == [0.002, 0.004]
    assert len(found_by(found)) == 2


def test_the_plan_of_the_last_suite_counts_unless_none_of_its_fits_is_there(store: RunStore) -> None:
    write_runs(store, PLAN, DEMO)
    plan = Plan(name="last", epochs=2, experiments=EXPERIMENTS[1:2])
    save_plan(plan, store.runs_dir / "plan.yaml")
    assert found_by(gather("", store.runs_dir)) == {"cnn-split": [2]}
    save_plan(Plan(name="last", epochs=77, experiments=EXPERIMENTS), store.runs_dir / "plan.yaml")
    found = gather("", store.runs_dir)
    assert found_by(found) == {"cnn-kfold": [2, 3, 4, 5], "transformer-h2-kfold": [2, 3, 4, 5]}
    assert found.problems[0] == f"no fit of {store.runs_dir / 'plan.yaml'} is there"


def test_an_own_architecture_is_found_by_the_file_in_its_run_folder(store: RunStore, tmp_path: Path) -> None:
    path = write_model(tmp_path)
    experiment = Experiment(model=str(path), width=4, protocol="split", epochs=2)
    run = write_run(store, experiment.fits(DEMO)[0])
    path.unlink()
    (result,) = gather("", store.runs_dir).experiments
    assert [each.path for each in result.runs] == [run.path]
    assert (result.architecture, result.experiment.model_settings) == ("My net, width 4", {"width": 4})


def test_a_home_folder_is_followed(store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_runs(store, PLAN, DEMO)
    assert fit_ids(gather(PLAN, "~/runs").experiments) == planned(PLAN)

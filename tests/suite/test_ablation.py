"""The ablation changes what it names and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny import make_dataset, make_fit

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Experiment, Recipe
from audioclf_lib.data import Dataset
from audioclf_lib.runs.store import Run
from audioclf_lib.suite.ablation import (
    AS_WRITTEN,
    CHANGES,
    HIGH_RATE,
    ablation_experiments,
    change_experiments,
    change_of,
)
from audioclf_lib.suite.plan import Plan
from audioclf_lib.training import fit

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
TRANSFORMER = {"model": "transformer", "num_heads": 2, "recipe": "as-written", "protocol": "kfold"}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(clips_per_class=2)


@pytest.fixture(scope="module")
def trained(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An as-written Transformer, two epochs of two steps each."""
    config = make_fit(dataset, **TRANSFORMER, recipe_changes={"batch_size": 6})
    return fit(config, dataset, runs_dir=tmp_path_factory.mktemp("runs"), device="cpu")


# --- what is changed -----------------------------------------------------------------------------------------------


def differences(recipe: Recipe) -> dict[str, Any]:
    """Settings in which a recipe differs from the one as written."""
    written = Recipe().model_dump()
    return {key: value for key, value in recipe.model_dump().items() if value != written[key]}


def test_every_experiment_differs_from_as_written_in_exactly_what_its_change_names(dataset: Dataset) -> None:
    for experiment in change_experiments(dataset="tiny"):
        (config,) = experiment.fits(dataset)
        changes = CHANGES[change_of(experiment)]
        assert (config.recipe, differences(config.recipe_settings)) == ("as-written", changes)
    assert differences(Recipe()) == CHANGES[AS_WRITTEN] == {}


def test_the_changes_are_those_asked_about_and_no_two_change_the_same_setting() -> None:
    remedies = ["statistics re-estimated", "silent windows dropped", "warm-up", "augmentation", "mixup"]
    assert list(CHANGES) == [AS_WRITTEN, *remedies, "all of these", HIGH_RATE]
    changed = [setting for remedy in remedies for setting in CHANGES[remedy]]
    assert len(changed) == len(set(changed))
    assert CHANGES["all of these"].keys() == set(changed)
    assert CHANGES["statistics re-estimated"] == {"reestimate_windows": 512}


def test_every_experiment_is_a_fit_of_the_split_and_of_no_other_folds(dataset: Dataset) -> None:
    experiments = change_experiments(dataset="tiny", epochs=3, seeds=[5, 6])
    configs = [experiment.fits(dataset)[0] for experiment in experiments]
    split = Experiment(model="cnn", protocol="split", recipe="as-written", epochs=3, seed=5).fits(dataset)
    assert [configs[0]] == split
    assert {(config.val_fold, config.test_fold, config.epochs) for config in configs} == {(2, 1, 3)}
    assert len({config.fit_id for config in configs}) == len(configs) == 2 * (2 * len(CHANGES) - 1)
    assert {each.model for each in experiments if change_of(each) == HIGH_RATE} == {"transformer"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epochs": 0}, "epochs = 0 is not possible"),
        ({"seeds": [-1]}, "seed = -1 is not possible"),
        ({"num_heads": 900}, "num_heads = 900 is not possible"),
        ({"device": "tpu"}, "device = 'tpu' is not possible"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as error:
        change_experiments(**wrong)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_home_in_runs_dir_is_the_users_as_for_experiments() -> None:
    assert {each.runs_dir for each in change_experiments(runs_dir="~/my runs")} == {Path.home() / "my runs"}


def test_a_plans_ablation_is_on_its_data_set_and_test_fold() -> None:
    plan = Plan(
        name="mine",
        dataset="esc10",
        test_fold=[2, 3],
        ablation={"epochs": 4, "seeds": [3]},
        threads=2,
        experiments=[{"model": "cnn", "protocol": "split"}],
    )
    experiments = ablation_experiments(plan, runs_dir="somewhere")
    shared = {(each.dataset, each.test_fold, each.epochs, each.seed, each.threads) for each in experiments}
    assert shared == {("esc10", 2, 4, 3, 2)}
    assert {each.epochs for each in ablation_experiments(plan.changed(epochs=2))} == {2}, "no longer than its fits"
    assert ablation_experiments(Plan(**plan.model_dump() | {"ablation": None})) == []


def test_re_estimation_changes_the_evaluation_and_nothing_of_the_training(dataset: Dataset, tmp_path: Path) -> None:
    runs = [
        fit(make_fit(dataset, recipe="as-written", recipe_changes=CHANGES[change]), dataset, runs_dir=tmp_path)
        for change in (AS_WRITTEN, "statistics re-estimated")
    ]
    train, validation = ([run.history[f"{split}_loss"] for run in runs] for split in ("train", "validation"))
    pd.testing.assert_series_equal(*train, check_exact=True)
    assert not validation[0].equals(validation[1])


# --- what is kept --------------------------------------------------------------------------------------------------


Examined = tuple[list[Experiment], Dataset]

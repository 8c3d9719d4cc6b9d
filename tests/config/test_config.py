"""A run is described once, in a model that rejects unknown and impossible values; the fit id follows from it alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR
from audioclf_lib.config import RECIPES, Experiment, FitConfig, Recipe, make_recipe


@dataclass
class Facts:
    """What a configuration needs to know of a data set."""

    name: str = "esc10"
    fingerprint: str = "0123456789abcdef"
    folds: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    class_names: tuple[str, ...] = ("dog", "rain")


FIT = Experiment(model="transformer", num_heads=4, protocol="split", epochs=100).fits(Facts())[0]

# What is asked for beside model="cnn", and what the sentence must name: the culprit and what would be right.
REJECTED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown setting": ({"epoch": 5}, ["'epoch'", "known are", "epochs", "recipe_changes"]),
    "unknown model": ({"model": "rnn"}, ["model", "'rnn'", "cnn, transformer", "a .py file"]),
    "unknown protocol": ({"protocol": "loo"}, ["protocol", "'loo'", "'kfold', 'split' or 'rotation'"]),
    "unknown recipe": ({"recipe": "secret"}, ["recipe", "'secret'", "'as-written' or 'tuned'"]),
    "unknown device": ({"device": "tpu"}, ["device", "'tpu'", "'auto', 'cpu', 'cuda' or 'mps'"]),
    "no epochs": ({"epochs": 0}, ["epochs", "0", "greater than or equal to 1"]),
    "too many epochs": ({"epochs": 10**9}, ["epochs", "less than or equal to 100000"]),
    "half an epoch": ({"epochs": 2.5}, ["epochs", "2.5", "integer"]),
    "epochs in words": ({"epochs": "ten"}, ["epochs", "'ten'", "integer"]),
    "negative seed": ({"seed": -1}, ["seed", "-1", "greater than or equal to 0"]),
    "huge seed": ({"seed": 2**32}, ["seed", "less than 4294967296"]),
    "negative test fold": ({"test_fold": -1}, ["test_fold", "-1", "greater than or equal to 0"]),
    "heads for the CNN": ({"num_heads": 2}, ["'num_heads'", "model cnn", "known are"]),
    "a setting of another type": ({"model": "transformer", "num_heads": "two"}, ["num_heads", "'two'", "an integer"]),
    "truth for a number of heads": ({"model": "transformer", "num_heads": True}, ["num_heads", "True", "a number"]),
    "model settings that are no JSON": ({"model_settings": "width=3"}, ["model_settings", "width=3", '{"width"']),
    "no thread": ({"threads": 0}, ["threads", "0", "greater than or equal to 1"]),
    "no head": ({"model": "transformer", "num_heads": 0}, ["num_heads", "0", "greater than or equal to 1"]),
    "more heads than features": ({"model": "transformer", "num_heads": 251}, ["num_heads", "251", "250"]),
    "validation on the test fold": ({"val_folds": [2, 1]}, ["val_folds", "test fold 1", "take it out"]),
    "a validation fold twice": ({"val_folds": [2, 2]}, ["val_folds", "[2, 2]", "once"]),
    "settings for val_folds": ({"val_folds": {"2": 3}}, ["val_folds", "'2'", "a list"]),
    "words for val_folds": (
        {"val_folds": "two, three"},
        ["val_folds", "'two, three'", "a list of folds, such as [2, 3]"],
    ),
    "test folds of kfold": ({"test_folds": [3]}, ["test_folds", "rotation"]),
    "a test fold twice": ({"protocol": "rotation", "test_folds": [3, 3]}, ["test_folds", "[3, 3]", "once"]),
    "words for test_folds": (
        {"protocol": "split", "test_folds": "every"},
        ["test_folds", "'every'", "a list of folds"],
    ),
    "validation folds of a rotation": ({"protocol": "rotation", "val_folds": [3]}, ["val_folds", "rotation"]),
    "validation folds of the split": ({"protocol": "split", "val_folds": [3]}, ["val_folds", "kfold"]),
    "changes that are no JSON": ({"recipe_changes": "dropout=0.2"}, ["recipe_changes", "dropout=0.2", '{"dropout"']),
    "changes that are a list": ({"recipe_changes": "[0.2]"}, ["recipe_changes", "[0.2]", "a set of name: value pairs"]),
    "an unknown change": ({"recipe_changes": {"droppout": 0.1}}, ["'droppout'", "known are dropout, activation"]),
    "an impossible change": ({"recipe_changes": '{"dropout": 1}'}, ["dropout", "1", "less than 1"]),
}

# An impossible value for each setting of a recipe, and what would be right.
REJECTED_SETTINGS: dict[str, tuple[Any, str]] = {
    "dropout": (-0.1, "greater than or equal to 0"),
    "activation": ("gelu", "'none' or 'relu'"),
    "optimizer": ("sgd", "'adam' or 'adamw'"),
    "learning_rate": (0, "greater than 0"),
    "weight_decay": (11, "less than or equal to 10"),
    "batch_size": (0, "greater than or equal to 1"),
    "schedule": ("step", "'constant' or 'one-cycle'"),
    "warmup_fraction": (1, "less than 1"),
    "max_grad_norm": (-1, "greater than or equal to 0"),
    "class_weights": ("rare", "'none' or 'balanced'"),
    "drop_silent": ("perhaps", "boolean"),
    "random_crops": (2, "boolean"),
    "gain_db": (41, "less than or equal to 40"),
    "flip_polarity": (None, "boolean"),
    "peak_normalise": ("", "boolean"),
    "companding": (-1, "greater than or equal to 0"),
    "mixup_alpha": (float("inf"), "finite"),
    "tilt_db": (-1.0, "greater than or equal to 0"),
    "speed_perturbation": (0.5, "greater than or equal to 1"),
    "label_smoothing": (1.0, "less than 1"),
    "time_pull": (-1.0, "greater than or equal to 0"),
    "ema_decay": (1.0, "less than 1"),
    "encoder_lr_scale": (0.0, "greater than 0"),
    "reestimate_windows": (-1, "greater than or equal to 0"),
}


def sentence(error: pytest.ExceptionInfo[InputError]) -> str:
    """The message, which must be one line that ends without a full stop."""
    message = str(error.value)
    assert message
    assert "\n" not in message
    assert not message.endswith(".")
    return message


@pytest.mark.parametrize("case", REJECTED)
def test_what_cannot_be_run_is_rejected_in_one_sentence(case: str) -> None:
    values, told = REJECTED[case]
    with pytest.raises(InputError) as error:
        Experiment(**{"model": "cnn"} | values)
    for fact in told:
        assert fact in sentence(error)


def test_an_experiment_needs_a_model() -> None:
    with pytest.raises(InputError) as error:
        Experiment()  # type: ignore[call-arg]
    assert sentence(error) == "experiment: setting 'model' is missing; give it a value"


def test_every_setting_of_a_recipe_has_an_impossible_value_in_this_file() -> None:
    assert REJECTED_SETTINGS.keys() == Recipe.model_fields.keys()


@pytest.mark.parametrize("setting", REJECTED_SETTINGS)
def test_impossible_settings_of_a_recipe_are_rejected_in_one_sentence(setting: str) -> None:
    value, remedy = REJECTED_SETTINGS[setting]
    with pytest.raises(InputError) as error:
        make_recipe("tuned", "cnn", {setting: value})
    for fact in (setting, repr(value), remedy):
        assert fact in sentence(error)


def test_no_number_that_is_not_finite_becomes_a_setting() -> None:
    with pytest.raises(InputError, match="dropout"):
        Experiment(model="cnn", recipe_changes='{"dropout": NaN}')


def test_an_unknown_recipe_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown recipe 'best'; choose one of as-written, tuned"):
        make_recipe("best", "cnn")


@pytest.mark.parametrize("model", [Experiment(model="cnn"), FIT, Recipe()], ids=["experiment", "fit", "recipe"])
def test_a_configuration_cannot_be_changed(model: Experiment | FitConfig | Recipe) -> None:
    for name in type(model).model_fields:
        with pytest.raises(ValueError, match="frozen"):
            setattr(model, name, getattr(model, name))
    with pytest.raises(ValueError, match="frozen"):
        model.another = 1  # type: ignore[union-attr]


def test_recipe_changes_may_be_given_as_text() -> None:
    as_text = Experiment(model="cnn", recipe_changes='{"dropout": 0.3, "drop_silent": false}')
    as_dict = Experiment(model="cnn", recipe_changes={"dropout": 0.3, "drop_silent": False})
    assert as_text == as_dict
    assert as_text.recipe_settings.dropout == 0.3
    assert not as_text.recipe_settings.drop_silent
    assert Experiment(model="cnn", recipe_changes="") == Experiment(model="cnn", recipe_changes="{}")


def test_what_a_notebook_leaves_empty_is_the_default() -> None:
    assert Experiment(model="cnn", runs_dir="", val_folds=[]) == Experiment(model="cnn")
    assert Experiment(model="cnn", runs_dir="").runs_dir == DEFAULT_RUNS_DIR
    assert Experiment(model="cnn", model_settings="", recipe_changes=None) == Experiment(model="cnn")
    assert Experiment(model="transformer").model_settings == {"num_heads": 1}


@pytest.mark.parametrize("given", ["[2, 3]", "2, 3", "(2,3)", [2, 3], (2, 3)])
def test_validation_folds_may_be_given_as_papermill_and_the_command_line_give_them(given: Any) -> None:
    assert Experiment(model="cnn", val_folds=given).val_folds == (2, 3)


def test_settings_of_the_model_stand_for_themselves_or_in_one_object() -> None:
    beside = Experiment(model="transformer", num_heads=4)
    assert beside == Experiment(model="transformer", model_settings={"num_heads": 4})
    assert beside == Experiment(model="transformer", model_settings='{"num_heads": 4}')
    assert (beside.title, beside.label) == ("Transformer, 4 heads", "transformer-h4")
    assert Experiment(**beside.model_dump()) == beside
    assert beside.changed(protocol="split").name == "transformer-h4-split"


def test_naming_an_architecture_loads_no_torch() -> None:
    code = (
        "import sys; from audioclf_lib.config import Experiment;"
        "Experiment(model='transformer', num_heads=2).title; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_recipe_as_written_is_what_the_original_report_describes() -> None:
    recipe = make_recipe("as-written", "cnn")
    assert recipe == make_recipe("as-written", "transformer") == Recipe()
    assert (recipe.optimizer, recipe.learning_rate, recipe.schedule) == ("adam", 1e-3, "constant")
    assert (recipe.dropout, recipe.activation, recipe.batch_size) == (0.5, "none", 32)
    assert (recipe.speed_perturbation, recipe.encoder_lr_scale) == (1, 1), "factors that change nothing"
    assert recipe.class_weights == "none"
    extras = recipe.model_dump(
        exclude={
            *("optimizer", "learning_rate", "schedule", "dropout", "activation", "batch_size"),
            *("speed_perturbation", "encoder_lr_scale", "class_weights"),
        }
    )
    assert not any(extras.values()), "nothing is done that the report does not tell of"


def test_the_tuned_recipe_heeds_what_made_the_original_fail() -> None:
    for model in ("cnn", "transformer"):
        recipe = make_recipe("tuned", model)
        assert recipe.drop_silent
        assert recipe.reestimate_windows > 0
        assert recipe.schedule == "one-cycle"
        assert recipe.warmup_fraction > 0
        assert recipe.max_grad_norm > 0
        assert recipe.speed_perturbation > 1
    assert make_recipe("tuned", "transformer").encoder_lr_scale < 1
    assert min(make_recipe("tuned", "cnn").time_pull, make_recipe("tuned", "cnn").tilt_db) > 0


def test_changes_go_on_top_of_the_recipe() -> None:
    for name in RECIPES:
        changed = make_recipe(name, "transformer", {"learning_rate": 0.5})
        assert changed == make_recipe(name, "transformer").model_copy(update={"learning_rate": 0.5})


def test_on_esc10_there_are_four_fits_and_one() -> None:
    kfold = Experiment(model="cnn", protocol="kfold").fits(Facts())
    (split,) = Experiment(model="cnn", protocol="split").fits(Facts())
    assert [(fit.train_folds, fit.val_fold, fit.test_fold) for fit in kfold] == [
        ((3, 4, 5), 2, 1),
        ((2, 4, 5), 3, 1),
        ((2, 3, 5), 4, 1),
        ((2, 3, 4), 5, 1),
    ]
    assert split == kfold[0]


def test_validation_folds_may_be_chosen() -> None:
    fits = Experiment(model="cnn", val_folds=[5, 3]).fits(Facts())
    assert [fit.val_fold for fit in fits] == [5, 3]
    assert [fit.train_folds for fit in fits] == [(2, 3, 4), (2, 4, 5)]


def test_a_rotation_has_the_split_of_every_test_fold() -> None:
    fits = Experiment(model="cnn", protocol="rotation").fits(Facts())
    assert [(fit.train_folds, fit.val_fold, fit.test_fold) for fit in fits] == [
        ((3, 4, 5), 2, 1),
        ((1, 4, 5), 3, 2),
        ((1, 2, 5), 4, 3),
        ((1, 2, 3), 5, 4),
        ((2, 3, 4), 1, 5),
    ]
    assert fits == [Experiment(model="cnn", protocol="split", test_fold=fold).fits(Facts())[0] for fold in range(1, 6)]


@pytest.mark.parametrize("given", ["all", "[2, 4]", "2, 4", [2, 4], (2, 4)])
def test_a_split_that_is_given_test_folds_is_a_rotation_over_them(given: Any) -> None:
    rotation = Experiment(model="cnn", protocol="split", test_fold=3, test_folds=given)
    assert rotation == Experiment(model="cnn", protocol="rotation", test_folds=given)
    assert [fit.test_fold for fit in rotation.fits(Facts())] == ([1, 2, 3, 4, 5] if given == "all" else [2, 4])
    assert rotation.full_name == ("cnn-rotation" if given == "all" else "cnn-rotation-test2-4")
    assert Experiment(**rotation.model_dump()) == rotation


@pytest.mark.parametrize("given", ["", None, [], ()])
def test_a_split_without_test_folds_stays_one(given: Any) -> None:
    assert Experiment(model="cnn", protocol="split", test_folds=given) == Experiment(model="cnn", protocol="split")


@pytest.mark.parametrize(
    "values", [{"test_fold": 6}, {"val_folds": [6]}, {"protocol": "rotation", "test_folds": [2, 6]}]
)
def test_a_fold_that_the_data_set_does_not_have_is_named_with_those_it_has(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=re.escape("fold 6 is not in data set 'demo'; its folds are [1, 2, 3, 4, 5]")):
        Experiment(model="cnn", **values).fits(Facts())


@pytest.mark.parametrize(
    "folds",
    [
        {"train_folds": (1, 3)},
        {"train_folds": (2, 3)},
        {"train_folds": (3, 3)},
        {"train_folds": ()},
        {"val_fold": 1},
    ],
)
def test_no_fold_has_two_parts_in_a_fit(folds: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="not apart"):
        FitConfig(**FIT.model_dump() | folds)


def test_a_fit_id_tells_what_was_trained() -> None:
    assert re.fullmatch(r"transformer-h4-val2-test1-seed0-tuned-e100-[0-9a-f]{8}", FIT.fit_id)
    (cnn,) = Experiment(model="cnn", protocol="split", recipe="as-written", seed=7, epochs=3, test_fold=5).fits(Facts())
    assert re.fullmatch(r"cnn-val1-test5-seed7-as-written-e3-[0-9a-f]{8}", cnn.fit_id)


def test_a_fit_read_from_its_json_has_the_same_id() -> None:
    assert FitConfig(**json.loads(json.dumps(FIT.model_dump(mode="json")))) == FIT
    assert FitConfig(**json.loads(FIT.model_dump_json())).fit_id == FIT.fit_id


@pytest.mark.parametrize("setting", Recipe.model_fields)
def test_a_run_folder_written_before_a_setting_was_added_keeps_its_name(setting: str, tmp_path: Path) -> None:
    (fit,) = Experiment(model="cnn", protocol="split", recipe="as-written").fits(Facts())
    values = fit.model_dump(mode="json")
    del values["recipe_settings"][setting]
    folder = tmp_path / fit.fit_id
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(values))
    assert FitConfig(**json.loads((folder / "config.json").read_text())).fit_id == folder.name


def test_a_setting_that_is_added_changes_no_fit_id_until_it_is_used() -> None:
    class LaterRecipe(Recipe):
        echo: float = 0.0

    class LaterFit(FitConfig):
        recipe_settings: LaterRecipe

    values = json.loads(FIT.model_dump_json())
    assert LaterFit(**values).fit_id == FIT.fit_id
    values["recipe_settings"]["echo"] = 0.5
    assert LaterFit(**values).fit_id != FIT.fit_id


def test_a_fit_has_the_same_id_in_another_process() -> None:
    code = f"from audioclf_lib.config import FitConfig; print(FitConfig(**{FIT.model_dump()!r}).fit_id)"
    other = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "17"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == FIT.fit_id


# Another value for each field of a fit that stays possible.
OTHER_VALUES: dict[str, Any] = {
    "schema_version": 0,
    "dataset": "demo",
    "fingerprint": "fedcba9876543210",
    "class_names": ("dog", "sea"),
    "model": "cnn",
    "model_settings": {"num_heads": 2},
    "model_digest": "0" * 16,
    "model_label": "transformer-four",
    "recipe": "as-written",
    "recipe_settings": None,  # see the next test
    "train_folds": (3, 4),
    "val_fold": 6,
    "test_fold": 7,
    "seed": 1,
    "epochs": 99,
    "threads": 2,
    "score_test": False,
}


def test_whatever_determines_the_result_changes_the_fit_id() -> None:
    assert OTHER_VALUES.keys() == FitConfig.model_fields.keys() - {"model_title"}, "a title determines nothing"
    assert FitConfig(**FIT.model_dump() | {"model_title": "Another"}).fit_id == FIT.fit_id
    ids = [FIT.fit_id] + [
        FitConfig(**FIT.model_dump() | {name: value}).fit_id
        for name, value in OTHER_VALUES.items()
        if value is not None
    ]
    assert len({fit_id[-8:] for fit_id in ids}) == len(ids)


@pytest.mark.parametrize("setting", Recipe.model_fields)
def test_every_setting_of_the_recipe_changes_the_fit_id(setting: str) -> None:
    now = getattr(FIT.recipe_settings, setting)
    texts = {"relu": "none", "adamw": "adam", "one-cycle": "constant", "none": "balanced"}
    other = texts[now] if isinstance(now, str) else not now if isinstance(now, bool) else now / 2 or 0.5
    if isinstance(now, int) and not isinstance(now, bool):
        other = now + 1
    if setting == "speed_perturbation":  # 1 or more
        other = 2 * now
    changed = Experiment(
        model="transformer", num_heads=4, protocol="split", epochs=100, recipe_changes={setting: other}
    )
    assert changed.fits(Facts())[0].fit_id != FIT.fit_id


def test_where_and_how_fast_a_fit_is_trained_leaves_its_id(tmp_path: Path) -> None:
    same = Experiment(
        model="transformer",
        num_heads=4,
        protocol="split",
        epochs=100,
        device="cpu",
        runs_dir=tmp_path,
        dataset=tmp_path,
    )
    assert same.fits(Facts())[0].fit_id == FIT.fit_id


def test_a_full_name_tells_a_test_fold_and_a_seed_that_are_not_the_defaults() -> None:
    assert Experiment(model="cnn").full_name == Experiment(model="cnn").name == "cnn-kfold"
    assert Experiment(model="cnn", protocol="split", test_fold=3).full_name == "cnn-split-test3"
    assert Experiment(model="transformer", seed=1, test_fold=0).full_name == "transformer-h1-kfold-test0-seed1"


def test_a_full_name_tells_the_recipe_and_its_changes_from_tuned_without_changes() -> None:
    written = Experiment(model="cnn", recipe="as-written", recipe_changes={"learning_rate": 1e-05}, seed=1)
    assert written.differences == ["seed 1", "as-written", "learning rate 1e-05"]
    assert written.full_name == "cnn-kfold-seed1-as-written-learning-rate-1e-05"
    usual = Experiment(model="cnn").recipe_settings.model_dump()
    assert Experiment(model="cnn", recipe_changes=usual).differences == [], "values that it has anyway"
    many = [{"dropout": 0.3, "batch_size": 8, "gain_db": 3, "weight_decay": decay} for decay in (0.1, 0.2)]
    names = [Experiment(model="cnn", recipe_changes=each).full_name for each in many]
    assert all(re.fullmatch(r"cnn-kfold-4-changes-[0-9a-f]{4}", name) for name in names)
    assert len(set(names)) == 2


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Experiment(model="cnn", runs_dir="~/my runs").runs_dir == tmp_path / "my runs"


def test_a_change_to_the_value_that_a_setting_has_anyway_is_no_change() -> None:
    dropout = FIT.recipe_settings.dropout
    same = Experiment(
        model="transformer", num_heads=4, protocol="split", epochs=100, recipe_changes={"dropout": dropout}
    )
    assert same.fits(Facts())[0].fit_id == FIT.fit_id

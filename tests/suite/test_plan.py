"""A plan says which experiments a suite runs; what is wrong with it is told in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from settings_files import refusal

from audioclf_lib._support.errors import InputError
from audioclf_lib.suite.plan import Plan, absolute_plan, load_plan, load_sweep, plan_names, resolve_dataset, save_plan

EIGHT = [
    f"{model}-{protocol}"
    for model in ("cnn", "transformer-h1", "transformer-h2", "transformer-h4")
    for protocol in ("kfold", "split")
]


@pytest.mark.parametrize(("name", "dataset", "epochs"), [("demo", "demo", None), ("full", "esc10", 100)])
def test_the_project_comes_with_the_eight_experiments(name: str, dataset: str, epochs: int | None) -> None:
    plan = load_plan(name)
    assert [experiment.name for experiment in plan.experiments_list()] == EIGHT
    assert (plan.name, plan.dataset, plan.recipe) == (name, dataset, "tuned")
    assert epochs is None or plan.epochs == epochs
    assert 0 < plan.diagnosis_epochs <= plan.epochs


def test_a_plan_has_no_diagnosis_unless_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(ONE)
    assert load_plan(path).diagnosis_epochs == 0


def test_the_full_plan_checks_the_cnn_and_a_transformer_on_another_test_fold() -> None:
    checks = load_plan("full").checks_list(runs_dir="somewhere")
    assert [check.full_name for check in checks] == ["cnn-split-test3", "transformer-h2-split-test3"]
    experiment = load_plan("full").experiments_list(runs_dir="somewhere")[1]
    assert checks[0] == experiment.model_copy(update={"test_fold": 3}), "in all else the same"
    assert load_plan("demo").checks_list() == []


def test_a_check_on_the_test_fold_that_was_asked_for_is_left_out() -> None:
    changed = load_plan("full").changed(test_fold=3, seeds=(0, 1))
    assert changed.checks == ()
    assert len(load_plan("full").changed(test_fold=2, seeds=(0, 1)).checks_list()) == 4


def test_plans_are_found_by_name() -> None:
    assert plan_names() == ["demo", "full"]


def test_there_is_one_experiment_for_each_seed() -> None:
    experiments = load_plan("demo").changed(seeds=(0, 7)).experiments_list(device="cpu", runs_dir="somewhere")
    assert len(experiments) == 16
    assert {experiment.seed for experiment in experiments} == {0, 7}
    assert {experiment.device for experiment in experiments} == {"cpu"}
    assert {experiment.runs_dir for experiment in experiments} == {Path("somewhere")}


def test_a_change_to_none_is_no_change() -> None:
    plan = load_plan("demo")
    assert plan.changed(dataset=None, epochs=None) == plan
    assert plan.changed(epochs=3).epochs == 3


@settings(max_examples=50, deadline=None)
@given(
    name=st.text(st.characters(exclude_categories=["C"]), min_size=1),
    dataset=st.sampled_from(["demo", "esc10", "/data/Räume und Töne", "/with: colon # and hash"]),
    epochs=st.integers(1, 1000),
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5, unique=True),
    changes=st.dictionaries(st.sampled_from(["dropout", "warmup_fraction"]), st.floats(0, 0.9)),
)
def test_a_saved_plan_is_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    dataset: str,
    epochs: int,
    seeds: list[int],
    changes: dict[str, float],
) -> None:
    plan = load_plan("full").changed(
        name=name, dataset=dataset, epochs=epochs, seeds=tuple(seeds), recipe_changes=changes
    )
    path = tmp_path_factory.getbasetemp() / "saved" / "plan.yaml"
    save_plan(plan, path)
    assert load_plan(path) == plan
    assert [file.name for file in path.parent.iterdir()] == ["plan.yaml"]


ONE = "experiments: [{model: cnn, protocol: split}]\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ONE + "diagnosis_epochs: -1", "diagnosis_epochs = -1 is not possible"),
        (ONE + "checks: [{model: cnn, protocol: split}]", "checks"),
        (ONE + "checks: [{model: cnn, protocol: split, test_fold: 1}]", "a check has the plan's own test fold 1"),
        (ONE + "checks: [{model: cnn, num_heads: 2, protocol: split, test_fold: 2}]", "the CNN has no attention heads"),
        (ONE + f"checks: [{', '.join(2 * ['{model: cnn, protocol: split, test_fold: 2}'])}]", "is named twice"),
    ],
)
def test_a_wrong_check_or_diagnosis_is_refused_in_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    assert told in refusal(load_plan, tmp_path, text)


@pytest.mark.parametrize("name", ["nonsense", "missing.yaml", "../plans/demo", ""])
def test_an_unknown_plan_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(InputError, match=r"plan .*demo, full"):
        load_plan(name)


def test_a_data_set_folder_in_a_plan_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(ONE + "dataset: ./recordings")
    assert load_plan(path).dataset == str(tmp_path / "recordings")


def test_names_stay_names_and_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "mine"):
        Path(name).mkdir()
    assert resolve_dataset("demo") == "demo"
    assert resolve_dataset("./demo") == str(tmp_path / "demo")
    assert resolve_dataset("mine") == str(tmp_path / "mine")
    assert resolve_dataset("unknown") == "unknown"
    assert resolve_dataset("~/sounds") == str(Path.home() / "sounds")


# --- lists ------------------------------------------------------------------------------------------------------------

HEADS = """
experiments:
  - {model: cnn, protocol: [kfold, split]}
  - {model: transformer, num_heads: [1, 2, 4], protocol: [kfold, split]}
"""
SWEEP = ONE + "recipe: [tuned, as-written]\nlearning_rate: [0.001, 3.0e-3]\ntest_fold: [1, 3]\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_head_counts_and_protocols_in_lists_are_the_experiments_spelled_out(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path, HEADS))
    assert [experiment.name for experiment in plan.experiments_list()] == EIGHT
    assert plan.experiments == load_plan("demo").experiments
    assert Plan(**plan.model_dump()) == plan


def test_checks_take_lists_too(tmp_path: Path) -> None:
    text = HEADS + "checks: [{model: transformer, num_heads: [1, 4], protocol: split, test_fold: [2, 3]}]"
    names = [check.full_name for check in load_plan(written(tmp_path, text)).checks_list()]
    assert names == [f"transformer-h{heads}-split-test{fold}" for heads in (1, 4) for fold in (2, 3)]


def test_a_sweep_is_one_plan_for_each_combination(tmp_path: Path) -> None:
    sweep = load_sweep(written(tmp_path, SWEEP))
    assert list(sweep.plans) == [
        f"{recipe}-rate{rate}-test{fold}"
        for recipe in ("tuned", "as-written")
        for rate in ("0.001", "0.003")
        for fold in (1, 3)
    ]
    assert sweep.plans["as-written-rate0.003-test3"] == Plan(
        name="mine",
        recipe="as-written",
        recipe_changes={"learning_rate": 0.003},
        test_fold=3,
        experiments=({"model": "cnn", "protocol": "split"},),
    )


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("recipe: [as-written]\ntest_fold: [3]\ndataset: [esc10]", "recipe: as-written\ntest_fold: 3\ndataset: esc10"),
        ("learning_rate: 0.01", "recipe_changes: {learning_rate: 0.01}"),
        ("learning_rate: 0.01\nrecipe_changes: {dropout: 0.1}", "recipe_changes: {dropout: 0.1, learning_rate: 0.01}"),
    ],
)
def test_a_list_of_one_value_is_that_value_and_a_learning_rate_is_a_recipe_change(
    tmp_path: Path, short: str, long: str
) -> None:
    plans = [load_plan(written(tmp_path, ONE + text)) for text in (short, long)]
    assert plans[0] == plans[1]


def test_what_shows_one_plan_says_how_to_choose_one_of_several(tmp_path: Path) -> None:
    path = written(tmp_path, SWEEP)
    with pytest.raises(InputError, match=rf"describes 8 plans; choose one .*--plan {path}:tuned-rate0.001-test1"):
        load_plan(path)
    chosen = load_plan(f"{path}:tuned-rate0.003-test3")
    assert (chosen.recipe, chosen.recipe_changes, chosen.test_fold) == ("tuned", {"learning_rate": 0.003}, 3)
    with pytest.raises(InputError, match=r"has no plan 'best'; choose one of tuned-rate0\.001-test1, "):
        load_plan(f"{path}:best")
    with pytest.raises(InputError, match="one plan only, so leave the colon out"):
        load_plan("demo:tuned")


def test_a_file_whose_name_has_a_colon_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml:b.yaml"
    path.write_text(ONE)
    assert load_plan(path).name == "a.yaml:b"


def test_a_plan_of_a_sweep_is_named_with_the_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_plan("demo") == "demo"
    assert absolute_plan("mine.yaml") == str(tmp_path / "mine.yaml")
    assert absolute_plan("mine.yaml:tuned-test3") == f"{tmp_path / 'mine.yaml'}:tuned-test3"


def test_data_sets_are_told_apart_by_their_folders_names_or_else_their_paths(tmp_path: Path) -> None:
    sweep = load_sweep(written(tmp_path, ONE + "dataset: [esc10, ./a/mine, ./b/mine, ./c]"))
    assert list(sweep.plans) == ["esc10", str(tmp_path / "a" / "mine"), str(tmp_path / "b" / "mine"), "c"]
    assert sweep.plans["c"].dataset == str(tmp_path / "c")


def test_a_saved_sweep_is_read_back_the_same(tmp_path: Path) -> None:
    sweep = load_sweep(written(tmp_path, SWEEP + "dataset: [demo, ./sounds]")).changed(epochs=3, seeds=(0, 1))
    save_plan(sweep, tmp_path / "elsewhere" / "plan.yaml")
    assert load_sweep(tmp_path / "elsewhere" / "plan.yaml").plans == sweep.plans


def test_another_value_takes_the_place_of_a_list(tmp_path: Path) -> None:
    sweep = load_sweep(written(tmp_path, SWEEP)).changed(recipe="tuned", test_fold=2, epochs=5)
    assert list(sweep.plans) == ["rate0.001", "rate0.003"]
    assert {(plan.recipe, plan.test_fold, plan.epochs) for plan in sweep.plans.values()} == {("tuned", 2, 5)}
    assert sweep.changed(dataset=None) == sweep


def test_a_check_on_a_plans_own_test_fold_is_left_out_of_that_plan_alone(tmp_path: Path) -> None:
    check = "checks: [{model: cnn, protocol: split, test_fold: [3, 4]}]\n"
    sweep = load_sweep(written(tmp_path, SWEEP + check))
    folds = {plan.test_fold: [check.test_fold for check in plan.checks] for plan in sweep.plans.values()}
    assert folds == {1: [3, 4], 3: [4]}
    assert [len(plan.checks) for plan in sweep.changed(test_fold=4, recipe="tuned").plans.values()] == [1, 1]

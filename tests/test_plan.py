"""A plan says which experiments a suite runs; what is wrong with it is told in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from settings_files import refusal

from audioclf_lib.errors import InputError
from audioclf_lib.plan import load_plan, plan_names, resolve_dataset, save_plan

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
    changes=st.dictionaries(st.sampled_from(["dropout", "warmup"]), st.floats(0, 0.9)),
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

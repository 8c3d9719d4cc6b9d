"""A plan says which experiments a suite runs; what is wrong with it is told in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from settings_files import refusal

from audioclf_lib._support.errors import InputError
from audioclf_lib.suite.plan import (
    Plan,
    absolute_plan,
    distinctions,
    load_plan,
    load_plans,
    resolve_dataset,
    resolve_model,
    save_plan,
)

FOLDS: list[dict[str, int]] = [{}, {"test_fold": 3}]
EIGHT = [
    f"{model}-{protocol}"
    for model in ("cnn", "transformer-h1", "transformer-h2", "transformer-h4")
    for protocol in ("kfold", "split")
]


@pytest.mark.parametrize(("name", "dataset", "epochs"), [("demo", "demo", 5), ("full", "esc10", 100)])
def test_the_project_comes_with_the_eight_experiments(name: str, dataset: str, epochs: int) -> None:
    plan = load_plan(name)
    experiments = plan.experiments_list()
    assert [experiment.name for experiment in experiments] == EIGHT
    assert (plan.name, plan.dataset) == (name, dataset)
    assert {(each.epochs, each.recipe, each.test_fold, each.seed) for each in experiments} == {(epochs, "tuned", 1, 0)}


# --- checks and ablation ----------------------------------------------------------------------------------------------


def test_the_reference_rotates_every_architecture_has_the_eight_experiments_and_an_ablation_of_two_seeds() -> None:
    reference = load_plan("reference")
    assert [each.full_name for each in reference.experiments_list()] == [
        "cnn-rotation",
        "transformer-h2-rotation",
        "mel-cnn-rotation",
        *EIGHT,
        "cnn-rotation-seed1",
        "transformer-h1-rotation",
        "transformer-h4-rotation",
    ]
    assert reference.ablation is not None
    assert (reference.ablation.epochs, reference.ablation.seeds) == (10, (0, 1))
    for name in ("demo", "full"):
        assert (load_plan(name).checks_list(), load_plan(name).ablation) == ([], None)


CHECKED = Plan(
    name="mine",
    experiments=[
        {"model": "cnn", "protocol": "rotation"},
        *({"model": model, "protocol": "split", **fold} for model in ("cnn", "transformer") for fold in FOLDS),
    ],
)


def test_an_experiment_with_a_test_fold_of_its_own_is_a_check_unless_it_is_the_plans() -> None:
    assert [each.full_name for each in CHECKED.checks_list()] == ["cnn-split-test3", "transformer-h1-split-test3"]
    changed = CHECKED.changed(test_fold=3, seeds=(0, 1))
    assert changed.checks_list() == []
    names = [each.full_name for each in changed.experiments_list() if each.seed == 0]
    assert names == ["cnn-rotation", "cnn-split-test3", "transformer-h1-split-test3"], "none twice"
    assert len(CHECKED.changed(test_fold=2, seeds=(0, 1)).checks_list()) == 4


# --- contrasts --------------------------------------------------------------------------------------------------------


def test_the_cnn_and_the_transformer_with_two_heads_are_the_first_declared_contrast_of_every_plan() -> None:
    for name in ("demo", "full", "reference"):
        assert load_plan(name).contrasts == (
            ("cnn", "transformer-h2"),
            ("transformer-h1", "transformer-h2"),
            ("transformer-h2", "transformer-h4"),
        )


@pytest.mark.parametrize(
    ("contrasts", "told"),
    [
        ([["cnn", "transformer-h8"]], "'transformer-h8'; architectures of the plan are cnn, transformer-h1"),
        ([["cnn", "cnn"]], "a contrast of cnn with itself"),
        ([["cnn", "transformer-h1"], ["transformer-h1", "cnn"]], "named twice"),
        (["cnn"], "contrasts"),
    ],
)
def test_a_contrast_is_of_two_architectures_of_the_plan(contrasts: list[list[str]], told: str) -> None:
    experiments = [{"model": "cnn"}, {"model": "transformer", "num_heads": 1}]
    with pytest.raises(InputError, match=told):
        Plan(name="mine", experiments=experiments, contrasts=contrasts)


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
    plan = load_plan("reference").changed(
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
        (ONE + "ablation: {epochs: 0}", "epochs = 0 is not possible"),
        (ONE + "ablation: {epoch: 1}", "unknown setting"),
        (ONE + "ablation: {seeds: []}", "seeds = [] is not possible"),
        (ONE.replace("split", "split, test_fold: one"), "test_fold = 'one' is not possible"),
        (ONE.replace("split", "split, dataset: esc10"), "dataset is no setting of one experiment of a plan"),
        (ONE.replace("split", "split, learning_rate: 0.1"), "unknown setting 'learning_rate' for model cnn"),
    ],
)
def test_a_wrong_ablation_or_experiment_is_refused_in_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    assert told in refusal(load_plan, tmp_path, text)


@pytest.mark.parametrize("name", ["nonsense", "missing.yaml", "../plans/demo", ""])
def test_an_unknown_plan_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(InputError, match=r"plan .*demo, full, reference"):
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
    assert Plan(**plan.model_dump()) == plan


def test_an_experiment_may_have_settings_of_its_own_and_each_may_be_a_list(tmp_path: Path) -> None:
    text = """
    epochs: 3
    recipe_changes: {gain_db: 1.0}
    experiments:
      - {model: cnn, protocol: split, epochs: [4, 5], seed: [1, 2]}
      - {model: cnn, protocol: split, recipe: as-written, recipe_changes: [{dropout: 0.1}, {}]}
    """
    experiments = load_plan(written(tmp_path, text)).experiments_list()
    assert [(each.epochs, each.seed, each.recipe, each.recipe_changes) for each in experiments] == [
        (4, 1, "tuned", {"gain_db": 1.0}),
        (4, 2, "tuned", {"gain_db": 1.0}),
        (5, 1, "tuned", {"gain_db": 1.0}),
        (5, 2, "tuned", {"gain_db": 1.0}),
        (3, 0, "as-written", {"dropout": 0.1}),
        (3, 0, "as-written", {}),
    ]


def test_lists_of_the_plan_make_an_experiment_with_each_combination_and_no_checks(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path, SWEEP))
    assert plan.checks_list() == []
    found = [(each.recipe, each.recipe_changes, each.test_fold) for each in plan.experiments_list()]
    assert found == [
        (recipe, {"learning_rate": rate}, fold)
        for recipe in ("tuned", "as-written")
        for rate in (0.001, 0.003)
        for fold in (1, 3)
    ]


def test_experiments_of_the_same_name_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path, SWEEP))
    named = [each.full_name for each in plan.experiments_list()]
    assert len(set(named)) == 8
    assert named[0] == "cnn-split-learning-rate-0-001"
    longer = [*plan.experiments_list(), plan.experiments_list()[0].changed(epochs=3)]
    assert distinctions(longer) == [f"{longer[0].epochs} epochs", *[""] * 7, "3 epochs"]
    assert set(distinctions(load_plan("reference").experiments_list())) == {""}


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
    lists = [load_plan(written(tmp_path, ONE + text)).experiments_list() for text in (short, long)]
    assert lists[0] == lists[1]


def test_a_file_with_several_data_sets_holds_a_plan_for_each_and_one_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, ONE + "dataset: [esc10, ./a/mine]")
    assert [plan.dataset for plan in load_plans(path)] == ["esc10", str(tmp_path / "a" / "mine")]
    with pytest.raises(InputError, match=r"mine\.yaml has several data sets \(esc10, .*mine\); .* with --dataset"):
        load_plan(path)
    for name in ("mine", str(tmp_path / "a" / "mine")):
        assert load_plan(path, name) == load_plans(path)[1]
    assert load_plan(path, "demo").dataset == "demo", "any other data set takes their place"


def test_a_plan_is_named_with_the_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_plan("demo") == "demo"
    assert absolute_plan("mine.yaml") == str(tmp_path / "mine.yaml")
    assert absolute_plan("~/mine.yaml") == str(Path.home() / "mine.yaml")


def test_a_saved_plan_with_lists_and_data_sets_is_read_back_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, SWEEP + "dataset: [demo, ./sounds]\nablation: {epochs: 2}")
    plans = [plan.changed(epochs=3, seeds=(0, 1)) for plan in load_plans(path)]
    save_plan(plans, tmp_path / "elsewhere" / "plan.yaml")
    assert load_plans(tmp_path / "elsewhere" / "plan.yaml") == plans


# --- changes of the command line --------------------------------------------------------------------------------------


def test_another_value_takes_the_place_of_a_list_and_of_an_experiments_own(tmp_path: Path) -> None:
    text = SWEEP.replace("protocol: split", "protocol: split, epochs: 9, seed: 4")
    experiments = load_plan(written(tmp_path, text)).changed(recipe="tuned", test_fold=2, epochs=5).experiments_list()
    assert {(each.recipe, each.test_fold, each.epochs, each.seed) for each in experiments} == {("tuned", 2, 5, 4)}
    assert len(experiments) == 2, "one for each learning rate"


def test_recipe_changes_are_added_to_those_of_the_plan_and_of_its_experiments(tmp_path: Path) -> None:
    own = "  - {model: cnn, protocol: kfold, recipe_changes: {gain_db: 1.0}}\n"
    text = f"experiments:\n  - {{model: cnn, protocol: split}}\n{own}recipe_changes: {{dropout: 0.3, gain_db: 2.0}}\n"
    changed = load_plan(written(tmp_path, text)).changed(recipe_changes='{"dropout": 0.1}')
    assert [each.recipe_changes for each in changed.experiments_list()] == [
        {"dropout": 0.1, "gain_db": 2.0},
        {"gain_db": 1.0, "dropout": 0.1},
    ]
    sweep = load_plan(written(tmp_path, SWEEP)).changed(recipe_changes={"learning_rate": 0.1}, test_fold=1)
    assert [each.recipe_changes for each in sweep.experiments_list()] == 2 * [{"learning_rate": 0.1}]


# --- own architectures ------------------------------------------------------------------------------------------------

OWN = """
from torch import nn
from audioclf_lib.models import register_model

@register_model("my-net", title="My net")
class MyNet(nn.Module):
    def __init__(self, num_classes: int, width: int = 64, kernels: tuple[int, ...] = (3, 5)) -> None:
        super().__init__()
"""


def test_a_model_is_looked_for_beside_the_plan_and_has_its_settings_beside_its_name(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "net.py").write_text(OWN)
    own = (
        "  - {model: nets/net.py, width: [32, 64], protocol: split}\n  - {model: 'nets/net.py:my-net', protocol: kfold}"
    )
    plan = load_plan(written(tmp_path, f"{HEADS}{own}"))
    *_, small, default, kfold = plan.experiments_list()
    assert [each.full_name for each in (small, default, kfold)] == [
        "my-net-width32-split",
        "my-net-split",
        "my-net-kfold",
    ]
    assert small.title == "My net, width 32"
    save_plan(plan, tmp_path / "elsewhere" / "plan.yaml")
    assert load_plan(tmp_path / "elsewhere" / "plan.yaml").experiments_list() == plan.experiments_list()


def test_a_setting_that_is_a_list_is_written_as_a_list_of_lists(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(OWN)
    text = "experiments: [{model: net.py, protocol: split, kernels: [[3, 3], [5, 5]]}]"
    experiments = load_plan(written(tmp_path, text)).experiments_list()
    assert [each.model_settings["kernels"] for each in experiments] == [(3, 3), (5, 5)]


def test_a_models_file_becomes_an_absolute_path_and_a_name_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_model("cnn") == "cnn"
    assert resolve_model("net.py") == str(tmp_path / "net.py")
    assert resolve_model("a/net.py:my-net") == f"{tmp_path / 'a' / 'net.py'}:my-net"
    assert resolve_model("~/net.py") == str(Path.home() / "net.py")

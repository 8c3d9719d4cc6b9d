"""The ablation changes what it names and nothing else; tracing records a training without touching it."""

from __future__ import annotations

import copy
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_dataset, make_fit
from torch import Tensor, nn

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Experiment, Recipe
from audioclf_lib.data import Dataset
from audioclf_lib.models import create_model
from audioclf_lib.models.conv_transformer import ConvTransformer
from audioclf_lib.runs.store import Run, RunStore
from audioclf_lib.suite.ablation import (
    AS_WRITTEN,
    CHANGES,
    HIGH_RATE,
    TRACE,
    ablation_experiments,
    ablation_table,
    change_experiments,
    change_of,
    examine,
    load_traces,
)
from audioclf_lib.suite.plan import Plan
from audioclf_lib.suite.tracing import (
    REESTIMATE_WINDOWS,
    attention_entropy,
    gradient_norms,
    mean_similarity,
    probe,
    rescore,
    trace_fit,
)
from audioclf_lib.training import fit
from audioclf_lib.training.batches import all_windows, training_batch
from audioclf_lib.training.epochs import train_epoch
from audioclf_lib.training.optimisation import make_optimizer

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
    assert CHANGES["statistics re-estimated"] == {"reestimate_windows": REESTIMATE_WINDOWS}


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


# --- inside the training -------------------------------------------------------------------------------------------


def test_the_observer_sees_the_gradients_that_autograd_gives(dataset: Dataset) -> None:
    windows, recipe = all_windows(dataset, CPU), Recipe(dropout=0.0, batch_size=100, max_grad_norm=1e-3)
    model = create_model("transformer", num_heads=2, num_classes=3, dropout=0.0)
    for module in model.modules():
        if isinstance(module, nn.Dropout) or hasattr(module, "head_width"):
            module.p = module.dropout = 0.0  # type: ignore[assignment]
    twin = copy.deepcopy(model)
    seen: list[dict[str, float]] = []
    losses: list[Tensor] = []

    def observe(loss: Tensor) -> None:
        losses.append(loss)
        seen.append(gradient_norms(model))

    torch.manual_seed(1)
    train_epoch(model, model, make_optimizer(model, recipe), windows, recipe, 3, 0, 1, observe=observe)
    torch.manual_seed(1)
    x, target, _ = training_batch(windows, torch.randperm(len(windows)), recipe, 3)
    twin.train()
    loss = F.cross_entropy(twin(x), target)
    parts = {"base": twin.base, "layer1": twin.encoder[0], "layer2": twin.encoder[1], "classifier": twin.classifier}
    for name, part in parts.items():
        gradients = torch.autograd.grad(loss, list(part.parameters()), retain_graph=True)
        expected = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
        assert expected > 1e-3, "it would have been clipped"
        assert seen[0][f"gradient_{name}"] == pytest.approx(expected, rel=1e-4)
    assert [loss.requires_grad for loss in losses] == [False]
    assert losses[0].item() == pytest.approx(loss.item(), rel=1e-6)


def test_a_trace_repeats_the_fit_bit_for_bit(trained: Run, dataset: Dataset) -> None:
    torch.rand(7)  # whatever else drew random numbers
    trace = trace_fit(trained, dataset, CPU)
    assert trace["epoch"].tolist() == [1, 1, 2, 2]
    assert trace["step"].tolist() == [1, 2, 3, 4]
    assert trace["windows"].tolist() == [6, 6, 6, 6]
    for epoch, rows in trace.groupby("epoch"):
        sums = [float(np.float32(loss) * np.float32(n)) for loss, n in zip(rows["loss"], rows["windows"], strict=True)]
        total = sum(sums)
        assert trained.history.set_index("epoch").loc[epoch, "train_loss"] == total / rows["windows"].sum()


def test_a_trace_is_no_longer_than_the_fit_and_as_short_as_asked(trained: Run, dataset: Dataset) -> None:
    assert trace_fit(trained, dataset, CPU, epochs=1)["epoch"].max() == 1
    assert trace_fit(trained, dataset, CPU, epochs=5)["epoch"].max() == 2


def test_cls_asks_every_token_alike_before_the_first_step(trained: Run, dataset: Dataset) -> None:
    """CLS is a token of zeros and the query bias begins at zero, so all its scores in layer 1 are the same."""
    first = trace_fit(trained, dataset, CPU, epochs=1).iloc[0]
    assert first["entropy_layer1"] == pytest.approx(math.log(33), abs=1e-6)
    assert 0 < first["entropy_layer2"] <= math.log(33)
    assert -1 <= first["similarity"] <= 1
    for part in ("base", "layer1", "layer2", "classifier"):
        assert first[f"gradient_{part}"] > 0


# --- measures ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(tokens=st.integers(1, 100))
def test_the_entropy_of_uniform_attention_is_the_logarithm_of_its_tokens(tokens: int) -> None:
    assert attention_entropy(torch.full((2, tokens), 1 / tokens)).tolist() == pytest.approx([math.log(tokens)] * 2)


@settings(deadline=None, max_examples=25)
@given(tokens=st.integers(1, 100), seed=st.integers(0, 1000))
def test_the_entropy_of_attention_to_one_token_is_zero_and_no_attention_has_more_than_uniform(
    tokens: int, seed: int
) -> None:
    assert attention_entropy(torch.eye(tokens)).tolist() == [0.0] * tokens
    drawn = attention_entropy(torch.randn(4, tokens, generator=torch.Generator().manual_seed(seed)).softmax(1))
    assert (drawn <= math.log(tokens) + 1e-5).all()
    assert (drawn >= 0).all()


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 9), seed=st.integers(0, 1000))
def test_similarity_is_the_mean_cosine_over_all_pairs(n: int, seed: int) -> None:
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    pairs = [F.cosine_similarity(x[i], x[j], dim=0).item() for i in range(n) for j in range(n) if i != j]
    assert mean_similarity(x) == pytest.approx(np.mean(pairs), abs=1e-5)
    assert mean_similarity(x[:1].repeat(n, 1) * torch.arange(1, n + 1)[:, None]) == pytest.approx(1)
    assert math.isnan(mean_similarity(x[:1]))


def test_a_transformer_whose_cls_sees_nothing_gives_every_window_the_same() -> None:
    """Values of zero in both layers: what CLS becomes depends on biases alone."""
    model = create_model("transformer", num_heads=2, num_classes=3)
    assert isinstance(model, ConvTransformer)
    x = torch.randn(5, 1, 16_000)
    before = probe(model, x)["similarity"]
    for layer in model.encoder:
        nn.init.zeros_(layer.attention.in_projection.weight[500:])  # type: ignore[union-attr,index,operator]
    assert probe(model, x)["similarity"] == pytest.approx(1)
    assert before < 0.999


def test_probing_is_that_of_the_attention_weights_of_the_model(dataset: Dataset) -> None:
    model = create_model("transformer", num_heads=4, num_classes=3).eval()
    assert isinstance(model, ConvTransformer)
    x = all_windows(dataset, CPU).cut(torch.arange(5))[0]
    found = probe(model, x)
    for number, weights in enumerate(model.attention_weights(x), 1):
        cls = weights[:, :, 0].double()
        assert found[f"entropy_layer{number}"] == pytest.approx(float(-(cls * cls.log()).sum(2).mean()), rel=1e-5)


# --- the same weights with other statistics ------------------------------------------------------------------------


def test_rescoring_the_fit_with_statistics_re_estimated_gives_its_own_scores(dataset: Dataset, tmp_path: Path) -> None:
    """That fit's statistics are re-estimated already, from the same windows."""
    config = make_fit(dataset, recipe="as-written", recipe_changes=CHANGES["statistics re-estimated"])
    run = fit(config, dataset, runs_dir=tmp_path, device="cpu")
    again = rescore(run, dataset, CPU)
    for split in ("validation", "test"):
        scores = run.metrics["scores"][split]
        assert again.loc[split, "accuracy"] == pytest.approx(scores["window"]["accuracy"])
        assert again.loc[split, "clip_accuracy"] == pytest.approx(scores["clip"]["accuracy"])
    kept = run.history.set_index("epoch").loc[run.metrics["chosen"]["epoch"]]
    assert again.loc["validation", "loss"] == pytest.approx(kept["validation_loss"], rel=1e-5)


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


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Examined:
    """An ablation of one epoch on twelve clips with one window each, trained and examined."""
    dataset = make_dataset(clips_per_class=2, n_windows=1)
    runs_dir = tmp_path_factory.mktemp("ablation")
    experiments = change_experiments(dataset="tiny", epochs=1, device="cpu", runs_dir=runs_dir)
    for experiment in experiments:
        fit(experiment.fits(dataset)[0], dataset, runs_dir=runs_dir, device="cpu")
    examine(experiments, dataset)
    return experiments, dataset


def test_tables_are_kept_beside_the_runs_and_not_computed_anew(examined: Examined) -> None:
    experiments, dataset = examined
    folder = experiments[0].runs_dir / "tiny" / "traces"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert list(load_traces(experiments, dataset)) == [AS_WRITTEN, "warm-up", HIGH_RATE]
    assert len(before) == len(experiments) + 3
    examine(experiments, dataset)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_kept_trace_is_the_one_that_was_computed(examined: Examined) -> None:
    experiments, dataset = examined
    experiment = next(each for each in experiments if each.model == "transformer")
    run = RunStore(experiment.runs_dir).load(experiment.fits(dataset)[0])
    kept = load_traces(experiments, dataset)[AS_WRITTEN]
    pd.testing.assert_frame_equal(kept, trace_fit(run, dataset, CPU), check_exact=True)


def test_the_table_has_a_row_for_each_experiment_with_its_kept_epoch_and_the_scores_anew(examined: Examined) -> None:
    experiments, dataset = examined
    table = ablation_table(experiments, dataset)
    assert list(table["change"]) == [change_of(each) for each in experiments]
    assert set(table["model"]) == {"CNN", "Transformer, 1 head"}
    for experiment, row in zip(experiments, table.to_dict(orient="records"), strict=True):
        run = RunStore(experiment.runs_dir).load(experiment.fits(dataset)[0])
        kept = run.history.iloc[run.metrics["chosen"]["epoch"] - 1]
        anew = rescore(run, dataset, CPU)
        for split in ("validation", "test"):
            for score in ("loss", "accuracy", "clip_accuracy"):
                assert row[f"{split}_{score}"] == kept[f"{split}_{score}"]
                assert row[f"rescored_{split}_{score}"] == anew.loc[split, score]
    assert not table.isna().any(axis=None)


def test_run_folders_are_found_whatever_lies_beside_them(examined: Examined) -> None:
    experiments, _ = examined
    assert len(RunStore(experiments[0].runs_dir).find(dataset="tiny")) == len(experiments)


def test_a_damaged_or_missing_table_is_made_anew(examined: Examined, tmp_path: Path) -> None:
    experiments, dataset = examined
    shutil.copytree(experiments[0].runs_dir, tmp_path / "runs")
    moved = [each.changed(runs_dir=tmp_path / "runs") for each in experiments]
    damaged, missing = sorted((tmp_path / "runs" / "tiny" / "traces").glob(f"*{TRACE}.parquet"))[:2]
    expected = pd.read_parquet(damaged)
    damaged.write_bytes(damaged.read_bytes()[:100])
    missing.unlink()
    assert len(load_traces(moved, dataset)) == 1
    examine(moved, dataset)
    assert len(load_traces(moved, dataset)) == 3
    pd.testing.assert_frame_equal(pd.read_parquet(damaged), expected)


def test_a_fit_that_is_not_trained_is_named_and_has_no_numbers_in_the_table(dataset: Dataset, tmp_path: Path) -> None:
    experiments = change_experiments(dataset="tiny", epochs=1, runs_dir=tmp_path)
    assert list(ablation_table(experiments, dataset)) == ["model", "change", "seed"]
    with pytest.raises(InputError, match=r"^fit cnn-val2-test1-seed0-as-written-e1-\w{8} is not in"):
        examine(experiments, dataset)
    assert list(tmp_path.iterdir()) == []

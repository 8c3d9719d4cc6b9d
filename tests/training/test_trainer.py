"""A fit: nothing leaks between splits, nothing is left over from another fit, and the numbers come out the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from own_models import SOURCE, write_model
from tiny import CLASSES, RECIPES, make_dataset, make_fit, with_other_sound
from torch import Tensor, nn

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Experiment, FitConfig, Recipe, make_recipe
from audioclf_lib.data import Dataset
from audioclf_lib.data.windowing import cut_windows, normalise
from audioclf_lib.models import create_model
from audioclf_lib.runs import load_run
from audioclf_lib.runs.store import Run
from audioclf_lib.training.batches import Windows, all_windows
from audioclf_lib.training.environment import choose_device
from audioclf_lib.training.epochs import DivergedError, class_weights, reestimate_statistics, score_windows, train_epoch
from audioclf_lib.training.optimisation import learning_rate, make_average, make_optimizer
from audioclf_lib.training.trainer import fit

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SPLITS = ("train", "validation", "test")
KINDS = ("loss", "accuracy", "clip_accuracy")


@pytest.fixture
def dataset() -> Dataset:
    return make_dataset()


def train(dataset: Dataset, runs_dir: Path, config: FitConfig | None = None, **experiment: Any) -> Run:
    return fit(config or make_fit(dataset, **experiment), dataset, runs_dir=runs_dir, device="cpu")


@pytest.fixture(scope="module")
def once(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A fit on the tiny data set, trained by the first test that asks for it, for those that only read it."""
    folder = tmp_path_factory.mktemp("once")
    return lambda **experiment: train(make_dataset(), folder, **experiment)


def columns(run: Run, *splits: str) -> pd.DataFrame:
    return run.history[[f"{split}_{kind}" for split in splits for kind in KINDS]]


def assert_same_weights(one: Run, other: Run) -> None:
    first, second = one.weights(), other.weights()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def assert_same_numbers(one: Run, other: Run) -> None:
    """Bit for bit, but for the time it took."""
    pd.testing.assert_frame_equal(
        one.history.drop(columns="seconds"), other.history.drop(columns="seconds"), check_exact=True
    )
    pd.testing.assert_frame_equal(one.predictions, other.predictions, check_exact=True)
    assert one.metrics == other.metrics
    assert_same_weights(one, other)


class Linear(nn.Module):
    """One linear layer that notes in which mode it is called, and for which windows."""

    def __init__(self, n_classes: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(16_000, n_classes)
        self.modes: list[bool] = []
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        self.inputs.append(x.detach())
        logits: Tensor = self.layer(x[:, 0])
        return logits

    def reference(self, windows: Tensor) -> np.ndarray:
        """Logits in float64 of windows (n, 1, 16000)."""
        weight, bias = (tensor.detach().double().numpy() for tensor in (self.layer.weight, self.layer.bias))
        logits: np.ndarray = windows[:, 0].double().numpy() @ weight.T + bias
        return logits


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of log Σ exp(z) - z of the own class."""
    own = logits[np.arange(len(labels)), labels]
    return float((np.log(np.exp(logits).sum(axis=1)) - own).mean())


def epoch_of(network: nn.Module, windows: Windows, recipe: Recipe, epoch: int = 0, epochs: int = 1) -> dict[str, float]:
    optimizer = make_optimizer(network, recipe)
    return train_epoch(network, network, optimizer, windows, recipe, len(CLASSES), epoch, epochs).scores("train")


# --- one fit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_configuration_gives_the_same_numbers(
    recipe: str, once: Callable[..., Run], dataset: Dataset, tmp_path: Path
) -> None:
    one = once(**RECIPES[recipe])
    torch.rand(7)  # whatever else drew random numbers
    assert_same_numbers(one, train(dataset, tmp_path, **RECIPES[recipe]))


def test_another_seed_gives_other_numbers(once: Callable[..., Run]) -> None:
    one, other = once(seed=0), once(seed=1)
    assert not columns(one, *SPLITS).equals(columns(other, *SPLITS))


def test_nothing_is_left_over_from_the_fit_before(dataset: Dataset, tmp_path: Path) -> None:
    """The original trained one model through all rotating folds."""
    alone = train(dataset, tmp_path / "alone", make_fit(dataset, val_fold=3))
    train(dataset, tmp_path / "row", make_fit(dataset, val_fold=2))
    assert_same_numbers(alone, train(dataset, tmp_path / "row", make_fit(dataset, val_fold=3)))


def test_the_history_has_a_row_per_epoch_and_the_columns_of_the_three_splits(once: Callable[..., Run]) -> None:
    history = once(epochs=3).history
    assert list(history) == ["epoch", "seconds", "learning_rate", *(f"{s}_{kind}" for s in SPLITS for kind in KINDS)]
    assert history["epoch"].tolist() == [1, 2, 3]
    assert np.isfinite(history).all(axis=None)
    assert (history["seconds"] > 0).all()
    shares = history[[f"{split}_accuracy" for split in SPLITS]].to_numpy() * [5, 6, 6]  # one window of train is silent
    np.testing.assert_allclose(shares, shares.round(), atol=1e-5)


def test_progress_is_told_after_every_epoch(dataset: Dataset, tmp_path: Path) -> None:
    told = []
    config = make_fit(dataset, epochs=3)
    run = fit(config, dataset, runs_dir=tmp_path, device="cpu", progress=lambda c, rows: told.append((c, len(rows))))
    assert told == [(config, 1), (config, 2), (config, 3)]
    assert run.config == config


def test_predictions_hold_every_window_of_every_fold_once(tmp_path: Path) -> None:
    dataset = make_dataset(folds=4, clips_per_class=2, n_windows=3)
    predictions = train(dataset, tmp_path, epochs=1).predictions
    probabilities = [f"p_{c}" for c in range(3)]
    assert list(predictions) == [
        *("split", "clip_id", "source", "fold", "window_index", "silent", "y_true"),
        *probabilities,
    ]
    expected = pd.DataFrame(
        {
            "clip_id": np.repeat(dataset.clip_ids, 3),
            "source": np.repeat(dataset.sources, 3),
            "fold": np.repeat(dataset.folds, 3),
            "window_index": np.tile([0, 1, 2], len(dataset)),
            "silent": dataset.silent.flatten(),
            "y_true": np.repeat(dataset.labels, 3),
        }
    )
    expected.insert(0, "split", expected["fold"].map({1: "test", 2: "validation", 3: "train", 4: "train"}))
    keys = ["clip_id", "window_index"]
    pd.testing.assert_frame_equal(
        predictions.drop(columns=probabilities).sort_values(keys, ignore_index=True),
        expected.sort_values(keys, ignore_index=True),
        check_dtype=False,
    )
    assert predictions["silent"].any()
    np.testing.assert_allclose(predictions[probabilities].sum(axis=1), 1, rtol=1e-5)
    assert (predictions[probabilities] >= 0).all(axis=None)


@pytest.mark.parametrize("recipe", RECIPES)
def test_predictions_are_those_of_the_kept_weights_without_dropout(
    recipe: str, once: Callable[..., Run], dataset: Dataset
) -> None:
    run = once(**RECIPES[recipe])
    with torch.no_grad():
        expected = run.model()(cut_windows(dataset.waveforms).flatten(0, 1)).softmax(1).numpy()
    rows = run.predictions.assign(clip=run.predictions["clip_id"].str.removeprefix("clip").astype(int))
    rows = rows.sort_values(["clip", "window_index"])
    np.testing.assert_allclose(rows[["p_0", "p_1", "p_2"]], expected, rtol=1e-3, atol=1e-5)
    assert rows["source"].tolist() == [dataset.sources[clip] for clip in rows["clip"]]


def test_the_history_of_the_kept_epoch_agrees_with_the_final_scores(once: Callable[..., Run]) -> None:
    run = once(epochs=3)
    kept = run.history.set_index("epoch").loc[run.metrics["chosen"]["epoch"]]
    for split in ("validation", "test"):
        scores = run.metrics["scores"][split]
        assert kept[f"{split}_accuracy"] == pytest.approx(scores["window"]["accuracy"])
        assert kept[f"{split}_clip_accuracy"] == pytest.approx(scores["clip"]["accuracy"])


def test_the_environment_says_with_what_it_was_trained(once: Callable[..., Run]) -> None:
    environment = once(epochs=1).environment
    assert environment["versions"]["torch"] == torch.__version__.split("+")[0]
    assert environment["device"] == "cpu"
    assert environment["threads"] == 1
    assert environment["wall_seconds"] > 0
    assert {"python", "platform", "commit", "clean", "cpu_count"} <= environment.keys()
    (process,) = environment["processes"]
    assert (process["first_epoch"], process["last_epoch"]) == (1, 1)


def test_every_process_that_trained_a_part_of_a_fit_is_recorded(dataset: Dataset, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(_: FitConfig, history: list[dict[str, float]]) -> None:
        if len(history) == 2:
            raise StopError

    config = make_fit(dataset, epochs=3)
    with pytest.raises(StopError):
        fit(config, dataset, runs_dir=tmp_path, device="cpu", progress=stop)
    processes = train(dataset, tmp_path, config).environment["processes"]
    assert [(each["first_epoch"], each["last_epoch"]) for each in processes] == [(1, 2), (3, 3)]


def test_a_fit_trains_on_its_own_number_of_threads_and_leaves_torch_as_it_was(dataset: Dataset, tmp_path: Path) -> None:
    seen = []
    config = make_fit(dataset, threads=2)
    run = fit(
        config, dataset, runs_dir=tmp_path, device="cpu", progress=lambda *_: seen.append(torch.get_num_threads())
    )
    assert seen == [2, 2]
    assert run.environment["threads"] == 2
    assert torch.get_num_threads() == 1, "as the fixture set it"


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_whose_loss_is_no_number_ends_the_fit_at_once(split: str, dataset: Dataset, tmp_path: Path) -> None:
    loud = dataset.waveforms.copy()
    scored = dataset.folds == {"validation": 2, "test": 1}[split]
    loud[scored] = (loud[scored] * 2.0 * np.finfo(np.float32).max).astype(np.float32)  # a convolution overflows
    config = make_fit(dataset, recipe="as-written")
    with pytest.raises(DivergedError, match=rf"the {split} loss became (nan|inf) in epoch 1; lower the learning rate"):
        fit(config, replace(dataset, waveforms=loud), runs_dir=tmp_path, device="cpu")
    assert not (tmp_path / "tiny" / config.fit_id).exists()


def test_memory_that_runs_out_on_a_device_names_the_remedy(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("audioclf_lib.training.trainer.train_epoch", run_out)
    with pytest.raises(InputError, match=r"the memory of cpu is too small for fit .*; lower batch_size"):
        train(dataset, tmp_path)


def test_an_edited_model_is_not_trained_under_the_fit_that_was_made_before_the_edit(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = make_fit(dataset, model=write_model(tmp_path))
    make_fit(dataset, model=write_model(tmp_path, SOURCE.replace("torch.relu", "torch.tanh")))
    with pytest.raises(InputError, match=r"the source of model my-net in .* is not the one that fit .* was made for"):
        fit(config, dataset, runs_dir=tmp_path / "runs", device="cpu")


def test_an_own_architecture_is_trained_and_its_file_kept_beside_its_weights(dataset: Dataset, tmp_path: Path) -> None:
    path = write_model(tmp_path)
    run = train(dataset, tmp_path / "runs", model=path, width=4)
    assert (run.path / "model.py").read_text() == SOURCE
    assert "/" not in run.config.model
    path.unlink()
    windows = cut_windows(dataset.waveforms[dataset.folds == 1]).flatten(0, 1)
    with torch.no_grad():
        expected = load_run(run.path).model()(windows).softmax(1).numpy()
    test = run.predictions[run.predictions["split"] == "test"]
    np.testing.assert_allclose(test.filter(regex=r"^p_\d").to_numpy(), expected, atol=1e-5)


# --- no leakage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_test_clips_have_no_say_in_training_or_choice(
    recipe: str, once: Callable[..., Run], dataset: Dataset, tmp_path: Path
) -> None:
    one = once(**RECIPES[recipe])
    other = train(with_other_sound(dataset, [1]), tmp_path, one.config)
    assert not columns(one, "test").equals(columns(other, "test"))
    assert columns(one, "train", "validation").equals(columns(other, "train", "validation"))
    assert one.metrics["chosen"] == other.metrics["chosen"]
    assert_same_weights(one, other)


@pytest.mark.parametrize("recipe", ["cnn as written", "cnn tuned"])
def test_validation_clips_choose_the_epoch_and_nothing_else(
    recipe: str, once: Callable[..., Run], dataset: Dataset, tmp_path: Path
) -> None:
    one = once(**RECIPES[recipe])
    other = train(with_other_sound(dataset, [2]), tmp_path, one.config)
    assert not columns(one, "validation").equals(columns(other, "validation"))
    assert columns(one, "train", "test").equals(columns(other, "train", "test"))


def test_batch_norm_statistics_are_those_of_training_windows(
    once: Callable[..., Run], dataset: Dataset, tmp_path: Path
) -> None:
    """After one epoch there is nothing to choose: parameters and statistics follow from the training fold alone."""
    one = once(epochs=1)
    assert_same_weights(one, train(with_other_sound(dataset, [1, 2]), tmp_path / "other", one.config))
    changed = train(with_other_sound(dataset, [3]), tmp_path / "third", one.config)
    statistics = [name for name in one.weights() if "running" in name]
    assert len(statistics) == 6
    for name in statistics:
        assert not torch.equal(one.weights()[name], changed.weights()[name])


@pytest.mark.parametrize("recipe", ["cnn as written", "cnn tuned"])
def test_the_epoch_is_chosen_by_validation_accuracy_then_loss(recipe: str, tmp_path: Path) -> None:
    dataset = make_dataset(clips_per_class=2)
    run = train(dataset, tmp_path, epochs=6, **RECIPES[recipe])
    ordered = run.history.sort_values(
        ["validation_accuracy", "validation_loss", "epoch"], ascending=[False, True, True]
    )
    best = ordered.iloc[0]
    assert run.metrics["chosen"]["epoch"] == best["epoch"]
    assert run.metrics["chosen"]["accuracy"] == best["validation_accuracy"]
    assert run.metrics["chosen"]["loss"] == best["validation_loss"]
    assert "validation" in run.metrics["chosen"]["rule"]


def test_weights_and_predictions_are_those_of_the_chosen_epoch_not_the_last(tmp_path: Path) -> None:
    """The as-written recipe has a constant rate, so that k epochs begin as k + n do."""
    dataset = make_dataset(clips_per_class=2)
    for seed in range(10):
        run = train(dataset, tmp_path, recipe="as-written", epochs=4, seed=seed)
        chosen = run.metrics["chosen"]["epoch"]
        if chosen < 4:
            break
    assert chosen < 4, "some fit is best before its last epoch"
    shorter = train(dataset, tmp_path, recipe="as-written", epochs=chosen, seed=seed)
    assert shorter.metrics == run.metrics
    pd.testing.assert_frame_equal(shorter.predictions, run.predictions, check_exact=True)
    assert_same_weights(run, shorter)


def test_in_tuning_the_test_fold_is_never_scored(dataset: Dataset, tmp_path: Path) -> None:
    shown = train(dataset, tmp_path)
    blind = train(dataset, tmp_path, make_fit(dataset, score_test=False))
    assert not [column for column in blind.history if "test" in column]
    assert set(blind.predictions["split"]) == {"train", "validation"}
    assert set(blind.metrics["scores"]) == {"train", "validation"}
    assert columns(blind, "train", "validation").equals(columns(shown, "train", "validation"))
    assert_same_weights(blind, shown)


def test_silent_windows_are_left_out_of_training_where_the_recipe_says_so(dataset: Dataset, tmp_path: Path) -> None:
    """The silent window's samples are changed below the threshold: only who trains on it can tell."""
    waveforms = dataset.waveforms.copy()
    for clip, window in np.argwhere(dataset.silent):
        if dataset.folds[clip] == 3:
            waveforms[clip, window * 8_000 + 8_000 : window * 8_000 + 16_000] = 5e-5  # heard in no other window
    changed = replace(dataset, waveforms=waveforms)
    assert np.array_equal(changed.silent, dataset.silent)
    weights = {}
    for drop in (True, False):
        values = {"epochs": 1, "recipe": "as-written", "recipe_changes": {"drop_silent": drop}}
        runs = [train(d, tmp_path / f"{drop}{i}", **values) for i, d in enumerate([dataset, changed])]
        weights[drop] = [run.weights()["base.conv1.weight"] for run in runs]
    assert torch.equal(*weights[True])
    assert not torch.equal(*weights[False])


# --- one epoch -----------------------------------------------------------------------------------------------------


def test_the_loss_is_the_cross_entropy_of_logits(dataset: Dataset) -> None:
    """Not of probabilities: with a soft-max in front the loss of three classes could not leave 0.55 to 1.55."""
    windows = all_windows(dataset, CPU)
    network = Linear()
    nn.init.normal_(network.layer.weight, std=0.2)
    x, labels = windows.cut(torch.arange(len(windows)))
    expected = cross_entropy(network.reference(x), labels.numpy())
    assert expected > 2
    assert score_windows(network, windows, Recipe(), 3).scores("test")["test_loss"] == pytest.approx(expected)
    row = epoch_of(network, windows, Recipe(batch_size=len(windows)))  # one step: the loss is that before it
    assert row["train_loss"] == pytest.approx(expected)


def test_scores_are_those_of_window_and_clip_by_hand(dataset: Dataset) -> None:
    windows = all_windows(dataset, CPU)
    network = Linear()
    nn.init.normal_(network.layer.weight, std=0.2)
    x, labels = windows.cut(torch.arange(len(windows)))
    logits = network.reference(x)
    row = score_windows(network, windows, Recipe(), 3).scores("test")
    assert row["test_accuracy"] == pytest.approx((logits.argmax(1) == labels.numpy()).mean())
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    votes = probabilities.reshape(len(dataset), -1, 3)
    clips = np.array([votes[clip][~dataset.silent[clip]].mean(axis=0).argmax() for clip in range(len(dataset))])
    assert row["test_clip_accuracy"] == pytest.approx((clips == dataset.labels).mean())


def test_one_step_of_training_is_the_optimizers_step_along_the_gradient(dataset: Dataset) -> None:
    """Adam's first step is lr · g / (|g| + eps), whatever the size of the gradient."""
    windows = all_windows(dataset, CPU)
    network = Linear()
    before = network.layer.bias.detach().clone()
    x, labels = windows.cut(torch.arange(len(windows)))
    logits = network.reference(x)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gradient = (probabilities - np.eye(3)[labels.numpy()]).mean(axis=0)
    epoch_of(network, windows, Recipe(batch_size=100, learning_rate=0.01))
    step = (network.layer.bias.detach() - before).numpy()
    np.testing.assert_allclose(step, -0.01 * gradient / (np.abs(gradient) + 1e-8), rtol=1e-3)


def test_every_training_window_is_seen_once_an_epoch_in_another_order(dataset: Dataset) -> None:
    windows = all_windows(dataset, CPU)
    windows = windows.subset(~windows.is_silent)
    expected = windows.cut(torch.arange(len(windows)))[0].sum(dim=(1, 2))
    orders = []
    for epoch in range(2):
        network = Linear()
        torch.manual_seed(epoch)
        epoch_of(network, windows, Recipe(batch_size=4))
        assert [len(x) for x in network.inputs] == [4, 4, 4, 3]
        orders.append(torch.cat(network.inputs).sum(dim=(1, 2)))
        torch.testing.assert_close(orders[-1].sort().values, expected.sort().values)
    assert not torch.equal(*orders)


def test_training_trains_and_scoring_scores_whatever_the_mode_before(dataset: Dataset) -> None:
    windows = all_windows(dataset, CPU)
    network = Linear()
    network.eval()
    epoch_of(network, windows, Recipe())
    assert all(network.modes)
    network.modes.clear()
    score_windows(network, windows, Recipe(), 3)
    assert network.modes
    assert not any(network.modes)


def test_scoring_draws_no_random_number_and_augments_nothing(dataset: Dataset) -> None:
    recipe = make_recipe("tuned", "cnn", {"dropout": 0.5})
    windows = all_windows(dataset, CPU)
    model = create_model("transformer", num_heads=2, num_classes=3, dropout=0.5)
    model.train()
    before = torch.get_rng_state()
    one = score_windows(model, windows, recipe, 3)
    assert torch.equal(before, torch.get_rng_state())
    model.train()
    assert torch.equal(one.probabilities, score_windows(model, windows, recipe, 3).probabilities)

    network = Linear()
    score_windows(network, windows, recipe, 3)
    x, _ = windows.cut(torch.arange(len(windows)))
    assert torch.equal(torch.cat(network.inputs), normalise(x, recipe))


def test_scoring_changes_no_weight_and_no_statistic(dataset: Dataset) -> None:
    model = create_model("cnn", num_classes=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    score_windows(model, all_windows(dataset, CPU), Recipe(), 3)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_gradients_are_clipped_to_the_norm_of_the_recipe(dataset: Dataset) -> None:
    windows = all_windows(dataset, CPU)

    def gradient_norm(max_grad_norm: float) -> float:
        network = Linear()
        nn.init.normal_(network.layer.weight, std=0.2)
        epoch_of(network, windows, Recipe(max_grad_norm=max_grad_norm, batch_size=100))
        gradients = [parameter.grad for parameter in network.parameters()]
        return float(torch.cat([g.flatten() for g in gradients if g is not None]).norm())

    torch.manual_seed(0)
    assert gradient_norm(0) > 0.1
    assert gradient_norm(0.1) == pytest.approx(0.1, rel=1e-3)


def test_a_loss_that_is_no_number_stops_the_fit_in_one_sentence(dataset: Dataset, tmp_path: Path) -> None:
    loud = replace(dataset, waveforms=dataset.waveforms * np.float32(1e30))
    config = make_fit(loud, recipe="as-written")
    with pytest.raises(InputError, match=r"training loss became nan in epoch 1; lower the learning rate \(0.001\)"):
        fit(config, loud, runs_dir=tmp_path, device="cpu")
    assert not (tmp_path / "tiny" / config.fit_id).exists()


def test_a_data_set_without_a_sound_to_train_on_is_refused_in_one_sentence(dataset: Dataset, tmp_path: Path) -> None:
    waveforms = dataset.waveforms.copy()
    waveforms[dataset.folds == 3] = 0
    with pytest.raises(InputError, match=r"every training window of data set 'tiny' is silent; .* drop_silent"):
        train(replace(dataset, waveforms=waveforms), tmp_path)


# --- learning rate -------------------------------------------------------------------------------------------------

one_cycles = st.builds(
    lambda rate, warmup: Recipe(schedule="one-cycle", learning_rate=rate, warmup_fraction=warmup),
    st.floats(1e-6, 1),
    st.floats(0, 0.9),
)


@given(recipe=one_cycles, total=st.integers(1, 2_000))
def test_one_cycle_rises_to_the_peak_and_falls_to_nearly_nothing(recipe: Recipe, total: int) -> None:
    rates = np.array([learning_rate(recipe, step, total) for step in range(total)])
    peak = recipe.learning_rate
    assert (rates > 0).all()
    assert (rates <= peak * (1 + 1e-9)).all()
    turn = math.ceil(recipe.warmup_fraction * total)
    assert (np.diff(rates[:turn]) > 0).all(), "warm-up"
    assert (np.diff(rates[turn:]) < 0).all(), "decay"
    falling = total - recipe.warmup_fraction * total
    assume(falling >= 1)
    assert rates[-1] <= peak * min(1, (math.pi / falling) ** 2), "one step before zero"
    if turn < total:
        assert rates[turn] >= peak * (1 - (math.pi / falling) ** 2), "at most one step past the peak"


@given(rate=st.floats(1e-6, 1), step=st.integers(0, 100), warmup_fraction=st.floats(0, 0.9))
def test_a_constant_rate_is_constant(rate: float, step: int, warmup_fraction: float) -> None:
    assert learning_rate(Recipe(learning_rate=rate, warmup_fraction=warmup_fraction), step, 101) == rate


def test_the_rate_of_every_step_reaches_the_optimizer(dataset: Dataset) -> None:
    windows = all_windows(dataset, CPU)  # 18 windows: 5 steps an epoch
    recipe = Recipe(schedule="one-cycle", warmup_fraction=0.5, batch_size=4, optimizer="adamw")
    network = Linear()
    optimizer = make_optimizer(network, recipe)
    for epoch in range(2):
        train_epoch(network, network, optimizer, windows, recipe, 3, epoch, 2)
        assert optimizer.param_groups[0]["lr"] == learning_rate(recipe, 5 * epoch + 4, 10)


def test_the_recipe_chooses_the_optimizer_and_its_decay() -> None:
    for name, kind in {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}.items():
        optimizer = make_optimizer(nn.Linear(2, 2), Recipe(optimizer=name, weight_decay=0.3, learning_rate=0.01))
        assert type(optimizer) is kind
        assert optimizer.param_groups[0]["weight_decay"] == 0.3
        assert optimizer.param_groups[0]["lr"] == 0.01
        assert len(optimizer.param_groups[0]["params"]) == 2


# --- the last layer over time, the encoder's rate, the running mean of the weights ---------------------------------


@given(share=st.floats(0, 1), seed=st.integers(0, 100))
def test_pulling_moves_every_weight_towards_its_mean_over_time_and_keeps_that_mean(share: float, seed: int) -> None:
    torch.manual_seed(seed)
    model = create_model("cnn", num_classes=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.pull_over_time(share)
    after = model.state_dict()
    old, new = (weights["classifier.weight"].view(3, 32, 250) for weights in (before, after))
    mean = old.mean(2, keepdim=True)
    torch.testing.assert_close(new - mean, (1 - share) * (old - mean), rtol=1e-4, atol=1e-6)
    assert all(torch.equal(after[name], before[name]) for name in before if name != "classifier.weight")


def test_a_layer_that_is_pulled_all_the_way_does_not_hear_when_something_sounds() -> None:
    model = create_model("cnn", num_classes=3).eval()
    model.pull_over_time(1.0)
    features = torch.rand(4, 32, 250)
    late = features.roll(100, dims=2)
    torch.testing.assert_close(model.classifier(features.flatten(1)), model.classifier(late.flatten(1)))


def test_nothing_is_pulled_in_a_model_that_says_nothing_of_time(dataset: Dataset) -> None:
    windows, states = all_windows(dataset, CPU), []
    for pull in (0.0, 50.0):
        torch.manual_seed(0)
        model = create_model("transformer", num_heads=2, num_classes=3)
        epoch_of(model, windows, Recipe(time_pull=pull, batch_size=6))
        states.append(model.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_balanced_weights_give_every_class_the_same_share_of_the_loss(dataset: Dataset) -> None:
    windows = all_windows(dataset, CPU)
    few = windows.subset(torch.tensor([0, 2, 3, 4, 5]))  # two of the first class would be 0 and 1
    counts = windows.labels[few.clips].bincount(minlength=3)
    weights = class_weights(few, 3)
    torch.testing.assert_close(weights * counts, torch.full((3,), len(few) / 3))
    assert class_weights(windows, 3).tolist() == [1, 1, 1]


def test_the_encoder_trains_at_its_share_of_the_rate(dataset: Dataset) -> None:
    recipe = Recipe(learning_rate=0.01, encoder_lr_scale=0.1)
    model = create_model("transformer", num_heads=1, num_classes=3)
    optimizer = make_optimizer(model, recipe)
    train_epoch(model, model, optimizer, all_windows(dataset, CPU), recipe, 3, 0, 1)
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rate_of) == len(list(model.parameters())), "each parameter once"
    for name, parameter in model.named_parameters():
        expected = 0.001 if name.startswith("encoder") else 0.01
        assert rate_of[id(parameter)] == pytest.approx(expected), name


def test_the_running_mean_is_the_mean_that_its_definition_gives() -> None:
    model = nn.BatchNorm1d(1)
    average = make_average(model, 0.9)  # type: ignore[arg-type]
    expected = 0.0
    for step in range(40):
        with torch.no_grad():
            model.weight.fill_(step)
            model.running_mean.fill_(2 * step)  # type: ignore[union-attr]
        average.update_parameters(model)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = float(step) if step == 0 else decay * expected + (1 - decay) * step
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)
        assert average.module.running_mean.item() == pytest.approx(2 * expected, rel=1e-5)


def test_what_is_kept_is_the_running_mean_and_scored_as_such(dataset: Dataset, tmp_path: Path) -> None:
    """The weights of the run folder give the predictions of the run folder; the last step's weights are others."""
    changes = {"batch_size": 4, "ema_decay": 0.9}
    run = train(dataset, tmp_path / "mean", model="cnn", recipe="tuned", recipe_changes=changes)
    last = train(dataset, tmp_path / "last", model="cnn", recipe="tuned", recipe_changes={"batch_size": 4})
    assert columns(run, "train").equals(columns(last, "train")), "training itself is the same"
    assert not columns(run, "validation").equals(columns(last, "validation"))
    model = create_model("cnn", num_classes=3, dropout=0.2, activation="relu").eval()
    model.load_state_dict(run.weights())
    test = run.predictions[run.predictions["split"] == "test"]
    x = normalise(cut_windows(dataset.waveforms[dataset.folds == 1]).flatten(0, 1), run.config.recipe_settings)
    with torch.no_grad():
        expected = model(x).softmax(1)
    np.testing.assert_allclose(test.filter(regex=r"^p_").to_numpy(), expected.numpy(), rtol=1e-3, atol=1e-5)


# --- statistics without dropout ------------------------------------------------------------------------------------


def statistics_by_hand(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Mean and unbiased variance in front of each batch norm, in float64 and without dropout, for one batch."""
    base = create_model("cnn", num_classes=3, dropout=0.0, activation="relu").double().base
    base.load_state_dict({name: tensor.double() for name, tensor in model.base.state_dict().items()})  # type: ignore[union-attr]
    base.eval()
    found = {}
    y = x.double()
    for k in (1, 2, 3):
        y = getattr(base, f"conv{k}")(y)
        mean, variance = y.mean(dim=(0, 2)), y.var(dim=(0, 2), unbiased=True)
        found[f"batch_norm{k}.running_mean"], found[f"batch_norm{k}.running_var"] = mean, variance
        norm = getattr(base, f"batch_norm{k}")
        biased = y.var(dim=(0, 2), unbiased=False)
        y = (y - mean[:, None]) / (biased + norm.eps).sqrt()[:, None] * norm.weight[:, None] + norm.bias[:, None]
        y = getattr(base, f"pool{k}")(y.relu())
    return found


def test_reestimated_statistics_are_those_of_training_windows_without_dropout(dataset: Dataset) -> None:
    windows = all_windows(dataset, CPU).of_clips(dataset.folds == 3)
    model = create_model("cnn", num_classes=3, dropout=0.5, activation="relu")
    recipe = Recipe(reestimate_windows=100, peak_normalise=True)
    epoch_of(model, windows, recipe)
    parameters = {name: tensor.clone() for name, tensor in model.named_parameters()}
    x = normalise(windows.cut(torch.arange(len(windows)))[0], recipe)
    expected = statistics_by_hand(model, x)

    before = torch.get_rng_state()
    reestimate_statistics(model, model, windows, recipe, seed=0)
    assert torch.equal(before, torch.get_rng_state())
    for name, tensor in expected.items():
        torch.testing.assert_close(model.base.get_buffer(name).double(), tensor, rtol=1e-4, atol=1e-6)
    for name, tensor in model.named_parameters():
        assert torch.equal(tensor, parameters[name])
    assert not any(module.training for module in model.modules())
    assert [model.base.get_submodule(f"batch_norm{k}").momentum for k in (1, 2, 3)] == [0.1] * 3


def test_every_batch_weighs_the_same_in_the_statistics_since_all_are_of_one_size(dataset: Dataset) -> None:
    """65 windows in batches of 64 and 1 would give the last window the weight of the 64 others."""
    few = all_windows(dataset, CPU)
    windows = few.subset(torch.arange(65) % len(few))
    network = Linear()
    reestimate_statistics(network, network, windows, Recipe(reestimate_windows=512), seed=0)
    sizes = [len(x) for x in network.inputs]
    assert sum(sizes) == 65
    assert max(sizes) - min(sizes) <= 1


def test_no_more_windows_are_looked_at_than_the_recipe_asks_for(dataset: Dataset) -> None:
    windows = all_windows(dataset, CPU)
    network = Linear()
    reestimate_statistics(network, network, windows, Recipe(reestimate_windows=5), seed=0)
    assert [len(x) for x in network.inputs] == [5]


# --- what is refused, devices --------------------------------------------------------------------------------------


def test_a_fit_made_for_another_data_set_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    config = make_fit(dataset)
    with pytest.raises(InputError, match=f"{config.fit_id} .* fingerprint 0{{16}}, not f{{16}}; make the fits anew"):
        fit(config, replace(dataset, fingerprint="f" * 16), runs_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"device 'tpu' is not present; choose auto or one of .*cpu"):
        choose_device("tpu")
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_an_accelerator_is_taken_where_there_is_one(name: str) -> None:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if present[name]:
        assert choose_device(name).type == name
        assert choose_device("auto").type in present
    else:
        with pytest.raises(InputError, match=f"'{name}' is not present"):
            choose_device(name)


@pytest.mark.gpu
def test_on_a_gpu_the_largest_fit_stays_under_four_gibibytes(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    n = 400
    generator = np.random.default_rng(0)
    names = tuple(map(str, range(n)))
    dataset = Dataset(
        name="large",
        waveforms=generator.normal(0, 0.1, (n, 80_000)).astype(np.float32),
        labels=np.arange(n) % 10,
        folds=np.arange(n) // 10 % 5 + 1,
        clip_ids=names,
        class_names=tuple("abcdefghij"),
        sources=names,
        fingerprint="0" * 16,
    )
    (config,) = Experiment(model="transformer", num_heads=4, protocol="split", epochs=2).fits(dataset)
    torch.cuda.reset_peak_memory_stats()
    run = fit(config, dataset, runs_dir=tmp_path, device="cuda")
    assert torch.cuda.max_memory_allocated() < 4 * 2**30
    assert np.isfinite(run.history).all(axis=None)
    assert len(run.predictions) == 3_600

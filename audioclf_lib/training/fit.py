"""``fit()``: one fit, from fresh weights to a run folder, with a checkpoint after every epoch.

An epoch is: one pass over the training windows, batch-norm statistics re-estimated if the recipe asks for it, then
validation and test scored. All randomness of an epoch follows from the seed and the epoch's number, so a fit that is
interrupted and goes on from its checkpoint ends with the same numbers as one that is not.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, PROJECT_ROOT
from audioclf_lib.config import FitConfig, Recipe
from audioclf_lib.data import Dataset
from audioclf_lib.data.windowing import clip_probabilities
from audioclf_lib.metrics.scores import evaluate_all
from audioclf_lib.models import CNN, ConvTransformer, create_model
from audioclf_lib.runs.store import Run, RunStore
from audioclf_lib.training.accelerate import accelerate
from audioclf_lib.training.batches import Windows, all_windows, normalise, silence_example, training_batch

EVALUATION_BATCH = 64
# How the network was computed: by the kernels of ``acceleration``, or by the modules of ``models`` themselves.
COMPILED, REFERENCE = "compiled kernels", "reference modules"
CHOICE_RULE = "highest window accuracy on the validation fold; among equals, lowest validation loss"


class DivergedError(InputError):
    """The loss of a fit is no longer a finite number."""


# Called after every epoch, when its checkpoint is written, with the fit's configuration and its history so far (a dict
# per epoch). An exception that it raises ends the fit, which goes on from there when it is asked for again.
Progress = Callable[[FitConfig, list[dict[str, float]]], None]
# Called in every step between the backward pass and the clipping of gradients, with the step's loss.
Observer = Callable[[Tensor], None]


def choose_device(name: str = "auto") -> torch.device:
    """The device to train on: ``"auto"`` takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        InputError: the device is not present.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, there in present.items() if there))
    if not present.get(name, False):
        available = ", ".join(device for device, there in present.items() if there)
        raise InputError(f"device {name!r} is not present; choose auto or one of {available}")
    return torch.device(name)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam or AdamW; the Transformer's encoder has a group of its own, with ``rate_factor`` below 1 where asked for."""
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    encoder = list(model.encoder.parameters()) if isinstance(model, ConvTransformer) else []
    is_encoder = {id(parameter) for parameter in encoder}
    others = [parameter for parameter in model.parameters() if id(parameter) not in is_encoder]
    groups = [{"params": others, "rate_factor": 1.0}]
    if encoder:
        groups.append({"params": encoder, "rate_factor": recipe.encoder_lr_scale})
    # fused: one pass over parameters and moments, the same numbers
    return kind(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


def learning_rate(recipe: Recipe, step: int, total_steps: int) -> float:
    """Rate of a step: constant, or a straight warm-up to the peak and a cosine down to zero (one cycle).

    The cycle is that of Smith and Topin 2019 (arXiv:1708.07120) with the cosine of Loshchilov and Hutter 2017.
    """
    if recipe.schedule == "constant":
        return recipe.learning_rate
    warmup_steps = recipe.warmup_fraction * total_steps
    if step < warmup_steps:
        return recipe.learning_rate * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def pull_over_time(model: nn.Module, share: float) -> None:
    """Move the CNN's last layer a ``share`` of the way to the same weights at every time step.

    What a clip is does not depend on when in a window it sounds, and the layer has 250 weights for every channel and
    class to learn that from. A decoupled decay towards the mean over time, as AdamW's is one towards zero. In the
    Transformer time steps are features of a token, and nothing is pulled.
    """
    if isinstance(model, CNN):
        weight = model.classifier.weight.view(-1, *CNN.FEATURES)  # (classes, 32, 250)
        weight.lerp_(weight.mean(2, keepdim=True), min(1.0, share))


def make_average(model: CNN | ConvTransformer, decay: float) -> AveragedModel:
    """An exponential running mean of the model's weights and statistics (Polyak and Juditsky 1992).

    Its memory grows to 1 / (1 - ``decay``) steps, so that the first steps do not hold the random start.
    """

    def update(mean: Sequence[Tensor], current: Sequence[Tensor], n_averaged: Tensor | int) -> None:
        n = int(n_averaged)
        for old, new in zip(mean, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - min(decay, (1 + n) / (10 + n)))
            else:
                old.copy_(new)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


@dataclass
class Epoch:
    """Running sums of loss, hits and probabilities over windows, and what follows from them."""

    windows: Windows
    n_classes: int
    loss: float = 0.0
    probabilities: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.probabilities = torch.zeros(len(self.windows), self.n_classes)

    def add(self, chosen: Tensor, logits: Tensor, loss_sum: Tensor) -> None:
        self.probabilities[chosen] = logits.detach().softmax(1).float().cpu()
        self.loss += float(loss_sum.detach())

    def scores(self, prefix: str) -> dict[str, float]:
        """Mean loss, window accuracy and clip accuracy, under names that begin with ``prefix``."""
        labels = self.windows.labels.cpu()
        hits = self.probabilities.argmax(1) == labels[self.windows.clips]
        return {
            f"{prefix}_loss": self.loss / len(self.windows),
            f"{prefix}_accuracy": hits.float().mean().item(),
            f"{prefix}_clip_accuracy": self._clip_accuracy(labels),
        }

    def _clip_accuracy(self, labels: Tensor) -> float:
        """Windows that are not among these (silent ones in training) have no vote."""
        n_clips, n_windows = self.windows.silent.shape
        votes = torch.zeros(n_clips, n_windows, self.n_classes)
        mute = torch.ones(n_clips, n_windows, dtype=torch.bool)
        where = (self.windows.clips, self.windows.window_index)
        votes[where] = self.probabilities
        mute[where] = self.windows.is_silent
        clips = self.windows.clips.unique()
        mean = clip_probabilities(votes[clips], mute[clips])
        return (mean.argmax(1) == labels[clips]).float().mean().item()


def train_epoch(
    model: nn.Module,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    windows: Windows,
    recipe: Recipe,
    n_classes: int,
    epoch: int,
    epochs: int,
    average: AveragedModel | None = None,
    observe: Observer | None = None,
) -> Epoch:
    """One pass over the training windows in random order.

    Args:
        model: holds the parameters.
        network: what computes them: ``model`` itself, or its fast path.
        average: running mean of the weights to update after every step.
        observe: called in every step, when gradients are there and not yet clipped.

    Raises:
        DivergedError: the loss is no longer a finite number.
    """
    network.train()
    result = Epoch(windows, n_classes)
    silence = silence_example(windows, n_classes) if recipe.answer_silence else None
    order = torch.randperm(len(windows)).split(recipe.batch_size)
    for index, chosen in enumerate(order):
        rate = learning_rate(recipe, epoch * len(order) + index, epochs * len(order))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        x, target, _ = training_batch(windows, chosen, recipe, n_classes)
        if silence is not None:
            x, target = torch.cat([x, silence[0]]), torch.cat([target, silence[1]])
        logits = network(x)
        loss = F.cross_entropy(logits, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if observe is not None:
            observe(loss.detach())
        if recipe.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(network.parameters(), recipe.max_grad_norm)
        optimizer.step()
        if recipe.time_pull > 0:
            pull_over_time(model, rate * recipe.time_pull)
        if average is not None:
            average.update_parameters(model)
        result.add(chosen, logits[: len(chosen)], loss * len(chosen))
    if not math.isfinite(result.loss):
        raise DivergedError(
            f"the training loss became {result.loss} in epoch {epoch + 1}; lower the learning rate "
            f"({recipe.learning_rate:g}) or set max_grad_norm"
        )
    return result


@torch.no_grad()
def reestimate_statistics(model: nn.Module, network: nn.Module, windows: Windows, recipe: Recipe, seed: int) -> None:
    """Replace batch norm's running statistics by those of training windows seen without dropout.

    Dropout in front of a convolution shifts the variance that the next batch norm gathers in training (Li et al. 2019,
    arXiv:1801.05134). No parameter changes, and no window outside training is looked at.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    sample = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))[: recipe.reestimate_windows]
    # batches of one size, give or take a window: each weighs the same in the mean
    for chosen in sample.tensor_split(math.ceil(len(sample) / EVALUATION_BATCH)):
        network(normalise(windows.cut(chosen)[0], recipe))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


@torch.no_grad()
def score_windows(network: nn.Module, windows: Windows, recipe: Recipe, n_classes: int) -> Epoch:
    """Loss, accuracy and probabilities without dropout and augmentation."""
    network.eval()
    result = Epoch(windows, n_classes)
    for chosen in torch.arange(len(windows)).split(EVALUATION_BATCH):
        x, labels = windows.cut(chosen)
        logits = network(normalise(x, recipe))
        result.add(chosen, logits, F.cross_entropy(logits, labels, reduction="sum"))
    return result


@dataclass
class FitState:
    """What an interrupted fit needs to go on: all of it goes into the checkpoint."""

    epoch: int = 0
    path: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def fit(
    config: FitConfig,
    dataset: Dataset,
    *,
    runs_dir: Path | str = DEFAULT_RUNS_DIR,
    device: str = "auto",
    progress: Progress | None = None,
) -> Run:
    """Train one fit, or return it if it has been trained.

    One of which a file is damaged is set aside and trained again, and a line is printed that names the file.

    Args:
        config: what to train, from :meth:`audioclf_lib.config.Experiment.fits`.
        dataset: the data set that ``config`` was made for.
        runs_dir: where run folders are kept.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: called after every epoch.

    Returns:
        The finished run.

    Raises:
        InputError: another data set than the configuration's, a device that is not present, a full disk, or a loss
            that is not finite.
    """
    if dataset.fingerprint != config.fingerprint:
        raise InputError(
            f"fit {config.fit_id} was made for data set {config.dataset} with fingerprint {config.fingerprint}, "
            f"not {dataset.fingerprint}; make the fits anew from the data set that is loaded"
        )
    store = RunStore(runs_dir)
    if store.is_whole(config) and not store.has_leftovers(config):
        return store.load(config)
    place = choose_device(device)
    with store.lock(config, on_wait=lambda holder: print(f"{config.fit_id} is being trained by {holder}; waiting")):
        if damage := store.damage(config):
            print(f"{damage}; {store.set_aside(config)}, and the fit is trained again", flush=True)
        if store.exists(config):  # trained while we waited
            return store.load(config)
        return _train(config, dataset, store, place, progress)


def _train(
    config: FitConfig, dataset: Dataset, store: RunStore, device: torch.device, progress: Progress | None
) -> Run:
    recipe, n_classes = config.recipe_settings, len(config.class_names)
    model = fresh_model(config, device)
    optimizer = make_optimizer(model, recipe)
    average = make_average(model, recipe.ema_decay) if recipe.ema_decay > 0 else None
    state = _resume(store.load_checkpoint(config), model, optimizer, average)
    # A fit that began on the reference modules ends on them: the fast path drops other elements.
    network = model if state.path == REFERENCE else accelerate(model, device)
    state.path = REFERENCE if network is model else COMPILED
    # What is scored and kept: the weights, or their running mean.
    kept: CNN | ConvTransformer = model if average is None else average.module  # type: ignore[assignment]
    scorer = network if average is None else (kept if network is model else accelerate(kept, device))

    windows = windows_by_split(config, dataset, device)
    training = training_windows(config, windows["train"])
    scored = ["validation", "test"] if config.score_test else ["validation"]

    while state.epoch < config.epochs:
        start = time.perf_counter()
        # One number per epoch seeds all that is random in it, so resuming needs no generator's state.
        torch.manual_seed(epoch_seed(config.seed, state.epoch))
        row = train_epoch(
            model, network, optimizer, training, recipe, n_classes, state.epoch, config.epochs, average
        ).scores("train")
        if recipe.reestimate_windows:
            reestimate_statistics(kept, scorer, training, recipe, config.seed)
        for split in scored:
            row |= score_windows(scorer, windows[split], recipe, n_classes).scores(split)
        state.epoch += 1
        rate = optimizer.param_groups[0]["lr"]
        seconds = time.perf_counter() - start
        state.history.append({"epoch": state.epoch, "seconds": seconds, "learning_rate": rate} | row)
        _keep_best(state, kept)
        store.save_checkpoint(config, _checkpoint(state, model, optimizer, average))
        if progress is not None:
            progress(config, state.history)

    kept.load_state_dict(state.best_weights)
    predicted = {name: score_windows(scorer, windows[name], recipe, n_classes) for name in ["train", *scored]}
    predictions = pd.concat([_prediction_rows(name, result, dataset) for name, result in predicted.items()])
    return store.save(
        config,
        history=pd.DataFrame(state.history, columns=history_columns(scored)),
        predictions=predictions,
        metrics={
            "chosen": state.best | {"rule": CHOICE_RULE},
            "scores": evaluate_all(predictions, config.class_names),
        },
        weights={name: tensor.cpu() for name, tensor in state.best_weights.items()},
        environment=describe_environment(device, state.path, sum(row["seconds"] for row in state.history)),
    )


def fresh_model(config: FitConfig, device: torch.device) -> CNN | ConvTransformer:
    """The model with the weights that the fit begins with."""
    torch.manual_seed(config.seed)
    recipe = config.recipe_settings
    return create_model(
        config.model,
        num_heads=config.num_heads,
        num_classes=len(config.class_names),
        dropout=recipe.dropout,
        activation=recipe.activation,
    ).to(device)


def windows_by_split(config: FitConfig, dataset: Dataset, device: torch.device) -> dict[str, Windows]:
    """All windows of the folds of ``train``, ``validation`` and ``test``."""
    everything = all_windows(dataset, device)
    splits = {"train": config.train_folds, "validation": (config.val_fold,), "test": (config.test_fold,)}
    return {name: everything.of_clips(np.isin(dataset.folds, folds)) for name, folds in splits.items()}


def training_windows(config: FitConfig, windows: Windows) -> Windows:
    """Those windows of the training folds that the recipe trains on.

    Raises:
        InputError: the recipe leaves silent windows out, and all are silent.
    """
    training = windows.subset(~windows.is_silent) if config.recipe_settings.drop_silent else windows
    if len(training) == 0:
        raise InputError(
            f"every training window of data set {config.dataset!r} is silent; check the recordings, or set "
            "drop_silent of the recipe to false"
        )
    return training


def history_columns(scored: list[str]) -> list[str]:
    """Columns of ``history.csv``, in order."""
    kinds = ("loss", "accuracy", "clip_accuracy")
    return ["epoch", "seconds", "learning_rate", *(f"{s}_{kind}" for s in ["train", *scored] for kind in kinds)]


def epoch_seed(seed: int, epoch: int) -> int:
    """What torch's generator is seeded with before an epoch, counted from 0."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _keep_best(state: FitState, model: nn.Module) -> None:
    row = state.history[-1]
    this = {"epoch": state.epoch, "accuracy": row["validation_accuracy"], "loss": row["validation_loss"]}
    if not state.best or (this["accuracy"], -this["loss"]) > (state.best["accuracy"], -state.best["loss"]):
        state.best = this
        state.best_weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _checkpoint(
    state: FitState, model: nn.Module, optimizer: torch.optim.Optimizer, average: AveragedModel | None
) -> dict[str, Any]:
    return {
        "epoch": state.epoch,
        "path": state.path,
        "history": state.history,
        "best": state.best,
        "best_weights": state.best_weights,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": None if average is None else average.state_dict(),
    }


def _resume(
    checkpoint: dict[str, Any] | None,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: AveragedModel | None,
) -> FitState:
    if checkpoint is None:
        return FitState()
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    if average is not None:
        average.load_state_dict(checkpoint["average"])
    return FitState(
        checkpoint["epoch"], checkpoint["path"], checkpoint["history"], checkpoint["best"], checkpoint["best_weights"]
    )


def _prediction_rows(split: str, scored: Epoch, dataset: Dataset) -> pd.DataFrame:
    windows = scored.windows
    clips = windows.clips.numpy()
    rows = {
        "split": split,
        "clip_id": np.asarray(dataset.clip_ids, dtype=object)[clips],
        "fold": np.asarray(dataset.folds)[clips],
        "window_index": windows.window_index.numpy(),
        "silent": windows.is_silent.numpy(),
        "y_true": np.asarray(dataset.labels)[clips],
    }
    return pd.DataFrame(rows | {f"p_{c}": scored.probabilities[:, c].numpy() for c in range(scored.n_classes)})


def describe_environment(device: torch.device, path: str, seconds: float) -> dict[str, Any]:
    """Where and with what a fit was trained.

    Args:
        device: that it was trained on.
        path: ``COMPILED`` or ``REFERENCE``.
        seconds: wall time of all its epochs.
    """
    packages = ("torch", "torchaudio", "numpy", "pandas", "scikit-learn", "audioclf")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in packages},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "path": path,
        "threads": torch.get_num_threads(),
        "cpu_count": os.cpu_count(),
        "commit": _commit(),
        "wall_seconds": round(seconds, 3),
    }


def _commit() -> str | None:
    """The project's commit, None outside a checkout."""
    command = ["git", "-C", str(PROJECT_ROOT), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None

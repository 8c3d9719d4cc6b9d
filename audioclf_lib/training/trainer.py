"""``fit()``: one fit, from fresh weights to a run folder, with a checkpoint after every epoch.

An epoch is: one pass over the training windows, batch-norm statistics re-estimated if the recipe asks for it, then
validation and test scored. All randomness of an epoch follows from the seed and the epoch's number, so a fit that is
interrupted and goes on from its checkpoint ends with the same numbers as one that is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from audioclf_lib._support.cores import torch_threads
from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR
from audioclf_lib.config import FitConfig
from audioclf_lib.data import Dataset
from audioclf_lib.metrics.scores import SPLITS, evaluate_all
from audioclf_lib.models import ModelEntry, find_model
from audioclf_lib.runs.store import Run, RunStore
from audioclf_lib.training.accelerate import accelerate
from audioclf_lib.training.batches import Windows, all_windows
from audioclf_lib.training.environment import COMPILED, REFERENCE, choose_device, describe_process
from audioclf_lib.training.epochs import Epoch, reestimate_statistics, score_windows, train_epoch
from audioclf_lib.training.optimisation import make_average, make_optimizer

CHOICE_RULE = "highest window accuracy on the validation fold; among equals, lowest validation loss"

# Called after every epoch, when its checkpoint is written, with the fit's configuration and its history so far (a dict
# per epoch). An exception that it raises ends the fit, which goes on from there when it is asked for again. If it has
# a method ``step(config, history, share)``, that is called in every step, with the share of the epoch that is done.
Progress = Callable[[FitConfig, list[dict[str, float]]], None]


@dataclass
class FitState:
    """How far a fit is: goes into its checkpoint, with the model, the optimizer and the running mean of the weights."""

    epoch: int = 0
    path: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    processes: list[dict[str, Any]] = field(default_factory=list)

    def keep_best(self, model: nn.Module) -> None:
        """Keep the weights of the last epoch if it is the best so far, by ``CHOICE_RULE``."""
        row = self.history[-1]
        this = {"epoch": self.epoch, "accuracy": row["validation_accuracy"], "loss": row["validation_loss"]}
        if not self.best or (this["accuracy"], -this["loss"]) > (self.best["accuracy"], -self.best["loss"]):
            self.best = this
            self.best_weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def fit(
    config: FitConfig,
    dataset: Dataset,
    *,
    runs_dir: Path | str = DEFAULT_RUNS_DIR,
    device: str = "auto",
    progress: Progress | None = None,
) -> Run:
    """Train one fit, or return it if it has been trained.

    A finished fit of which a file is damaged is set aside and trained again, and a line is printed that names the file.

    Args:
        config: what to train, from :meth:`audioclf_lib.config.Experiment.fits`.
        dataset: the data set that ``config`` was made for.
        runs_dir: where run folders are kept.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: called after every epoch.

    Returns:
        The finished run.

    Raises:
        InputError: another data set or model than the configuration's, a device that is not present, too little
            memory on it, a full disk, or a loss that is not finite.
    """
    if dataset.fingerprint != config.fingerprint:
        raise InputError(
            f"fit {config.fit_id} was made for data set {config.dataset} with fingerprint {config.fingerprint}, "
            f"not {dataset.fingerprint}; make the fits anew from the data set that is loaded"
        )
    store = RunStore(runs_dir)
    if store.is_whole(config) and not store.has_leftovers(config):
        return store.load(config)
    model_of(config)  # refused before anything is written
    chosen = choose_device(device)
    with store.lock(config, on_wait=lambda holder: print(f"{config.fit_id} is being trained by {holder}; waiting")):
        if damage := store.damage(config):
            kept = store.set_aside(config)
            print(f"{damage}; {kept}, and the fit is trained again", flush=True)
        if store.exists(config):  # trained while this process waited
            return store.load(config)
        try:
            with torch_threads(config.threads):
                return _train(config, dataset, store, chosen, progress)
        except torch.OutOfMemoryError:
            raise InputError(
                f"the memory of {chosen} is too small for fit {config.fit_id}; lower batch_size in recipe_changes, run "
                "fewer notebooks at once (--jobs 1), or train with device cpu"
            ) from None


def model_of(config: FitConfig) -> ModelEntry:
    """The architecture of a fit as it is registered now.

    Raises:
        InputError: it is not registered, or its source is not the one that the configuration was made for.
    """
    entry = find_model(config.model)
    if entry.digest != config.model_digest:
        raise InputError(
            f"the source of model {config.model} in {entry.source} is not the one that fit {config.fit_id} was made "
            "for; make the experiment and its fits anew"
        )
    return entry


def _train(
    config: FitConfig, dataset: Dataset, store: RunStore, device: torch.device, progress: Progress | None
) -> Run:
    entry = model_of(config)
    recipe, n_classes = config.recipe_settings, len(config.class_names)
    model = fresh_model(config, device)
    optimizer = make_optimizer(model, recipe)
    average = make_average(model, recipe.ema_decay) if recipe.ema_decay > 0 else None
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer} | ({} if average is None else {"average": average})
    state = FitState()
    if checkpoint := store.load_checkpoint(config):
        state = FitState(**checkpoint["state"])
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])
    # A fit that began on the reference modules ends on them: the fast path drops other elements.
    network = model if state.path == REFERENCE else accelerate(model, device)
    path = REFERENCE if network is model else COMPILED
    if state.path == COMPILED != path:
        print(f"{config.fit_id} goes on without the fast path, on which it began: dropout draws other elements now")
    state.path = path
    state.processes.append(describe_process(device, path, first_epoch=state.epoch + 1))
    # What is scored and kept: the weights, or their running mean.
    kept: nn.Module = model if average is None else average.module
    scorer = network if average is None else (kept if network is model else accelerate(kept, device))

    windows = windows_by_split(config, dataset, device)
    training = training_windows(config, windows["train"])
    scored = ["validation", "test"] if config.score_test else ["validation"]
    on_step = getattr(progress, "step", None)

    while state.epoch < config.epochs:
        start = time.perf_counter()
        # One number per epoch seeds all that is random in it, so resuming needs no generator's state.
        torch.manual_seed(epoch_seed(config.seed, state.epoch))
        tell = (lambda share: on_step(config, state.history, share)) if on_step else None
        what = model, network, optimizer, training, recipe, n_classes, state.epoch, config.epochs
        row = train_epoch(*what, average=average, on_step=tell).scores("train")
        if recipe.reestimate_windows:
            reestimate_statistics(kept, scorer, training, recipe, config.seed)
        for split in scored:
            result = score_windows(scorer, windows[split], recipe, n_classes)
            result.refuse_divergence(split, state.epoch, recipe)
            row |= result.scores(split)
        state.epoch += 1
        rate = optimizer.param_groups[0]["lr"]
        seconds = time.perf_counter() - start
        state.history.append({"epoch": state.epoch, "seconds": seconds, "learning_rate": rate} | row)
        state.keep_best(kept)
        state.processes[-1]["last_epoch"] = state.epoch
        store.save_checkpoint(
            config, {"state": vars(state)} | {name: part.state_dict() for name, part in parts.items()}
        )
        if progress is not None:
            progress(config, state.history)

    seconds = sum(row["seconds"] for row in state.history)
    kept.load_state_dict(state.best_weights)
    predicted = {name: score_windows(scorer, windows[name], recipe, n_classes) for name in ["train", *scored]}
    predictions = pd.concat([prediction_rows(name, result, dataset) for name, result in predicted.items()])
    return store.save(
        config,
        history=pd.DataFrame(state.history),
        predictions=predictions,
        metrics={
            "chosen": state.best | {"rule": CHOICE_RULE},
            "losses": {name: result.loss / len(result.windows) for name, result in predicted.items()},
            "scores": evaluate_all(predictions, config.class_names),
        },
        weights={name: tensor.cpu() for name, tensor in state.best_weights.items()},
        environment=state.processes[-1] | {"wall_seconds": round(seconds, 3), "processes": state.processes},
        model_source=entry.text if entry.is_own else None,
    )


def fresh_model(config: FitConfig, device: torch.device) -> nn.Module:
    """The model with the weights that the fit begins with."""
    torch.manual_seed(config.seed)
    settings = {"num_classes": len(config.class_names)} | config.model_settings
    return model_of(config).create_for(config.recipe_settings, **settings).to(device)


def windows_by_split(config: FitConfig, dataset: Dataset, device: torch.device) -> dict[str, Windows]:
    """All windows of the folds of ``train``, ``validation`` and ``test``."""
    everything = all_windows(dataset, device)
    folds = {"train": config.train_folds, "validation": (config.val_fold,), "test": (config.test_fold,)}
    return {name: everything.of_clips(np.isin(dataset.folds, folds[name])) for name in SPLITS}


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


def epoch_seed(seed: int, epoch: int) -> int:
    """What torch's generator is seeded with before an epoch, counted from 0."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def prediction_rows(split: str, scored: Epoch, dataset: Dataset) -> pd.DataFrame:
    """One row per window: split, clip_id, source, fold, window_index, silent, y_true, p_0 ... p_(classes-1)."""
    windows = scored.windows
    clips = windows.clips.numpy()
    rows = {
        "split": split,
        "clip_id": np.asarray(dataset.clip_ids, dtype=object)[clips],
        "source": np.asarray(dataset.sources, dtype=object)[clips],
        "fold": np.asarray(dataset.folds)[clips],
        "window_index": windows.window_index.numpy(),
        "silent": windows.is_silent.numpy(),
        "y_true": np.asarray(dataset.labels)[clips],
    }
    return pd.DataFrame(rows | {f"p_{c}": scored.probabilities[:, c].numpy() for c in range(scored.n_classes)})

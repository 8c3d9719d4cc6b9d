"""One pass over windows: training with augmentation, re-estimating batch norm, and scoring without either."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Recipe
from audioclf_lib.data.windowing import clip_probabilities, normalise
from audioclf_lib.training.batches import Windows, training_batch
from audioclf_lib.training.optimisation import learning_rate

EVALUATION_BATCH = 64

# Called after every step with the share of the epoch that is done.
StepProgress = Callable[[float], None]


class DivergedError(InputError):
    """The loss of a fit is no longer a finite number."""


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

    def refuse_divergence(self, split: str, epoch: int, recipe: Recipe) -> None:
        """Raise DivergedError if the loss is not finite in the epoch with this number, counted from 0."""
        if not math.isfinite(self.loss):
            raise DivergedError(
                f"the {split} loss became {self.loss} in epoch {epoch + 1}; lower the learning rate "
                f"({recipe.learning_rate:g}) or set max_grad_norm"
            )

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
        votes = torch.zeros(*self.windows.silent.shape, self.n_classes)
        mute = torch.ones_like(self.windows.silent)
        where = (self.windows.clips, self.windows.window_index)
        votes[where] = self.probabilities
        mute[where] = self.windows.is_silent
        clips = self.windows.clips.unique()
        mean = clip_probabilities(votes[clips], mute[clips])
        return (mean.argmax(1) == labels[clips]).float().mean().item()


def class_weights(windows: Windows, n_classes: int) -> Tensor:
    """Weights (n_classes,) under which every class counts as much in the loss: n / (classes x n of the class)."""
    counts = windows.labels.cpu()[windows.clips].bincount(minlength=n_classes).clamp(min=1)
    return (len(windows) / (n_classes * counts)).to(windows.waveforms)


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
    on_step: StepProgress | None = None,
) -> Epoch:
    """One pass over the training windows in random order.

    Args:
        model: holds the parameters. One with a method ``pull_over_time(share)`` is pulled after every step where the
            recipe asks for it.
        network: what computes them: ``model`` itself, or its fast path.
        average: running mean of the weights to update after every step.
        on_step: called after every step with the share of the epoch that is done.

    Raises:
        DivergedError: the loss is no longer a finite number.
    """
    network.train()
    result = Epoch(windows, n_classes)
    weights = class_weights(windows, n_classes) if recipe.class_weights == "balanced" else None
    pull = getattr(model, "pull_over_time", None) if recipe.time_pull > 0 else None
    order = torch.randperm(len(windows)).split(recipe.batch_size)
    for index, chosen in enumerate(order):
        rate = learning_rate(recipe, epoch * len(order) + index, epochs * len(order))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        x, target = training_batch(windows, chosen, recipe, n_classes)
        logits = network(x)
        loss = F.cross_entropy(logits, target, weight=weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if recipe.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(network.parameters(), recipe.max_grad_norm)
        optimizer.step()
        if pull is not None:
            pull(rate * recipe.time_pull)
        if average is not None:
            average.update_parameters(model)
        result.add(chosen, logits, loss * len(chosen))
        if on_step is not None:
            on_step((index + 1) / len(order))
    result.refuse_divergence("training", epoch, recipe)
    return result


@torch.no_grad()
def reestimate_statistics(model: nn.Module, network: nn.Module, windows: Windows, recipe: Recipe, seed: int) -> None:
    """Replace batch norm's running statistics by those of training windows seen without dropout.

    Dropout in front of a convolution shifts the variance that the next batch norm gathers in training (Li et al. 2019,
    arXiv:1801.05134). No parameter changes, and no window outside training is looked at.
    """
    norms = [each for each in model.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]
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

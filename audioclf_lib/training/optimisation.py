"""How weights are changed: optimizer, learning-rate schedule, running mean of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from audioclf_lib.config import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam or AdamW over the model's own parameter groups, or over all its parameters where it names none.

    A model that wants groups has a method ``parameter_groups(encoder_lr_scale)`` that returns dicts with ``params`` and
    ``lr_scale``, the group's share of the learning rate.
    """
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    groups = [{"params": list(model.parameters()), "lr_scale": 1.0}]
    if hasattr(model, "parameter_groups"):
        groups = model.parameter_groups(encoder_lr_scale=recipe.encoder_lr_scale)  # type: ignore[operator]
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


def make_average(model: nn.Module, decay: float) -> AveragedModel:
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

"""Architecture 1: a 1-D convolutional network on the waveform of one window, and its convolutional base.

Shapes are written behind the lines; B is the number of windows in a batch.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from audioclf_lib._support.errors import InputError

Activation = Literal["none", "relu"]


def make_activation(name: Activation) -> nn.Module:
    """The recipe's activation behind each batch norm: nothing (as in the original report) or ReLU, in place."""
    if name not in get_args(Activation):
        raise InputError(f"unknown activation {name!r}; choose one of {', '.join(get_args(Activation))}")
    return nn.ReLU(inplace=True) if name == "relu" else nn.Identity()


class ConvBase(nn.Module):
    """Three blocks of convolution, batch norm, (activation,) dropout and pooling: (B, 1, 16000) -> (B, 32, 250).

    Args:
        dropout: probability that an element is zeroed in training.
        activation: ``"none"`` or ``"relu"``, behind each batch norm.
    """

    def __init__(self, dropout: float = 0.5, activation: Activation = "none") -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, 128, kernel_size=7, stride=2, padding=3)
        self.batch_norm1 = nn.BatchNorm1d(128)
        self.activation1 = make_activation(activation)
        self.dropout1 = nn.Dropout(dropout)
        self.pool1 = nn.MaxPool1d(kernel_size=2, stride=2)

        self.conv2 = nn.Conv1d(128, 64, kernel_size=5, stride=2, padding=2)
        self.batch_norm2 = nn.BatchNorm1d(64)
        self.activation2 = make_activation(activation)
        self.dropout2 = nn.Dropout(dropout)
        self.pool2 = nn.MaxPool1d(kernel_size=2, stride=2)

        self.conv3 = nn.Conv1d(64, 32, kernel_size=3, stride=2, padding=1)
        self.batch_norm3 = nn.BatchNorm1d(32)
        self.activation3 = make_activation(activation)
        self.dropout3 = nn.Dropout(dropout)
        self.pool3 = nn.AvgPool1d(kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 16000)
        x = self.conv1(x)  # (B, 128, 8000)
        x = self.pool1(self.dropout1(self.activation1(self.batch_norm1(x))))  # (B, 128, 4000)
        x = self.conv2(x)  # (B, 64, 2000)
        x = self.pool2(self.dropout2(self.activation2(self.batch_norm2(x))))  # (B, 64, 1000)
        x = self.conv3(x)  # (B, 32, 500)
        features: Tensor = self.pool3(self.dropout3(self.activation3(self.batch_norm3(x))))  # (B, 32, 250)
        return features


class CNN(nn.Module):
    """Architecture 1: the convolutional base and one linear layer; 128,682 parameters for ten classes.

    Args:
        num_classes: outputs of the last layer.
        dropout, activation: see :class:`ConvBase`.
    """

    FEATURES = (32, 250)  # channels and time steps that the last layer reads

    def __init__(self, num_classes: int = 10, dropout: float = 0.5, activation: Activation = "none") -> None:
        super().__init__()
        self.base = ConvBase(dropout, activation)
        self.classifier = nn.Linear(math.prod(self.FEATURES), num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 16000)
        x = self.base(x)  # (B, 32, 250)
        logits: Tensor = self.classifier(x.flatten(1))  # (B, classes)
        return logits

    @torch.no_grad()
    def pull_over_time(self, share: float) -> None:
        """Move the last layer a ``share`` of the way to the same weights at every time step.

        What a clip is does not depend on when in a window it sounds, and the layer has 250 weights for every channel
        and class to learn that from. A decoupled decay towards the mean over time, as AdamW's is one towards zero.
        """
        weight = self.classifier.weight.view(-1, *self.FEATURES)  # (classes, 32, 250)
        weight.lerp_(weight.mean(2, keepdim=True), min(1.0, share))

"""An architecture of a user's own, as a file."""

from __future__ import annotations

from pathlib import Path

SOURCE = '''
"""A small network."""

import torch
from torch import nn

from audioclf_lib.models import register_model

STRIDE = 8


def head(width: int, num_classes: int) -> nn.Module:
    """The last layer."""
    return nn.Linear(width, num_classes)


@register_model("my-net", title="My net", tuned={"learning_rate": 0.002, "batch_size": 4})
class MyNet(nn.Module):
    """One convolution, *batch norm* and a mean over time."""

    def __init__(self, num_classes: int, width: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, width, 64, stride=STRIDE)  # (B, width, 1993)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = head(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dropout(torch.relu(self.norm(self.conv(x))))
        return self.classifier(x.mean(2))
'''


def write_model(folder: Path, source: str = SOURCE, name: str = "my_net.py") -> Path:
    """Write the file of an own architecture; returns its path."""
    path = folder / name
    path.write_text(source, encoding="utf-8")
    return path

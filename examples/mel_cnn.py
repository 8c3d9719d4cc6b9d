"""A third architecture in one file: `model = "mel-cnn"`, or the path of this file, in a plan or a notebook.

Copy the file to begin an architecture of your own. All that the library asks of it is the decorator, and a class that
takes `num_classes` and turns windows (B, 1, 16000) into logits (B, num_classes).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from audioclf_lib.models import register_model


def block(channels_in: int, channels: int) -> nn.Sequential:
    """3 × 3 convolution, batch norm, ReLU, and a pooling that halves both axes."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, kernel_size=3, padding=1, bias=False),  # batch norm brings a bias
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


@register_model(
    "mel-cnn",
    title="Mel CNN",
    tuned={"dropout": 0.3, "mixup_alpha": 1.0, "tilt_db": 6.0, "batch_size": 32},
)
class MelCNN(nn.Module):
    """A small **2-D convolutional network on the log-mel spectrogram**.

    The spectrogram (64 bands on the mel scale, a frame every 20 ms) is computed inside `forward`, so that augmentation
    works on the waveform as it does for the other architectures. Four blocks of convolution, batch norm, ReLU and max
    pooling see ever larger parts of it. Their output is averaged over time and its largest value over frequency taken:
    what sounds matters, when it sounds does not.
    """

    def __init__(self, num_classes: int = 10, width: int = 24, dropout: float = 0.3) -> None:
        super().__init__()
        self.mel = MelSpectrogram(sample_rate=16000, n_fft=1024, hop_length=320, n_mels=64)
        self.block1 = block(1, width)
        self.block2 = block(width, 2 * width)
        self.block3 = block(2 * width, 4 * width)
        self.block4 = block(4 * width, 4 * width)
        self.mean_over_time = nn.AdaptiveAvgPool2d((None, 1))
        self.max_over_frequency = nn.AdaptiveMaxPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 16000)
        x = torch.log(self.mel(x) + 1e-4)  # (B, 1, 64, 51): frequency, time
        x = self.block1(x)  # (B, 24, 32, 25)
        x = self.block2(x)  # (B, 48, 16, 12)
        x = self.block3(x)  # (B, 96, 8, 6)
        x = self.block4(x)  # (B, 96, 4, 3)
        x = self.mean_over_time(x)  # (B, 96, 4, 1)
        x = self.max_over_frequency(x)  # (B, 96, 1, 1)
        logits: Tensor = self.classifier(self.dropout(x).flatten(1))  # (B, classes)
        return logits

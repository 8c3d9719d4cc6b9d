"""The network of a finished fit, as ``Run.model`` gives it."""

from __future__ import annotations

from torch import Tensor, nn

from audioclf_lib.config import Recipe
from audioclf_lib.data.windowing import normalise


class TrainedModel(nn.Module):
    """A trained network with the input normalisation of its recipe in front.

    Attributes:
        network: the architecture itself, for windows that are normalised already.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe

    def normalise(self, x: Tensor) -> Tensor:
        """What the network is given for windows (B, 1, 16000) as they are cut from clips."""
        return normalise(x, self.recipe)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 16000)
        logits: Tensor = self.network(self.normalise(x))  # (B, classes)
        return logits

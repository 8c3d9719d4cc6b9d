"""Who is compared: four ways to train and score the same modules, each as functions that return windows per second.

All share data, loss, optimizer (Adam) and batch size, use dropout 0.5 as written and no augmentation, and count batch
assembly, forward, loss, backward and optimizer step. ``ours`` is what ``fit()`` runs.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from audioclf_lib.config import Recipe, make_recipe
from audioclf_lib.data import Dataset
from audioclf_lib.models import create_model
from audioclf_lib.training.accelerate import accelerate
from audioclf_lib.training.batches import Windows, all_windows
from audioclf_lib.training.epochs import score_windows, train_epoch
from audioclf_lib.training.optimisation import make_optimizer

CPU = torch.device("cpu")
CLIP_SAMPLES = 80_000


@dataclass
class Contender:
    """One way to train: ``train()`` and ``score()`` run over the windows once and return windows per second."""

    name: str
    train: Callable[[], float]
    score: Callable[[], float]


def make_dataset(n_clips: int, n_classes: int = 10, n_folds: int = 5) -> Dataset:
    """Noise in the shape of ESC-10: clips of 5 s at 16 kHz, classes and folds of equal size."""
    waveforms = np.random.default_rng(0).standard_normal((n_clips, CLIP_SAMPLES), dtype=np.float32) * 0.1
    names = tuple(f"clip-{index}" for index in range(n_clips))
    return Dataset(
        name="noise",
        waveforms=waveforms,
        labels=np.arange(n_clips) % n_classes,
        folds=np.arange(n_clips) // n_classes % n_folds + 1,
        clip_ids=names,
        class_names=tuple(f"class {index}" for index in range(n_classes)),
        sources=names,
        fingerprint=f"noise{n_clips}",
    )


def some_windows(n: int) -> Windows:
    windows = all_windows(make_dataset(150), CPU)
    return windows.subset(torch.arange(len(windows)) < n)


NAMES = ("ours", "eager", "torch.compile", "Lightning")


def make_contenders(
    model: str, settings: dict[str, int], n_train: int, n_score: int, names: Sequence[str] = NAMES
) -> list[Contender]:
    """The named contenders on ``n_train`` training and ``n_score`` scored windows."""
    recipe = make_recipe("as-written", model)
    train, score = some_windows(n_train), some_windows(n_score)
    makers = {"ours": ours, "eager": plain, "torch.compile": plain, "Lightning": lightning}
    return [makers[name](name, model, settings, recipe, train, score) for name in names]


def ours(
    name: str, model_name: str, settings: dict[str, int], recipe: Recipe, train: Windows, score: Windows
) -> Contender:
    """The fast path inside the training loop of ``fit()``."""
    torch.manual_seed(0)
    model = create_model(model_name, **settings, dropout=recipe.dropout, activation=recipe.activation)
    network, optimizer = accelerate(model, CPU), make_optimizer(model, recipe)
    return Contender(
        name,
        lambda: per_second(len(train), lambda: train_epoch(model, network, optimizer, train, recipe, 10, 0, 1)),
        lambda: per_second(len(score), lambda: score_windows(network, score, recipe, 10)),
    )


def plain(
    name: str, model_name: str, settings: dict[str, int], recipe: Recipe, train: Windows, score: Windows
) -> Contender:
    """The loop of every tutorial: TensorDataset, DataLoader, the reference modules, optionally compiled."""
    torch.manual_seed(0)
    model = create_model(model_name, **settings, dropout=recipe.dropout)
    network: nn.Module = torch.compile(model) if name == "torch.compile" else model  # type: ignore[assignment]
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    train_loader, score_loader = (loader(windows, recipe.batch_size) for windows in (train, score))

    def train_once() -> None:
        network.train()
        for x, y in train_loader:
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()

    @torch.no_grad()
    def score_once() -> None:
        network.eval()
        for x, y in score_loader:
            F.cross_entropy(network(x), y).item()

    return Contender(name, lambda: per_second(len(train), train_once), lambda: per_second(len(score), score_once))


def lightning(
    name: str, model_name: str, settings: dict[str, int], recipe: Recipe, train: Windows, score: Windows
) -> Contender:
    """Lightning's Trainer on the reference modules; a step is timed from its batch to the next one's."""
    import lightning as pl

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.manual_seed(0)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = create_model(model_name, **settings, dropout=recipe.dropout)

        def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            return F.cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            return F.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=recipe.learning_rate)

    class Clock(pl.Callback):
        """Times the epoch alone: setting up a Trainer is not part of a training step."""

        seconds = 0.0

        def on_train_epoch_start(self, *_: object) -> None:
            self.start = time.perf_counter()

        def on_train_epoch_end(self, *_: object) -> None:
            self.seconds = time.perf_counter() - self.start

        on_validation_epoch_start = on_train_epoch_start
        on_validation_epoch_end = on_train_epoch_end

    module = Module()
    train_loader, score_loader = (loader(windows, recipe.batch_size) for windows in (train, score))

    def timed(method: str, data: DataLoader[tuple[Tensor, ...]], n: int) -> float:
        clock = Clock()
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[clock],
        )
        options = {"verbose": False} if method == "validate" else {}
        getattr(trainer, method)(module, data, **options)
        return n / clock.seconds

    return Contender(
        name,
        lambda: timed("fit", train_loader, len(train)),
        lambda: timed("validate", score_loader, len(score)),
    )


def loader(windows: Windows, batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
    x, y = windows.cut(torch.arange(len(windows)))
    return DataLoader(TensorDataset(x, y), batch_size=batch_size, shuffle=True)


def per_second(n: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return n / (time.perf_counter() - start)


def sgemm_gflops(size: int = 2048, repeats: int = 5) -> float:
    """Rate of a float32 matrix product, the best of a few: what the machine's arithmetic can do."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    rates: Iterator[float] = (per_second(1, lambda: a @ b) for _ in range(repeats + 1))
    return max(list(rates)[1:]) * 2 * size**3 / 1e9

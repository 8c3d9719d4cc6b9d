"""Curves elsewhere: every epoch and the final figures of a fit, to TensorBoard or Weights & Biases.

``<runs_dir>/<data set>/logs/<tensorboard or wandb>/<fit id>/`` holds what was logged. It is written anew from the
fit's whole history when a fit goes on after an interruption, so that no epoch is there twice and none is missing.
Nothing in it determines a result.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklearn.metrics import ConfusionMatrixDisplay

from audioclf_lib._support.choices import LogName
from audioclf_lib._support.extras import require_extra
from audioclf_lib._support.paths import explained
from audioclf_lib.config import FitConfig
from audioclf_lib.metrics.scores import SPLITS, evaluate
from audioclf_lib.runs.store import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DONE = "done"  # a file in the folder of a fit that was logged to its end


class TensorBoard:
    """One fit in an event file; ``tensorboard --logdir`` shows it."""

    def __init__(self, config: FitConfig, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder))

    def add(self, values: dict[str, float], epoch: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)

    def close(self, figures: dict[str, Figure]) -> None:
        for name, figure in figures.items():
            self.writer.add_figure(name, figure)
        self.writer.close()


class WeightsAndBiases:
    """One fit as a run of the project ``audioclf``; without a key it stays here until ``wandb sync`` uploads it."""

    def __init__(self, config: FitConfig, folder: Path) -> None:
        self.wandb: Any = import_module("wandb")
        mode = None if "WANDB_MODE" in os.environ or self.wandb.login(prompt=False) else "offline"
        what = {"id": config.fit_id, "group": config.dataset, "config": config.model_dump(mode="json")}
        how = {"resume": "allow", "reinit": "create_new", "settings": {"console": "off"}}
        self.run = self.wandb.init(project="audioclf", dir=folder, mode=mode, **what, **how)

    def add(self, values: dict[str, float], epoch: int) -> None:
        self.run.log(values, step=epoch)

    def close(self, figures: dict[str, Figure]) -> None:
        self.run.log({name: self.wandb.Image(figure) for name, figure in figures.items()})
        self.run.finish()


WRITERS: dict[str, type[TensorBoard | WeightsAndBiases]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


class Logger:
    """Logs the epochs of fits, and tells another ``progress`` of them, too; with ``none`` only that.

    Raises:
        InputError: the extra of that name is not installed.
    """

    def __init__(self, log: LogName, runs_dir: Path, progress: Any = None) -> None:
        require_extra(log)
        self.log, self.runs_dir, self.progress = log, runs_dir, progress
        self.step = getattr(progress, "step", None)
        self.open: dict[str, tuple[TensorBoard | WeightsAndBiases, int]] = {}  # by fit, with the last epoch logged

    def __call__(self, config: FitConfig, history: list[dict[str, float]]) -> None:
        """Log the epochs of a fit's history that are not logged yet."""
        if self.log != "none":
            folder = self._folder(config)
            if folder.name not in self.open:
                shutil.rmtree(folder, ignore_errors=True)
                with explained(folder, "free space, or set log to none"):
                    folder.mkdir(parents=True)
                self.open[folder.name] = WRITERS[self.log](config, folder), 0
            writer, n_logged = self.open[folder.name]
            for row in history[n_logged:]:
                writer.add({_title(name): value for name, value in row.items() if name != "epoch"}, int(row["epoch"]))
            self.open[folder.name] = writer, len(history)
        if self.progress is not None:
            self.progress(config, history)

    def finish(self, runs: Sequence[Run]) -> None:
        """Log the final figures of runs; of those that were trained before, their epochs too."""
        self.progress = None
        for run in runs:
            folder = self._folder(run.config)
            if self.log != "none" and not (folder / DONE).exists():
                self(run.config, run.history.to_dict("records"))  # type: ignore[arg-type]
                self.open.pop(folder.name)[0].close(final_figures(run))
                (folder / DONE).touch()

    def close(self) -> None:
        for writer, _ in self.open.values():
            writer.close({})

    def _folder(self, config: FitConfig) -> Path:
        return self.runs_dir / config.dataset / "logs" / self.log / config.fit_id


def _title(column: str) -> str:
    """``train_loss`` -> ``loss/train``, since tools show what stands before the slash together."""
    split, _, score = column.partition("_")
    return f"{score}/{split}" if split in SPLITS else column


def final_figures(run: Run) -> dict[str, Figure]:
    """Of the test clips, the confusion matrix and the ROC curves; the curves over epochs are the tools' own."""
    from matplotlib.figure import Figure

    figures = {name: Figure(figsize=(8, 6), layout="constrained") for name in ("confusion", "roc")}
    confusion, roc = (figure.subplots() for figure in figures.values())
    scores = evaluate(run.predictions, run.config.class_names, level="clip")
    shown = ConfusionMatrixDisplay(scores.confusion, display_labels=scores.class_names)
    shown.plot(ax=confusion, xticks_rotation="vertical", colorbar=False)
    for name, curve in scores.roc.items():
        roc.plot(*curve, label=f"{name}: {scores.auc[name]:.2f}")
    roc.set(xlabel="false positive rate", ylabel="true positive rate")
    roc.legend()
    return figures

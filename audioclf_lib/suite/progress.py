"""Training shown while it goes on: a live bar in JupyterLab, plain lines in batch, one line for the terminal."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from audioclf_lib._support.durations import describe_estimate
from audioclf_lib.config import FitConfig

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

# Names the file that a notebook run by the suite keeps its last line in.
PROGRESS_FILE = "AUDIOCLF_PROGRESS_FILE"
REFRESH_SECONDS = 1.0


class TrainingProgress:
    """Shows every fit while it trains: a live bar in JupyterLab, ten plain lines a fit in batch.

    Pass it to ``fit(..., progress=...)``.
    """

    def __init__(self) -> None:
        # Jupyter's server names the session of a notebook that a person opened; papermill has no server.
        self.live = "JPY_SESSION_NAME" in os.environ
        self.file = os.environ.get(PROGRESS_FILE)
        self._bars: dict[str, DisplayHandle] = {}
        self._shown = 0.0

    def __call__(self, config: FitConfig, history: list[dict[str, float]]) -> None:
        """Called after every epoch."""
        self._show(config, history, 0.0)
        if not self.live and (len(history) % max(1, config.epochs // 10) == 0 or len(history) == config.epochs):
            print(describe_epoch(config, history), flush=True)

    def step(self, config: FitConfig, history: list[dict[str, float]], share: float) -> None:
        """Called after every step, with the share of the epoch that is done."""
        if time.monotonic() - self._shown > REFRESH_SECONDS:
            self._show(config, history, share)

    def _show(self, config: FitConfig, history: list[dict[str, float]], share: float) -> None:
        self._shown = time.monotonic()
        text = describe_epoch(config, history, share)
        if self.live:
            self._update_bar(config, len(history) + share, text)
        if self.file:
            with suppress(OSError):  # a full disk must not end the fit here
                Path(self.file).write_text(text, encoding="utf-8")

    def _update_bar(self, config: FitConfig, epochs: float, text: str) -> None:
        from IPython.display import HTML, display

        bar = f'<progress value="{epochs:g}" max="{config.epochs}" style="width: 12em"></progress> {text}'
        if config.fit_id in self._bars:
            self._bars[config.fit_id].update(HTML(bar))  # type: ignore[no-untyped-call]
        else:
            handle = display(HTML(bar), display_id=True)  # type: ignore[no-untyped-call]
            self._bars[config.fit_id] = handle


def describe_epoch(config: FitConfig, history: list[dict[str, float]], share: float = 0.0) -> str:
    """One line: which fit, how far it is, its last scores, and the time left.

    Args:
        config: the fit.
        history: the epochs that are done.
        share: of the next epoch that is done.
    """
    epoch = f"epoch {len(history) + 1} ({100 * share:.0f} %)" if share else f"epoch {len(history)}"
    parts = [f"{config.model_label}, validation fold {config.val_fold}: {epoch} of {config.epochs}"]
    if history:
        row, recent = history[-1], history[-5:]
        left = (config.epochs - len(history) - share) * sum(each["seconds"] for each in recent) / len(recent)
        parts += [
            f"training loss {row['train_loss']:.2f}",
            f"validation loss {row['validation_loss']:.2f}, accuracy {100 * row['validation_accuracy']:.1f} %",
            "done" if len(history) == config.epochs else f"{describe_estimate(left)} left",
        ]
    return "; ".join(parts)

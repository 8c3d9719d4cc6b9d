"""What a running notebook needs: its parameters checked, and its training shown while it goes on."""

from __future__ import annotations

import ast
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from audioclf_lib._support.durations import describe_seconds
from audioclf_lib._support.errors import InputError
from audioclf_lib.config import FitConfig, describe_changes

# Names the file in which a notebook keeps the last line of each fit that it trains, for the suite to show.
PROGRESS_FILE = "AUDIOCLF_PROGRESS_FILE"
REFRESH_SECONDS = 1.0

# papermill writes this line on top of the cell that it injects.
INJECTED_CELL = "# Parameters"
# The parameters cell of every notebook of ours begins with this line.
PARAMETERS_CELL = "# Parameters of this notebook"


def known_parameters(notebook: Path | str) -> list[str]:
    """Names that the notebook's cell tagged ``parameters`` assigns.

    papermill's own reader overlooks a name with an equals sign in its value or comment.

    Raises:
        InputError: there is no such notebook.
    """
    try:
        cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        return assigned_names("".join(tagged[0]["source"])) if tagged else []
    except FileNotFoundError:
        raise InputError(f"there is no notebook {notebook}; check the path") from None
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise InputError(f"{notebook} is not a notebook; give the path of an .ipynb file") from None


def check_parameters() -> None:
    """Stop a run that was given a parameter which the notebook does not have; papermill alone only warns.

    Only the cell that papermill injected is read, never variables of the user's own.

    Raises:
        InputError: an unknown parameter.
    """
    from IPython import get_ipython

    if shell := get_ipython():
        compare_parameters(shell.user_ns.get("In", []))


def compare_parameters(cells: Sequence[str]) -> None:
    """Compare the names in the injected cell with those of the parameters cell before it.

    Args:
        cells: sources of the cells executed so far; of a cell that was executed again, the last time counts.

    Raises:
        InputError: a name that the parameters cell does not have.
    """
    known: list[str] = []
    given: list[str] = []
    for source in cells:
        first_line = source.strip().split("\n", 1)[0].strip()
        if first_line.startswith(PARAMETERS_CELL):
            known, given = assigned_names(source), []
        elif first_line == INJECTED_CELL and known:
            given = assigned_names(source)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InputError(f"unknown parameter {unknown[0]!r}: this notebook knows {', '.join(known)}; correct its name")


def assigned_names(source: str) -> list[str]:
    """Names that a cell assigns at its top level, in order; none if it is no Python, as a cell with a slip in it."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return []
    names: list[str] = []
    for statement in statements:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


class TrainingProgress:
    """Shows every fit while it trains: a live bar in JupyterLab, ten plain lines a fit in batch.

    Pass it to ``fit(..., progress=...)``.
    """

    def __init__(self) -> None:
        # Jupyter's server names the session of a notebook that a person opened; papermill has no server.
        self.live = "JPY_SESSION_NAME" in os.environ
        self.file = os.environ.get(PROGRESS_FILE)
        self._lines: dict[str, str] = {}  # of the fits that are trained now: a notebook may train several at once
        self._shown: dict[int, float] = {}  # when each was, by its object: an id of a fit takes long for every step

    def __call__(self, config: FitConfig, history: list[dict[str, float]]) -> None:
        """Called after every epoch."""
        self._show(config, history, 0.0)
        if not self.live and (len(history) % max(1, config.epochs // 10) == 0 or len(history) == config.epochs):
            print(describe_epoch(config, history), flush=True)

    def step(self, config: FitConfig, history: list[dict[str, float]], share: float) -> None:
        """Called after every step, with the share of the epoch that is done."""
        if time.monotonic() - self._shown.get(id(config), 0.0) > REFRESH_SECONDS:
            self._show(config, history, share)

    def _show(self, config: FitConfig, history: list[dict[str, float]], share: float) -> None:
        self._shown[id(config)] = time.monotonic()
        fit_id, text = config.fit_id, describe_epoch(config, history, share)
        is_shown = fit_id in self._lines
        self._lines[fit_id] = text
        if len(history) == config.epochs:
            del self._lines[fit_id]
        if self.live:
            from IPython.display import HTML, display

            epochs = f'value="{len(history) + share:g}" max="{config.epochs}"'
            bar = HTML(f'<progress {epochs} style="width: 12em"></progress> {text}')  # type: ignore[no-untyped-call]
            display(bar, display_id=fit_id, update=is_shown)  # type: ignore[no-untyped-call]
        if self.file:
            with suppress(OSError):  # a full disk must not end the fit here
                Path(self.file).write_text("\n".join(self._lines.values()), encoding="utf-8")


def describe_epoch(config: FitConfig, history: list[dict[str, float]], share: float = 0.0) -> str:
    """One line: which fit, how far it is, its last scores, and the time left.

    Args:
        config: the fit.
        history: the epochs that are done.
        share: of the next epoch that is done.
    """
    epoch = f"epoch {len(history) + 1} ({100 * share:.0f} %)" if share else f"epoch {len(history)}"
    seed = [f"seed {config.seed}"] if config.seed else []
    changes = describe_changes(config.recipe_settings, config.recipe, config.model)
    which = ", ".join([config.model_label, *seed, *changes, f"validation fold {config.val_fold}"])
    parts = [f"{which}: {epoch} of {config.epochs}"]
    if history:
        row, recent = history[-1], history[-5:]
        left = (config.epochs - len(history) - share) * sum(each["seconds"] for each in recent) / len(recent)
        parts += [
            f"training loss {row['train_loss']:.2f}",
            f"validation loss {row['validation_loss']:.2f}, accuracy {100 * row['validation_accuracy']:.1f} %",
            "done" if len(history) == config.epochs else f"{describe_seconds(left)} left",
        ]
    return "; ".join(parts)

"""What only a running notebook needs: its parameters checked, its training shown while it goes on."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence

from IPython import get_ipython
from IPython.display import HTML, DisplayHandle, display

from audioclf_lib._support.durations import describe_estimate
from audioclf_lib._support.errors import InputError
from audioclf_lib.config import FitConfig

# papermill writes this line on top of the cell that it injects.
INJECTED_CELL = "# Parameters"
# The parameters cell of every notebook of ours begins with this line.
PARAMETERS_CELL = "# Parameters of this notebook"


def check_parameters() -> None:
    """Stop a run that was given a parameter which the notebook does not have; papermill alone only warns.

    Only the cell that papermill injected is looked at, never variables of the user's own.

    Raises:
        InputError: an unknown parameter.
    """
    shell = get_ipython()
    if shell is not None:
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
        if isinstance(statement, ast.Assign):
            names += [target.id for target in statement.targets if isinstance(target, ast.Name)]
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.append(statement.target.id)
    return names


class TrainingProgress:
    """Shows every fit while it trains: a live bar in JupyterLab, ten plain lines a fit in batch.

    Pass it to ``fit(..., progress=...)``.
    """

    def __init__(self) -> None:
        # Jupyter's server names the session of a notebook that a person opened; papermill has no server.
        self.live = "JPY_SESSION_NAME" in os.environ
        self._bars: dict[str, DisplayHandle] = {}

    def __call__(self, config: FitConfig, history: list[dict[str, float]]) -> None:
        if self.live:
            self._update_bar(config, history)
        elif len(history) % max(1, config.epochs // 10) == 0 or len(history) == config.epochs:
            print(describe_epoch(config, history), flush=True)

    def _update_bar(self, config: FitConfig, history: list[dict[str, float]]) -> None:
        text = describe_epoch(config, history)
        bar = f'<progress value="{len(history)}" max="{config.epochs}" style="width: 12em"></progress> {text}'
        if config.fit_id in self._bars:
            self._bars[config.fit_id].update(HTML(bar))  # type: ignore[no-untyped-call]
        else:
            handle = display(HTML(bar), display_id=True)  # type: ignore[no-untyped-call]
            self._bars[config.fit_id] = handle


def describe_epoch(config: FitConfig, history: list[dict[str, float]]) -> str:
    """One line: which fit, how far, how long still, how good."""
    row = history[-1]
    recent = history[-5:]
    left = (config.epochs - len(history)) * sum(epoch["seconds"] for epoch in recent) / len(recent)
    parts = [
        f"{config.model_label}, validation fold {config.val_fold}: epoch {len(history)} of {config.epochs}",
        f"training loss {row['train_loss']:.2f}",
        f"validation loss {row['validation_loss']:.2f}, accuracy {100 * row['validation_accuracy']:.1f} %",
        f"{describe_estimate(left)} left" if left else "done",
    ]
    return "; ".join(parts)

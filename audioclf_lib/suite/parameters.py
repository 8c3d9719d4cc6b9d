"""The parameters of a notebook: which there are, and whether those that a run was given are among them."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path

from audioclf_lib._support.errors import InputError

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

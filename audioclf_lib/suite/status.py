"""What is left beside an executed notebook: how far it is, what went wrong, and of which notebook it was made.

Next to ``X.ipynb`` lie ``X.status.json`` and, while it runs or after it failed, ``X.part.ipynb`` or ``X.failed.ipynb``.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any, Literal

from audioclf_lib._support.paths import replace_file
from audioclf_lib.config import StrictModel
from audioclf_lib.runs.checksums import sum_of

State = Literal["running", "done", "failed", "stopped"]


class Status(StrictModel):
    """How far a notebook is; what ``X.status.json`` holds.

    Attributes:
        state: ``running``, ``done``, ``failed`` or ``stopped`` (by Ctrl-C or a signal).
        host, pid: the process that runs it.
        seconds: since it was started.
        cell: number of the failing code cell, as in ``In [7]``.
        error, message: name and text of its exception.
        notebook: checksum of the notebook that was run, as it was then.
    """

    state: State
    host: str
    pid: int
    seconds: float = 0.0
    cell: int | None = None
    error: str = ""
    message: str = ""
    notebook: str = ""


def part_path(output: Path) -> Path:
    """Where the notebook is while it runs."""
    return output.with_suffix(".part.ipynb")


def failed_path(output: Path) -> Path:
    """Where the notebook is kept after a failure, with the traceback."""
    return output.with_suffix(".failed.ipynb")


def status_path(output: Path) -> Path:
    return output.with_suffix(".status.json")


def read_status(output: Path) -> Status | None:
    """What is known of the last run to ``output``; None if there was none."""
    try:
        return Status(**json.loads(status_path(output).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none, or not one that we wrote
        return None


def is_of(notebook: Path, output: Path) -> bool:
    """Whether an executed notebook was made from a notebook as it is now.

    Times of change decide only where no checksum was kept: clocks are set back, and those of file servers differ.
    """
    status = read_status(output)
    if status is None or not status.notebook:
        return output.stat().st_mtime_ns >= notebook.stat().st_mtime_ns
    return status.notebook == sum_of(notebook.read_bytes())


def record_status(output: Path, state: State, **details: Any) -> Status:
    """Write ``X.status.json``."""
    status = Status(state=state, host=socket.gethostname(), pid=os.getpid(), **details)
    replace_file(status_path(output), status.model_dump_json(indent=2).encode())
    return status

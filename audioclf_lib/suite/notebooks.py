"""Run one notebook in batch: papermill, with what it lacks for unattended work.

* The kernel is this interpreter. It talks over IPC sockets in a private folder: papermill's TCP ports are picked before
  the kernel binds them, and with several notebooks at once two kernels now and then pick the same (papermill #511).
* The executed notebook gets its name when it is whole. Until then it is ``X.part.ipynb``; after a failure
  ``X.failed.ipynb``. ``X.status.json`` says how far it is, or which cell failed and why; ``X.progress.txt`` holds a
  line for each fit that it trains.
* Two processes never run a notebook to the same output at once.

As a program (``python -m audioclf_lib.suite.notebooks JOBS JOB``) it runs one job of a suite. What a plan of a thousand
jobs needs to know of its notebooks needs no papermill, which is imported where a notebook is run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from audioclf_lib._support.errors import DamagedRunError, InputError
from audioclf_lib._support.extras import extra
from audioclf_lib._support.locks import hold_lock
from audioclf_lib._support.paths import PROJECT, UNWRITABLE, explained, folder_for, replace_file
from audioclf_lib.config import StrictModel
from audioclf_lib.runs.checksums import sum_of
from audioclf_lib.suite.parameters import PROGRESS_FILE, known_parameters

OUT_OF_MEMORY = "the kernel died; most often because memory ran out"
NO_MEMORY = "memory ran out; run fewer notebooks at once (--jobs 1), or close other programs"

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


class NotebookError(RuntimeError):
    """A cell of a notebook failed, or its kernel died.

    Attributes:
        status: which cell and why.
        notebook: the notebook as far as it got, with the traceback.
    """

    def __init__(self, status: Status, notebook: Path) -> None:
        where = f"cell [{status.cell}]" if status.cell is not None else "the kernel"
        super().__init__(f"{where} failed with {status.error}: {status.message}")
        self.status = status
        self.notebook = notebook


def part_path(output: Path) -> Path:
    """Where the notebook is while it runs."""
    return output.with_suffix(".part.ipynb")


def failed_path(output: Path) -> Path:
    """Where the notebook is kept after a failure, with the traceback."""
    return output.with_suffix(".failed.ipynb")


def status_path(output: Path) -> Path:
    """Where the notebook's process says how far it is."""
    return output.with_suffix(".status.json")


def progress_path(output: Path) -> Path:
    """Where the notebook's kernel says how far its training is; removed when it ends."""
    return output.with_suffix(".progress.txt")


def read_status(output: Path) -> Status | None:
    """What is known of the last run to ``output``; None if there was none."""
    try:
        return Status(**json.loads(status_path(output).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none, or not one that we wrote
        return None


def _write_status(output: Path, state: State, **details: Any) -> Status:
    status = Status(state=state, host=socket.gethostname(), pid=os.getpid(), **details)
    replace_file(status_path(output), status.model_dump_json(indent=2).encode())
    return status


def read_progress(output: Path) -> str:
    """A line for each fit that a running notebook trains; empty if there is none."""
    try:
        return progress_path(output).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def is_made_from(notebook: Path, output: Path) -> bool:
    """True if an executed notebook was made from a notebook as it is now, or if that is not there.

    Times of change decide nothing: clocks are set back, and those of file servers differ.
    """
    status = read_status(output)
    return not notebook.is_file() or (status is not None and status.notebook == sum_of(notebook.read_bytes()))


def run_notebook(
    notebook: Path | str,
    output: Path | str,
    parameters: Mapping[str, Any],
    *,
    on_wait: Callable[[str], None] = lambda who: None,
    save_cells: bool = True,
) -> Path:
    """Execute a notebook with papermill.

    Args:
        notebook: the notebook to run.
        output: where the executed notebook is put when it is whole.
        parameters: for its cell tagged ``parameters``.
        on_wait: told who else is running a notebook to ``output``. If that is the same notebook with the same
            parameters, this call is done when the other is.
        save_cells: write the notebook after each cell and not only at its end, which takes long if it has many figures.

    Returns:
        ``output``.

    Raises:
        InputError: no such notebook, a parameter that it does not have, or one that it rejects; nothing is left then.
            Or a disk that cannot be written.
        NotebookError: a cell failed or the kernel died; see ``failed_path`` and ``read_status``.
    """
    notebook, output = Path(notebook), Path(output).absolute()
    known = known_parameters(notebook)
    for name in parameters:
        if name not in known:
            raise InputError(f"{notebook.name} has no parameter {name!r}; it has {', '.join(known) or 'none'}")
    if output.is_dir():
        raise InputError(f"{output} is a folder; name the file in it that the executed notebook goes to")
    holders: list[str] = []

    def note_holder(who: str) -> None:
        holders.append(who)
        on_wait(who)

    with ExitStack() as stack:
        with explained(output, "choose another place"):
            stack.enter_context(folder_for(output.parent))
        stack.enter_context(explained(output, "free space or choose another place", only=UNWRITABLE))
        stack.enter_context(hold_lock(output.with_name(f".{output.stem}.lock"), note_holder))
        if holders and output.exists() and _has_parameters(output, parameters) and is_made_from(notebook, output):
            return output
        with _recorded(output, sum_of(notebook.read_bytes())):
            _execute(notebook, part_path(output), parameters, progress_path(output), save_cells)
            os.replace(part_path(output), output)
            failed_path(output).unlink(missing_ok=True)
    return output


def _has_parameters(output: Path, parameters: Mapping[str, Any]) -> bool:
    """True if an executed notebook was run with these parameters."""
    executed = json.loads(output.read_text(encoding="utf-8"))["metadata"].get("papermill", {})
    return bool(executed.get("parameters") == json.loads(json.dumps(dict(parameters))))


def _execute(notebook: Path, output: Path, parameters: Mapping[str, Any], progress: Path, save_cells: bool) -> None:
    import papermill
    from traitlets.config import Config

    logging.getLogger("papermill").setLevel(logging.ERROR)  # its own reader overlooks parameters, and warns of them
    # Not TMPDIR, which may be deep: the path of a Unix socket has at most 107 characters. The folder has mode 0700.
    place = "/tmp" if hasattr(socket, "AF_UNIX") else None  # Windows has no such sockets and keeps TCP
    shutil.copyfile(notebook, output)  # what is kept if the kernel dies before anything is saved
    with tempfile.TemporaryDirectory(prefix="audioclf-", dir=place, ignore_cleanup_errors=True) as sockets:
        kernel = {"transport": "ipc", "connection_file": f"{sockets}/kernel.json"} if place else {}
        try:
            papermill.execute_notebook(
                _without_fields(notebook),
                _without_fields(output),
                dict(parameters),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                request_save_on_cell_execute=save_cells,
                kernel_manager_class=_own_kernel({PROGRESS_FILE: str(progress)}),
                config=Config(KernelManager=kernel),
            )
        finally:
            progress.unlink(missing_ok=True)


def _without_fields(path: Path) -> str:
    """A path in which braces stand for themselves; papermill fills parameters in there."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _own_kernel(environment: dict[str, str]) -> type:
    """A kernel manager that starts this interpreter, whatever kernels are installed: they may be of another project.

    Args:
        environment: variables of the kernel beside those of this process.
    """
    with extra("suite"):
        from ipykernel.kernelspec import get_kernel_dict
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager

    class OwnKernelManager(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            # Its log tells of Ctrl-C only: that the sockets were closed while a cell was ended.
            return KernelSpec(**get_kernel_dict(["--log-level=CRITICAL"]), env=environment)

    return OwnKernelManager


def skip_address_grammars() -> None:
    """Spare three seconds where papermill, nbformat or nbconvert is imported next.

    jsonschema, which they load, builds grammars for addresses with letters of other scripts where it finds this
    package, and does without it otherwise; no notebook's format has such addresses.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


@contextmanager
def _recorded(output: Path, notebook: str) -> Iterator[None]:
    """Keep ``X.status.json`` while the block runs; turn a failed cell into one exception."""
    skip_address_grammars()
    with extra("suite"):
        from nbclient.exceptions import DeadKernelError
        from papermill import PapermillExecutionError

    start = time.monotonic()

    def record(state: State, **details: Any) -> Status:
        return _write_status(output, state, seconds=round(time.monotonic() - start, 1), notebook=notebook, **details)

    def keep_failed(cell: int | None, error: str, message: str) -> NotebookError:
        os.replace(part_path(output), failed_path(output))
        return NotebookError(record("failed", cell=cell, error=error, message=message), failed_path(output))

    record("running")
    try:
        yield
    except PapermillExecutionError as error:
        if error.ename in (InputError.__name__, DamagedRunError.__name__):  # as if nothing had been run
            part_path(output).unlink()
            status_path(output).unlink()
            raise InputError(error.evalue) from None
        message = error.evalue or (NO_MEMORY if error.ename == MemoryError.__name__ else "")  # Python says nothing then
        raise keep_failed(error.exec_count, error.ename, message) from None
    except DeadKernelError:
        raise keep_failed(_last_started_cell(part_path(output)), "DeadKernelError", OUT_OF_MEMORY) from None
    except BaseException as error:
        with suppress(OSError):  # where this cannot be written either, what is told is the error itself
            if isinstance(error, Exception):
                record("failed", error=type(error).__name__, message=str(error))
            else:
                record("stopped")
        raise
    record("done")


def _last_started_cell(notebook: Path) -> int | None:
    """Number of the code cell that was running when the notebook was last saved, counted as in ``In [7]``."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    states = [cell["metadata"].get("papermill", {}).get("status") for cell in code]
    return sum(state not in (None, "pending") for state in states) or None


def main(jobs_file: str, job_id: str) -> int:
    """Run one job of the list that ``audioclf_lib.suite.engine`` wrote; its status file tells the suite how it went."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the kernel is shut down
    os.environ["AUDIOCLF_PROCESSES"] = "1"  # one fit at a time, see training.parallel: notebooks run side by side here
    job = json.loads(Path(jobs_file).read_text(encoding="utf-8"))[job_id]
    os.environ[PROJECT] = job["project"]  # where the kernel's figures go: it works in a folder of the runs'
    try:
        run_notebook(job["notebook"], job["output"], job["parameters"], on_wait=say_waiting)
    except (NotebookError, InputError) as error:
        print(f"{job_id}: {error}", file=sys.stderr)
        if isinstance(error, InputError):
            with suppress(OSError):
                _write_status(Path(job["output"]), "failed", error=type(error).__name__, message=str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def say_waiting(holder: str) -> None:
    """Tell that another process runs the same notebook, on stderr."""
    print(f"waiting for {holder}, which runs the same notebook", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

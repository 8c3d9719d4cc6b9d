"""Run one notebook in batch: papermill, with what it lacks for unattended work.

* The kernel talks over IPC sockets in a private folder: papermill's TCP ports are picked before the kernel binds
  them, and with several notebooks at once two kernels now and then pick the same (papermill #511).
* The executed notebook gets its name when it is whole. Until then it is ``X.part.ipynb``; after a failure
  ``X.failed.ipynb``. ``X.status.json`` says how far it is, or which cell failed and why.
* Two processes never run the notebook to the same output at once.

As a program (``python -m audioclf_lib.suite.execution JOBS JOB``) it runs one job of a suite.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbclient.exceptions import DeadKernelError
from traitlets.config import Config

from audioclf_lib._support.errors import DamagedRunError, InputError
from audioclf_lib._support.paths import UNWRITABLE, explained, folder_for
from audioclf_lib.runs.checksums import sum_of
from audioclf_lib.runs.locks import hold_lock
from audioclf_lib.suite.status import State, Status, failed_path, part_path, record_status, status_path

KERNEL_NAME = "audioclf"  # installed into the environment by `make setup`
OUT_OF_MEMORY = "the kernel died; most often because memory ran out"
NO_MEMORY = "memory ran out; run fewer notebooks at once (--jobs 1), or close other programs"


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


def run_notebook(
    notebook: Path | str,
    output: Path | str,
    parameters: Mapping[str, Any],
    *,
    on_wait: Callable[[str], None] | None = None,
) -> Path:
    """Execute a notebook with papermill.

    Args:
        notebook: the notebook to run.
        output: where the executed notebook is put when it is whole.
        parameters: for its cell tagged ``parameters``.
        on_wait: told who else is running the notebook to ``output``; when that one is done, so is this call.

    Returns:
        ``output``.

    Raises:
        InputError: no such notebook, a parameter that it does not have, or one that it rejects; nothing is left then.
            Or a disk that cannot be written.
        NotebookError: a cell failed or the kernel died; see ``failed_path`` and ``read_status``.
    """
    notebook, output = Path(notebook), Path(output).absolute()
    _check_parameters(notebook, parameters)
    if output.is_dir():
        raise InputError(f"{output} is a folder; name the file in it that the executed notebook goes to")
    holders: list[str] = []
    with ExitStack() as stack:
        with explained(output, "choose another place"):
            stack.enter_context(folder_for(output.parent))
        stack.enter_context(explained(output, "free space or choose another place", only=UNWRITABLE))
        stack.enter_context(hold_lock(output.with_name(f".{output.stem}.lock"), _both(holders.append, on_wait)))
        if holders and output.exists():
            return output
        with _recorded(output, sum_of(notebook.read_bytes())):
            _execute(notebook, part_path(output), parameters)
            os.replace(part_path(output), output)
            failed_path(output).unlink(missing_ok=True)
    return output


def known_parameters(notebook: Path | str) -> list[str]:
    """Names in the notebook's cell tagged ``parameters``.

    Raises:
        InputError: there is no such notebook.
    """
    try:
        return list(papermill.inspect_notebook(str(notebook)))
    except FileNotFoundError:
        raise InputError(f"there is no notebook {notebook}; check the path") from None
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError, nbformat.ValidationError):
        raise InputError(f"{notebook} is not a notebook; give the path of an .ipynb file") from None


def _check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    known = known_parameters(notebook)
    for name in parameters:
        if name not in known:
            raise InputError(f"{notebook.name} has no parameter {name!r}; it has {', '.join(known) or 'none'}")


def _execute(notebook: Path, output: Path, parameters: Mapping[str, Any]) -> None:
    with _private_sockets() as config:
        papermill.execute_notebook(
            notebook,
            output,
            dict(parameters),
            kernel_name=_kernel_name(),
            language="python",
            progress_bar=sys.stderr.isatty(),
            config=config,
        )


@contextmanager
def _private_sockets() -> Iterator[Config]:
    """Kernel settings for IPC sockets in a folder of mode 0700; Windows has none and keeps TCP."""
    if sys.platform == "win32":
        yield Config()
        return
    # Not TMPDIR, which may be deep: the path of a Unix socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="audioclf-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Config(KernelManager={"transport": "ipc", "connection_file": f"{folder}/kernel.json"})


def _kernel_name() -> str:
    """The project's kernel if it belongs to this environment, else this interpreter's own."""
    try:
        program = KernelSpecManager().get_kernel_spec(KERNEL_NAME).argv[0]
    except NoSuchKernel:
        return "python3"
    return KERNEL_NAME if Path(program).parent == Path(sys.executable).parent else "python3"


@contextmanager
def _recorded(output: Path, notebook: str) -> Iterator[None]:
    """Keep ``X.status.json`` while the block runs; turn a failed cell into one exception."""
    start = time.monotonic()
    before = status_path(output).read_bytes() if status_path(output).exists() else None

    def record(state: State, **details: Any) -> Status:
        seconds = round(time.monotonic() - start, 1)
        return record_status(output, state, seconds=seconds, notebook=notebook, **details)

    record("running")
    try:
        yield
    except papermill.PapermillExecutionError as error:
        if error.ename in (InputError.__name__, DamagedRunError.__name__):  # as if nothing had been run
            part_path(output).unlink()
            _restore(status_path(output), before)
            raise InputError(error.evalue) from None
        os.replace(part_path(output), failed_path(output))
        message = error.evalue or (NO_MEMORY if error.ename == MemoryError.__name__ else "")  # Python says nothing then
        status = record("failed", cell=error.exec_count, error=error.ename, message=message)
        raise NotebookError(status, failed_path(output)) from None
    except DeadKernelError:
        cell = _last_started_cell(part_path(output))
        os.replace(part_path(output), failed_path(output))
        status = record("failed", cell=cell, error="DeadKernelError", message=OUT_OF_MEMORY)
        raise NotebookError(status, failed_path(output)) from None
    except Exception as error:
        with suppress(OSError):  # where this cannot be written either, what is told is the error itself
            record("failed", error=type(error).__name__, message=str(error))
        raise
    except BaseException:
        with suppress(OSError):
            record("stopped")
        raise
    record("done")


def _restore(path: Path, content: bytes | None) -> None:
    """Give a file the content that it had, or remove it where there was none."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def _last_started_cell(notebook: Path) -> int | None:
    """Number of the code cell that was running when the notebook was last saved, counted as in ``In [7]``."""
    number = None
    count = 0
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code" and cell.source.strip():
            count += 1
            if cell.metadata.get("papermill", {}).get("status") not in (None, "pending"):
                number = count
    return number


def _both(first: Callable[[str], None], second: Callable[[str], None] | None) -> Callable[[str], None]:
    def call(text: str) -> None:
        first(text)
        if second is not None:
            second(text)

    return call


def main(jobs_file: str, job_id: str) -> int:
    """Run one job of the list that ``audioclf_lib.suite.run`` wrote; its status file tells the suite how it went."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the kernel is shut down
    job = json.loads(Path(jobs_file).read_text(encoding="utf-8"))[job_id]
    try:
        run_notebook(job["notebook"], job["output"], job["parameters"], on_wait=_say_who)
    except NotebookError as error:
        print(f"{job_id}: {error}", file=sys.stderr)
        return 1
    except InputError as error:
        print(f"{job_id}: {error}", file=sys.stderr)
        with suppress(OSError):
            record_status(Path(job["output"]), "failed", error=type(error).__name__, message=str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _say_who(holder: str) -> None:
    print(f"waiting for {holder}, which runs the same notebook", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Execute the report notebook on finished runs and export it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from audioclf_lib._support.errors import InputError, refuse_control_characters
from audioclf_lib._support.paths import (
    DEFAULT_RUNS_DIR,
    PROJECT_ROOT,
    UNWRITABLE,
    explained,
    folder_for,
    replace_file,
    user_path,
)
from audioclf_lib.report.exporters import ReportHTMLExporter, TypstPDFExporter
from audioclf_lib.report.gather import describe_findings, gather
from audioclf_lib.suite.execution import NotebookError, known_parameters, run_notebook

REPORT_NOTEBOOK = PROJECT_ROOT / "notebooks" / "90_report.ipynb"
EXPORTERS: dict[str, Any] = {"pdf": TypstPDFExporter, "html": ReportHTMLExporter}


def build_report(
    plan: str | Path = "",
    *,
    dataset: str = "",
    runs_dir: str | Path = DEFAULT_RUNS_DIR,
    output_dir: str | Path,
    formats: Sequence[str] = ("pdf", "html"),
    notebook: str | Path = REPORT_NOTEBOOK,
    say: Callable[[str], None] = lambda line: None,
    **front_matter: str | None,
) -> list[Path]:
    """Make ``report.pdf`` and ``report.html`` of a plan's runs; missing runs are named in them.

    Several calls may run at once; each exports what it executed.

    Args:
        plan, dataset: whose fits are shown, see :func:`audioclf_lib.report.gather.gather`.
        runs_dir: where the run folders are; the executed notebook is left there as ``report.ipynb``.
        output_dir: where the report goes.
        formats: ``"pdf"``, ``"html"``.
        notebook: the report notebook, or any other that shows what belongs in a report (``report.show``).
        say: told what was found and what is missing, line by line.
        front_matter: parameters of the notebook such as ``title``; None leaves the notebook's own.

    Returns:
        The files made, in the order of ``formats``.

    Raises:
        InputError: unknown format, unwritable folder, no run at all, or a value that the notebook rejects; nothing is
            written then.
        NotebookError: a cell of the notebook failed; ``report.failed.ipynb`` in ``runs_dir`` holds the traceback.
    """
    runs_dir, output_dir, notebook = user_path(runs_dir), user_path(output_dir), user_path(notebook)
    for name in formats:
        if name not in EXPORTERS:
            raise InputError(f"unknown format {name!r}; choose from {', '.join(EXPORTERS)}")
    for name, text in front_matter.items():
        refuse_control_characters(f"the text for {name}", text or "")
    _check_writable(output_dir)
    for line in describe_findings(gather(str(plan), runs_dir, dataset)):
        say(line)
    known = known_parameters(notebook)
    parameters = {name: text for name, text in front_matter.items() if text is not None}
    chosen = {"plan": str(plan), "runs_dir": str(runs_dir.resolve()), "dataset": dataset}
    parameters |= {name: value for name, value in chosen.items() if name in known}
    with (
        explained(runs_dir, "free space or choose another folder", only=UNWRITABLE),
        folder_for(runs_dir),
        tempfile.TemporaryDirectory(prefix=".report-", dir=runs_dir) as own_folder,
    ):
        try:
            executed = run_notebook(notebook, Path(own_folder) / "report.ipynb", parameters)
        except NotebookError as error:
            error.notebook = error.notebook.replace(runs_dir / "report.failed.ipynb")
            raise
        contents = [EXPORTERS[name]().from_filename(str(executed))[0] for name in formats]
        executed.replace(runs_dir / "report.ipynb")
        (runs_dir / "report.failed.ipynb").unlink(missing_ok=True)
    files = [output_dir / f"report.{name}" for name in formats]
    for path, content in zip(files, contents, strict=True):
        with explained(path, "free space or choose another folder"):
            replace_file(path, content if isinstance(content, bytes) else content.encode())
    return files


def _check_writable(folder: Path) -> None:
    """Raise InputError if a folder is none and cannot become one."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"cannot write into {folder}, since {existing} is no folder to write to; choose another")

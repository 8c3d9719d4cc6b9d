"""Execute the report notebook on finished runs and export it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audioclf_lib._support.errors import InputError, refuse_control_characters
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, PROJECT_ROOT, explained, replace_file
from audioclf_lib.report.exporters import ReportHTMLExporter, TypstPDFExporter
from audioclf_lib.report.results import gather, gather_checks
from audioclf_lib.suite.execution import run_notebook
from audioclf_lib.suite.plan import load_plan

REPORT_NOTEBOOK = PROJECT_ROOT / "notebooks" / "90_report.ipynb"
EXPORTERS: dict[str, Any] = {"pdf": TypstPDFExporter, "html": ReportHTMLExporter}


def build_report(
    plan: str | Path,
    *,
    runs_dir: Path = DEFAULT_RUNS_DIR,
    output_dir: Path,
    formats: Sequence[str] = ("pdf", "html"),
    notebook: Path = REPORT_NOTEBOOK,
    **front_matter: str | None,
) -> list[Path]:
    """Make ``report.pdf`` and ``report.html`` of a plan's runs; missing runs are named in them.

    Args:
        plan: name or file of the plan whose fits are shown.
        runs_dir: where the run folders are; the executed notebook is left there as ``report.ipynb``.
        output_dir: where the report goes.
        formats: ``"pdf"``, ``"html"``.
        notebook: the report notebook.
        front_matter: ``title``, ``authors``, ``course``, ``date``; None leaves the notebook's own.

    Returns:
        The files made, in the order of ``formats``.

    Raises:
        InputError: unknown format, unwritable folder, damaged run, or a value that the notebook rejects; nothing is
            written then.
        NotebookError: a cell of the notebook failed.
    """
    for name in formats:
        if name not in EXPORTERS:
            raise InputError(f"unknown format {name!r}; choose from {', '.join(EXPORTERS)}")
    for name, text in front_matter.items():
        refuse_control_characters(f"the text for {name}", text or "")
    _check_place(output_dir)
    shown = load_plan(plan)
    for result in [*gather(shown, runs_dir), *gather_checks(shown, runs_dir)]:
        for run in result.runs:
            run.check()
    parameters = {"plan": str(plan), "runs_dir": str(runs_dir.resolve())}
    parameters |= {name: text for name, text in front_matter.items() if text is not None}
    executed = run_notebook(notebook, runs_dir / "report.ipynb", parameters)
    files = []
    for name in formats:
        body, _ = EXPORTERS[name]().from_filename(str(executed))
        content = body if isinstance(body, bytes) else body.encode()
        files.append(_write(output_dir / f"report.{name}", content))
    return files


def _check_place(folder: Path) -> None:
    """Raise InputError if a folder is none and cannot become one."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"cannot write into {folder}, since {there} is no folder to write to; choose another")


def _write(path: Path, content: bytes) -> Path:
    """Replace a file as a whole."""
    with explained(path, "free space or choose another folder"):
        replace_file(path, content)
    return path

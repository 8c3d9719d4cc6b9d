"""Execute the report notebook on finished runs and export it."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from audioclf_lib._support.errors import InputError, refuse_control_characters
from audioclf_lib._support.paths import (
    DEFAULT_RUNS_DIR,
    NOTEBOOKS_DIR,
    UNWRITABLE,
    explained,
    folder_for,
    replace_file,
    try_to_write,
    user_path,
)
from audioclf_lib.report.exporters import (
    ReportDocxExporter,
    ReportHTMLExporter,
    ReportMarkdownExporter,
    TypstPDFExporter,
)
from audioclf_lib.report.gather import describe_findings, gather
from audioclf_lib.suite.notebooks import NotebookError, run_notebook
from audioclf_lib.suite.parameters import known_parameters

REPORT_NOTEBOOK = NOTEBOOKS_DIR / "90_report.ipynb"
EXPORTERS: dict[str, Any] = {
    "pdf": TypstPDFExporter,
    "html": ReportHTMLExporter,
    "docx": ReportDocxExporter,
    "md": ReportMarkdownExporter,
}


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
    """Make ``report.pdf``, ``report.html`` and so on of a plan's runs; missing runs are named in them.

    Several calls may run at once; each exports what it executed.

    Args:
        plan, dataset: whose fits are shown, see :func:`audioclf_lib.report.gather.gather`.
        runs_dir: where the run folders are; the executed notebook is left there as ``report.ipynb``.
        output_dir: where the report goes.
        formats: ``"pdf"``, ``"html"``, ``"docx"``, ``"md"`` (whose figures go into ``report_files`` beside it).
        notebook: the report notebook, or any other that shows what belongs in a report (``report.show``).
        say: told what was found and what is missing, line by line.
        front_matter: parameters of the notebook such as ``title``; None leaves the notebook's own.

    Returns:
        The files made, in the order of ``formats``, without the figures of ``"md"``.

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
    known = known_parameters(notebook)
    if "plan" in known:
        for line in describe_findings(gather(str(plan), runs_dir, dataset)):
            say(line)
    parameters = {name: text for name, text in front_matter.items() if text is not None}
    chosen = {"plan": str(plan), "runs_dir": str(runs_dir.resolve()), "dataset": dataset}
    parameters |= {name: value for name, value in chosen.items() if name in known}
    with ExitStack() as stack:
        for folder in (output_dir, runs_dir):
            stack.enter_context(explained(folder, "free space or choose another folder", only=UNWRITABLE))
            stack.enter_context(folder_for(folder))
        try_to_write(output_dir, "free space or choose another folder")
        # Another call may run the same notebook with other parameters, so each has a place of its own.
        own_folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".report-", dir=runs_dir)))
        try:
            executed = run_notebook(notebook, own_folder / "report.ipynb", parameters, save_cells=False)
        except NotebookError as error:
            error.notebook = error.notebook.replace(runs_dir / "report.failed.ipynb")
            raise
        with warnings.catch_warnings(record=True) as told, ThreadPoolExecutor() as pool:
            warnings.simplefilter("always")
            made = list(pool.map(lambda name: EXPORTERS[name]().from_filename(str(executed)), formats))
        for line in dict.fromkeys(str(warning.message) for warning in told if warning.category is UserWarning):
            say(line)
        executed.replace(runs_dir / "report.ipynb")
        (runs_dir / "report.failed.ipynb").unlink(missing_ok=True)
        for name, (content, resources) in zip(formats, made, strict=True):
            for file, text in {f"report.{name}": content, **resources["outputs"]}.items():
                with explained(output_dir / file, "free space or choose another folder"):
                    replace_file(output_dir / file, text if isinstance(text, bytes) else text.encode())
    return [output_dir / f"report.{name}" for name in formats]

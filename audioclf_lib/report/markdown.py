"""A notebook's report as one Markdown text, written by nbconvert from what its cells show.

Only Markdown cells and outputs count: no code, no printed lines, no progress bars, no cell tagged ``parameters``,
``injected-parameters`` or ``hide``. A cell that ended in an error stops the export.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbconvert.exporters import MarkdownExporter
from nbformat import NotebookNode
from traitlets import default
from traitlets.config import Config

from audioclf_lib._support.errors import InputError

TEMPLATES = Path(__file__).parent / "templates"
HIDDEN_TAGS = {"parameters", "injected-parameters", "hide", "remove-cell", "papermill-error-cell-tag"}
WIDGET = "application/vnd.jupyter.widget-view+json"  # of a progress bar: shown as nothing
TEXT_TYPES = ["text/markdown", "text/latex", "text/plain"]


class ReportMarkdownExporter(MarkdownExporter):
    """Notebook to Markdown with captions and labels from the output metadata that ``reporting.display`` writes."""

    @default("template_name")
    def _template_name_default(self) -> str:
        return "reportmarkdown"

    @default("extra_template_basedirs")
    def _default_extra_template_basedirs(self) -> list[str]:
        return [str(TEMPLATES)]

    @property
    def default_config(self) -> Config:
        config = Config(super().default_config)
        config.merge({"TagRemovePreprocessor": {"enabled": True, "remove_cell_tags": HIDDEN_TAGS}})
        return config


def write_markdown(notebook: NotebookNode, image_types: Sequence[str]) -> tuple[str, dict[str, bytes]]:
    """The Markdown of an executed notebook and the image files that it names.

    Args:
        notebook: with its outputs.
        image_types: MIME types of the images that the target takes, best first.

    Raises:
        InputError: a cell of the notebook ended in an error.
    """
    refuse_errors(notebook)
    config = Config({"NbConvertBase": {"display_data_priority": [WIDGET, *image_types, *TEXT_TYPES]}})
    exporter = ReportMarkdownExporter(config=config)  # type: ignore[no-untyped-call]
    markdown, resources = exporter.from_notebook_node(notebook)
    return str(markdown), dict(resources.get("outputs") or {})


def find_front_matter(notebook: NotebookNode) -> dict[str, Any]:
    """What the last ``show_front_matter`` of the notebook said; empty if there was none."""
    found: dict[str, Any] = {}
    for report in report_metadata(notebook):
        if report["kind"] == "front-matter":
            found = {key: value for key, value in report.items() if key != "kind"}
    return found


def report_metadata(notebook: NotebookNode) -> list[dict[str, Any]]:
    """The metadata of all outputs of ``reporting.display`` in the notebook, in order."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [dict(output["metadata"]["report"]) for output in outputs if "report" in output.get("metadata", {})]


def refuse_errors(notebook: NotebookNode) -> None:
    """Raise InputError if a cell of the notebook ended in an error."""
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                what = f"{output['ename']}: {output['evalue']}"
                raise InputError(f"cell {number} of the notebook ended in {what}; put that right and run it again")

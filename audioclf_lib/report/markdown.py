"""A notebook's report as one Markdown text, made of what its cells show.

Only Markdown cells and outputs count: no code, no printed lines, no progress bars, no cell tagged ``parameters``,
``injected-parameters`` or ``hide``. A cell that ended in an error stops the export.
"""

from __future__ import annotations

import base64
import mimetypes
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nbformat import NotebookNode

from audioclf_lib._support.errors import InputError

HIDDEN_TAGS = {"parameters", "injected-parameters", "hide", "remove-cell", "papermill-error-cell-tag"}
WIDGET = "application/vnd.jupyter.widget-view+json"  # of a progress bar: shown as nothing


def write_markdown(notebook: NotebookNode, image_types: Sequence[str]) -> tuple[str, dict[str, bytes]]:
    """The Markdown of an executed notebook and the image files that it names.

    Args:
        notebook: with its outputs.
        image_types: MIME types of the images that the target takes, best first.

    Raises:
        InputError: a cell of the notebook ended in an error.
    """
    parts: list[str] = []
    files: dict[str, bytes] = {}

    def add_file(mime_type: str, content: str) -> str:
        name = f"image-{len(files)}{mimetypes.guess_extension(mime_type) or ''}"
        files[name] = content.encode() if mime_type == "image/svg+xml" else base64.b64decode(content)
        return name

    for number, cell in enumerate(notebook.cells, start=1):
        outputs = cell.get("outputs", [])
        for output in outputs:
            if output["output_type"] == "error":
                what = f"{output['ename']}: {output['evalue']}"
                raise InputError(f"cell {number} of the notebook ended in {what}; put that right and run it again")
        if HIDDEN_TAGS.intersection(cell.metadata.get("tags", [])):
            continue
        if cell.cell_type == "markdown":
            source = cell.source
            for name, bundle in cell.get("attachments", {}).items():
                mime_type, content = next(iter(bundle.items()))
                source = source.replace(f"attachment:{name}", add_file(mime_type, content))
            parts.append(source)
        for output in outputs:
            data, report = output.get("data", {}), _report_of(output)
            image_type = next((kind for kind in image_types if kind in data), None)
            if image_type and WIDGET not in data:
                image = f"![{report.get('caption', '')}]({add_file(image_type, data[image_type])})"
                parts.append(image + _attributes(report, width=report.get("width")))
            elif WIDGET not in data:
                parts.append(_text_of(data, report))
    return "\n\n".join(filter(None, parts)), files


def find_title_page(notebook: NotebookNode) -> dict[str, Any]:
    """What the last ``show_title_page`` of the notebook said; empty if there was none."""
    pages = [report for report in report_metadata(notebook) if report["kind"] == "title-page"]
    return pages[-1] if pages else {}


def report_metadata(notebook: NotebookNode) -> Iterator[dict[str, Any]]:
    """The metadata of all outputs of ``report.show`` in the notebook, in order."""
    for cell in notebook.cells:
        yield from filter(None, map(_report_of, cell.get("outputs", [])))


def _report_of(output: NotebookNode) -> dict[str, Any]:
    return dict(output.get("metadata", {}).get("report", {}))


def _text_of(data: Mapping[str, str], report: Mapping[str, Any]) -> str:
    text = data.get("text/markdown", data.get("text/latex"))
    match report.get("kind"):
        case "title-page":
            return ""
        case "text":
            return str(report.get("source", ""))
        case "equation":
            number = rf"\label{{{report['label']}}}" if "label" in report else ""
            return f"$${report['source']}{number}$$"
        case "table" if text and "caption" in report:
            _, _, table = text.partition("\n\n")  # in front stands the caption as JupyterLab shows it
            return f"Table: {report['caption']} {_attributes(report)}\n\n{table}"
        case _ if text is not None:
            return text
    # The <...> of objects, such as axes or audio players, says nothing to a reader.
    plain = data.get("text/plain", "")
    return "" if plain.startswith("<") else textwrap.indent(plain, "    ")


def _attributes(report: Mapping[str, Any], width: str | None = None) -> str:
    """Pandoc's attributes behind an image or a caption."""
    label = [f"#{report['label']}"] if "label" in report else []
    attributes = [*label, *([f"width={width}"] if width else [])]
    return f"{{{' '.join(attributes)}}}" if attributes else ""

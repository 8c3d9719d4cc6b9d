"""A notebook's report as one Markdown text, made of what its cells show.

Only Markdown cells and outputs count: no code, no printed lines, no progress bars, no cell tagged ``parameters``,
``injected-parameters`` or ``hide``. A cell that ended in an error stops the export.
"""

from __future__ import annotations

import base64
import mimetypes
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from audioclf_lib._support.errors import InputError

if TYPE_CHECKING:
    from nbformat import NotebookNode

HIDDEN_TAGS = {"parameters", "injected-parameters", "hide", "remove-cell", "papermill-error-cell-tag"}
WIDGET = "application/vnd.jupyter.widget-view+json"  # of a progress bar: shown as nothing


def write_markdown(
    notebook: NotebookNode, image_types: Sequence[str]
) -> tuple[str, dict[str, bytes], list[dict[str, Any]]]:
    """The Markdown of an executed notebook, the image files that it names, and what ``report.show`` noted, in order.

    Args:
        notebook: with its outputs.
        image_types: MIME types of the images that the target takes, best first.

    Raises:
        InputError: a cell of the notebook ended in an error.
    """
    parts: list[str] = []
    files: dict[str, bytes] = {}
    reports: list[dict[str, Any]] = []

    def add_image(mime_type: str, content: str) -> str:
        name = f"report_files/image-{len(files)}{mimetypes.guess_extension(mime_type) or ''}"
        files[name] = content.encode() if mime_type == "image/svg+xml" else base64.b64decode(content)
        return name

    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                what = f"{output['ename']}: {output['evalue']}"
                raise InputError(f"cell {number} of the notebook ended in {what}; put that right and run it again")
        if HIDDEN_TAGS.intersection(cell.metadata.get("tags", [])):
            continue
        if cell.cell_type == "markdown":
            source = cell.source
            for name, bundle in cell.get("attachments", {}).items():
                source = source.replace(f"attachment:{name}", add_image(*next(iter(bundle.items()))))
            parts.append(source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            report = output.get("metadata", {}).get("report", {})
            reports += [report] if report else []
            image_type = next((kind for kind in image_types if kind in data), None)
            if image_type is None:
                parts.append("" if report.get("kind") == "sound" else _text_of(data, report))
            else:
                label, width, alt = (report.get(name) for name in ("label", "width", "alt"))
                quoted = alt and alt.replace("\\", "\\\\").replace('"', '\\"')
                given = [label and f"#{label}", width and f"width={width}", alt and f'alt="{quoted}"']
                attributes = " ".join(filter(None, given))
                file = add_image(image_type, data[image_type])
                parts.append(f"![{report.get('caption', '')}]({file}){{{attributes}}}")
    return "\n\n".join(filter(None, parts)), files, reports


def _text_of(data: Mapping[str, str], report: Mapping[str, Any]) -> str:
    markdown = report.get("markdown", data.get("text/markdown", data.get("text/latex")))
    if markdown is not None:
        return str(markdown)
    plain = data.get("text/plain", "")
    # Objects such as axes or audio players are written <...>, which says nothing to a reader.
    return "" if WIDGET in data or plain.startswith("<") else textwrap.indent(plain, "    ")

"""From an executed notebook to a report ready for typesetting: numbered, cross-referenced, fitted to its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nbformat import NotebookNode

from audioclf_lib._support.errors import InputError
from audioclf_lib.report.crossrefs import number_all, resolve
from audioclf_lib.report.layout import lay_out
from audioclf_lib.report.markdown import find_front_matter, report_metadata, write_markdown
from audioclf_lib.report.pandoc import Node, elements, read_markdown


@dataclass(frozen=True)
class FrontMatter:
    """What the title page and the head of every page say; plain text, but for the abstract."""

    title: str
    subtitle: str = ""
    authors: list[str] = field(default_factory=list)
    course: str = ""
    date: str = ""
    notice: str = ""


@dataclass(frozen=True)
class Report:
    """A report's text as pandoc blocks, and the image files that it names."""

    front_matter: FrontMatter
    abstract: list[Node]
    blocks: list[Node]
    files: dict[str, bytes]


def read_report(notebook: NotebookNode, target: str, image_types: Sequence[str], default_title: str = "") -> Report:
    """The report that an executed notebook shows, for ``typst``, ``latex`` or ``html``.

    Args:
        notebook: with its outputs.
        target: language to be written.
        image_types: MIME types of the images that the target takes, best first.
        default_title: if the notebook shows no front matter.

    Raises:
        InputError: a cell ended in an error, an unknown or double label, a table wider than the page, a foreign image.
    """
    markdown, files = write_markdown(notebook, image_types)
    blocks = read_markdown(markdown)
    _refuse_foreign_images(blocks, files)
    targets = number_all(blocks)
    _refuse_lost_captions(notebook, set(targets))
    texts: dict[str, Any] = {"title": default_title or "Report"} | find_front_matter(notebook)
    abstract = read_markdown(texts.pop("abstract", ""))
    return Report(
        front_matter=FrontMatter(**texts),
        abstract=lay_out(resolve(abstract, targets), target, targets),
        blocks=lay_out(resolve(blocks, targets), target, targets),
        files=files,
    )


def _refuse_foreign_images(blocks: list[Node], files: dict[str, bytes]) -> None:
    for element in elements(blocks):
        if element["t"] == "Image" and element["c"][2][0] not in files:
            raise InputError(f"the image {element['c'][2][0]!r} is no output of the notebook; show it with show_figure")


def _refuse_lost_captions(notebook: NotebookNode, labels: set[str]) -> None:
    """A caption that is no well-formed Markdown (an open bracket, say) would take its figure or table with it."""
    for report in report_metadata(notebook):
        label = report.get("label")
        if label and label not in labels:
            raise InputError(f"{label} is lost: its caption is no sound Markdown; close its brackets, escape names")

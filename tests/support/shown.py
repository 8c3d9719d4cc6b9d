"""For tests of the report: what display functions show, as cells of an executed notebook."""

from __future__ import annotations

from collections.abc import Callable

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output
from traitlets.config import Config

from audioclf_lib.report.pandoc import Node, elements

SECRET_CODE = "code_that_no_reader_sees()"


def outputs_of(show: Callable[[], None]) -> list[NotebookNode]:
    """What ``show`` displays, as outputs of a notebook cell."""
    InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    with capture_output() as captured:
        show()
    return [new_output("display_data", data=shown.data, metadata=shown.metadata) for shown in captured.outputs]


def executed_cell(show: Callable[[], None], *tags: str) -> NotebookNode:
    """A code cell that has run and displayed what ``show`` displays."""
    return new_code_cell(SECRET_CODE, outputs=outputs_of(show), metadata={"tags": list(tags)})


def plain_text(node: Node) -> str:
    """Text of pandoc's elements without markup, formulas as they are written."""
    parts = []
    for element in elements(node):
        if element["t"] == "Str":
            parts.append(element["c"])
        elif element["t"] in ("Code", "Math"):
            parts.append(element["c"][1])
        elif element["t"] in ("Space", "SoftBreak", "LineBreak"):
            parts.append(" ")
    return "".join(parts)

"""Pandoc, as this package uses it: one dialect of Markdown, the document tree as JSON, Typst and HTML."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.extras import extra

with extra("report"):
    import pypandoc

Node = Any  # an element {"t": type, "c": content}, a list of them, or a scalar

# What JupyterLab understands, with captions and references on top. Raw LaTeX and HTML stay text: a class name can hold
# them. So do ~ and ^, dashes under a line, and leading % and |, which Jupyter does not treat as markup either.
MARKDOWN = (
    "markdown+lists_without_preceding_blankline-blank_before_header-blank_before_blockquote"
    "-raw_html-raw_tex-raw_attribute-latex_macros-native_divs-native_spans"
    "-subscript-superscript-yaml_metadata_block-pandoc_title_block-line_blocks"
    "-simple_tables-multiline_tables-grid_tables-definition_lists-example_lists"
    "-fancy_lists-fenced_divs-bracketed_spans-inline_notes"
)


def read_markdown(markdown: str) -> list[Node]:
    """The blocks of a Markdown text."""
    # Pandoc gives columns of tables wider than --columns a fixed share; Typst and browsers size them by their content.
    return list(json.loads(_convert(markdown, MARKDOWN, "json", ["--columns=10000"]))["blocks"])


def write_blocks(
    blocks: list[Node], target: str, *options: str, meta: Node = None, folder: Path = Path()
) -> bytes | str:
    """Blocks in the target's language (``typst``, ``html``, ``docx``, ``markdown``).

    Args:
        blocks: of the document.
        options: further arguments of pandoc.
        meta: metadata for pandoc's template, as pandoc's JSON holds them.
        folder: the one that file names refer to.

    Raises:
        InputError: a formula that pandoc cannot convert.
    """
    # The version of pandoc's document format, not of pandoc; a newer pandoc of the same first number reads it.
    document = json.dumps({"pandoc-api-version": [1, 23, 1], "meta": meta or {}, "blocks": blocks})
    common = ["--wrap=none", "--fail-if-warnings", "--syntax-highlighting=none", f"--resource-path={folder.resolve()}"]
    file = folder.resolve() / "report.docx" if target == "docx" else None
    text = _convert(document, "json", target, [*common, *options], file)
    return file.read_bytes() if file else text


def _convert(text: str, source: str, target: str, options: list[str], file: Path | None = None) -> str:
    try:
        return str(pypandoc.convert_text(text, target, source, options, outputfile=file))
    except RuntimeError as error:
        message = " ".join(str(error).split("conversion:", 1)[-1].replace("[WARNING]", " ").split())
        message = message.split(" Failing because")[0]
        raise InputError(f"pandoc cannot convert the report ({message}); write that part in simpler LaTeX") from None


@cache
def translations(language: str) -> dict[str, str]:
    """Pandoc's words of a language by the English ones, such as Figure; none for a language that it does not know."""
    command = [pypandoc.get_pandoc_path(), "--print-default-data-file", f"translations/{language.split('-')[0]}.yaml"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8").stdout
    return dict(line.split(": ", 1) for line in told.splitlines() if ": " in line)


def elements(node: Node) -> Iterator[dict[str, Any]]:
    """All elements at and under a node, in reading order."""
    if isinstance(node, dict) and "t" in node:
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from elements(child)

"""nbconvert exporters that make the report of an executed notebook: PDF by Typst, HTML in one file.

Both read the notebook alike and differ in the last step only::

    jupyter nbconvert --to typstpdf 90_report.ipynb
    jupyter nbconvert --to reporthtml 90_report.ipynb
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typst
from nbconvert.exporters import Exporter
from nbformat import NotebookNode
from traitlets import default

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import explained
from audioclf_lib.report.crossrefs import EQUATION_LABEL, label_of, number_all, resolve
from audioclf_lib.report.markdown import reports_of, write_markdown
from audioclf_lib.report.pandoc import Node, elements, raw, read_markdown, rewrite, write_blocks

Resources = dict[str, Any]

TEMPLATES = Path(__file__).parent / "templates"
IMAGE_TYPES = {  # best first
    "typst": ["application/pdf", "image/svg+xml", "image/png", "image/jpeg"],
    "html": ["image/svg+xml", "image/png", "image/jpeg"],
}
# Armenian to Khmer, and from East Asia on: scripts that the fonts inside Typst lack.
LETTERS_WITHOUT_FONT = re.compile("[\u0530-\u1dff\u2e80-\U0010ffff]")


@dataclass(frozen=True)
class Report:
    """A report as pandoc blocks, what its title page says (``show_title_page``), and the files that it names."""

    title_page: dict[str, Any]
    abstract: list[Node]
    blocks: list[Node]
    files: dict[str, bytes]


# nbconvert's own PDF exporter returns bytes too, although its base class says otherwise: hence "type: ignore".


class TypstPDFExporter(Exporter):
    """Notebook to PDF through Markdown, pandoc and Typst: no TeX, no root rights, same notebook same bytes."""

    export_from_notebook = "Report as PDF (Typst)"
    output_mimetype = "application/pdf"

    @default("file_extension")
    def _file_extension_default(self) -> str:
        return ".pdf"

    def from_notebook_node(  # type: ignore[override]
        self, nb: NotebookNode, resources: Resources | None = None, **kw: Any
    ) -> tuple[bytes, Resources]:
        nb, resources = super().from_notebook_node(nb, resources, **kw)
        return typeset_with_typst(read_report(nb, "typst", resources["metadata"].get("name"))), resources


class ReportHTMLExporter(Exporter):
    """Notebook to one HTML file that needs no network: MathML, style sheet and figures are inside."""

    export_from_notebook = "Report as HTML"
    output_mimetype = "text/html"

    @default("file_extension")
    def _file_extension_default(self) -> str:
        return ".html"

    def from_notebook_node(  # type: ignore[override]
        self, nb: NotebookNode, resources: Resources | None = None, **kw: Any
    ) -> tuple[str, Resources]:
        nb, resources = super().from_notebook_node(nb, resources, **kw)
        return write_html(read_report(nb, "html", resources["metadata"].get("name"))), resources


def read_report(notebook: NotebookNode, target: str, default_title: str | None = None) -> Report:
    """The report that an executed notebook shows.

    Args:
        notebook: with its outputs.
        target: language to be written, ``typst`` or ``html``.
        default_title: if the notebook shows no title page.

    Raises:
        InputError: a cell ended in an error, an unknown or double label, a foreign image, a caption that is no sound
            Markdown.
    """
    markdown, files = write_markdown(notebook, IMAGE_TYPES[target])
    blocks = read_markdown(markdown)
    for element in elements(blocks):
        if element["t"] == "Image" and element["c"][2][0] not in files:
            raise InputError(f"the image {element['c'][2][0]!r} is no output of the notebook; paste it into a cell")
    names = number_all(blocks)
    title_page: dict[str, Any] = {"title": default_title or "Report", "authors": [], "people": []}
    for shown in reports_of(notebook):
        label = shown.get("label")
        if shown["kind"] == "title-page":
            title_page = shown
        elif label and label not in names:  # an open bracket, say, takes the whole figure with it
            raise InputError(f"{label} is lost: its caption is no sound Markdown; close its brackets, escape names")
    abstract = resolve(read_markdown(title_page.get("abstract", "")), names)
    blocks = resolve(blocks, names)
    return Report(title_page, _set_equations(abstract, target, names), _set_equations(blocks, target, names), files)


def typeset_with_typst(report: Report) -> bytes:
    """The report as PDF by Typst and ``templates/report.typ``.

    Raises:
        InputError: something in the report that pandoc cannot convert or Typst cannot set, such as a table that is too
            wide for the page, or no room for temporary files.
    """
    start = raw("typst", '#import "report.typ": *\n#let abstract = [')
    middle = raw("typst", ']\n#show: report.with(json("title-page.json"), abstract)')
    main = write_blocks([_plain(start), *report.abstract, _plain(middle), *report.blocks], "typst")
    title_page = json.dumps(report.title_page, ensure_ascii=False)
    files = {"main.typ": main.encode(), "title-page.json": title_page.encode()}
    files["report.typ"] = (TEMPLATES / "report.typ").read_bytes()
    # Only Typst's own fonts, so that every machine makes the same bytes, unless they lack the script.
    own_fonts = not LETTERS_WITHOUT_FONT.search(main + title_page)
    with _folder_of(files | report.files) as folder:
        try:
            return bytes(typst.compile(str(folder / "main.typ"), root=str(folder), ignore_system_fonts=own_fonts))
        except typst.TypstError as error:
            reason = str(error).splitlines()[0].removeprefix("error: ")
            own = re.fullmatch(r'panicked with: "(.*)"', reason)  # of the template
            told = own[1] if own else f"Typst cannot typeset the report ({reason}); try --to reporthtml"
            raise InputError(told) from None


def write_html(report: Report) -> str:
    """The report as one HTML file by pandoc, ``templates/report.html`` and ``templates/report.css``.

    Raises:
        InputError: something in the report that pandoc cannot convert, or no room for temporary files.
    """
    meta = {name: _meta(value) for name, value in report.title_page.items() if value}
    if report.abstract:
        meta["abstract"] = {"t": "MetaBlocks", "c": report.abstract}
    options = ["--standalone", "--embed-resources", "--mathml", "--number-sections", "--section-divs"]
    options += ["--toc", "--toc-depth=2", f"--template={TEMPLATES}/report.html", f"--css={TEMPLATES}/report.css"]
    with _folder_of(report.files) as folder:
        return write_blocks(report.blocks, "html", options, meta, folder)


def _meta(value: Any) -> Node:
    """Plain text, or a list of such, as metadata of a pandoc document."""
    if isinstance(value, list):
        return {"t": "MetaList", "c": list(map(_meta, value))}
    return {"t": "MetaString", "c": str(value)}


def _set_equations(blocks: list[Node], target: str, names: Mapping[str, str]) -> list[Node]:
    """The blocks with each displayed equation and, in HTML, each table in what the template styles."""

    def replace(element: Node) -> list[Node] | None:
        if element["t"] == "Table" and target == "html":
            return [{"t": "Div", "c": [["", ["table"], []], [element]]}]
        if element["t"] != "Math":
            return None
        latex = element["c"][1]
        if target == "typst":  # pandoc gives these spaces another width there
            latex = re.sub(r"\\[;:>]", r"\\,", latex.replace(r"\!", ""))
        if element["c"][0]["t"] == "InlineMath":
            return [{"t": "Math", "c": [element["c"][0], latex]}]
        label = label_of(element)
        number = names[label].split("\N{NO-BREAK SPACE}")[-1] if label in names else ""
        # align, gather and equation cannot stand inside a displayed equation, but aligned and gathered can
        latex = re.sub(r"\\(begin|end)\{(align|gather)\*?\}", r"\\\1{\2ed}", EQUATION_LABEL.sub("", latex))
        latex = re.sub(r"\\(begin|end)\{equation\*?\}", "", latex).strip()
        math = {"t": "Math", "c": [{"t": "DisplayMath"}, latex]}
        if target == "typst":
            return [
                raw(target, f"#display-equation({json.dumps(number)}, {json.dumps(label)})["),
                math,
                raw(target, "]"),
            ]
        shown = [math, _span("number", "", [{"t": "Str", "c": number}])] if number else [math]
        return [_span("equation", label, shown)]

    return list(rewrite(blocks, replace))


def _span(css_class: str, anchor: str, inlines: list[Node]) -> Node:
    return {"t": "Span", "c": [[anchor, [css_class], []], inlines]}


def _plain(inline: Node) -> Node:
    return {"t": "Plain", "c": [inline]}


@contextmanager
def _folder_of(files: Mapping[str, bytes]) -> Iterator[Path]:
    """A temporary folder that holds the files."""
    with ExitStack() as stack:
        with explained(Path(tempfile.gettempdir()), "free space there, or set TMPDIR to another folder"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="audioclf-")))
            for name, content in files.items():
                (folder / name).write_bytes(content)
        yield folder

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typst
from nbconvert.exporters import Exporter
from nbformat import NotebookNode
from traitlets import default

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import explained
from audioclf_lib.report.crossrefs import EQUATION_LABEL, Target, number_all, resolve
from audioclf_lib.report.markdown import find_title_page, report_metadata, write_markdown
from audioclf_lib.report.pandoc import Node, elements, plain_text, raw, read_markdown, rewrite, write_blocks
from audioclf_lib.report.show import name_authors

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
        return typeset_with_typst(read_report(nb, "typst", _notebook_name(resources))), resources


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
        return write_html(read_report(nb, "html", _notebook_name(resources))), resources


def read_report(notebook: NotebookNode, target: str, default_title: str = "") -> Report:
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
    targets = number_all(blocks)
    # An open bracket in a caption, say, takes its figure or table with it.
    for label in (report["label"] for report in report_metadata(notebook) if "label" in report):
        if label not in targets:
            raise InputError(f"{label} is lost: its caption is no sound Markdown; close its brackets, escape names")
    page = {"title": default_title or "Report", "authors": []} | find_title_page(notebook)
    abstract = read_markdown(page.pop("abstract", ""))
    return Report(page, *(_prepare(resolve(part, targets), target, targets) for part in (abstract, blocks)), files)


def typeset_with_typst(report: Report) -> bytes:
    """The report as PDF by Typst and ``templates/report.typ``.

    Raises:
        InputError: something in the report that pandoc cannot convert or Typst cannot set, such as a table that is too
            wide for the page, or no room for temporary files.
    """
    start = '#import "report.typ": *\n'
    abstract = 'include "abstract.typ"' if report.abstract else "none"
    texts = {
        "main.typ": f'{start}#show: report.with(json("page.json"), abstract: {abstract})\n#include "body.typ"\n',
        "abstract.typ": start + write_blocks(report.abstract, "typst") if report.abstract else "",
        "body.typ": start + write_blocks(report.blocks, "typst"),
        "page.json": json.dumps(report.title_page | {"people": name_authors(report.title_page)}),
        "report.typ": (TEMPLATES / "report.typ").read_text(encoding="utf-8"),
    }
    # Only Typst's own fonts, so that every machine makes the same bytes, unless they lack the script.
    own_fonts = not LETTERS_WITHOUT_FONT.search(plain_text([*report.abstract, *report.blocks]) + str(report.title_page))
    with _folder_of({name: text.encode() for name, text in texts.items()} | report.files) as folder:
        try:
            return bytes(typst.compile(str(folder / "main.typ"), root=str(folder), ignore_system_fonts=own_fonts))
        except typst.TypstError as error:
            reason = str(error).splitlines()[0].removeprefix("error: ")
            own_reason = re.fullmatch(r'panicked with: "(.*)"', reason)
            raise InputError(
                own_reason[1] if own_reason else f"Typst cannot typeset the report ({reason}); try --to reporthtml"
            ) from None


def write_html(report: Report) -> str:
    """The report as one HTML file by pandoc, ``templates/report.html`` and ``templates/report.css``.

    Raises:
        InputError: something in the report that pandoc cannot convert, or no room for temporary files.
    """
    page = report.title_page
    texts = {name: text for name, text in page.items() if isinstance(text, str)}
    meta: dict[str, Any] = {name: _meta_string(text) for name, text in texts.items() if text}
    for name, people in {"author": page["authors"], "person": name_authors(page)}.items():
        meta[name] = {"t": "MetaList", "c": [_meta_string(person) for person in people]}
    meta |= {"pagetitle": meta["title"], "lang": _meta_string("en-GB")}
    if report.abstract:
        meta["abstract"] = {"t": "MetaBlocks", "c": report.abstract}
    options = ["--standalone", "--embed-resources", "--mathml", "--number-sections", "--section-divs"]
    options += ["--toc", "--toc-depth=2", f"--template={TEMPLATES}/report.html", f"--css={TEMPLATES}/report.css"]
    with _folder_of(report.files) as folder:
        return write_blocks(report.blocks, "html", options, meta, folder)


def _meta_string(text: str) -> Node:
    return {"t": "MetaString", "c": text}


@contextmanager
def _folder_of(files: Mapping[str, bytes]) -> Iterator[Path]:
    """A temporary folder that holds the files."""
    with explained(Path(tempfile.gettempdir()), "free space there, or set TMPDIR to another folder"):
        folder = tempfile.TemporaryDirectory(prefix="audioclf-")
    with folder:
        with explained(Path(folder.name), "free space there, or set TMPDIR to another folder"):
            for name, content in files.items():
                (Path(folder.name) / name).write_bytes(content)
        yield Path(folder.name)


def _notebook_name(resources: Resources | None) -> str:
    return str((resources or {}).get("metadata", {}).get("name", ""))


# -------------------------------------------------------------------------------- what pandoc's writers do not do


def _prepare(blocks: list[Node], target: str, targets: Mapping[str, Target]) -> list[Node]:
    """The blocks with images, tables and equations as the target's template takes them."""

    def replace(element: Node) -> list[Node] | None:
        match element["t"]:
            case "Table" if target == "html":
                return [_div("table", element)]
            case "Image":
                return [_image(element, target)]
            case "Math" if target == "typst":
                element["c"][1] = _simplify_spacing(element["c"][1])
            case "Para" | "Plain" if any(map(_is_display, element["c"])):
                return _split_at_equations(element, target, targets)
        return None

    return list(rewrite(blocks, replace))


def _image(image: Node, target: str) -> Node:
    """The image with its caption as alternative text."""
    (_, _, attributes), inlines, (file, _) = image["c"]
    text = plain_text(inlines)
    if target == "typst":  # pandoc leaves the text out
        width = dict(attributes).get("width", "auto")
        alternative = f", alt: {json.dumps(text, ensure_ascii=False)}" if text else ""
        return raw("Inline", target, f"#image({json.dumps(file)}, width: {width}{alternative})")
    image["c"][1] = [{"t": "Str", "c": text}]
    return image


def _simplify_spacing(latex: str) -> str:
    """LaTeX without the spaces that pandoc gives another width in Typst."""
    return re.sub(r"\\[;:>]", r"\\,", latex.replace(r"\!", ""))


def _is_display(inline: Node) -> bool:
    return bool(inline["t"] == "Math" and inline["c"][0]["t"] == "DisplayMath")


def _split_at_equations(paragraph: Node, target: str, targets: Mapping[str, Target]) -> list[Node]:
    """The paragraph's text and equations as blocks of their own, so that an equation can have a number."""
    blocks: list[Node] = []
    text: list[Node] = []
    for inline in [*paragraph["c"], None]:
        if inline is not None and not _is_display(inline):
            text.append(inline)
            continue
        if any(element["t"] not in ("Space", "SoftBreak") for element in text):
            blocks.append({"t": paragraph["t"], "c": text})
        text = []
        if inline is not None:
            blocks.append(_equation(inline["c"][1], target, targets))
    return blocks


def _equation(latex: str, target: str, targets: Mapping[str, Target]) -> Node:
    found = EQUATION_LABEL.search(latex)
    label = found[1] if found else ""
    number = re.search(r"\(\d+\)", targets[label].name)[0] if label in targets else ""
    latex = EQUATION_LABEL.sub("", latex)
    # align, gather and equation cannot stand inside a displayed equation, but aligned and gathered can
    latex = re.sub(r"\\(begin|end)\{(align|gather)\*?\}", r"\\\1{\2ed}", latex)
    latex = re.sub(r"\\(begin|end)\{equation\*?\}", "", latex).strip()
    math = {"t": "Math", "c": [{"t": "DisplayMath"}, latex]}
    if target == "html":
        inlines = [math, {"t": "Span", "c": [["", ["number"], []], [{"t": "Str", "c": number}]]}]
        return _div("equation", {"t": "Plain", "c": inlines if number else [math]}, label)
    opening = f"#display-equation({json.dumps(number)}, {json.dumps(label)})["
    return {"t": "Para", "c": [raw("Inline", target, opening), math, raw("Inline", target, "]")]}


def _div(css_class: str, block: Node, anchor: str = "") -> Node:
    return {"t": "Div", "c": [[anchor, [css_class], []], [block]]}

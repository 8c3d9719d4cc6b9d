"""nbconvert exporters that make the report of an executed notebook: PDF by Typst; HTML, Word and Markdown by pandoc.

All read the notebook alike and differ in the last step only::

    jupyter nbconvert --to typstpdf 90_report.ipynb
    jupyter nbconvert --to reporthtml 90_report.ipynb
"""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.extras import extra
from audioclf_lib._support.paths import explained
from audioclf_lib.figures.fonts import FACE, describe_missing_letters, face_files, fonts_for
from audioclf_lib.report.crossrefs import number_all, resolve
from audioclf_lib.report.markdown import write_markdown
from audioclf_lib.report.pandoc import Node, elements, read_markdown, write_blocks

with extra("report"):
    import typst
    from nbconvert.exporters import Exporter
    from nbconvert.exporters.exporter import FilenameExtension
    from nbformat import NotebookNode

NEW_PAGE = "new-page"  # class of a heading that begins a page, as ``# Appendix {.new-page}``
TEMPLATES = Path(__file__).parent / "templates"
IMAGES = ("image/svg+xml", "image/png", "image/jpeg")  # best first


@dataclass(frozen=True)
class Report:
    """A report as pandoc blocks, what its title page says (``show_title_page``), and the files that it names.

    Attributes:
        alts: what each figure shows, by its label.
    """

    title_page: dict[str, Any]
    abstract: list[Node]
    blocks: list[Node]
    files: dict[str, bytes]
    alts: dict[str, str]


class ReportExporter(Exporter):
    """What the exporters of reports share; all but that of PDF are written by pandoc alone."""

    target: str  # language to be written
    image_types: tuple[str, ...] = IMAGES  # and sounds that it takes
    options: tuple[str, ...] = ()  # of pandoc

    def from_notebook_node(  # type: ignore[override]  # nbconvert's own PDF exporter returns bytes, too
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[bytes | str, dict[str, Any]]:
        """The report that an executed notebook shows; files beside it, if it has any, as ``resources["outputs"]``.

        Raises:
            InputError: a cell ended in an error, an unknown or double label, a foreign image, a caption that is no
                sound Markdown, a formula that cannot be converted, a table that is too wide for the page, or no room
                for temporary files.
        """
        nb, resources = super().from_notebook_node(nb, resources, **kw)
        report = read_report(nb, self.target, self.image_types, resources["metadata"].get("name"))
        resources["outputs"] = report.files if self.target == "markdown" else {}
        return self.write(report), resources

    def write(self, report: Report) -> bytes | str:
        """The report as content of a file."""
        page = report.title_page
        meta = {name: _metadata(value) for name, value in page.items() if value}
        meta |= {"lang": _metadata(page.get("language") or "en"), "author": _metadata(page["authors"])}
        if report.abstract:
            meta["abstract"] = {"t": "MetaBlocks", "c": report.abstract}
        with _folder_of(report.files) as folder:
            return write_blocks(report.blocks, self.target, "--standalone", *self.options, meta=meta, folder=folder)


class TypstPDFExporter(ReportExporter):
    """Notebook to PDF through Markdown, pandoc and Typst: no TeX, no root rights, same notebook same bytes."""

    export_from_notebook = "Report as PDF (Typst)"
    output_mimetype = "application/pdf"
    file_extension = FilenameExtension(".pdf")
    target = "typst"

    def write(self, report: Report) -> bytes:
        start, middle = '#import "report.typ": *\n#let abstract = [', "]\n#show: report.with(texts, abstract)"
        first = next((n for n, block in enumerate(report.blocks) if block["t"] == "Header"), len(report.blocks))
        blocks = [_raw(start), *report.abstract, _raw(middle), *report.blocks[:first], _raw("#contents()")]
        for block in report.blocks[first:]:
            begins_page = block["t"] == "Header" and NEW_PAGE in block["c"][1][1]
            blocks += [_raw("#new-page()"), block] if begins_page else [block]
        main = str(write_blocks(blocks, "typst"))
        words = json.dumps(report.title_page, ensure_ascii=False)
        fonts, lost = fonts_for(main + words)
        if lost:
            warnings.warn(describe_missing_letters(lost), stacklevel=2)
        files = {f"{number}{font.suffix}": font.read_bytes() for number, font in enumerate([*face_files(), *fonts])}
        files |= report.files | {"report.typ": (TEMPLATES / "report.typ").read_bytes(), "main.typ": main.encode()}
        with _folder_of(files) as folder:
            # Only fonts that are needed, so that every machine that has them makes the same bytes.
            others = set(typst.Fonts(False, False, [folder]).families()) - {FACE}
            texts = report.title_page | {"alts": report.alts, "fonts": [FACE, *sorted(others)]}
            (folder / "texts.json").write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
            try:
                options: Any = {"root": folder, "font_paths": [folder], "ignore_system_fonts": True}
                return bytes(typst.compile(folder / "main.typ", **options))
            except typst.TypstError as error:
                reason = str(error).splitlines()[0].removeprefix("error: ")
                own = re.fullmatch(r'panicked with: "(.*)"', reason)  # of the template
                told = own[1] if own else f"Typst cannot typeset the report ({reason}); try --to reporthtml"
                raise InputError(told) from None


class ReportHTMLExporter(ReportExporter):
    """Notebook to one HTML file that needs no network: MathML, style sheet, figures and sounds are inside."""

    export_from_notebook = "Report as HTML"
    output_mimetype = "text/html"
    file_extension = FilenameExtension(".html")
    target = "html"
    image_types = (*IMAGES, "audio/mpeg")
    options = (
        "--embed-resources",
        "--mathml",
        "--number-sections",
        "--section-divs",
        "--toc",
        "--toc-depth=2",
        f"--template={TEMPLATES}/report.html",
        f"--css={TEMPLATES}/report.css",
    )


class ReportMarkdownExporter(ReportExporter):
    """Notebook to pandoc's Markdown with its figures beside it, for groups that go on writing elsewhere."""

    export_from_notebook = "Report as Markdown"
    output_mimetype = "text/markdown"
    file_extension = FilenameExtension(".md")
    target = "markdown"


class ReportDocxExporter(ReportExporter):
    """Notebook to a Word file, figures as bitmaps of 200 dpi."""

    export_from_notebook = "Report as Word file"
    output_mimetype = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    file_extension = FilenameExtension(".docx")
    target = "docx"
    options = ("--toc", "--toc-depth=2")

    def write(self, report: Report) -> bytes | str:
        """With bitmaps of vector graphics: Word shows no SVG that has no bitmap beside it."""
        for element in elements(report.blocks):
            if element["t"] == "Image" and (name := element["c"][2][0]).endswith(".svg"):
                element["c"][2][0] = f"{name}.png"
                report.files[f"{name}.png"] = _bitmap(report.files[name])
        return super().write(report)


def _bitmap(drawing: bytes) -> bytes:
    """An SVG drawing as PNG."""
    page = b'#set page(width: auto, height: auto, margin: 0pt)\n#image("drawing.svg")'
    with _folder_of({"drawing.svg": drawing, "page.typ": page}) as folder:
        return bytes(typst.compile(folder / "page.typ", root=folder, format="png", ppi=200))


def read_report(
    notebook: NotebookNode, target: str, image_types: Sequence[str] = IMAGES, default_title: str | None = None
) -> Report:
    """The report that an executed notebook shows.

    Args:
        notebook: with its outputs.
        target: language to be written, such as ``typst`` or ``html``.
        image_types: MIME types of the images, and sounds, that it takes, best first.
        default_title: if the notebook shows no title page.

    Raises:
        InputError: a cell ended in an error, an unknown or double label, a foreign image, a caption that is no sound
            Markdown.
    """
    markdown, files, reports = write_markdown(notebook, image_types)
    blocks = read_markdown(markdown)
    for element in elements(blocks):
        if element["t"] == "Image" and element["c"][2][0] not in files:
            raise InputError(f"the image {element['c'][2][0]!r} is no output of the notebook; paste it into a cell")
    title_page: dict[str, Any] = {"title": default_title or "Report", "authors": [], "people": []}
    title_page = next((shown for shown in reversed(reports) if shown["kind"] == "title-page"), title_page)
    names = number_all(blocks, title_page.get("language", "en"))
    for shown in reports:
        label = shown.get("label")
        if label and label not in names:  # an open bracket, say, takes the whole figure with it
            raise InputError(f"{label} is lost: its caption is no sound Markdown; close its brackets, escape names")
    alts = {str(shown["label"]): str(shown["alt"]) for shown in reports if shown.get("label") and shown.get("alt")}
    abstract = read_markdown(title_page.get("abstract", ""))
    resolve([abstract, blocks], names, target)
    return Report(title_page, abstract, blocks, files, alts)


def _raw(code: str) -> Node:
    return {"t": "RawBlock", "c": ["typst", code]}


def _metadata(value: Any) -> Node:
    """Plain text, or a list of such, as metadata of a pandoc document."""
    if isinstance(value, list):
        return {"t": "MetaList", "c": list(map(_metadata, value))}
    return {"t": "MetaString", "c": str(value)}


@contextmanager
def _folder_of(files: Mapping[str, bytes]) -> Iterator[Path]:
    """A temporary folder that holds the files."""
    with ExitStack() as stack:
        with explained(Path(tempfile.gettempdir()), "free space there, or set TMPDIR to another folder"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="audioclf-")))
            for name, content in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
        yield folder

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

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.extras import extra
from audioclf_lib._support.paths import explained
from audioclf_lib.report.crossrefs import number_all, resolve
from audioclf_lib.report.markdown import write_markdown
from audioclf_lib.report.pandoc import Node, elements, read_markdown, write_blocks

with extra("report"):
    import typst
    from nbconvert.exporters import Exporter
    from nbconvert.exporters.exporter import FilenameExtension
    from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent / "templates"
IMAGE_TYPES = ["application/pdf", "image/svg+xml", "image/png", "image/jpeg"]  # best first; browsers take no PDF
# Armenian to Khmer, and from East Asia on: scripts that the fonts inside Typst lack.
LETTERS_WITHOUT_FONT = re.compile("[\u0530-\u1dff\u2e80-\U0010ffff]")


@dataclass(frozen=True)
class Report:
    """A report as pandoc blocks, what its title page says (``show_title_page``), and the files that it names."""

    title_page: dict[str, Any]
    abstract: list[Node]
    blocks: list[Node]
    files: dict[str, bytes]


class ReportExporter(Exporter):
    """What the exporters of reports share."""

    target: str  # language to be written

    def from_notebook_node(  # type: ignore[override]  # nbconvert's own PDF exporter returns bytes, too
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[bytes | str, dict[str, Any]]:
        """The report that an executed notebook shows.

        Raises:
            InputError: a cell ended in an error, an unknown or double label, a foreign image, a caption that is no
                sound Markdown, a formula that cannot be converted, a table that is too wide for the page, or no room
                for temporary files.
        """
        nb, resources = super().from_notebook_node(nb, resources, **kw)
        return self.write(read_report(nb, self.target, resources["metadata"].get("name"))), resources

    def write(self, report: Report) -> bytes | str:
        """The report as content of a file."""
        raise NotImplementedError


class TypstPDFExporter(ReportExporter):
    """Notebook to PDF through Markdown, pandoc and Typst: no TeX, no root rights, same notebook same bytes."""

    export_from_notebook = "Report as PDF (Typst)"
    output_mimetype = "application/pdf"
    file_extension = FilenameExtension(".pdf")
    target = "typst"

    def write(self, report: Report) -> bytes:
        start = '#import "report.typ": *\n#let abstract = ['
        middle = ']\n#show: report.with(json("title-page.json"), abstract)'
        raw = [{"t": "RawBlock", "c": ["typst", code]} for code in (start, middle)]
        main = write_blocks([raw[0], *report.abstract, raw[1], *report.blocks], "typst")
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


class ReportHTMLExporter(ReportExporter):
    """Notebook to one HTML file that needs no network: MathML, style sheet and figures are inside."""

    export_from_notebook = "Report as HTML"
    output_mimetype = "text/html"
    file_extension = FilenameExtension(".html")
    target = "html"

    def write(self, report: Report) -> str:
        meta = {name: _metadata(value) for name, value in report.title_page.items() if value}
        meta["author"] = _metadata(report.title_page["authors"])  # pandoc makes author-meta of it, safe in attributes
        if report.abstract:
            meta["abstract"] = {"t": "MetaBlocks", "c": report.abstract}
        options = ["--standalone", "--embed-resources", "--mathml", "--number-sections", "--section-divs"]
        options += ["--toc", "--toc-depth=2", f"--template={TEMPLATES}/report.html", f"--css={TEMPLATES}/report.css"]
        with _folder_of(report.files) as folder:
            return write_blocks(report.blocks, "html", *options, meta=meta, folder=folder)


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
    markdown, files, reports = write_markdown(notebook, IMAGE_TYPES[target == "html" :])
    blocks = read_markdown(markdown)
    for element in elements(blocks):
        if element["t"] == "Image" and element["c"][2][0] not in files:
            raise InputError(f"the image {element['c'][2][0]!r} is no output of the notebook; paste it into a cell")
    names = number_all(blocks)
    title_page: dict[str, Any] = {"title": default_title or "Report", "authors": [], "people": []}
    for shown in reports:
        label = shown.get("label")
        if shown["kind"] == "title-page":
            title_page = shown
        elif label and label not in names:  # an open bracket, say, takes the whole figure with it
            raise InputError(f"{label} is lost: its caption is no sound Markdown; close its brackets, escape names")
    abstract = read_markdown(title_page.get("abstract", ""))
    return Report(title_page, resolve(abstract, names, target), resolve(blocks, names, target), files)


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
                (folder / name).write_bytes(content)
        yield folder

"""nbconvert exporters that make the report of an executed notebook: PDF by Typst, PDF by XeLaTeX, HTML in one file.

All three read the notebook alike (``reporting.document``) and differ in the last step only::

    jupyter nbconvert --to typstpdf 90_report.ipynb       # needs nothing but this package's dependencies
    jupyter nbconvert --to reportpdf 90_report.ipynb      # needs XeLaTeX
    jupyter nbconvert --to reporthtml 90_report.ipynb
    jupyter nbconvert --to pdf --template reportlatex \\
        --TemplateExporter.extra_template_basedirs=audioclf_lib/reporting/templates 90_report.ipynb
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typst
from nbconvert.exporters import Exporter, PDFExporter
from nbconvert.exporters.pdf import LatexFailed
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from traitlets import default

from audioclf_lib._support.errors import InputError
from audioclf_lib.report.document import Report, read_report
from audioclf_lib.report.markdown import TEMPLATES
from audioclf_lib.report.pandoc import plain_text, write_blocks

Resources = dict[str, Any]

# Armenian to Khmer, and from East Asia on: scripts that the fonts inside Typst lack.
LETTERS_WITHOUT_FONT = re.compile("[\u0530-\u1dff\u2e80-\U0010ffff]")


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
        images = ["application/pdf", "image/svg+xml", "image/png"]
        report = read_report(nb, "typst", images, _notebook_name(resources))
        return typeset_with_typst(report), resources


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
        report = read_report(nb, "html", ["image/svg+xml", "image/png"], _notebook_name(resources))
        return write_html(report), resources


class ReportPDFExporter(PDFExporter):
    """Notebook to PDF through XeLaTeX with the template ``reportlatex``."""

    export_from_notebook = "Report as PDF (XeLaTeX)"

    @default("template_name")
    def _template_name_default(self) -> str:
        return "reportlatex"

    @default("extra_template_basedirs")
    def _default_extra_template_basedirs(self) -> list[str]:
        return [str(TEMPLATES)]

    def from_notebook_node(  # type: ignore[override]
        self, nb: NotebookNode, resources: Resources | None = None, **kw: Any
    ) -> tuple[bytes, Resources]:
        if shutil.which(self.latex_command[0]) is None:
            raise InputError(
                f"{self.latex_command[0]} is not installed; install it with `make system-packages`, "
                "or export with --to typstpdf, which does not need it"
            )
        with _dateless():
            try:
                pdf, resources = super().from_notebook_node(nb, resources, **kw)  # type: ignore[no-untyped-call]
                return pdf, resources
            except LatexFailed as error:
                reason = _reason(error.output)
                raise InputError(f"XeLaTeX cannot typeset the report ({reason}); try --to typstpdf") from None


class LatexReport(Preprocessor):
    """Puts the report's LaTeX in place of the cells; the template's ``conf.json`` names it, so it runs with
    nbconvert's own ``--to pdf`` too."""

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        report = read_report(nb, "latex", ["application/pdf", "image/png"], _notebook_name(resources))
        resources["report"] = asdict(report.front_matter) | {
            "abstract": write_blocks(report.abstract, "latex"),
            "body": write_blocks(report.blocks, "latex"),
        }
        resources["outputs"] = report.files
        nb.cells = []
        return nb, resources


def typeset_with_typst(report: Report) -> bytes:
    """The report as PDF by Typst and ``templates/report.typ``.

    Raises:
        InputError: something in the report that pandoc cannot convert or Typst cannot set.
    """
    start = '#import "report.typ": *\n'
    abstract = 'include "abstract.typ"' if report.abstract else "none"
    show = f'#show: report.with(json("front-matter.json"), abstract: {abstract})\n'
    texts = {
        "main.typ": start + show + '#include "body.typ"\n',
        "abstract.typ": start + write_blocks(report.abstract, "typst"),
        "body.typ": start + write_blocks(report.blocks, "typst"),
        "front-matter.json": json.dumps(asdict(report.front_matter)),
        "report.typ": (TEMPLATES / "report.typ").read_text(encoding="utf-8"),
    }
    # Only Typst's own fonts, so that every machine makes the same bytes, unless they lack the script.
    own_fonts = not LETTERS_WITHOUT_FONT.search(
        plain_text([*report.abstract, *report.blocks]) + str(report.front_matter)
    )
    with TemporaryDirectory() as folder:
        _write_files(Path(folder), {name: text.encode() for name, text in texts.items()} | report.files)
        try:
            return bytes(typst.compile(f"{folder}/main.typ", root=folder, ignore_system_fonts=own_fonts))
        except typst.TypstError as error:
            reason = str(error).splitlines()[0].removeprefix("error: ")
            raise InputError(f"Typst cannot typeset the report ({reason}); try --to reporthtml") from None


def write_html(report: Report) -> str:
    """The report as one HTML file by pandoc, ``templates/report.html`` and ``templates/report.css``."""
    front_matter = asdict(report.front_matter)
    meta: dict[str, Any] = {
        name: {"t": "MetaString", "c": text} for name, text in front_matter.items() if isinstance(text, str) and text
    }
    meta["author"] = {"t": "MetaList", "c": [{"t": "MetaString", "c": name} for name in report.front_matter.authors]}
    meta["pagetitle"] = meta["title"]
    meta["lang"] = {"t": "MetaString", "c": "en-GB"}
    if report.abstract:
        meta["abstract"] = {"t": "MetaBlocks", "c": report.abstract}
    options = ["--standalone", "--embed-resources", "--mathml", "--number-sections", "--section-divs"]
    options += ["--toc", "--toc-depth=2", f"--template={TEMPLATES}/report.html", f"--css={TEMPLATES}/report.css"]
    with TemporaryDirectory() as folder:
        _write_files(Path(folder), report.files)
        return write_blocks(report.blocks, "html", options, meta, Path(folder))


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _notebook_name(resources: Resources | None) -> str:
    return str((resources or {}).get("metadata", {}).get("name", ""))


def _reason(log: str) -> str:
    """The first error in a log of TeX (``! ...``) and the line of the source where it stands (``l.12 ...``)."""
    lines = log.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("!")), len(lines))
    place = next((line for line in lines[start:] if line.startswith("l.")), "")
    return " ".join(f"{' '.join(lines[start : start + 1])} {place}".split()) or "its log says no more"


@contextmanager
def _dateless() -> Iterator[None]:
    """TeX writes the date and a number made from it into a PDF; a fixed date makes the same bytes."""
    before = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]

"""A notebook's report as PDF and HTML: one notebook with everything a report holds."""

from __future__ import annotations

import base64
import itertools
import logging
import re
import shutil
import subprocess
import tempfile
import warnings
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbconvert
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pypdf import PdfReader
from pypdf.generic import DictionaryObject
from shown import SECRET_CODE, executed_cell

from audioclf_lib._support.errors import InputError
from audioclf_lib.report import escape_markdown, show, show_equation, show_sound, show_text, show_title_page
from audioclf_lib.report.exporters import (
    ReportDocxExporter,
    ReportHTMLExporter,
    ReportMarkdownExporter,
    TypstPDFExporter,
    read_report,
)

NOTICE = "Demo data set: generated sounds, not recordings"
HOSTILE = [
    "<script>alert(1)</script>",
    "\\input{/etc/passwd}",
    '#read("/etc/passwd")',
    "$x$",
    "a|b",
    "*bold*",
    "[@fig:nope]",
    "![x](http://evil.example/x.png)",
    "{#id} & % ~ ^ _ \\",
]
FORMULAS = [
    r"\left\lfloor \frac{L_{\mathrm{in}} + 2p - k}{s} \right\rfloor + 1",
    r"\sum_{i=1}^{n} w_i x_{i} + b, \quad \prod_j p_j, \quad \int_0^1 f",
    r"\operatorname{softmax}\!\left(\frac{QK^\top}{\sqrt{d_k}}\right) V",
    r"f(x) = \begin{cases} x & \text{if } x > 0 \\ 0 & \text{otherwise} \end{cases}",
    r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix} \begin{bmatrix} a \\ b \end{bmatrix}",
    r"\begin{aligned} a &= b + c \\ &= \underbrace{250 \cdot 750}_{\text{weights}} + 750 \end{aligned}",
    r"\begin{align} a &= b \\ c &= d \end{align}",
    r"\hat{y} = \arg\max_c \; \bar{p}_c, \; \mathbf{z} \in \mathbb{R}^{33 \times 250}, \; \mathcal{L} = -\log \hat p_y",
    r"\lVert x \rVert \le \lvert y \rvert \approx \pm 2.30 \times 10^{-3}, \; \ln 10, \; \boldsymbol{\theta}",
    r"\text{accuracy} = \frac{\operatorname{tr}(C)}{\sum_{i,j} C_{ij}} = \frac{661}{720} = 0.918",
    " + ".join(rf"\underbrace{{{n * 1024}}}_{{\text{{conv{n}}}}}" for n in range(1, 16)),
]
FORMULA_TABLE = (
    f"Table: Table {escape_markdown(HOSTILE[0])} named formulas. {{#tbl:formulas}}\n\n"
    "| Layer | Derivation | Why | Share |\n| :--- | :--- | :--- | ---: |\n"
    + rf"| AdaptiveAvgPool1d | ${FORMULAS[0]} = 8000$ as $(7 + 1) \cdot 128$ | {'it halves ' * 9} | 0.5 |"
)
EXPORTERS: dict[str, Callable[..., Any]] = {
    "typst": TypstPDFExporter,
    "html": ReportHTMLExporter,
    "docx": ReportDocxExporter,
    "markdown": ReportMarkdownExporter,
}


def require(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed; `make system-packages` installs it")


def show_two_panels(figures_dir: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    axes[0].plot(np.sqrt(np.arange(20)), label="training")
    axes[1].pcolormesh(np.eye(5))
    caption = "Curves \\[0, 1) of [@tbl:layers], $\\bar{a} = 0.5$."
    show(figure, caption=caption, label="fig:curves", folder=figures_dir, width="100%")


def tables() -> dict[str, pd.DataFrame]:
    random = np.random.default_rng(0)
    classes = [
        "dog bark",
        "sea waves",
        "crying baby",
        "clock tick",
        "helicopter",
        "chainsaw",
        "rooster",
        "fire crackling",
    ]
    return {
        "layers": pd.DataFrame({"Layer": ["Conv1d"], "Parameters": [41024], "Derivation": ["(7 + 1) · 128"]}),
        "wide": pd.DataFrame(
            random.random((8, 11)), columns=[*classes, "mean", "standard deviation", "rank"]
        ).set_index(pd.Index([f"Transformer, {heads} heads, k-fold" for heads in range(8)], name="Experiment")),
        "prose": pd.DataFrame({"Setting": ["dropout", "warmup"], "Reason": ["why one would want it " * 12] * 2}),
        "long": pd.DataFrame({"Clipname": [f"{n}-{'a' * 40}.ogg" for n in range(110)], "p": random.random(110)}),
        "hostile": pd.DataFrame({"Class": HOSTILE, HOSTILE[1]: range(len(HOSTILE))}),
    }


def full_notebook(figures_dir: Path) -> NotebookNode:
    shown = tables()

    def table(name: str, **options: Any) -> NotebookNode:
        caption = f"Table {escape_markdown(HOSTILE[0])} named {name}."
        return executed_cell(lambda: show(shown[name], caption=caption, label=f"tbl:{name}", **options))

    stream = [new_output("stream", name="stderr", text="100%|####| STREAM_TRACE")]
    front_matter = {"motto": HOSTILE[3], "authors": ["Ada Lovelace", HOSTILE[0]], "course": HOSTILE[2]}
    front_matter |= {"date": "23 November 2025", "notice": NOTICE, "abstract": "See [@tbl:layers], **really**."}
    return new_notebook(
        cells=[
            new_code_cell("dataset = 'TAG_TRACE'", metadata={"tags": ["parameters"]}, outputs=stream),
            executed_cell(lambda: show_title_page(title=f"Sounds {HOSTILE[1]}", **front_matter)),
            new_markdown_cell(
                "# Method\nFirst [@sec:windows], then [@eq:size], [@fig:curves; @tbl:wide] and [@sec:own].\n"
                "- a list\n\n## Windows\nThe size\n$$n = \\left\\lfloor \\frac{L}{s} \\right\\rfloor"
                " \\label{eq:size}$$\nis whole.\n"
                "# Own {#sec:own}\n```text\nConv1d(" + "1, " * 80 + ")\n" + "x" * 200 + "\n```\n"
            ),
            executed_cell(lambda: show_two_panels(figures_dir)),
            executed_cell(lambda: show_text("Computed " + escape_markdown("$5*|") + " and $\\frac{1}{2}$.")),
            table("layers"),
            *[executed_cell(lambda f=formula: show_equation(f)) for formula in FORMULAS],
            executed_cell(lambda: show_equation("e = mc^2", "eq:energy")),
            new_markdown_cell("Behold [@eq:energy]."),
            table("wide"),
            table("prose"),
            executed_cell(lambda: show_text(FORMULA_TABLE)),
            table("hostile"),
            executed_cell(lambda: show_text("TAG_TRACE"), "hide"),
            new_code_cell("print()", outputs=stream),
            table("long"),
        ]
    )


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    return full_notebook(tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def pdf(notebook: NotebookNode, tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("pdftotext", "pdfimages")
    content, _ = TypstPDFExporter().from_notebook_node(notebook)
    path = tmp_path_factory.mktemp("report") / "report.pdf"
    path.write_bytes(content)
    return path


def structure_of(reader: PdfReader) -> Iterator[DictionaryObject]:
    """All elements of a tagged PDF's structure tree."""
    waiting = [reader.trailer["/Root"]["/StructTreeRoot"]]
    while waiting:
        node = waiting.pop().get_object()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, DictionaryObject):
            yield node
            waiting += [node["/K"]] if "/K" in node else []


def alt_of(node: DictionaryObject) -> str:
    return str(node.get("/Alt", "")).replace(". heat", "; heat")


@pytest.fixture(scope="module")
def html(notebook: NotebookNode) -> str:
    content, _ = ReportHTMLExporter().from_notebook_node(notebook)
    return str(content)


def poppler(program: str, *arguments: str | Path) -> str:
    return subprocess.run([program, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def text_of(pdf: Path, *options: str) -> str:
    """Text of a PDF with single spaces, without the invisible places where long words may break."""
    return " ".join(poppler("pdftotext", *options, pdf, "-").replace("\u200b", "").split())


def test_exporters_are_known_to_nbconvert_by_name() -> None:
    assert nbconvert.get_exporter("typstpdf") is TypstPDFExporter
    assert nbconvert.get_exporter("reporthtml") is ReportHTMLExporter


def test_pdf_numbers_captions_sections_and_equations_and_refers_to_them(pdf: Path) -> None:
    text = text_of(pdf)
    assert "First Section 1.1, then Equation (1), Figure 1 and Table 2 and Section 2." in text
    assert "Figure 1. Curves [0, 1) of Table 1" in text
    assert "Behold Equation (2)." in text
    for number, name in enumerate(("layers", "wide", "prose", "formulas", "hostile", "long"), start=1):
        assert f"Table {number}. Table {HOSTILE[0]} named {name}." in text
    assert re.search(r"1\.1 Windows The size", text), "the heading has the number that references give"


def test_pdf_shows_no_markup_no_code_and_nothing_that_is_hidden(pdf: Path) -> None:
    text = text_of(pdf)
    for hostile in HOSTILE:  # these may stand in it, since users wrote them
        text = text.replace(hostile, "")
    for trace in ("[@", "\\frac", "\\label", "$$", "{#", "TAG_TRACE", "STREAM_TRACE", SECRET_CODE, "#####"):
        assert trace not in text


def test_pdf_shows_hostile_names_as_they_are_and_reads_no_file(pdf: Path) -> None:
    text = text_of(pdf)
    for hostile in HOSTILE:
        assert hostile in text
    assert f"Sounds {HOSTILE[1]}" in text
    assert Path("/etc/passwd").read_text().split(":")[0] + ":" not in text


def test_pdf_carries_the_notice_and_its_number_on_every_page(pdf: Path) -> None:
    pages = len(PdfReader(pdf).pages)
    assert pages >= 5
    for page in range(1, pages + 1):
        text = text_of(pdf, "-f", str(page), "-l", str(page))
        assert NOTICE in text
        assert re.search(rf"\b{page} ?/ ?{pages}\b", text)


def test_pdf_keeps_every_word_inside_the_margins(pdf: Path) -> None:
    boxes = re.findall(r'<word xMin="(.*?)" .*? xMax="(.*?)" .*?>(.*?)</word>', poppler("pdftotext", "-bbox", pdf, "-"))
    assert len(boxes) > 1000
    millimetre = 72 / 25.4
    left, right = (25 - 0.7) * millimetre, (185 + 0.7) * millimetre
    assert [word for x_min, x_max, word in boxes if float(x_min) < left or float(x_max) > right] == []


def test_pdf_keeps_a_heading_and_its_notice_with_the_text_that_follows() -> None:
    """However much of the page is full before them, so one of these fillings would leave them alone at its foot."""
    for lines in range(36, 48):
        filling = "\\\n".join(["filling"] * lines)
        cells = [new_markdown_cell(f"{filling}\n\n# Conclusion\n\n> Not yours.\n\nThe text.")]
        pages = PdfReader(BytesIO(TypstPDFExporter().from_notebook_node(new_notebook(cells=cells))[0])).pages
        texts = [page.extract_text() for page in pages]
        assert any("1 Conclusion\nNot yours.\nThe text." in text for text in texts), f"{lines} lines"


def test_pdf_keeps_a_table_of_up_to_a_third_of_a_page_together() -> None:
    """A figure at the head of the next page would come between its rows."""
    rows = "\n".join(f"| row {number} | 1 |" for number in range(15))
    table = f"Table: Some rows. {{#tbl:rows}}\n\n| Name | Value |\n| :--- | ---: |\n{rows}"
    for lines in range(20, 45, 4):
        filling = "\\\n".join(["filling"] * lines)
        cells = [new_markdown_cell(f"# Results\n\n{filling}\n\n{table}")]
        pages = PdfReader(BytesIO(TypstPDFExporter().from_notebook_node(new_notebook(cells=cells))[0])).pages
        counts = [page.extract_text().count("row ") for page in pages]
        assert max(counts) == 15, f"{lines} lines: {counts}"


def test_pdf_repeats_the_head_of_a_table_that_breaks(pdf: Path) -> None:
    assert text_of(pdf).count("Clipname") >= 3


def test_pdf_sets_no_two_rows_of_a_long_table_upon_each_other(pdf: Path) -> None:
    for page in range(1, len(PdfReader(pdf).pages) + 1):
        text = poppler("pdftotext", "-bbox", "-f", str(page), "-l", str(page), pdf, "-")
        tops = sorted(float(top) for top in re.findall(r'yMin="([\d.]+)"[^>]*>\d+-aaa', text))
        assert all(below - above > 10 for above, below in itertools.pairwise(tops))


def test_pdf_describes_its_figures_for_readers_who_do_not_see_them(pdf: Path) -> None:
    described = "training from 0 to 4.4; heat map of 5 by 5 cells"
    kinds = [node.get("/S") for node in structure_of(PdfReader(pdf)) if described in alt_of(node)]
    assert kinds == ["/Figure"]


def test_pdf_holds_no_bitmap(pdf: Path) -> None:
    assert len(poppler("pdfimages", "-list", pdf).splitlines()) == 2, "nothing but the list's two head lines"


def test_pdf_knows_its_title_and_authors(pdf: Path) -> None:
    metadata = PdfReader(pdf).metadata
    assert metadata is not None
    assert metadata.title == f"Sounds {HOSTILE[1]}"
    assert metadata.author == f"Ada Lovelace, {HOSTILE[0]}"


@pytest.mark.parametrize("target", ["typst", "html", "markdown"])
def test_same_notebook_makes_the_same_bytes(target: str) -> None:
    small = new_notebook(cells=[new_markdown_cell("# One\n$a$ and [@sec:one]")])
    first, second = (EXPORTERS[target]().from_notebook_node(small)[0] for _ in range(2))
    assert first == second


def word_document(content: bytes) -> tuple[str, list[str]]:
    """Text of a Word file, and the names of its pictures."""
    with zipfile.ZipFile(BytesIO(content)) as archive:
        words = ET.fromstring(archive.read("word/document.xml")).itertext()
        pictures = [name for name in archive.namelist() if name.startswith("word/media/")]
    return " ".join("".join(words).split()), pictures


def test_word_and_markdown_hold_the_same_report(notebook: NotebookNode) -> None:
    content, _ = ReportDocxExporter().from_notebook_node(notebook)
    text, pictures = word_document(content)
    markdown, resources = ReportMarkdownExporter().from_notebook_node(notebook)
    assert "Behold Equation" in text
    assert "Table 2." in text
    assert [name.rpartition(".")[2] for name in pictures] == ["png"]
    assert "See Table" in markdown or "Table\xa01" in markdown
    (figure,) = resources["outputs"]
    assert f"]({figure})" in markdown
    assert resources["outputs"][figure].lstrip().startswith(b"<?xml")
    assert "TAG_TRACE" not in text + markdown


def test_a_sound_is_a_player_on_the_page_and_nothing_on_paper() -> None:
    tone = np.sin(np.arange(16_000) / 5)
    nb = new_notebook(cells=[new_markdown_cell("# One"), executed_cell(lambda: show_sound(tone, "A *tone*"))])
    page = BeautifulSoup(ReportHTMLExporter().from_notebook_node(nb)[0], "html.parser")
    assert page.find("audio")["src"].startswith("data:audio/mpeg;base64,")
    assert "A *tone*" in page.find("audio").find_parent("figure").get_text()
    pages = PdfReader(BytesIO(TypstPDFExporter().from_notebook_node(nb)[0])).pages
    assert "tone" not in "".join(each.extract_text() for each in pages)


WORLD = ["狗叫", "कुत्ते का भौंकना", "نباح الكلب", "สุนัขเห่า", "σκύλος", "собака", "🐶"]


def test_letters_of_the_world_are_set_and_embedded(tmp_path: Path) -> None:
    require("pdffonts")
    cells = [
        executed_cell(lambda: show_title_page(title="狗叫", authors=["अदा", "Ада"])),
        new_markdown_cell("# " + " ".join(WORLD)),
        executed_cell(lambda: show(pd.DataFrame({"Class": WORLD, "F1": 0.5}), caption="कुत्ते.", label="tbl:a")),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content, _ = TypstPDFExporter().from_notebook_node(new_notebook(cells=cells))
    (tmp_path / "report.pdf").write_bytes(content)
    fonts = poppler("pdffonts", tmp_path / "report.pdf")
    for script in ("NotoSerifSC", "Devanagari", "Arabic", "Thai", "Emoji", "STIX"):
        assert script in fonts


def test_a_letter_without_a_font_is_told_and_the_report_made() -> None:
    unassigned = new_notebook(cells=[new_markdown_cell("# One \U000e0fff \U0001fbff\U00013000")])
    with pytest.warns(UserWarning, match="no font has .*install"):
        content, _ = TypstPDFExporter().from_notebook_node(unassigned)
    assert content.startswith(b"%PDF")


def test_a_language_names_figures_and_hyphenates() -> None:
    table = pd.DataFrame({"a": [1]})
    cells = [
        executed_cell(lambda: show_title_page(title="Klänge", language="de")),
        new_markdown_cell("# Anfang\nSiehe [@tbl:a] und [@sec:anfang]."),
        executed_cell(lambda: show(table, caption="Zahlen.", label="tbl:a")),
    ]
    page = BeautifulSoup(ReportHTMLExporter().from_notebook_node(new_notebook(cells=cells))[0], "html.parser")
    assert page.find("html")["lang"] == "de"
    assert "Siehe Tabelle 1 und § 1." in page.find("main").get_text().replace("\xa0", " ")


def test_html_needs_no_network_and_runs_nothing(html: str) -> None:
    page = BeautifulSoup(html, "html.parser")
    links = [element.get(name, "") for element in page.find_all(True) for name in ("src", "href", "srcset", "data")]
    assert {link[:5] for link in links if link and not link.startswith("#")} == {"data:"}
    assert not re.search(r"@import|url\(\s*['\"]?http", html)
    assert not page.find_all(["script", "iframe", "object", "embed"])


def test_html_holds_mathml_figures_numbers_and_references(html: str) -> None:
    page = BeautifulSoup(html, "html.parser")
    assert len(page.find_all("math")) > len(FORMULAS)
    assert page.find("figure", id="fig:curves").find("img")["src"].startswith("data:image/svg+xml")
    text = " ".join(page.find("main").get_text().split())
    assert "First Section 1.1, then Equation (1), Figure 1 and Table 2 and Section 2." in text
    for link in page.select("main a[href^='#']"):
        assert page.find(id=link["href"][1:]) is not None
    assert page.find(id="sec:windows").find(["h2"]).get_text().split() == ["1.1", "Windows"]
    assert page.find(class_="notice").get_text() == NOTICE


def test_html_shows_hostile_names_as_they_are(html: str) -> None:
    page = BeautifulSoup(html, "html.parser")
    cells = [cell.get_text() for cell in page.find(id="tbl:hostile").select("tbody td:first-child")]
    assert cells == HOSTILE
    assert page.find("h1").get_text() == f"Sounds {HOSTILE[1]}"
    for trace in ("TAG_TRACE", "STREAM_TRACE", SECRET_CODE):
        assert trace not in html


@pytest.mark.parametrize("width", [360, 1280])
def test_html_is_never_wider_than_the_window(html: str, width: int, tmp_path: Path) -> None:
    require("chromium")
    from playwright.sync_api import sync_playwright

    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800}, offline=True)
        page.goto((tmp_path / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        line = page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)")
        fraction = page.evaluate("document.querySelector('.equation mfrac').getBoundingClientRect().height")
        assert fraction > 1.4 * line, "numerator above denominator"
        figure = page.locator("figure img").first
        before = figure.bounding_box()["width"]
        figure.click()
        assert figure.bounding_box()["width"] > 1.3 * before, "a tap shows it larger"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()


def test_nbconverts_own_html_misses_no_alternative_text(
    notebook: NotebookNode, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = HTMLExporter()
    exporter.log = logging.getLogger("nbconvert-under-test")
    with caplog.at_level(logging.WARNING):
        page = BeautifulSoup(exporter.from_notebook_node(notebook)[0], "html.parser")
    assert caplog.records == []
    assert [image["alt"] for image in page.find_all("img")] == ["training from 0 to 4.4. heat map of 5 by 5 cells"]


def test_a_link_to_a_label_gets_its_number_and_reads_as_words_elsewhere() -> None:
    cells = [new_markdown_cell("# Own {#sec:own}\nSee [the next part](#sec:next).\n# Next\nBack to [it](#sec:own).")]
    content, _ = ReportHTMLExporter().from_notebook_node(new_notebook(cells=cells))
    page = BeautifulSoup(content, "html.parser")
    links = {link.get_text(): link["href"] for link in page.select("main a")}
    assert links == {"Section\xa02": "#sec:next", "Section\xa01": "#sec:own"}


@pytest.mark.parametrize("exporter", [TypstPDFExporter, ReportHTMLExporter])
def test_an_image_pasted_into_a_cell_is_in_the_report(exporter: Callable[[], Any]) -> None:
    figure = plt.figure(figsize=(1, 1))
    figure.savefig(buffer := BytesIO(), format="png")
    plt.close(figure)
    pasted = {"image.png": {"image/png": base64.b64encode(buffer.getvalue()).decode()}}
    cell = new_markdown_cell("![Pasted.](attachment:image.png){#fig:pasted}\n\nSee [@fig:pasted].", attachments=pasted)
    content, _ = exporter().from_notebook_node(new_notebook(cells=[cell]))
    if isinstance(content, str):
        text, images = BeautifulSoup(content, "html.parser").get_text(), content.count("data:image/png")
    else:
        pages = PdfReader(BytesIO(content)).pages
        text, images = "".join(page.extract_text() for page in pages), sum(len(page.images) for page in pages)
    assert "See Figure 1." in text.replace("\xa0", " ")
    assert images == 1


@pytest.mark.parametrize("exporter", [TypstPDFExporter, ReportHTMLExporter])
def test_no_room_for_temporary_files_is_told_in_one_sentence(
    exporter: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(InputError, match=r"cannot write .*missing: No such file or directory; .*TMPDIR"):
        exporter().from_notebook_node(new_notebook(cells=[new_markdown_cell("# One")]))


def cells_with_error() -> list[NotebookNode]:
    output = new_output("error", ename="ValueError", evalue="no such fold", traceback=[])
    return [new_code_cell("", outputs=[output])]


def table_cell(columns: int = 1, caption: str = "c") -> NotebookNode:
    table = pd.DataFrame([[0.5] * columns], columns=[f"helicopter{n}" for n in range(columns)])
    return executed_cell(lambda: show(table, caption=caption, label="tbl:a"))


@pytest.mark.parametrize("target", ["typst", "html"])
@pytest.mark.parametrize(
    ("make_cells", "message"),
    [
        (lambda: [new_markdown_cell("See [@fig:nope].")], r"\[@fig:nope\].*no label"),
        (lambda: [new_markdown_cell("See @tbl:nope.")], r"\[@tbl:nope\].*no label"),
        (lambda: [table_cell(), table_cell()], "'tbl:a' stands for two things"),
        (cells_with_error, "cell 1 .*ValueError: no such fold"),
        (lambda: [new_markdown_cell("![secret](/etc/passwd)")], "'/etc/passwd' is no output"),
    ],
    ids=["unknown reference", "unknown bare reference", "double label", "failed cell", "foreign image"],
)
def test_faults_stop_the_export_with_one_sentence(
    make_cells: Callable[[], list[NotebookNode]], message: str, target: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_report(new_notebook(cells=make_cells()), target)
    assert "\n" not in str(caught.value)


def test_table_too_wide_for_paper_is_refused_but_scrolls_on_screen() -> None:
    wide = new_notebook(cells=[table_cell(columns=40)])
    with pytest.raises(InputError, match="tbl:a is too wide for the page with 40 columns"):
        TypstPDFExporter().from_notebook_node(wide)
    assert "helicopter39" in ReportHTMLExporter().from_notebook_node(wide)[0]


def test_figure_whose_caption_breaks_the_markdown_is_not_lost_silently(tmp_path: Path) -> None:
    def show_it() -> None:
        show(plt.subplots()[0], caption="an open [ bracket", label="fig:a", folder=tmp_path)

    with pytest.raises(InputError, match="fig:a is lost"):
        read_report(new_notebook(cells=[executed_cell(show_it)]), "html")


@pytest.mark.parametrize("exporter", [TypstPDFExporter, ReportHTMLExporter])
def test_formula_that_cannot_be_converted_is_named(exporter: Callable[[], Any]) -> None:
    with pytest.raises(InputError, match=r"\\nosuchcommand") as caught:
        exporter().from_notebook_node(new_notebook(cells=[new_markdown_cell("$\\nosuchcommand{x}$")]))
    assert "\n" not in str(caught.value)


def test_outputs_that_are_not_made_for_the_report_are_shown_plainly() -> None:
    pixel = base64.b64encode(b"not looked at").decode()
    outputs = [
        new_output("execute_result", data={"text/plain": "   a\n0  1", "text/html": "<table></table>"}),
        new_output("execute_result", data={"text/plain": "<Axes: >"}),
        new_output("display_data", data={"text/html": "<audio></audio>", "text/plain": "<Audio object>"}),
        new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "100%"}),
        new_output("display_data", data={"image/png": pixel, "text/plain": "<Figure>"}),
    ]
    report = read_report(new_notebook(cells=[new_code_cell("", outputs=outputs)]), "html")
    assert [block["t"] for block in report.blocks] == ["CodeBlock", "Para"]
    assert report.blocks[0]["c"][1] == "   a\n0  1"
    assert len(report.files) == 1

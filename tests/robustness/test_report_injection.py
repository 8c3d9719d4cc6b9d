"""Titles, names and clips that users give arrive in the report as text: they cannot inject Typst, HTML or Markdown,
whatever they hold.

The same report is made twice, once with names of plain letters. A hostile name may add characters to it, and nothing
else: no HTML element, no link.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook
from pypdf import PdfReader
from shown import executed_cell, outputs_of
from synthetic import write_run

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Experiment, KnownDataset
from audioclf_lib.data import Dataset
from audioclf_lib.figures import plot_confusion, plot_f1_bars, plot_roc_panels, plot_waveform
from audioclf_lib.metrics import ExperimentResult
from audioclf_lib.report import escape_markdown, show, show_text, show_title_page, tables
from audioclf_lib.report.exporters import ReportHTMLExporter, TypstPDFExporter
from audioclf_lib.report.gather import Gathered
from audioclf_lib.report.pandoc import elements, read_markdown
from audioclf_lib.report.prose import Prose
from audioclf_lib.report.values import Value, report_values
from audioclf_lib.runs.store import Run, RunStore

HOSTILE = (
    "\\input{/etc/passwd}",
    "\\immediate\\write18{touch pwned}",
    "}\\end{document}\\def\\x{",
    "$\\frac{1}{0}$ $$x$$",
    "50 % of R&D #1 a_b^c ~ {",
    '#read("/etc/passwd")',
    '#eval("1") #import "x.typ": *',
    "@ref <label> = heading",
    "*bold* _italic_ `code` ~~gone~~",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><b onclick="x()">&lt;&#60;',
    "`x`{=html} `\\x`{=latex}",
    "![](file:///etc/passwd)",
    "[link](javascript:alert(1)) <http://evil.example>",
    "[@fig:nope] @tbl:nope ^[note] {#id .class}",
    "| a | b |",
    "---",
    "# heading",
    "1. item",
    "\\(x\\) \\[y\\] \\",
    "$ ends with a dollar \\$",
)
PLAIN = tuple(re.sub("[^A-Za-z0-9 ]", "x", name) for name in HOSTILE)  # as long, so that lines break alike
DRAWN = (3, 0, 9, 11, 12, 15)  # of these names, clips are drawn


def quote(name: str) -> str:
    return f"*{escape_markdown(name)}*"


def report_with(names: Sequence[str], folder: Path) -> NotebookNode:
    """A notebook that shows ``names`` wherever the report has texts of users."""
    experiment = Experiment(model="cnn", epochs=2)
    known = KnownDataset("sounds", "0" * 16, (1, 2, 3), PLAIN)
    runs = [write_run(RunStore(folder), config, n_windows=2, silent_windows=1) for config in experiment.fits(known)]
    named = [Run(run.path, run.config.model_copy(update={"class_names": tuple(names)})) for run in runs]  # same numbers
    result = ExperimentResult(experiment, tuple(named))
    prose = Prose(report_values(Gathered(RunStore(folder), known, (result,))) | {"dataset": Value(names[4])}, folder)
    scores = result.scores("clip")
    dataset = dataset_with([names[number] for number in DRAWN])
    table = pd.DataFrame({"Class": names, names[0]: range(len(names))})
    caption = f"Of {', '.join(map(quote, names))} and {' '.join(map(escape_markdown, names))}."
    shows: list[Callable[[], None]] = [
        lambda: show_title_page(
            title=" ".join(names),
            authors=list(names),
            course=" ".join(names),
            date=" ".join(names),
            abstract=f"On {escape_markdown(names[3])}.",
            notice=names[9],
            roll_numbers=names,
            submitted_to=names[2],
            motto=names[3],
        ),
        lambda: show_text(prose.text("data")),
        lambda: show(tables.data_table(result.best), caption="Of the runs.", label="tbl:data"),
        lambda: show(dataset.class_table(), caption=f"Of {escape_markdown(dataset.clip_ids[0])}.", label="tbl:classes"),
        *[
            lambda clip=clip: show(
                plot_waveform(dataset.waveforms[clip]),
                caption=f"{escape_markdown(dataset.class_names[clip])}: {escape_markdown(dataset.clip_ids[clip])}.",
                label=f"fig:clip-{clip}",
            )
            for clip in range(len(DRAWN))
        ],
        lambda: show(plot_confusion(result.confusion("clip")), caption="Clips.", label="fig:confusion"),
        lambda: show(plot_roc_panels(scores.roc, scores.auc), caption="Curves.", label="fig:roc"),
        lambda: show(plot_f1_bars(scores.per_class), caption="F1.", label="fig:f1"),
        lambda: show(scores.per_class, caption="Scores.", label="tbl:scores"),
        lambda: show(table, caption=caption, label="tbl:hostile"),
        *[lambda name=name: show_text(f"### {escape_markdown(name)}\n\n{escape_markdown(name)}") for name in names],
    ]
    return new_notebook(cells=[new_markdown_cell("# Report"), *map(executed_cell, shows)])


def dataset_with(names: Sequence[str]) -> Dataset:
    """Three folds of one clip for each name, which is also the name of the clip."""
    labels = np.tile(np.arange(len(names)), 3)
    folds = np.repeat([1, 2, 3], len(names))
    clip_ids = tuple(f"{names[label]} {fold}" for label, fold in zip(labels, folds, strict=True))
    waveforms = np.random.default_rng(0).uniform(-0.5, 0.5, (len(labels), 24_000)).astype(np.float32)
    return Dataset("sounds", waveforms, labels, folds, clip_ids, tuple(names), clip_ids, fingerprint="0" * 16)


@dataclass(frozen=True)
class Made:
    """A report in all forms."""

    notebook: NotebookNode
    html: str
    plain_html: str
    pdf: bytes


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Made]:
    patch = pytest.MonkeyPatch()
    patch.setenv("AUDIOCLF_FIGURES", str(tmp_path_factory.mktemp("figures")))

    @cache
    def made(names: tuple[str, ...]) -> Made:
        notebook = report_with(names, tmp_path_factory.mktemp("runs"))
        return Made(
            notebook,
            ReportHTMLExporter().from_notebook_node(notebook)[0],
            HTMLExporter().from_notebook_node(notebook)[0],
            TypstPDFExporter().from_notebook_node(notebook)[0],
        )

    yield made
    patch.undo()


@pytest.fixture(scope="module")
def hostile(make: Callable[[tuple[str, ...]], Made]) -> Made:
    return make(HOSTILE)


@pytest.fixture(scope="module")
def plain(make: Callable[[tuple[str, ...]], Made]) -> Made:
    return make(PLAIN)


def packed(text: str) -> str:
    """Text without spaces, breaks and the invisible places where long words may be broken."""
    return re.sub(r"[\s\u200b\xad]+", "", text)


# --- HTML ----------------------------------------------------------------------------------------------------------


def test_html_has_the_same_elements_whatever_the_names(hostile: Made, plain: Made) -> None:
    def tags(made: Made) -> Counter[str]:
        return Counter(tag.name for tag in BeautifulSoup(made.html, "html.parser").find_all(True))

    assert tags(hostile) == tags(plain)
    assert not {"script", "iframe", "object", "embed", "form", "b"} & tags(hostile).keys()


def test_html_has_the_same_attributes_and_no_address_whatever_the_names(hostile: Made, plain: Made) -> None:
    def attributes(made: Made) -> Counter[tuple[str, str]]:
        tags = BeautifulSoup(made.html, "html.parser").find_all(True)
        return Counter((tag.name, attribute) for tag in tags for attribute in tag.attrs)

    assert attributes(hostile) == attributes(plain)
    assert not any(attribute.startswith("on") for _, attribute in attributes(hostile))
    page = BeautifulSoup(hostile.html, "html.parser")
    links = {tag.get(name) for tag in page.find_all(True) for name in ("src", "href") if tag.has_attr(name)}
    assert all(link.startswith(("#", "data:")) for link in links)


def test_html_shows_every_name_as_it_is(hostile: Made) -> None:
    page = BeautifulSoup(hostile.html, "html.parser")
    for element in page.find_all("annotation"):
        element.decompose()
    text = packed(page.get_text())
    cells = [" ".join(cell.get_text().split()) for cell in page.find(id="tbl:hostile").select("tbody td:first-child")]
    assert cells == list(HOSTILE)
    assert page.find("h1").get_text() == page.find("title").get_text() == " ".join(HOSTILE)
    assert [author.get_text() for author in page.select(".authors span")] == [f"{name} ({name})" for name in HOSTILE]
    assert [tag["content"] for tag in page.select("meta[name=author]")] == list(HOSTILE)
    for name in HOSTILE:
        assert text.count(packed(name)) >= 10, name


# --- nbconvert's own HTML, which shows figures and tables as JupyterLab does ---------------------------------------


def test_plain_html_has_the_same_elements_whatever_the_names(hostile: Made, plain: Made) -> None:
    def tags(made: Made) -> Counter[str]:
        page = BeautifulSoup(made.plain_html, "html.parser")
        return Counter(tag.name for figure in page.find_all("figure") for tag in figure.find_all(True))

    # A dollar or backslash has an element of its own, which keeps it from being mathematics.
    assert tags(hostile).keys() - {"span"} == tags(plain).keys()
    assert tags(hostile)["img"] == tags(plain)["img"] > 3
    for text in BeautifulSoup(hostile.plain_html, "html.parser").select("figcaption"):
        assert not any(re.search(r"\$.+\$|\\\(|\\\[", string) for string in text.strings)


# --- Typst ---------------------------------------------------------------------------------------------------------


def test_typst_sets_every_name_as_it_is_and_reads_no_file(hostile: Made) -> None:
    pages = PdfReader(BytesIO(hostile.pdf)).pages
    text = packed("".join(page.extract_text() for page in pages))
    for name in HOSTILE:
        assert text.count(packed(name)) >= 10, name
    assert "root:" not in text
    assert not Path("pwned").exists()


def test_typst_makes_no_links_whatever_the_names(hostile: Made, plain: Made) -> None:
    def actions(made: Made) -> Counter[str]:
        annotations = [a.get_object() for page in PdfReader(BytesIO(made.pdf)).pages for a in page.get("/Annots") or []]
        return Counter(str(a["/A"]["/S"]) if "/A" in a else "inside" for a in annotations)

    assert "/URI" not in actions(hostile)
    assert actions(hostile).keys() == actions(plain).keys()


def test_pdf_metadata_are_the_names_as_they_are(hostile: Made) -> None:
    metadata = PdfReader(BytesIO(hostile.pdf)).metadata
    assert metadata is not None
    assert metadata.title == " ".join(HOSTILE)
    assert metadata.author == ", ".join(HOSTILE)


# --- figures -------------------------------------------------------------------------------------------------------


def test_figures_are_drawings_and_nothing_else(hostile: Made) -> None:
    drawings = [
        output.data["image/svg+xml"]
        for cell in hostile.notebook.cells
        for output in cell.get("outputs", [])
        if "image/svg+xml" in output.data
    ]
    assert len(drawings) == len(DRAWN) + 3
    for drawing in drawings:
        tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(drawing).iter()}
        assert not {"script", "foreignObject", "image", "a", "b", "img"} & tags


# --- whatever the text ---------------------------------------------------------------------------------------------

# Mostly what some language takes for markup.
markup = st.text(
    st.sampled_from("\\`*_{}[]()#+-.!|<>$%&~^@:;=\"'/ \n\tax1\N{NO-BREAK SPACE}\u202e\x07é")
    | st.characters(codec="utf-8"),
    max_size=25,
)
TEXT = {
    "Str",
    "Space",
    "SoftBreak",
    "Para",
    "Plain",
    "Header",
    "Emph",
    "Table",
    "AlignLeft",
    "AlignDefault",
    "ColWidthDefault",
}


@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(markup, min_size=1, max_size=8))
def test_escaped_text_is_text_wherever_it_stands(texts: list[str]) -> None:
    escaped = [escape_markdown(text) for text in texts]
    (output,) = outputs_of(lambda: show(pd.DataFrame({"A": texts, texts[0]: texts}), caption=escaped[0], label="tbl:a"))
    parts = [output.data["text/markdown"]]
    parts += [f"# x {text}\n\n{text}\n\nx {text} y" for text in escaped]
    parts += [f"x {quote(text)} y" for text in texts if text.strip()]
    blocks = read_markdown("\n\n".join(parts))
    assert {element["t"] for element in elements(blocks)} <= TEXT


@pytest.mark.parametrize(
    "character", ["\n", "\r", "\t", "\x00", "\x1b", "\x85", "\u202a", "\u202e", "\u2066", "\u2069"]
)
@pytest.mark.parametrize("name", ["title", "authors", "roll_numbers", "submitted_to", "course", "date", "motto"])
def test_the_title_page_takes_no_control_characters(name: str, character: str) -> None:
    texts: dict[str, Any] = {"title": "Sounds"} | {name: f"x{character}y"}
    with pytest.raises(
        InputError, match=rf"text for {name} holds the control character U\+{ord(character):04X}.*; take"
    ):
        show_title_page(**texts)


@pytest.mark.parametrize("text", ["Ada Lovelace", "Åsa Öberg", "李雷", "فاطمة", "שרה\u200f", "क्\u200dष", "👩\u200d🔬"])
def test_names_of_the_world_are_taken(text: str) -> None:
    (output,) = outputs_of(lambda: show_title_page(title=text, authors=text))
    assert output.metadata["report"]["title"] == text

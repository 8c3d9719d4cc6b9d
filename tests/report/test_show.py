"""What figures, tables and equations of a notebook hand to JupyterLab and to the exporters."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.axes import Axes
from shown import outputs_of, plain_text

from audioclf_lib._support.errors import InputError
from audioclf_lib.figures import plot_recall_by_class
from audioclf_lib.report import escape_markdown, show, show_equation, show_text, show_title_page
from audioclf_lib.report.pandoc import read_markdown
from audioclf_lib.report.show import Markdown, describe

visible_text = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=40)


def draw() -> Axes:
    _, ax = plt.subplots()
    ax.plot([1, 3, 2], label="loss")
    ax.legend()
    return ax


@pytest.fixture(autouse=True)
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that figures are written to."""
    monkeypatch.setenv("AUDIOCLF_FIGURES", str(tmp_path / "figures"))
    return tmp_path / "figures"


def test_figure_is_shown_once_with_caption_and_label_for_every_target() -> None:
    (output,) = outputs_of(lambda: show(draw(), caption="A *loss*", label="fig:loss"))
    assert {"text/html", "image/svg+xml"} <= set(output.data)
    report = output.metadata["report"]
    assert (report["kind"], report["label"], report["caption"]) == ("figure", "fig:loss", "A *loss*")
    assert float(report["width"].rstrip("%")) == pytest.approx(100, abs=2), "6.3 inches, the width of the text"
    assert not plt.get_fignums(), "an open figure would be shown a second time at the end of the cell"


def test_figure_has_its_caption_and_alternative_text_in_jupyterlab() -> None:
    caption = f"A *loss* of {escape_markdown('<b>$x$</b>')}, $\\frac{{1}}{{2}}$; see [@tbl:layers; @sec:own]."
    (output,) = outputs_of(lambda: show(draw(), caption=caption, label="fig:loss"))
    page = BeautifulSoup(output.data["text/html"], "html.parser")
    shown = "A loss of <b>$x$</b>, \\(\\frac{1}{2}\\); see Table layers and Section own."
    assert page.find("figcaption").get_text().strip() == shown
    assert page.find("img")["alt"] == "loss from 1 to 2"
    assert page.find("em").get_text() == "loss"
    assert page.find("b") is None
    assert not any("$x$" in text for text in page.strings), "MathJax would read it as mathematics"


def test_figure_is_drawn_in_html_as_in_its_svg_and_takes_its_share_of_the_width() -> None:
    (output,) = outputs_of(lambda: show(draw(), width="57%"))
    image = BeautifulSoup(output.data["text/html"], "html.parser").find("img")
    assert image["style"] == "width: 57%"
    source = image["src"]
    assert base64.b64decode(source.partition("base64,")[2]).decode() == output.data["image/svg+xml"]


def test_figure_is_written_below_its_folder_in_three_formats(figures: Path) -> None:
    (output,) = outputs_of(lambda: show(draw(), label="fig:curves", folder="demo/cnn-kfold"))
    folder = figures / "demo" / "cnn-kfold"
    assert {path.name for path in folder.iterdir()} == {"curves.svg", "curves.pdf", "curves.png"}
    assert (folder / "curves.svg").read_text(encoding="utf-8") == output.data["image/svg+xml"]
    assert (folder / "curves.pdf").read_bytes().startswith(b"%PDF")


def test_a_figure_takes_its_own_size_so_that_no_type_shrinks() -> None:
    (output,) = outputs_of(lambda: show(plt.subplots(figsize=(3.15, 2))[1]))
    assert float(output.metadata["report"]["width"].rstrip("%")) == pytest.approx(50, abs=3)


def test_alternative_text_says_what_is_drawn_or_what_it_is_told_to() -> None:
    _, (left, right) = plt.subplots(1, 2)
    left.plot([4.0, 1.0], label="training")
    left.set(title="loss curve", xlabel="epoch", ylabel="loss")
    right.set_yticks(range(3), ["dog", "cat", "cow"])
    for row, text in enumerate(("0.5", "0.6", "0.7")):
        right.text(0, row, text)
    (output,) = outputs_of(lambda: show(left.figure))
    alt = output.metadata["report"]["alt"]
    assert alt == "loss curve: loss over epoch; training from 4 to 1. dog 0.5; cat 0.6; cow 0.7"
    (output,) = outputs_of(lambda: show(draw(), alt="A falling line"))
    assert output.metadata["report"]["alt"] == "A falling line"


def test_figure_without_a_folder_is_not_written(figures: Path) -> None:
    assert len(outputs_of(lambda: show(draw(), label="fig:a", folder=None))) == 1
    assert not figures.exists()


def test_cells_that_are_markdown_mean_what_they_say() -> None:
    table = pd.DataFrame({"formula": [Markdown("$x^2$"), "$y$"], "where": [Markdown("[@sec:own]"), None]})
    (output,) = outputs_of(lambda: show(table, label="tbl:a"))
    assert "| $x^2$ | [@sec:own] |" in output.metadata["report"]["markdown"]
    assert r"\$y\$" in output.metadata["report"]["markdown"]


def test_figure_without_label_is_shown_and_not_written(figures: Path) -> None:
    (output,) = outputs_of(lambda: show(draw(), caption="A loss"))
    assert "label" not in output.metadata["report"]
    assert not figures.exists()


def test_figure_is_shown_where_its_file_cannot_be_written(figures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures.write_text("no folder")
    assert len(outputs_of(lambda: show(draw(), label="fig:a", folder="demo"))) == 1
    InteractiveShell.instance()
    show(draw(), label="fig:a", folder="demo")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "figure is written" in line]
    assert line.startswith(f"no figure is written to {figures / 'demo'}: ")


def test_same_figure_gives_same_bytes(figures: Path) -> None:
    for folder in ("first", "second"):
        outputs_of(lambda f=folder: show(draw(), label="fig:a", folder=f))
    for kind in ("svg", "pdf", "png"):
        assert (figures / "first" / f"a.{kind}").read_bytes() == (figures / "second" / f"a.{kind}").read_bytes()


@pytest.mark.parametrize(
    "pick",
    [lambda a: a[0, 0].figure, lambda a: a[0, 0], lambda a: a, list],
    ids=["figure", "axes", "array", "list"],
)
def test_a_figure_is_given_by_itself_or_by_its_axes(pick: Callable[[Any], Any]) -> None:
    _, axes = plt.subplots(2, 2)
    axes[1, 1].set_title("the last")
    (output,) = outputs_of(lambda: show(pick(axes)))
    assert "the last" in output.data["image/svg+xml"]
    assert not plt.get_fignums()


@pytest.mark.parametrize("constrained", [False, True])
def test_nothing_of_a_figure_is_cut_off(monkeypatch: pytest.MonkeyPatch, constrained: bool) -> None:
    monkeypatch.setitem(plt.rcParams, "figure.constrained_layout.use", constrained)
    figure, ax = plt.subplots(figsize=(2, 2), layout="none")
    ax.text(1.5, 0.5, "far to the right of the axes", transform=ax.transAxes)
    (output,) = outputs_of(lambda: show(figure))
    width = float(re.search(r'<svg [^>]*width="([\d.]+)pt"', output.data["image/svg+xml"], re.S)[1])
    assert width > 2 * 72 * 1.3


def test_what_is_neither_figure_nor_table_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a figure, axes .* or a data frame, and no int"):
        show(5)


def test_figure_with_a_bitmap_is_refused_unless_wanted() -> None:
    def show_bitmap(**options: bool) -> None:
        _, ax = plt.subplots()
        ax.imshow(np.eye(9))
        show(ax, **options)

    with pytest.raises(ValueError, match="pcolormesh"):
        show_bitmap()
    assert len(outputs_of(lambda: show_bitmap(vector_only=False))) == 1


@pytest.mark.parametrize(("label", "folder"), [("loss", ""), ("tbl:a", ""), ("fig:a b", ""), ("fig:a", "../a")])
def test_figure_refuses_label_or_folder_of_the_wrong_form(label: str, folder: str) -> None:
    with pytest.raises(ValueError, match=r"label|folder"):
        show(draw(), label=label, folder=folder)
    plt.close("all")


def shown_cells(table: pd.DataFrame, **options: object) -> tuple[list[str], list[list[str]]]:
    """Alignments of the columns, and text of all cells, header first, as pandoc reads them."""
    (output,) = outputs_of(lambda: show(table, caption="A caption", label="tbl:a", **options))
    (block,) = read_markdown(output.data["text/markdown"])
    _, caption, columns, head, bodies, _ = block["c"]
    assert plain_text(caption[1]) == "A caption"
    rows = [row[1] for row in [*head[1], *bodies[0][3]]]
    return [column[0]["t"] for column in columns], [[plain_text(cell[4]) for cell in row] for row in rows]


def test_table_puts_numbers_right_and_formats_them() -> None:
    table = pd.DataFrame({"name": ["a", "b"], "count": [41024, 7], "share": [0.12345, float("nan")], "rate": [0.5, 1]})
    alignments, cells = shown_cells(table, formats={"rate": ".0%"})
    assert alignments == ["AlignLeft", "AlignRight", "AlignRight", "AlignRight"]
    assert cells[1:] == [["a", "41,024", "0.123", "50\N{NO-BREAK SPACE}%"], ["b", "7", "–", "100\N{NO-BREAK SPACE}%"]]


def test_table_shows_an_index_of_names_but_not_row_numbers() -> None:
    table = pd.DataFrame({"F1": [0.5]})
    assert shown_cells(table)[1] == [["F1"], ["0.500"]]
    assert shown_cells(table.set_index(pd.Index(["rain"], name="class")))[1] == [["class", "F1"], ["rain", "0.500"]]


def test_table_cells_are_plain_text() -> None:
    assert shown_cells(pd.DataFrame({"class": ["$x$ | *b*"]}))[1][1][0] == "$x$ | *b*"


@given(st.lists(visible_text.filter(str.strip), min_size=1, max_size=20))
@settings(max_examples=15, deadline=None)
def test_escaped_text_is_shown_letter_by_letter(texts: list[str]) -> None:
    """But for white space, of which each run is one space, except for spaces that do not break."""
    blocks = read_markdown("\n\n".join(escape_markdown(text) for text in texts))
    assert [plain_text(block) for block in blocks] == [re.sub(r"[^\S\xa0]+", " ", text).strip() for text in texts]


def test_spaces_that_do_not_break_are_kept_in_cells() -> None:
    assert shown_cells(pd.DataFrame({"share": ["61.1\xa0%  (55\nto 66)"]}))[1][1] == ["61.1\xa0% (55 to 66)"]


def test_table_has_its_caption_in_jupyterlab_with_words_for_references() -> None:
    table = pd.DataFrame({"a": [1]})
    (output,) = outputs_of(lambda: show(table, caption="As in [@fig:loss].", label="tbl:a"))
    assert output.data["text/markdown"].startswith("Table: As in Figure *loss*.\n\n| a |")
    assert output.metadata["report"]["caption"] == "As in [@fig:loss]."
    assert outputs_of(lambda: show(table))[0].data["text/markdown"].startswith("| a |")


def test_alternative_text_has_the_values_of_marks_by_row() -> None:
    recalls = pd.DataFrame({"CNN": [0.5, np.nan, 0.25], "Mel": [1, 0.5, 0]}, index=["dog", "rain", "cat"])
    told = describe(plot_recall_by_class(recalls).figure)
    assert told == "recall (clips); CNN: dog 0.5, cat 0.25; Mel: dog 1, rain 0.5, cat 0"


def test_text_has_words_for_references_in_jupyterlab() -> None:
    (output,) = outputs_of(lambda: show_text(f"See [@sec:own] and {escape_markdown('[@fig:x]')}."))
    (block,) = read_markdown(output.data["text/markdown"])
    assert plain_text(block) == "See Section own and [@fig:x]."


def test_equation_is_mathematics_in_jupyterlab_and_carries_its_label() -> None:
    (output,) = outputs_of(lambda: show_equation(r"a = \frac{1}{2}", "eq:half"))
    assert output.data["text/markdown"] == "$$\na = \\frac{1}{2}\n$$"
    assert output.metadata["report"]["label"] == "eq:half"


def test_title_page_takes_authors_as_one_text_or_as_names() -> None:
    as_text = outputs_of(lambda: show_title_page(title="T", authors="A. Lovelace; G. Hopper"))[0]
    as_names = outputs_of(lambda: show_title_page(title="T", authors=["A. Lovelace", "G. Hopper"]))[0]
    assert as_text.metadata == as_names.metadata
    assert as_text.metadata["report"]["authors"] == ["A. Lovelace", "G. Hopper"]


def test_title_page_sets_roll_numbers_behind_the_authors_they_belong_to() -> None:
    page = {"title": "T", "authors": "A. Lovelace; G. Hopper", "submitted_to": "C. Babbage", "motto": "Listen."}
    (output,) = outputs_of(lambda: show_title_page(**page, roll_numbers="12; 34"))
    (_, authors, teacher, motto) = read_markdown(output.data["text/markdown"])
    assert plain_text(authors) == "A. Lovelace (12), G. Hopper (34)"
    assert (plain_text(teacher), plain_text(motto)) == ("Submitted to C. Babbage", "Listen.")
    with pytest.raises(InputError, match="1 roll numbers for 2 authors; give one for each or none"):
        show_title_page(**page, roll_numbers=["12"])

"""What figures, tables and equations of a notebook hand to JupyterLab and to the exporters."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from shown import outputs_of

from audioclf_lib.report.display import escape_markdown, show_equation, show_figure, show_front_matter, show_table
from audioclf_lib.report.layout import COLUMN_GAP_EM, TABLE_SIZES_PT, TEXT_WIDTH_PT, choose_table_layout
from audioclf_lib.report.pandoc import elements, plain_text, read_markdown

visible_text = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=40)


def draw() -> Axes:
    _, ax = plt.subplots()
    ax.plot([1, 3, 2], label="loss")
    ax.legend()
    return ax


def test_figure_is_shown_once_with_caption_and_label_for_every_target(tmp_path: Path) -> None:
    show = lambda: show_figure(draw(), caption="A *loss*", label="fig:loss", name="loss", figures_dir=tmp_path)  # noqa: E731
    (output,) = outputs_of(show)
    assert {"image/svg+xml", "application/pdf"} <= set(output.data)
    assert output.metadata["report"] == {"kind": "figure", "label": "fig:loss", "caption": "A *loss*", "width": "80%"}
    assert not plt.get_fignums(), "an open figure would be shown a second time at the end of the cell"


def test_figure_is_written_below_dataset_and_experiment_in_three_formats(tmp_path: Path) -> None:
    place = {"dataset": "demo", "experiment": "cnn-kfold", "figures_dir": tmp_path}
    (output,) = outputs_of(lambda: show_figure(draw(), caption="", label="fig:a", name="curves", **place))
    folder = tmp_path / "demo" / "cnn-kfold"
    assert {path.name for path in folder.iterdir()} == {"curves.svg", "curves.pdf", "curves.png"}
    assert (folder / "curves.svg").read_text(encoding="utf-8") == output.data["image/svg+xml"]
    assert (folder / "curves.pdf").read_bytes() == base64.b64decode(output.data["application/pdf"])


def test_same_figure_gives_same_bytes(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        outputs_of(lambda f=folder: show_figure(draw(), caption="", label="fig:a", name="a", figures_dir=tmp_path / f))
    for kind in ("svg", "pdf", "png"):
        assert (tmp_path / "first" / f"a.{kind}").read_bytes() == (tmp_path / "second" / f"a.{kind}").read_bytes()


def test_figure_with_a_bitmap_is_refused_unless_wanted(tmp_path: Path) -> None:
    def show(**options: bool) -> None:
        _, ax = plt.subplots()
        ax.imshow(np.eye(9))
        show_figure(ax, caption="", label="fig:a", name="a", figures_dir=tmp_path, **options)

    with pytest.raises(ValueError, match="pcolormesh"):
        show()
    assert len(outputs_of(lambda: show(vector_only=False))) == 1


@pytest.mark.parametrize(("label", "name"), [("loss", "a"), ("tbl:a", "a"), ("fig:a b", "a"), ("fig:a", "../a")])
def test_figure_refuses_label_or_name_of_the_wrong_form(label: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"label|name"):
        show_figure(draw(), caption="", label=label, name=name, figures_dir=tmp_path)
    plt.close("all")


def shown_cells(table: pd.DataFrame, **options: object) -> tuple[list[str], list[list[str]]]:
    """Alignments of the columns, and text of all cells, header first, as pandoc reads them."""
    (output,) = outputs_of(lambda: show_table(table, caption="A caption", label="tbl:a", **options))
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


def test_table_cells_are_plain_text_unless_their_column_is_markdown() -> None:
    table = pd.DataFrame({"class": ["$x$ | *b*"], "formula": ["$|x|$ or *b* | c"]})
    (output,) = outputs_of(lambda: show_table(table, caption="c", label="tbl:a", markdown=["formula"]))
    (block,) = read_markdown(output.data["text/markdown"])
    formulas = [element["c"][1] for element in elements(block) if element["t"] == "Math"]
    assert formulas == [r"\vert x\vert"]
    assert shown_cells(table, markdown=["formula"])[1][1][0] == "$x$ | *b*"


@given(st.lists(visible_text.filter(str.strip), min_size=1, max_size=20))
@settings(max_examples=15, deadline=None)
def test_escaped_text_is_shown_letter_by_letter(texts: list[str]) -> None:
    """But for white space, of which each run is one space, except for spaces that do not break."""
    blocks = read_markdown("\n\n".join(escape_markdown(text) for text in texts))
    assert [plain_text(block) for block in blocks] == [re.sub(r"[^\S\xa0]+", " ", text).strip() for text in texts]


def test_spaces_that_do_not_break_are_kept_in_cells() -> None:
    assert shown_cells(pd.DataFrame({"share": ["61.1\xa0%  (55\nto 66)"]}))[1][1] == ["61.1\xa0% (55 to 66)"]


columns_in_em = st.lists(st.tuples(st.floats(0, 40), st.floats(0, 400)), min_size=1, max_size=20)


@given(columns_in_em)
def test_table_layout_gives_every_column_its_longest_word_and_never_more_than_the_page(
    columns: list[tuple[float, float]],
) -> None:
    least = [word for word, _ in columns]
    natural = [word + rest for word, rest in columns]
    room_at_smallest = TEXT_WIDTH_PT / min(TABLE_SIZES_PT) - COLUMN_GAP_EM * len(columns)
    layout = choose_table_layout(natural, least)
    if layout is None:
        assert sum(least) > room_at_smallest
        return
    widths = layout.widths or tuple(natural)
    whole = (sum(widths) + COLUMN_GAP_EM * len(columns)) * layout.size
    assert whole <= TEXT_WIDTH_PT * (1 + 1e-9)
    assert all(low - 1e-6 <= width <= high + 1e-6 for low, width, high in zip(least, widths, natural, strict=True))


def test_equation_is_mathematics_in_jupyterlab_and_carries_its_label() -> None:
    (output,) = outputs_of(lambda: show_equation(r"a = \frac{1}{2}", "eq:half"))
    assert output.data["text/markdown"] == "$$\na = \\frac{1}{2}\n$$"
    assert output.metadata["report"]["label"] == "eq:half"


def test_front_matter_takes_authors_as_one_text_or_as_names() -> None:
    as_text = outputs_of(lambda: show_front_matter(title="T", authors="A. Lovelace; G. Hopper"))[0]
    as_names = outputs_of(lambda: show_front_matter(title="T", authors=["A. Lovelace", "G. Hopper"]))[0]
    assert as_text.metadata == as_names.metadata
    assert as_text.metadata["report"]["authors"] == ["A. Lovelace", "G. Hopper"]

"""What notebooks show: figures, tables, equations and computed prose that JupyterLab and every export understand.

Each function displays one output bundle. Its *output metadata* hold ``{"report": {"kind", "label", "caption", ...}}``,
which survives papermill; the exporters (``reporting.exporters``) number, caption and cross-reference from it.

Captions and prose are Markdown with ``$..$`` and may refer by ``[@fig:..]``, ``[@tbl:..]``, ``[@eq:..]`` and
``[@sec:..]``. Text that comes from a user (class names, file names) goes into them through ``escape_markdown``.
"""

from __future__ import annotations

import base64
import math
import os
import re
import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from io import BytesIO
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from audioclf_lib._support.errors import is_control, refuse_control_characters
from audioclf_lib._support.paths import PROJECT_ROOT, replace_file

FIGURES_DIR = Path(os.environ.get("AUDIOCLF_FIGURES") or PROJECT_ROOT / "figures")
NO_VALUE = "–"

# Same figure, same bytes: ids from a fixed salt, no date. Paths for glyphs, since browsers may lack the font.
DETERMINISTIC: Any = {"svg.hashsalt": "audioclf", "svg.fonttype": "path", "pdf.fonttype": 42}
METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}

_ESCAPES = str.maketrans({character: f"\\{character}" for character in string.punctuation})


def show_figure(
    figure: Figure | Axes | Iterable[Axes],
    *,
    caption: str,
    label: str,
    name: str,
    dataset: str | None = None,
    experiment: str | None = None,
    width: str = "80%",
    figures_dir: Path = FIGURES_DIR,
    vector_only: bool = True,
) -> None:
    """Show a figure with its caption, write it to ``figures/<dataset>/<experiment>/<name>.{svg,pdf,png}``, close it.

    Args:
        figure: a figure, one of its axes, or several of its axes.
        caption: Markdown.
        label: ``fig:...``, unique in the notebook.
        name: file name without ending; ``dataset`` and ``experiment`` are folders, each left out when not given.
        width: share of the text width in the export.
        figures_dir: where ``figures/`` is.
        vector_only: refuse a figure that holds a bitmap (which ``imshow`` and ``rasterized=True`` put into it).

    Raises:
        ValueError: label or file name of the wrong form, or a bitmap in the figure.
    """
    _check_label(label, "fig")
    drawn = _whole_figure(figure)
    files = {kind: _render(drawn, kind) for kind in ("svg", "pdf", "png")}
    plt.close(drawn)
    if vector_only and b"<image" in files["svg"]:
        raise ValueError(f"figure {name!r} holds a bitmap; draw with pcolormesh, not imshow, or pass vector_only=False")
    folder = figures_dir.joinpath(*(_file_name(part) for part in (dataset, experiment) if part is not None))
    for kind, content in files.items():  # as a whole: notebooks that run side by side may draw the same figure
        replace_file(folder / f"{_file_name(name)}.{kind}", content)
    bundle = {
        "image/svg+xml": files["svg"].decode(),
        "application/pdf": base64.b64encode(files["pdf"]).decode(),
        "text/plain": caption,
    }
    _show(bundle, kind="figure", label=label, caption=_one_line(caption), width=width)


def show_table(
    table: pd.DataFrame,
    *,
    caption: str,
    label: str,
    formats: Mapping[str, str] | None = None,
    markdown: Collection[str] = (),
    index: bool | None = None,
) -> None:
    """Show a data frame as a captioned table; numbers stand right, text left.

    Args:
        table: all cells are plain text or numbers, except in the columns that ``markdown`` names.
        caption: Markdown.
        label: ``tbl:...``, unique in the notebook.
        formats: format specification by column, such as ``{"Accuracy": ".1%"}``; otherwise integers get thousands
            separators and other numbers three decimals; missing values are shown as a dash.
        markdown: columns whose cells are Markdown, for instance with ``$..$``.
        index: show the index as first column(s); by default unless it is a plain row number.

    Raises:
        ValueError: label of the wrong form.
    """
    _check_label(label, "tbl")
    with_index = not isinstance(table.index, pd.RangeIndex) if index is None else index
    shown = table.reset_index() if with_index else table
    pipe_table = _pipe_table(shown, formats or {}, markdown)
    # "Table: ..." is pandoc's caption and reads well in JupyterLab; the exporter adds the label behind it.
    text = f"Table: {_one_line(caption)}\n\n{pipe_table}"
    _show({"text/markdown": text, "text/plain": shown.to_string(index=False)}, kind="table", label=label)


def show_text(markdown: str) -> None:
    """Show computed prose, given as Markdown."""
    _show({"text/markdown": markdown, "text/plain": markdown}, kind="text")


def show_equation(latex: str, label: str | None = None) -> None:
    """Show a displayed equation; one with a label (``eq:...``) is numbered.

    Args:
        latex: what stands between the dollar signs; ``aligned`` for several lines.
        label: unique in the notebook.
    """
    if label is not None:
        _check_label(label, "eq")
    text = f"$$\n{latex.strip()}\n$$"
    _show({"text/markdown": text, "text/plain": latex.strip()}, kind="equation", label=label)


def show_front_matter(
    *,
    title: str,
    subtitle: str = "",
    authors: Sequence[str] | str = (),
    course: str = "",
    date: str = "",
    abstract: str = "",
    notice: str = "",
) -> None:
    """Show what the title page says; the last call in a notebook counts.

    Args:
        title, subtitle, course, date: plain text.
        authors: names, or one string with semicolons between names.
        abstract: Markdown.
        notice: plain text for the head of every page, such as a warning that the data are generated.

    Raises:
        InputError: a control character in a plain text.
    """
    names = authors.split(";") if isinstance(authors, str) else authors
    plain = {"title": title, "subtitle": subtitle, "authors": "".join(names), "course": course, "date": date}
    for name, given in plain.items():
        refuse_control_characters(f"the text for {name}", str(given))
    front_matter: dict[str, Any] = {
        "title": title,
        "subtitle": subtitle,
        "authors": [name.strip() for name in names if name.strip()],
        "course": course,
        "date": str(date),
        "abstract": abstract,
        "notice": notice,
    }
    lines = [f"**{escape_markdown(title)}**"]
    lines += [escape_markdown(line) for line in (subtitle, ", ".join(front_matter["authors"]), course, date, notice)]
    text = "\n\n".join(line for line in [*lines, abstract] if line)
    _show({"text/markdown": text, "text/plain": title}, kind="front-matter", **front_matter)


def escape_markdown(text: object) -> str:
    """Markdown that shows ``text`` letter by letter: no markup, mathematics, code or control character takes effect."""
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}" if is_control(character) else character for character in _one_line(str(text))
    )
    return shown.translate(_ESCAPES)


def _show(bundle: dict[str, str], **report: Any) -> None:
    metadata = {"report": {key: value for key, value in report.items() if value is not None}}
    display(bundle, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]


def _whole_figure(figure: Figure | Axes | Iterable[Axes]) -> Figure:
    if isinstance(figure, Figure):
        return figure
    axes = figure if isinstance(figure, Axes) else next(iter(_flat(figure)))
    whole = axes.get_figure(root=True)
    if whole is None:
        raise ValueError("these axes belong to no figure any more; draw them anew")
    return whole


def _flat(axes: Iterable[Any]) -> Iterable[Axes]:
    for item in axes:
        if isinstance(item, Axes):
            yield item
        else:
            yield from _flat(item)


def _render(figure: Figure, kind: str) -> bytes:
    buffer = BytesIO()
    with mpl.rc_context(DETERMINISTIC):
        figure.savefig(buffer, format=kind, metadata=METADATA[kind], bbox_inches="tight", dpi=200)
    return buffer.getvalue()


def _pipe_table(table: pd.DataFrame, formats: Mapping[str, str], markdown: Collection[str]) -> str:
    columns = [str(column) for column in table.columns]
    header, rule, cells = [], [], []
    for position, column in enumerate(columns):
        values = table.iloc[:, position].tolist()
        is_markdown = column in markdown
        header.append(_markdown_cell(column) if is_markdown else escape_markdown(column))
        rule.append("---:" if all(isinstance(value, Real) for value in values) and values else ":---")
        cells.append([_cell(value, formats.get(column), is_markdown) for value in values])
    rows = [header, rule, *(list(row) for row in zip(*cells, strict=True))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _cell(value: object, spec: str | None, is_markdown: bool) -> str:
    if isinstance(value, Real) and not isinstance(value, bool):
        if math.isnan(value):
            return NO_VALUE
        text = format(value, spec or ("," if isinstance(value, Integral) else ".3f"))
        return text.replace("-", "−").replace("%", "\N{NO-BREAK SPACE}%")
    if value is None or value is pd.NA:
        return NO_VALUE
    return _markdown_cell(str(value)) if is_markdown else escape_markdown(value)


def _markdown_cell(text: str) -> str:
    r"""A bar would end the cell; written ``\|`` it would be a double bar in mathematics, so there it gets its name."""
    parts = re.split(r"(\$[^$]+\$)", _one_line(text))  # every second one is mathematics
    parts[::2] = [prose.replace("|", r"\|") for prose in parts[::2]]
    parts[1::2] = [_name_bars(formula) for formula in parts[1::2]]
    return "".join(parts)


def _name_bars(formula: str) -> str:
    """A space ends the name only before a letter: in front of a closing dollar it would end the mathematics."""
    formula = re.sub(r"\\\|(?=[A-Za-z])", r"\\Vert ", formula).replace(r"\|", r"\Vert")
    return re.sub(r"\|(?=[A-Za-z])", r"\\vert ", formula).replace("|", r"\vert")


def _check_label(label: str, prefix: str) -> None:
    if not re.fullmatch(rf"{prefix}:[A-Za-z0-9][A-Za-z0-9_-]*", label):
        raise ValueError(f"label {label!r} must be {prefix}: followed by letters, digits, - and _")


def _file_name(part: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", part):
        raise ValueError(f"{part!r} cannot name a file or folder of a figure; use letters, digits, -, _ and .")
    return part


def _one_line(text: str) -> str:
    """Each run of white space as one space; spaces that do not break stay what they are."""
    return re.sub(r"[^\S\N{NO-BREAK SPACE}]+", " ", text).strip()

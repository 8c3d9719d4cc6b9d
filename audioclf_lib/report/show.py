"""What notebooks show: figures, tables, equations and computed prose, for JupyterLab and every export alike.

Each function displays one output. Its metadata hold ``{"report": {"kind", "caption", "label", ...}}``, which survives
papermill; the exporters (``report.exporters``) number, caption and cross-reference from it.

Captions and prose are Markdown with ``$..$`` and may refer by ``[@fig:..]``, ``[@tbl:..]``, ``[@eq:..]`` and
``[@sec:..]``. Text that comes from a user (class names, file names) goes into them through ``escape_markdown``.
"""

from __future__ import annotations

import base64
import html
import os
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import mistune
import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile as sf
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.text import Text

from audioclf_lib._support.errors import InputError, is_control, refuse_control_characters
from audioclf_lib._support.paths import PROJECT_ROOT, replace_file
from audioclf_lib.figures.fonts import use_letters
from audioclf_lib.figures.style import TEXT_WIDTH

NO_VALUE = "–"
KINDS = {"fig": "figure", "tbl": "table", "eq": "equation", "sec": "section"}  # by the prefix of a label

# Same figure, same bytes: ids from a fixed salt, no date. Paths for glyphs, since browsers may lack the font.
# savefig restores a figure without a layout by asking this setting: left on, the second file would be laid out anew.
RENDERING: Any = {"svg.hashsalt": "audioclf", "svg.fonttype": "path", "figure.constrained_layout.use": False}
FILE_METADATA: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
PADDING_INCHES = 0.02

_ESCAPES = str.maketrans({character: f"\\{character}" for character in string.punctuation})


@dataclass(frozen=True)
class Markdown:
    """A table cell that is Markdown already, such as a formula or a reference, and shown as what it means."""

    text: str


class _CaptionRenderer(mistune.HTMLRenderer):
    def text(self, text: str) -> str:
        """MathJax reads dollars and backslashes in HTML as mathematics, but not across elements."""
        return re.sub(r"[$\\]", r"<span>\g<0></span>", super().text(text))


_caption_html = mistune.create_markdown(renderer=_CaptionRenderer(), plugins=["math"])


def show(
    item: Figure | Axes | Iterable[Axes] | pd.DataFrame,
    *,
    caption: str = "",
    label: str = "",
    alt: str = "",
    width: str = "",
    folder: str | Path | None = "",
    vector_only: bool = True,
    formats: Mapping[str, str] | None = None,
    index: bool | None = None,
) -> None:
    """Show a figure or a table with its caption, and put both into the report.

    A figure with a label is written to ``figures/<folder>/<label without fig:>.{svg,pdf,png}``; every figure is closed
    afterwards. ``figures/`` is the project's, or the folder that the environment variable ``AUDIOCLF_FIGURES`` names.
    In tables, numbers stand right and text left.

    Args:
        item: a figure, one of its axes or several of them; or a data frame, whose cells are plain text or numbers.
        caption: Markdown.
        label: ``fig:...`` or ``tbl:...``, unique in the notebook; only what has one is numbered.
        alt: what the figure shows, for who cannot see it; plain text. By default axes, curves and their ends are named.
        width: share of the text width that a figure takes in the export; its own size unless given, in which no type is
            smaller than it was drawn.
        folder: where in ``figures/`` the figure is written, such as ``esc10/cnn-kfold``; None: it is not, which is
            quicker.
        vector_only: refuse a figure that holds a bitmap (which ``imshow`` and ``rasterized=True`` put into it).
        formats: format specification by column, such as ``{"Accuracy": ".1%"}``; otherwise integers get thousands
            separators and other numbers three decimals; missing values are shown as a dash.
        index: show the index as first column(s); by default unless it is a plain row number.

    Raises:
        ValueError: a label or folder of the wrong form, or a bitmap in the figure.
        TypeError: neither a figure nor a table.
    """
    caption = _one_line(caption)
    if isinstance(item, pd.DataFrame):
        _check_label(label, "tbl")
        with_index = not isinstance(item.index, pd.RangeIndex) if index is None else index
        shown = item.reset_index() if with_index else item
        text = pipe_table(shown, formats or {})
        if caption or label:  # as pandoc writes captions, which reads well in JupyterLab
            text = f"Table: {caption}{f' {{#{label}}}' if label else ''}\n\n{text}"
        bundle = {"text/markdown": _readable(text), "text/plain": shown.to_string(index=False)}
        _display(bundle, kind="table", label=label, caption=caption, markdown=text)
        return
    _check_label(label, "fig")
    figure = _whole_figure(item)
    files, inches = _render(figure, ("svg",) if folder is None else tuple(FILE_METADATA))
    width, alt = width or f"{min(100, 100 * inches / TEXT_WIDTH):.0f}%", _one_line(alt or describe(figure))
    plt.close(figure)  # or it would be shown a second time at the end of the cell
    if vector_only and b"<image" in files["svg"]:
        raise ValueError("the figure holds a bitmap; draw with pcolormesh, not imshow, or pass vector_only=False")
    if label and folder is not None:
        _write_figure(Path(folder), label.removeprefix("fig:"), files)
    bundle = {
        "text/html": _figure_html(files["svg"], alt, caption, width),
        "image/svg+xml": files["svg"].decode(),
        "text/plain": caption,
    }
    _display(bundle, kind="figure", label=label, caption=caption, width=width, alt=alt)


def show_sound(samples: npt.ArrayLike, caption: str = "", *, sample_rate: int = 16_000) -> None:
    """Show a player of a sound: in JupyterLab and in the report as HTML; on paper there is none.

    Args:
        samples: (n_samples,) amplitudes, full scale = 1.
        caption: plain text.
    """
    sound = BytesIO()
    sf.write(sound, np.asarray(samples, dtype=np.float32), sample_rate, format="MP3")
    content, text = base64.b64encode(sound.getvalue()).decode(), html.escape(_one_line(caption))
    player = f'<audio controls preload="none" src="data:audio/mpeg;base64,{content}"></audio>'
    bundle = {"text/html": f"<figure>{player}<figcaption>{text}</figcaption></figure>", "audio/mpeg": content}
    _display(bundle | {"text/plain": caption}, kind="sound", caption=escape_markdown(caption))


def show_text(markdown: str) -> None:
    """Show computed prose, given as Markdown."""
    _display({"text/markdown": _readable(markdown), "text/plain": markdown}, kind="text", markdown=markdown)


def show_equation(latex: str, label: str = "") -> None:
    """Show a displayed equation; one with a label (``eq:...``) is numbered.

    Args:
        latex: what stands between the dollar signs; ``aligned`` for several lines.
        label: unique in the notebook.
    """
    _check_label(label, "eq")
    latex = latex.strip()
    markdown = f"$${latex}\\label{{{label}}}$$" if label else f"$${latex}$$"
    bundle = {"text/markdown": f"$$\n{latex}\n$$", "text/plain": latex}
    _display(bundle, kind="equation", label=label, markdown=markdown)


def show_title_page(
    *,
    title: str,
    authors: Sequence[str] | str = (),
    roll_numbers: Sequence[str] | str = (),
    submitted_to: str = "",
    course: str = "",
    date: str = "",
    motto: str = "",
    abstract: str = "",
    notice: str = "",
    language: str = "en",
) -> None:
    """Show what the title page says; the last call in a notebook counts.

    Args:
        title, submitted_to, course, date, motto: plain text.
        authors: names, or one string with semicolons between names.
        roll_numbers: of the authors, in their order, given like them; none or as many as authors.
        abstract: Markdown.
        notice: plain text for the head of every page, such as a warning that the data are generated.
        language: of the report, as ``en`` or ``hi``: for hyphenation, and for the words "Figure", "Table", "Contents".

    Raises:
        InputError: a control character in a plain text, or other than one roll number for each author.
    """
    names, numbers = _names(authors), _names(roll_numbers)
    page: dict[str, Any] = {"title": title, "submitted_to": submitted_to, "course": course, "date": str(date)}
    page |= {"motto": motto, "authors": names, "roll_numbers": numbers}
    for name, given in page.items():
        refuse_control_characters(f"the text for {name}", given if isinstance(given, str) else "".join(given))
    if numbers and len(numbers) != len(names):
        raise InputError(f"there are {len(numbers)} roll numbers for {len(names)} authors; give one for each or none")
    people = [f"{name} ({number})" for name, number in zip(names, numbers, strict=True)] if numbers else names
    lines = [", ".join(people), submitted_to and f"Submitted to {submitted_to}", course, page["date"], motto, notice]
    paragraphs = [f"**{escape_markdown(title)}**", *map(escape_markdown, lines), _readable(abstract)]
    bundle = {"text/markdown": "\n\n".join(filter(None, paragraphs)), "text/plain": title}
    page |= {"people": people, "notice": notice, "abstract": abstract, "language": language}
    _display(bundle, kind="title-page", markdown="", **page)


def escape_markdown(text: object) -> str:
    """Markdown that shows ``text`` letter by letter: no markup, mathematics, code or control character takes effect."""
    shown = _one_line(str(text)).translate(_ESCAPES)
    return "".join("\N{REPLACEMENT CHARACTER}" if is_control(character) else character for character in shown)


def _display(bundle: dict[str, str], **report: Any) -> None:
    metadata = {"report": {key: value for key, value in report.items() if value != "" or key == "markdown"}}
    display(bundle, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]


def _names(given: Sequence[str] | str) -> list[str]:
    names = given.split(";") if isinstance(given, str) else given
    return [name.strip() for name in names if name.strip()]


def _readable(markdown: str) -> str:
    """Markdown without what only exports know: ``[@tbl:layers]`` is "Table *layers*", and ``{#tbl:layers}`` goes."""

    def words(reference: re.Match[str]) -> str:
        labels = [label.strip(" @").partition(":") for label in reference[1].split(";")]
        return " and ".join(f"{KINDS.get(prefix, prefix).capitalize()} *{name}*" for prefix, _, name in labels)

    return re.sub(r"\[(@[^\]\n]+)\]", words, re.sub(r" \{[#.][\w:-]+(?: \.[\w-]+)*\}(?=\n|$)", "", markdown))


def _figure_html(svg: bytes, alt: str, caption: str, width: str) -> str:
    """The figure as JupyterLab and nbconvert's HTML show it: with alternative text, and its caption under it."""
    look, source = f"width: {html.escape(width)}", f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    image = f'<img alt="{html.escape(alt)}" style="{look}" src="{source}">'
    text = f"<figcaption>{_caption_html(_readable(caption))}</figcaption>" if caption else ""
    return f'<figure style="margin: 1em 0; max-width: 900px">{image}{text}</figure>'


def describe(figure: Figure) -> str:
    """What a figure shows, in plain text: for each panel its title, its axes, where its named curves begin and end, the
    values of its named marks by row, how many cells a heat map has, and what is written in it, such as the number
    beside a bar.
    """
    panels = []
    for ax in figure.axes:
        title, axes = (ax.get_title(loc="left") or ax.get_title()).strip(), [ax.get_ylabel(), ax.get_xlabel()]
        shapes = [np.asarray(mesh.get_array()).shape for mesh in ax.collections if isinstance(mesh, QuadMesh)]
        grids = [f"heat map of {' by '.join(map(str, shape))} cells" for shape in shapes]
        texts, ticks = ([text.get_text() for text in each] for each in (ax.texts, ax.get_yticklabels()))
        if 2 < len(ticks) <= len(texts) <= len(ticks) + 2:  # a text beside each bar or mark
            texts = [f"{tick} {text}" for tick, text in zip(ticks, texts, strict=False)]
        curves = [_course(line, ax) for line in ax.lines if str(line.get_label())[:1] not in ("", "_")]
        shown = [" over ".join(filter(None, axes)), *grids, *curves, *(texts if len(texts) < 40 else [])]
        panels.append(": ".join(filter(None, [title, "; ".join(filter(None, shown))])))
    return ". ".join(dict.fromkeys(filter(None, panels))).replace("\n", " ").replace("\\$", "$")


def _course(line: Line2D, ax: Axes) -> str:
    """Where a named curve begins and ends; of marks beside the ticks of the vertical axis, the value at each tick."""
    xs, ys = np.atleast_1d(*line.get_data(orig=False))
    if len(ys) < 2:
        return ""
    if line.get_linestyle() == "None" and np.array_equal(np.round(ys), ax.get_yticks()):
        ticks = [tick.get_text() for tick in ax.get_yticklabels()]
        values = [f"{tick} {x:.2g}" for tick, x in zip(ticks, xs, strict=True) if np.isfinite(x)]
        return f"{line.get_label()}: {', '.join(values)}"
    return f"{line.get_label()} from {ys[0]:.2g} to {ys[-1]:.2g}"


def _whole_figure(item: object) -> Figure:
    first = next(iter(np.ravel(np.asarray(item, dtype=object))), None)
    figure = getattr(first, "figure", None)  # of axes, of a figure itself, of seaborn's grids
    if not isinstance(figure, FigureBase):
        raise TypeError(f"show takes a figure, axes that belong to one, or a data frame, and no {type(item).__name__}")
    return figure.get_figure(root=True)


def _render(figure: Figure, kinds: Sequence[str]) -> tuple[dict[str, bytes], float]:
    """The figure as SVG, PDF, PNG, and its width in inches; what it covers is found once for all of them."""
    files = {}
    for text in figure.findobj(Text):
        use_letters(text.get_text())
        text.set_fontfamily(mpl.rcParams["font.family"])
    with mpl.rc_context(RENDERING):
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # which RENDERING makes none at all, so that nothing is laid out again
        box = figure.get_tightbbox().padded(PADDING_INCHES)
        for kind in kinds:
            buffer = BytesIO()
            figure.savefig(buffer, format=kind, metadata=FILE_METADATA[kind], bbox_inches=box, dpi=200)
            files[kind] = buffer.getvalue()
    # Notebooks hold text line by line, and papermill writes them anew after every cell: one long line is far quicker.
    return files | {"svg": files["svg"].replace(b"\n", b" ")}, box.width


def _write_figure(folder: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Write the files, each as a whole, since notebooks that run side by side may draw the same figure."""
    if ".." in folder.parts:
        raise ValueError(f"the folder {str(folder)!r} leads out of figures/; name one in it")
    target = Path(os.environ.get("AUDIOCLF_FIGURES") or PROJECT_ROOT / "figures") / folder
    try:
        for kind, content in files.items():
            replace_file(target / f"{name}.{kind}", content)
    except OSError as error:
        print(f"no figure is written to {target}: {error.strerror or error}")


def pipe_table(table: pd.DataFrame, formats: Mapping[str, str]) -> str:
    columns = []
    for position, name in enumerate(map(str, table.columns)):
        values = table.iloc[:, position].tolist()
        rule = "---:" if all(isinstance(value, Real) for value in values) and values else ":---"
        columns.append([escape_markdown(name), rule, *(_cell(value, formats.get(name)) for value in values)])
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(*columns, strict=True)) + "\n"


def _cell(value: object, spec: str | None) -> str:
    if isinstance(value, Markdown):
        return value.text
    if pd.isna(value):  # type: ignore[call-overload]  # any object may be asked
        return NO_VALUE
    if isinstance(value, Real) and not isinstance(value, bool):
        text = format(value, spec or ("," if isinstance(value, Integral) else ".3f"))
        return text.replace("-", "−").replace("%", "\N{NO-BREAK SPACE}%")
    return escape_markdown(value)


def _check_label(label: str, prefix: str) -> None:
    if label and not re.fullmatch(rf"{prefix}:[A-Za-z0-9][A-Za-z0-9_-]*", label):
        raise ValueError(f"label {label!r} must be {prefix}: followed by letters, digits, - and _")


def _one_line(text: str) -> str:
    """Each run of white space as one space; spaces that do not break stay what they are."""
    return re.sub(r"[^\S\N{NO-BREAK SPACE}]+", " ", text).strip()

"""What keeps a page's margins: table widths and type sizes, code lines, long words, equations on their own line.

The sizes are for A4 with a text width of 160 mm; HTML needs only the parts that are not about width, as it scrolls.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from dataclasses import dataclass

from audioclf_lib._support.errors import InputError
from audioclf_lib.report.crossrefs import EQUATION_LABEL, Target
from audioclf_lib.report.pandoc import Node, plain_text, raw, rewrite

TEXT_WIDTH_PT = 453.5  # 160 mm
TABLE_SIZES_PT = (9.5, 9.0, 8.5, 8.0, 7.5, 7.0, 6.5, 6.0, 5.5)
SMALLEST_LINE_PT = 7.5  # cells are wrapped rather than set smaller than this on one line ...
LARGEST_WRAPPED_PT = 8.5  # ... and then in this size, or smaller if words do not fit
COLUMN_GAP_EM = 1.2
LINES_KEPT_TOGETHER = 32
CODE_COLUMNS = 88
LONG_WORD = 24
WIDE, NARROW = set("ABCDEFGHKMNOPQRTUVWXYZmw%@&—–−+=<>~"), set("ijltfrI.,:;|!'()[]{}/\\- ")


@dataclass(frozen=True)
class TableLayout:
    """Type size in points; widths of the columns in em without gaps, or None if each is as wide as its content."""

    size: float
    widths: tuple[float, ...] | None


def lay_out(blocks: list[Node], target: str, targets: dict[str, Target]) -> list[Node]:
    """The blocks with tables, code, long words and equations prepared for ``typst``, ``latex`` or ``html``.

    Raises:
        InputError: a table that does not fit the page in any size.
    """

    def replace(element: Node) -> list[Node] | None:
        match element["t"]:
            case "Table":
                return [_div("table", element)] if target == "html" else _fit_table(element, target)
            case "CodeBlock":
                element["c"][1] = wrap_code(element["c"][1])
            case "Str" if target != "html":
                element["c"] = soften(element["c"])
            case "Code" if target != "html":
                element["c"][1] = soften(element["c"][1])
            case "Image":
                return [_image(element, target)]
            case "Math" if target == "typst":
                element["c"][1] = simplify_spacing(element["c"][1])
            case "Para" | "Plain" if any(map(_is_display, element["c"])):
                return _split_at_equations(element, target, targets)
        return None

    return list(rewrite(blocks, replace))


def wrap_code(code: str) -> str:
    """Code with no line longer than the page; what hangs over goes on deeper in the next line."""
    lines = []
    for line in code.split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        wrapped = textwrap.wrap(
            line, CODE_COLUMNS, subsequent_indent=indent[:40], drop_whitespace=False, break_on_hyphens=False
        )
        lines += [part.rstrip() for part in wrapped] or [""]
    return "\n".join(lines)


def soften(word: str) -> str:
    """A long word with places where it may break (zero-width spaces), for instance a file name."""
    if len(word) <= LONG_WORD:
        return word
    return "\N{ZERO WIDTH SPACE}".join(word[start : start + 8] for start in range(0, len(word), 8))


def simplify_spacing(latex: str) -> str:
    """LaTeX without the spaces that pandoc gives another width in Typst."""
    return re.sub(r"\\[;:>]", r"\\,", latex.replace(r"\!", ""))


def use_inner_environments(latex: str) -> str:
    """LaTeX whose ``align``, ``gather`` and ``equation`` can stand inside a displayed equation."""
    latex = re.sub(r"\\(begin|end)\{(align|gather)\*?\}", r"\\\1{\2ed}", latex)
    return re.sub(r"\\(begin|end)\{equation\*?\}", "", latex).strip()


def choose_table_layout(natural: list[float], least: list[float]) -> TableLayout | None:
    """The largest type in which a table fits the text width, and its column widths; None if it fits in none.

    Args:
        natural: each column's widest cell on one line, in em.
        least: each column's longest word, in em.
    """
    gaps = COLUMN_GAP_EM * len(natural)
    rooms = {size: TEXT_WIDTH_PT / size - gaps for size in TABLE_SIZES_PT}
    for size, room in rooms.items():
        if size >= SMALLEST_LINE_PT and sum(natural) <= room:
            return TableLayout(size, None)
    for size, room in rooms.items():
        if size <= LARGEST_WRAPPED_PT and sum(least) <= room:
            if sum(natural) <= room:
                return TableLayout(size, None)
            stretch = (room - sum(least)) / (sum(natural) - sum(least))
            widths = [low + stretch * (high - low) for low, high in zip(least, natural, strict=True)]
            return TableLayout(size, tuple(widths))
    return None


def _fit_table(table: Node, target: str) -> list[Node]:
    rows = [row for part in (table["c"][3], *table["c"][4]) for row in _rows(part)]
    cells = [[plain_text(cell[4]) for cell in row] for row in rows]
    columns = list(zip(*cells, strict=True))
    natural = [max(map(_width, column)) for column in columns]
    least = [max(_width(word) for cell in column for word in _words(cell)) for column in columns]
    layout = choose_table_layout(natural, least)
    if layout is None:
        name = table["c"][0][0] or "a table without label"
        raise InputError(f"{name} is too wide for the page with {len(columns)} columns; show fewer, or transpose it")
    widths = layout.widths or tuple(natural)
    if layout.widths:
        gap = COLUMN_GAP_EM if target == "typst" else 0  # LaTeX takes the gaps off the text width beforehand
        whole = sum(width + gap for width in widths)
        for spec, width in zip(table["c"][2], widths, strict=True):
            spec[1] = {"t": "ColWidth", "c": round((width + gap) / whole, 4)}
    lines = sum(max(math.ceil(_width(c) / (w + 0.01)) for c, w in zip(row, widths, strict=True)) for row in cells)
    together = lines <= LINES_KEPT_TOGETHER
    if target == "typst":
        opening = f"#sized-table({layout.size}pt, breakable: {'false' if together else 'true'})["
        return [raw("Block", target, opening), table, raw("Block", target, "]")]
    size = rf"\fontsize{{{layout.size}}}{{{layout.size * 1.25:.2f}}}\selectfont\setlength{{\tabcolsep}}{{0.6em}}"
    keep = rf"\needspace{{{1.3 * lines + 4:.0f}\baselineskip}}" if together else ""
    return [raw("Block", target, rf"\begingroup{size}{keep}"), table, raw("Block", target, r"\endgroup")]


def _rows(part: Node) -> list[Node]:
    """The cells of each row of a table's head or body: pandoc's Row is [attributes, cells]."""
    rows = part[1] if len(part) == 2 else [*part[2], *part[3]]
    return [row[1] for row in rows]


def _words(cell: str) -> list[str]:
    """What stands between spaces that break."""
    return re.split(r"[^\S\N{NO-BREAK SPACE}]+", cell)


def _width(text: str) -> float:
    """Rough width of a line in em; of a formula, its commands count as one letter."""
    letters = re.sub(r"\\(text|mathrm|operatorname|left|right|mathbf|d?frac)\b|[{}$^_]", "", text)
    letters = re.sub(r"\\[a-zA-Z]+", "m", letters)
    return sum(0.8 if c in WIDE else 0.32 if c in NARROW else 0.53 for c in letters.replace("\u200b", ""))


def _is_display(inline: Node) -> bool:
    return bool(inline["t"] == "Math" and inline["c"][0]["t"] == "DisplayMath")


def _split_at_equations(paragraph: Node, target: str, targets: dict[str, Target]) -> list[Node]:
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
            blocks += _equation(inline["c"][1], target, targets)
    return blocks


def _equation(latex: str, target: str, targets: dict[str, Target]) -> list[Node]:
    found = EQUATION_LABEL.search(latex)
    label = found[1] if found else ""
    number = targets[label].name.split("\N{NO-BREAK SPACE}")[-1].strip("()") if label in targets else ""
    latex = use_inner_environments(EQUATION_LABEL.sub("", latex).strip())
    if target == "typst":
        latex = simplify_spacing(latex)
    math = {"t": "Math", "c": [{"t": "DisplayMath"}, latex]}
    if target == "html":
        inlines = [math, {"t": "Span", "c": [["", ["number"], []], [{"t": "Str", "c": f"({number})"}]]}]
        return [_div("equation", {"t": "Plain", "c": inlines if number else [math]}, label)]
    if target == "latex":
        anchor = rf"\phantomsection\label{{{label}}}" if number else ""
        return [raw("Block", target, rf"{anchor}\displayequation{{{latex}}}{{{number}}}")]
    opening = f'#display-equation("{number}", "{label}")[' if number else "#display-equation(none, none)["
    return [{"t": "Para", "c": [raw("Inline", target, opening), math, raw("Inline", target, "]")]}]


def _image(image: Node, target: str) -> Node:
    """The image with its caption as alternative text, as far as the target knows such a thing."""
    (_, _, attributes), inlines, (file, _) = image["c"]
    text = plain_text(inlines)
    if target == "typst":  # pandoc leaves the text out
        width = dict(attributes).get("width", "auto")
        alternative = f", alt: {json.dumps(text, ensure_ascii=False)}" if text else ""
        return raw("Inline", target, f"#image({json.dumps(file)}, width: {width}{alternative})")
    image["c"][1] = [{"t": "Str", "c": text}] if text and target == "html" else []
    return image


def _div(css_class: str, block: Node, anchor: str = "") -> Node:
    return {"t": "Div", "c": [[anchor, [css_class], []], [block]]}

"""Numbers and cross-references: figures, tables, equations and sections are counted once, for every target alike.

A figure or table counts if it has a label, an equation if its LaTeX holds ``\\label{eq:..}``; a section's label is
``sec:`` and its heading in lower case with hyphens, as in ``[@sec:feed-forward-network]``, or one that it gives itself
(``# Heading {#sec:short}``). ``[@fig:curves]`` becomes a link that says ``Figure 3``, and so does an ordinary link to a
label, ``[the curves](#fig:curves)``, which JupyterLab shows as words. In other languages the words are pandoc's, and
equations and sections bear their numbers alone, ``(3)`` and ``§ 2.1``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping

from audioclf_lib._support.errors import InputError
from audioclf_lib.report.pandoc import Node, elements, translations
from audioclf_lib.report.show import KINDS

EQUATION_LABEL = re.compile(r"\\label\{([^}]*)\}")


def number_all(blocks: list[Node], language: str = "en") -> dict[str, str]:
    """The name of every label, such as ``Figure 3``; the labels of sections become the anchors of their headings.

    Args:
        blocks: of the document.
        language: of the words, as ``en`` or ``hi``.

    Raises:
        InputError: a label that occurs twice.
    """
    names: dict[str, str] = {}
    words = {prefix: kind.capitalize() for prefix, kind in KINDS.items()}
    if not language.startswith("en"):
        words |= {prefix: translations(language).get(words[prefix], words[prefix]) for prefix in ("fig", "tbl")}
        words |= {"eq": "", "sec": "§"}
    counts: Counter[str] = Counter()
    section: list[int] = []
    for element in elements(blocks):
        label = _own_label(element)
        prefix = label.partition(":")[0]
        if prefix not in KINDS:
            continue
        counts[prefix] += 1
        number = f"({counts[prefix]})" if prefix == "eq" else str(counts[prefix])
        if prefix == "sec":
            level, attributes, _ = element["c"]
            attributes[0] = label
            if "unnumbered" in attributes[1]:
                continue
            section = (section + [0] * level)[:level]
            section[-1] += 1
            number = ".".join(map(str, section))
        if label in names:
            raise InputError(f"the label {label!r} stands for two things in the report; give one of them another label")
        names[label] = f"{words[prefix]}\N{NO-BREAK SPACE}{number}".lstrip("\N{NO-BREAK SPACE}")
    return names


def resolve(blocks: list[Node], names: Mapping[str, str], target: str) -> None:
    """Make references links, and put numbers into captions and beside equations.

    Args:
        blocks: what ``number_all`` was given, or others; they are changed.
        names: what ``number_all`` found.
        target: language to be written; the templates of ``typst`` and ``html`` style equations and tables.

    Raises:
        InputError: a reference to a label that does not exist.
    """
    for element in list(elements(blocks)):
        match element["t"], element.get("c"):
            case "Cite", [citations, text]:
                labels = [citation["citationId"] for citation in citations]
                # A bare @name in the prose is a reference only if it begins as one.
                is_reference = (
                    citations[0]["citationMode"]["t"] != "AuthorInText" or labels[0].partition(":")[0] in KINDS
                )
                element |= _span("", _links(labels, names) if is_reference else text)
            case "Link", [_, _, [url, _]] if url.startswith(tuple(f"#{prefix}:" for prefix in KINDS)):
                element |= _links([url[1:]], names)[0]
            case "Figure" | "Table", [[label, *_], [_, caption], *_]:
                if label in names:
                    caption[:] = caption or [{"t": "Plain", "c": []}]
                    caption[0]["c"][:0] = [{"t": "Strong", "c": [_text(f"{names[label]}.")]}, {"t": "Space"}]
                if element["t"] == "Table" and target == "html":  # the caption stays outside of what scrolls
                    table = {"t": "Table", "c": [element["c"][0], [None, []], *element["c"][2:]]}
                    element |= _div("table", [_div("caption", caption), _div("scroll", [table])])
            case "Image", [[_, _, attributes], *_] if target == "html":
                attributes.append(["tabindex", "0"])  # a tap can show it larger
            case "Math", [kind, latex]:
                element |= _formula(kind, latex, names, target)


def _own_label(element: Node) -> str:
    match element["t"], element.get("c"):
        case "Header", [_, [anchor, *_], _]:
            return f"sec:{anchor.removeprefix('sec:')}"
        case "Figure" | "Table", [[label, *_], *_]:
            return str(label)
        case "Math", [{"t": "DisplayMath"}, latex] if found := EQUATION_LABEL.search(latex):
            return found[1]
    return ""


def _links(labels: list[str], names: Mapping[str, str]) -> list[Node]:
    inlines: list[Node] = []
    for position, label in enumerate(labels):
        if label not in names:
            known = ", ".join(sorted(names)) or "none"
            raise InputError(f"the report refers to [@{label}], which is no label in it; known are: {known}")
        if position:
            inlines.append(_text(" and " if position == len(labels) - 1 else ", "))
        inlines.append({"t": "Link", "c": [["", [], []], [_text(names[label])], [f"#{label}", ""]]})
    return inlines


def _formula(kind: Node, latex: str, names: Mapping[str, str], target: str) -> Node:
    if target == "typst":  # where pandoc gives these spaces another width
        latex = re.sub(r"\\[;:>]", r"\\,", latex.replace(r"\!", ""))
    label = "".join(EQUATION_LABEL.findall(latex))
    number = names.get(label, "").split("\N{NO-BREAK SPACE}")[-1]
    # align, gather and equation cannot stand inside a displayed equation, but aligned and gathered can
    latex = re.sub(r"\\(begin|end)\{(align|gather)\*?\}", r"\\\1{\2ed}", EQUATION_LABEL.sub("", latex))
    math = {"t": "Math", "c": [kind, re.sub(r"\\(begin|end)\{equation\*?\}", "", latex).strip()]}
    if kind["t"] == "InlineMath":
        return math
    if target == "typst":
        opening = f"#display-equation({json.dumps(number)}, {json.dumps(label)})["
        return _span("", [{"t": "RawInline", "c": [target, opening]}, math, {"t": "RawInline", "c": [target, "]"]}])
    return _span("equation", [math, *([_span("number", [_text(number)])] if number else [])], label)


def _span(name: str, inlines: list[Node], label: str = "") -> dict[str, Node]:
    return {"t": "Span", "c": [[label, [name] if name else [], []], inlines]}


def _div(name: str, blocks: list[Node]) -> dict[str, Node]:
    return {"t": "Div", "c": [["", [name], []], blocks]}


def _text(text: str) -> Node:
    return {"t": "Str", "c": text}

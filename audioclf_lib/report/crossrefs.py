"""Numbers and cross-references: figures, tables, equations and sections are counted once, for every target alike.

A figure or table counts if it has a label, an equation if its LaTeX holds ``\\label{eq:..}``; a section's label is
``sec:`` and its heading in lower case with hyphens, as in ``[@sec:feed-forward-network]``, or one that it gives itself
(``# Heading {#sec:short}``). ``[@fig:curves]`` becomes a link that says ``Figure 3``, and so does an ordinary link to a
label, ``[the curves](#fig:curves)``, which JupyterLab shows as words.
"""

from __future__ import annotations

import re
from collections import Counter

from audioclf_lib._support.errors import InputError
from audioclf_lib.report.pandoc import Node, elements, rewrite
from audioclf_lib.report.show import KINDS

EQUATION_LABEL = re.compile(r"\\label\{([^}]*)\}")


def number_all(blocks: list[Node]) -> dict[str, str]:
    """The name of every label, such as ``Figure 3``; the labels of sections become the anchors of their headings.

    Raises:
        InputError: a label that occurs twice.
    """
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    section: list[int] = []
    for element in elements(blocks):
        if element["t"] == "Header":
            level, attributes, _ = element["c"]
            attributes[0] = label = f"sec:{attributes[0].removeprefix('sec:')}"
            if "unnumbered" in attributes[1]:
                continue
            section = (section + [0] * level)[:level]
            section[-1] += 1
            number = ".".join(map(str, section))
        else:
            label = label_of(element)
            counts[label.partition(":")[0]] += 1
            number = str(counts[label.partition(":")[0]])
        prefix = label.partition(":")[0]
        if prefix not in KINDS:
            continue
        if label in names:
            raise InputError(f"the label {label!r} stands for two things in the report; give one of them another label")
        names[label] = f"{KINDS[prefix].capitalize()}\N{NO-BREAK SPACE}{f'({number})' if prefix == 'eq' else number}"
    return names


def resolve(blocks: list[Node], names: dict[str, str]) -> list[Node]:
    """The blocks with every ``[@label]`` as a link to the label and every caption with its number in front.

    Raises:
        InputError: a reference to a label that does not exist.
    """

    def replace(element: Node) -> list[Node] | None:
        match element["t"], element.get("c"):
            case "Cite", [citations, text]:
                labels = [citation["citationId"] for citation in citations]
                is_bare = citations[0]["citationMode"]["t"] == "AuthorInText"
                if is_bare and labels[0].partition(":")[0] not in KINDS:
                    return list(text)  # an @name in the prose is no reference
                return _links(labels, names)
            case "Link", [_, _, [url, _]] if url.startswith(tuple(f"#{prefix}:" for prefix in KINDS)):
                return _links([url[1:]], names)
            case "Figure" | "Table", [[label, *_], [_, caption], *_] if label in names:
                caption[:] = caption or [{"t": "Plain", "c": []}]
                number = {"t": "Strong", "c": [{"t": "Str", "c": f"{names[label]}."}]}
                caption[0]["c"][:0] = [number, {"t": "Space"}]
        return None

    return list(rewrite(blocks, replace))


def label_of(element: Node) -> str:
    """The label of a figure, a table or a displayed equation, or an empty text."""
    match element["t"], element.get("c"):
        case "Figure" | "Table", [[label, *_], *_]:
            return str(label)
        case "Math", [{"t": "DisplayMath"}, latex] if found := EQUATION_LABEL.search(latex):
            return found[1]
    return ""


def _links(labels: list[str], names: dict[str, str]) -> list[Node]:
    inlines: list[Node] = []
    for position, label in enumerate(labels):
        if label not in names:
            known = ", ".join(sorted(names)) or "none"
            raise InputError(f"the report refers to [@{label}], which is no label in it; known are: {known}")
        if position:
            inlines.append({"t": "Str", "c": " and " if position == len(labels) - 1 else ", "})
        inlines.append({"t": "Link", "c": [["", [], []], [{"t": "Str", "c": names[label]}], [f"#{label}", ""]]})
    return inlines

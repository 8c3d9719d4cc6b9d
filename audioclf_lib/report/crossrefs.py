"""Numbers and cross-references: figures, tables, equations and sections are counted once, for every target alike.

A figure or table counts if it has a label, an equation if its LaTeX holds ``\\label{eq:..}``; a section's label is
``sec:`` and its heading in lower case with hyphens, as in ``[@sec:feed-forward-network]``, or one that it gives itself
(``# Heading {#sec:short}``). ``[@fig:curves]`` becomes a link that says ``Figure 3``, and so does an ordinary link to a
label, ``[the curves](#fig:curves)``, which JupyterLab shows as words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from audioclf_lib._support.errors import InputError
from audioclf_lib.report.pandoc import Node, elements, plain_text, rewrite, words

NAMES = {"fig": "Figure", "tbl": "Table", "eq": "Equation", "sec": "Section"}
EQUATION_LABEL = re.compile(r"\\label\{([^}]*)\}")


@dataclass(frozen=True)
class Target:
    """What a label stands for: its name with number (``Figure 3``) and the anchor that a link goes to."""

    name: str
    anchor: str


def number_all(blocks: list[Node]) -> dict[str, Target]:
    """The target of every label in the document.

    Raises:
        InputError: a label that occurs twice.
    """
    targets: dict[str, Target] = {}
    counts = dict.fromkeys(("fig", "tbl", "eq"), 0)
    section: list[int] = []

    def add(label: str, name: str, anchor: str) -> None:
        if label in targets:
            raise InputError(f"the label {label!r} stands for two things in the report; give one of them another label")
        targets[label] = Target(name, anchor)

    for element in elements(blocks):
        if element["t"] == "Header":
            level, (anchor, classes, _), _ = element["c"]
            if "unnumbered" not in classes:
                section = [*(section + [0] * level)[: level - 1], (section + [0] * level)[level - 1] + 1]
                number = ".".join(map(str, section))
                add(f"sec:{anchor.removeprefix('sec:')}", f"Section\N{NO-BREAK SPACE}{number}", anchor)
            continue
        label = _own_label(element)
        prefix = label.partition(":")[0]
        if prefix in counts:
            counts[prefix] += 1
            number = f"({counts[prefix]})" if prefix == "eq" else str(counts[prefix])
            add(label, f"{NAMES[prefix]}\N{NO-BREAK SPACE}{number}", label)
    return targets


def resolve(blocks: list[Node], targets: dict[str, Target]) -> list[Node]:
    """The blocks with every ``[@label]`` as a link to the target and every caption with its number in front.

    Raises:
        InputError: a reference to a label that does not exist.
    """

    def replace(element: Node) -> list[Node] | None:
        match element["t"]:
            case "Cite":
                return _links([citation["citationId"] for citation in element["c"][0]], element["c"][1], targets)
            case "Link" if element["c"][2][0].startswith(tuple(f"#{prefix}:" for prefix in NAMES)):
                return _links([element["c"][2][0][1:]], element["c"][1], targets)
            case "Figure" | "Table" if _own_label(element) in targets:
                _put_in_front(element, targets[_own_label(element)].name)
        return None

    return list(rewrite(blocks, replace))


def _own_label(element: Node) -> str:
    if element["t"] in ("Figure", "Table"):
        return str(element["c"][0][0])
    if element["t"] == "Math" and element["c"][0]["t"] == "DisplayMath":
        found = EQUATION_LABEL.search(element["c"][1])
        return found[1] if found else ""
    return ""


def _links(labels: list[str], text: list[Node], targets: dict[str, Target]) -> list[Node]:
    inlines: list[Node] = []
    for position, label in enumerate(labels):
        if label not in targets:
            if label.partition(":")[0] not in NAMES and not plain_text(text).startswith("["):
                return text  # an @name in the prose is no reference
            known = ", ".join(sorted(targets)) or "none"
            raise InputError(f"the report refers to [@{label}], which is no label in it; known are: {known}")
        if position:
            inlines += words(" and " if position == len(labels) - 1 else ", ")
        target = targets[label]
        inlines.append({"t": "Link", "c": [["", [], []], [{"t": "Str", "c": target.name}], [f"#{target.anchor}", ""]]})
    return inlines


def _put_in_front(captioned: Node, name: str) -> None:
    caption_blocks = captioned["c"][1][1] or [{"t": "Plain", "c": []}]
    caption_blocks[0]["c"][:0] = [{"t": "Strong", "c": [{"t": "Str", "c": f"{name}."}]}, {"t": "Space"}]
    captioned["c"][1][1] = caption_blocks

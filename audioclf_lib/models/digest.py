"""A digest of a model's source code: it changes with what the class computes, and not with comments or formatting.

It covers the class and everything that it uses in its file, followed into the files of this package that it imports
from. Docstrings, comments, decorators of the class, and the layout of the text do not count.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from audioclf_lib._support.digests import digest

PACKAGE = "audioclf_lib.models"
Definitions = dict[str, ast.stmt]
NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Fields that newer Pythons add to every node, or that say how a constant was written.
IGNORED_FIELDS = {"type_params", "type_comment", "kind"}


def source_digest(source: str, class_name: str) -> str:
    """Sixteen hexadecimal digits for the class ``class_name`` of a file's text; the same on Python 3.11 to 3.13.

    Raises:
        SyntaxError: the text is not Python.
        KeyError: there is no such class in it.
    """
    return digest("\n".join(_collect(source, [class_name])), 16)


def _collect(source: str, names: list[str]) -> list[str]:
    """The canonical text of the named definitions and of all that they use, in the order of the file."""
    tree = ast.parse(source)
    definitions, imports = _definitions(tree), _package_imports(tree)
    used = {name: definitions[name] for name in names}
    queue = list(used.values())
    reached: set[str] = set()
    while queue:
        found = _names_in(queue.pop())
        new = {name: definitions[name] for name in found & definitions.keys() - used.keys()}
        used |= new
        reached |= found
        queue += new.values()
    texts = [_canonical(statement) for statement in dict.fromkeys(used[name] for name in sorted(used))]
    for module, imported in sorted(imports.items()):
        if wanted := sorted(imported & reached):
            texts += _collect(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"), wanted)
    return texts


def _definitions(tree: ast.Module) -> Definitions:
    """Top-level statement by each name that it defines."""
    found: Definitions = {}
    for statement in tree.body:
        if isinstance(statement, NAMED):
            found[statement.name] = statement
        elif isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found |= {name: statement for target in targets for name in _names_in(target)}
    return found


def _package_imports(tree: ast.Module) -> dict[str, set[str]]:
    """Names imported from the architecture files of this package, by module."""
    found: dict[str, set[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{PACKAGE}."):
            found.setdefault(node.module.rpartition(".")[2], set()).update(alias.name for alias in node.names)
    return found


def _names_in(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _canonical(node: Any) -> str:
    """The syntax tree as text, without what differs between versions of Python or is documentation."""
    if isinstance(node, list):
        return f"[{','.join(map(_canonical, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if name not in IGNORED_FIELDS}
    if isinstance(node, NAMED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    if isinstance(node, ast.ClassDef):
        fields.pop("decorator_list")
    if isinstance(node, ast.JoinedStr):  # Python 3.12 has empty texts between the parts of an f-string
        fields["values"] = [part for part in node.values if getattr(part, "value", None) != ""]
    shown = ",".join(f"{name}={_canonical(value)}" for name, value in fields.items() if value not in (None, []))
    return f"{type(node).__name__}({shown})"

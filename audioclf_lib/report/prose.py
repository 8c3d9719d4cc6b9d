"""The report's prose: Markdown files with placeholders, each replaced by the project's file of the same name."""

from __future__ import annotations

import re
from pathlib import Path

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.extras import extra
from audioclf_lib._support.paths import PROJECT_ROOT
from audioclf_lib.report.show import escape_markdown

with extra("report"):
    import pypandoc

DEFAULTS = Path(__file__).parent / "text"
OWN = PROJECT_ROOT / "report" / "text"
BIBLIOGRAPHY = DEFAULTS / "literature.bib"
# Two braces on each side, since single ones and dollar signs belong to LaTeX.
PLACEHOLDER = re.compile(r"\{\{ *(?P<name>[a-z_]+) *(?::(?P<format>[^{}\s]+))? *\}\}")


def text(name: str, /, **values: str | int | float) -> str:
    """The Markdown of ``report/text/<name>.md`` or, where the project has no such file, of the library's own.

    ``{{name}}`` stands for a value, ``{{name:.1%}}`` for a number with a format specification. Values that are text are
    shown letter by letter, whatever markup they hold.

    Raises:
        InputError: a placeholder that the text does not have, or a format that its value does not have.
    """
    path = next((folder / f"{name}.md" for folder in (OWN, DEFAULTS) if (folder / f"{name}.md").is_file()), None)
    if path is None:
        raise InputError(f"there is no text {name!r}; write {OWN / name}.md")
    try:
        source = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({error}); save it as plain text in UTF-8") from None

    def fill(placeholder: re.Match[str]) -> str:
        if placeholder["name"] not in values:
            known = ", ".join(values) or "none"
            raise InputError(f"{path}: unknown placeholder {placeholder[0]}; this text has: {known}")
        value = values[placeholder["name"]]
        try:
            shown = format(value, placeholder["format"] or "")
        except ValueError:
            raise InputError(f"{path}: {placeholder[0]} has a format that does not fit {value!r}; correct it") from None
        return escape_markdown(shown) if isinstance(value, str) else shown.replace("%", "\N{NO-BREAK SPACE}%")

    return PLACEHOLDER.sub(fill, source)


def references() -> str:
    """The bibliography as a Markdown list, in the author-date style of the Chicago Manual, by pandoc's citeproc."""
    options = ["--citeproc", "--wrap=none"]
    entries = pypandoc.convert_file(str(BIBLIOGRAPHY), "markdown_strict", "bibtex", options).split("\n\n")
    listed = "\n".join(f"- {entry.strip()}" for entry in entries if entry.strip())
    short = re.sub(r"<(https://doi\.org/([^>]+))>", r"[doi:\2](\1)", listed)
    return re.sub(r"<(https://arxiv\.org/abs/([^>]+))>", r"[arXiv:\2](\1)", short)

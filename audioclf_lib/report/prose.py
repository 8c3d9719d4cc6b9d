"""The report's prose: Markdown files with placeholders, each replaced by the project's file of the same name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.extras import extra
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, PROJECT_ROOT
from audioclf_lib.report.show import escape_markdown, show_text
from audioclf_lib.report.values import Value

with extra("report"):
    import pypandoc

DEFAULTS = Path(__file__).parent / "text"
OWN = PROJECT_ROOT / "report" / "text"
BIBLIOGRAPHY = DEFAULTS / "literature.bib"
EXPECTED = ("abstract", "findings", "discussion", "conclusion")  # marked in the report unless somebody wrote them
# Two braces on each side, since single ones and dollar signs belong to LaTeX.
PLACEHOLDER = re.compile(r"\{\{ *(?P<name>[a-z_][a-z0-9_]*(?: *\([^{}()]*\))?) *(?::(?P<spec>[^{}\s]+))? *\}\}")


class Prose:
    """The texts of one report.

    A text is ``text/<name>.md`` beside the runs, else ``report/text/<name>.md`` of the project, else the library's own.

    Args:
        values: what placeholders stand for, by their names (``report.values.report_values``).
        runs_dir: where the runs are; ``report/runs`` of the project if empty.
    """

    def __init__(self, values: Mapping[str, Value], runs_dir: Path | str = "") -> None:
        self.values = values
        self.read = ""  # all texts so far, for what they cite
        self.folders = (Path(runs_dir or DEFAULT_RUNS_DIR) / "text", OWN, DEFAULTS)

    def text(self, name: str) -> str:
        """The Markdown of a text, its placeholders filled; the library's words for what is expected of you are marked.

        ``{{ n_clips }}`` stands for a value, ``{{ accuracy("cnn", "kfold", "clip"):.0% }}`` for one with a format of
        Python's. Words are shown letter by letter, whatever markup they hold.

        Raises:
            InputError: no such text, a placeholder that is not known, or a format that its value does not have.
        """
        path = next((folder / f"{name}.md" for folder in self.folders if (folder / f"{name}.md").is_file()), None)
        if path is None:
            raise InputError(f"there is no text {name!r}; write {OWN / name}.md")
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {path} ({error}); save it as plain text in UTF-8") from None

        def fill(placeholder: re.Match[str]) -> str:
            where = f"{path}, line {source[: placeholder.start()].count(chr(10)) + 1}"
            key = re.sub(r"\s*([(),])\s*", r"\1", placeholder["name"].replace("'", '"')).replace(",", ", ")
            value = self.values.get(key)
            if value is None:
                advice = "`audioclf report --list-values` shows those that there are"
                raise InputError(f"{where}: there is no value {placeholder['name']!r}; {advice}")
            try:
                shown = value.write(placeholder["spec"] or "")
            except ValueError:
                fault = f"has a format that does not fit {value.content!r}; correct it"
                raise InputError(f"{where}: {placeholder[0]} {fault}") from None
            return escape_markdown(shown) if isinstance(value.content, str) else shown

        filled = PLACEHOLDER.sub(fill, source).strip()
        self.read += f"{filled}\n\n"
        if path.parent == DEFAULTS and name in EXPECTED:
            mark = f"These are audioclf's words, not the author's: write your own in `report/text/{name}.md`."
            return f"> *{mark}*\n\n{filled}"
        return filled

    def show(self, name: str) -> None:
        """Show a text."""
        show_text(self.text(name))


def references(text: str, more: Iterable[str] = ()) -> str:
    """The works that a text cites, as a Markdown list in the style of the Chicago Manual, by pandoc's citeproc.

    Args:
        text: that names the first author of a work and its year where it cites it, as ``Efron 1987`` or ``Holm's
            correction (1979)``; a work without a year has ``n.d.``.
        more: works that are listed all the same, by author and year.
    """
    options = ["--citeproc", "--wrap=none"]
    entries = pypandoc.convert_file(str(BIBLIOGRAPHY), "markdown_strict", "bibtex", options).split("\n\n")
    text = "\n".join([text, *more])

    def is_cited(entry: str) -> bool:
        name, year = re.split(r"[,.]", entry)[0], re.search(r"\d{4}|n\.d\.", entry)
        near = rf"\b{re.escape(name)}\b[^;\n]{{0,40}}?\b{re.escape(year[0]) if year else ''}(?!\w)"
        return re.search(near, text) is not None

    listed = "\n".join(f"- {entry}" for entry in map(str.strip, entries) if entry and is_cited(entry))
    short = re.sub(r"<(https://doi\.org/([^>]+))>", r"[doi:\2](\1)", listed)
    return re.sub(r"<(https://arxiv\.org/abs/([^>]+))>", r"[arXiv:\2](\1)", short)

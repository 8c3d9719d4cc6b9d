"""The report's texts: placeholders, the project's own files, and what users' words cannot do to them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import PROJECT_ROOT
from audioclf_lib.report import prose
from audioclf_lib.report.prose import DEFAULTS, PLACEHOLDER, text

GUIDE = (PROJECT_ROOT / "report" / "text" / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(prose, "OWN", tmp_path)
    return tmp_path


def test_placeholders_are_filled_with_their_format(own: Path) -> None:
    (own / "abstract.md").write_text("{{n}} of {{ total:,}} are {{share:.1%}} of {{name}}.\n")
    assert (
        text("abstract", n=3, total=1234, share=0.625, name="birds")
        == "3 of 1,234 are 62.5\N{NO-BREAK SPACE}% of birds."
    )


def test_latex_keeps_its_braces_and_dollars(own: Path) -> None:
    (own / "data.md").write_text(r"$\frac{{{n}}}{\mathrm{d}x_{i}}$ and $${ {x} }$$ for \$5")
    assert text("data", n=2) == r"$\frac{2}{\mathrm{d}x_{i}}$ and $${ {x} }$$ for \$5"


@pytest.mark.parametrize("name", ["a*b*", "$x$", "[@fig:x]", "<b>", "{{n}}", "`code`", "# head", "two\nlines"])
def test_words_of_users_are_shown_letter_by_letter(own: Path, name: str) -> None:
    (own / "data.md").write_text("The set {{name}}.")
    shown = text("data", name=name, n=5)
    assert re.sub(r"\\(\W)", r"\1", shown) == f"The set {' '.join(name.split())}."
    assert not re.search(r"(?<!\\)[*$\[<`{#]", shown)


def test_the_projects_file_takes_the_place_of_the_librarys(own: Path) -> None:
    before = text("limits")
    (own / "limits.md").write_text("Mine alone.")
    assert (before != "Mine alone.", text("limits")) == (True, "Mine alone.")


def test_an_unknown_placeholder_is_named_with_its_file_and_the_known_ones(own: Path) -> None:
    (own / "abstract.md").write_text("{{n_fits}} and {{accuracy}}")
    with pytest.raises(
        InputError, match=r"abstract.md: unknown placeholder \{\{accuracy\}\}; this text has: n_fits, best"
    ):
        text("abstract", n_fits=3, best="CNN")


def test_a_format_that_does_not_fit_is_named(own: Path) -> None:
    (own / "abstract.md").write_text("{{best:.1%}}")
    with pytest.raises(InputError, match=r"abstract.md: \{\{best:.1%\}\} has a format that does not fit 'CNN'"):
        text("abstract", best="CNN")


def test_a_file_that_is_no_text_is_named(own: Path) -> None:
    (own / "abstract.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"cannot read .*abstract.md .* UTF-8"):
        text("abstract")


def test_an_unknown_text_is_named(own: Path) -> None:
    with pytest.raises(InputError, match="there is no text 'poem'"):
        text("poem")


@pytest.mark.parametrize("path", sorted(DEFAULTS.glob("*.md")), ids=lambda path: path.stem)
def test_every_text_and_its_placeholders_are_in_the_guide(path: Path) -> None:
    rows = [line.split("|")[1:-1] for line in GUIDE.splitlines() if line.startswith("|")]
    (placeholders,) = [placeholders for names, _, placeholders in rows if f"`{path.stem}`" in names]
    for placeholder in PLACEHOLDER.finditer(path.read_text(encoding="utf-8")):
        assert f"`{placeholder['name']}`" in placeholders

"""The report's texts: placeholders, the project's own files, and what users' words cannot do to them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import PROJECT_ROOT
from audioclf_lib.report import prose
from audioclf_lib.report.prose import DEFAULTS, EXPECTED, PLACEHOLDER, Prose
from audioclf_lib.report.values import Value

GUIDE = (PROJECT_ROOT / "report" / "text" / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(prose, "OWN", tmp_path)
    return tmp_path


def text(name: str, /, runs_dir: Path | str = "nowhere", **values: object) -> str:
    known = {key: each if isinstance(each, Value) else Value(each) for key, each in values.items()}
    return Prose(known, runs_dir).text(name)


def test_placeholders_are_filled_with_their_format(own: Path) -> None:
    (own / "method.md").write_text("{{n}} of {{ total:,}} are {{share:.1%}} or {{ share }} of {{name}}.\n")
    shown = text("method", n=3, total=1234, share=Value(0.625, ".0%"), name="birds")
    assert shown == "3 of 1,234 are 62.5\N{NO-BREAK SPACE}% or 62\N{NO-BREAK SPACE}% of birds."


@pytest.mark.parametrize(
    "written", ['accuracy("cnn", "kfold")', "accuracy( 'cnn','kfold' )", 'accuracy("cnn","kfold")']
)
def test_a_value_with_arguments_is_found_however_it_is_spaced(own: Path, written: str) -> None:
    (own / "abstract.md").write_text(f"It is {{{{ {written} }}}}, {{{{ {written}:.0% }}}}.")
    shown = text("abstract", **{'accuracy("cnn", "kfold")': Value(0.714, ".1%")})
    assert shown == "It is 71.4\N{NO-BREAK SPACE}%, 71\N{NO-BREAK SPACE}%."


def test_what_is_not_trained_or_not_complete_says_so(own: Path) -> None:
    (own / "abstract.md").write_text("{{ a }} and {{ b }}")
    shown = text("abstract", a=Value(None, ".1%"), b=Value(0.5, ".0%", "3 of 5 fits"))
    assert shown == "(not trained) and 50\N{NO-BREAK SPACE}% (3 of 5 fits)"


def test_latex_keeps_its_braces_and_dollars(own: Path) -> None:
    (own / "data.md").write_text(r"$\frac{{{n}}}{\mathrm{d}x_{i}}$ and $${ {x} }$$ for \$5")
    assert text("data", n=2) == r"$\frac{2}{\mathrm{d}x_{i}}$ and $${ {x} }$$ for \$5"


@pytest.mark.parametrize("name", ["a*b*", "$x$", "[@fig:x]", "<b>", "{{n}}", "`code`", "# head", "two\nlines"])
def test_words_of_users_are_shown_letter_by_letter(own: Path, name: str) -> None:
    (own / "data.md").write_text("The set {{name}}.")
    shown = text("data", name=name, n=5)
    assert re.sub(r"\\(\W)", r"\1", shown) == f"The set {' '.join(name.split())}."
    assert not re.search(r"(?<!\\)[*$\[<`{#]", shown)


def test_a_text_beside_the_runs_comes_before_the_projects_and_that_before_the_librarys(own: Path) -> None:
    assert text("comparison") == (DEFAULTS / "comparison.md").read_text(encoding="utf-8").strip()
    (own / "comparison.md").write_text("The project's.")
    assert text("comparison") == "The project's."
    (own / "runs" / "text").mkdir(parents=True)
    (own / "runs" / "text" / "comparison.md").write_text("The runs'.")
    assert text("comparison", own / "runs") == "The runs'."


@pytest.mark.parametrize("name", EXPECTED)
def test_words_that_are_not_the_authors_are_marked_until_he_writes_his_own(own: Path, name: str) -> None:
    values = {placeholder["name"]: 0.5 for placeholder in PLACEHOLDER.finditer((DEFAULTS / f"{name}.md").read_text())}
    marked = text(name, **values)
    assert marked.startswith("> *These are audioclf's words") and f"report/text/{name}.md" in marked
    (own / f"{name}.md").write_text("Mine.")
    assert text(name) == "Mine."


@pytest.mark.parametrize(
    "code",
    ["accuracy", 'accuracy("cnn", "leave-one-out")', "open('/etc/passwd')", "__import__('os')"],
)
def test_an_unknown_placeholder_is_one_sentence_with_file_and_line_and_nothing_is_run(own: Path, code: str) -> None:
    (own / "abstract.md").write_text(f"One line.\n\n{{{{ n_fits }}}} and {{{{ {code} }}}}")
    with pytest.raises(InputError, match=r"abstract\.md, line 3: there is no value .*--list-values") as caught:
        text("abstract", n_fits=3)
    assert "\n" not in str(caught.value)


def test_a_format_that_does_not_fit_is_named(own: Path) -> None:
    (own / "abstract.md").write_text("{{best:.1%}}")
    with pytest.raises(InputError, match=r"abstract.md, line 1: \{\{best:.1%\}\} has a format that does not fit 'CNN'"):
        text("abstract", best="CNN")


def test_a_file_that_is_no_text_is_named(own: Path) -> None:
    (own / "abstract.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"cannot read .*abstract.md .* UTF-8"):
        text("abstract")


def test_an_unknown_text_is_named(own: Path) -> None:
    with pytest.raises(InputError, match="there is no text 'poem'"):
        text("poem")


@pytest.mark.parametrize("path", sorted(DEFAULTS.glob("*.md")), ids=lambda path: path.stem)
def test_every_text_is_in_the_guide(path: Path) -> None:
    assert f"`{path.stem}`" in GUIDE

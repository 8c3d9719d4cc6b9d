"""Building a report: from a notebook that is executed to its PDF and HTML."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from audioclf_lib._support.errors import InputError
from audioclf_lib.report.build import build_report
from audioclf_lib.suite.notebooks import NotebookError


def write_notebook(path: Path, *cells: str, parameters: str = 'title = "Mine"') -> Path:
    """A student's own notebook, which knows nothing of plans."""
    cells = (parameters, *cells)
    tags = [["parameters"], *[[]] * (len(cells) - 1)]
    code = [new_code_cell(cell, metadata={"tags": tag}) for cell, tag in zip(cells, tags, strict=True)]
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=[*code, new_markdown_cell("# What I found")], metadata=kernel), path)
    return path


SHOWS_TITLE = "from audioclf_lib.report import show_title_page\nshow_title_page(title=title)"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "mine.ipynb", SHOWS_TITLE)


def build(folder: Path, notebook: Path, *, runs: str = "runs", **options: str) -> str:
    """Text of ``report.html``, made into ``folder``."""
    (path,) = build_report(
        "demo", runs_dir=notebook.parent / runs, output_dir=folder, formats=["html"], notebook=notebook, **options
    )
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with a notebook, and in ``out`` what was made of it, in all formats but PDF."""
    folder = tmp_path_factory.mktemp("home")
    draws = (
        "import matplotlib.pyplot as plt\nfrom audioclf_lib.report import show\nshow(plt.subplots()[1], folder=None)"
    )
    write_notebook(folder / "mine.ipynb", SHOWS_TITLE, draws)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        formats, notebook = ["html", "docx", "md"], "~/mine.ipynb"
        made = build_report("demo", runs_dir="~/runs", output_dir="~/out", formats=formats, notebook=notebook)
    assert made == [folder / "out" / f"report.{name}" for name in formats], "home is replaced in paths"
    return folder


def test_any_notebook_can_be_the_report(home: Path) -> None:
    html = (home / "out" / "report.html").read_text(encoding="utf-8")
    assert "<h1>Mine</h1>" in html
    assert "What I found" in html
    assert [path.name for path in (home / "runs").iterdir()] == ["report.ipynb"]


def test_word_and_markdown_are_written_with_the_figures_beside_the_markdown(home: Path) -> None:
    (figure,) = (home / "out" / "report_files").iterdir()
    assert f"](report_files/{figure.name})" in (home / "out" / "report.md").read_text(encoding="utf-8")
    assert (home / "out" / "report.docx").read_bytes().startswith(b"PK")


def test_two_builds_at_once_get_each_their_own_report(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "mine.ipynb", "title")  # imports nothing, which takes kernels seconds
    titles = ["The first", "The second"]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda title: build(tmp_path / title, notebook, title=title), titles))
    for html, shown, other in zip(made, titles, reversed(titles), strict=True):
        assert shown in html and other not in html
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["report.ipynb"]


def test_a_failed_cell_leaves_the_notebook_with_its_traceback_and_nothing_else(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "mine.ipynb", "1 / 0")
    with pytest.raises(NotebookError, match="ZeroDivisionError") as caught:
        build(tmp_path / "out", notebook)
    assert caught.value.notebook == tmp_path / "runs" / "report.failed.ipynb"
    assert "ZeroDivisionError" in caught.value.notebook.read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["report.failed.ipynb"]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_told_before_anything_runs(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write .*out/report: Not a directory; .* choose another"):
        build(tmp_path / "out" / "report", mine)
    assert not (tmp_path / "runs").exists()


def test_an_unknown_format_or_parameter_is_named(mine: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown format 'odt'; choose from pdf, html, docx, md"):
        build_report("demo", runs_dir=tmp_path / "runs", output_dir=tmp_path, formats=["odt"], notebook=mine)
    with pytest.raises(InputError, match=r"mine.ipynb has no parameter 'course'; it has title"):
        build(tmp_path / "out", mine, course="Deep listening")

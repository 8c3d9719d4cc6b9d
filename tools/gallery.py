"""Executed copies of the notebooks as small web pages, in ``docs/gallery``, for a look before anything is installed.

    python tools/gallery.py --dataset demo --epochs 10

Fits lie where the notebooks keep them, so what is trained already is not trained again. A page holds its figures and
sounds; figures lose the digits that nobody sees, and sounds are Ogg Vorbis.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, NOTEBOOKS_DIR, PROJECT_ROOT
from audioclf_lib.suite.notebooks import NotebookError, run_notebook, skip_address_grammars
from audioclf_lib.suite.parameters import known_parameters

GALLERY = PROJECT_ROOT / "docs" / "gallery"
LATER = ("40_tuning", "50_explore", "60_diagnosis", "90_report")  # what they show is trained by the others
EPOCHS = {"02_from_scratch": 2, "40_tuning": 2, "60_diagnosis": 2}  # of fits that are many, or slow, or made to fail
STYLE = "<style>main { max-width: 1000px; margin: auto } .jp-InputPrompt, .jp-OutputPrompt { display: none }</style>"


def make_gallery(
    to: Path, *, dataset: str, epochs: int, runs_dir: Path = DEFAULT_RUNS_DIR, only: Sequence[str] = ()
) -> list[Path]:
    """Run the notebooks and write a page for each, and ``index.html``; what another call wrote stays.

    Args:
        to: folder of the pages.
        dataset, epochs, runs_dir: parameters of the notebooks.
        only: names of notebooks, such as ``01_dataset``; all unless given.

    Raises:
        InputError: an unknown notebook, or a parameter that one rejects.
        NotebookError: a cell failed.
    """
    known = {
        path.stem: path
        for path in sorted(NOTEBOOKS_DIR.glob("*.ipynb"), key=lambda path: (path.stem in LATER, path.stem))
    }
    if unknown := [name for name in only if name not in known]:
        raise InputError(f"there is no notebook {unknown[0]!r}; choose from {', '.join(sorted(known))}")
    to.mkdir(parents=True, exist_ok=True)
    pages = []
    for name in only or known:
        values = {"dataset": dataset, "epochs": EPOCHS.get(name, epochs), "runs_dir": str(runs_dir), "controls": False}
        values = {key: value for key, value in values.items() if key in known_parameters(known[name])}
        print(f"{name}: running", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            executed = run_notebook(known[name], Path(folder) / f"{name}.ipynb", values)
            page = to / f"{name}.html"
            page.write_text(as_page(executed), encoding="utf-8")
        print(f"{name}: {page} ({page.stat().st_size / 1e6:.1f} MB)", flush=True)
        pages.append(page)
    write_index(to)
    return pages


def as_page(executed: Path) -> str:
    """An executed notebook as one HTML file."""
    skip_address_grammars()
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data:
                output.data = {"text/html": smaller(data["text/html"])}
    body, _ = HTMLExporter(exclude_anchor_links=True).from_notebook_node(notebook)
    body = re.sub(
        r'<script src="[^"]*require[^"]*"></script>', "", body
    )  # widgets are left out, and so is what they need
    return str(body).replace("</head>", f"{STYLE}</head>", 1)


def smaller(page: str) -> str:
    """HTML whose embedded SVG has one decimal in its paths, and whose WAV is Ogg Vorbis."""

    def svg(found: re.Match[str]) -> str:
        drawing = base64.b64decode(found[1]).decode()
        drawing = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), drawing)
        return f"data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode()}"

    def wav(found: re.Match[str]) -> str:
        import soundfile as sf

        sound = io.BytesIO()
        sf.write(sound, *sf.read(io.BytesIO(base64.b64decode(found[1]))), format="OGG", subtype="VORBIS")
        return f"data:audio/ogg;base64,{base64.b64encode(sound.getvalue()).decode()}"

    page = re.sub(r"data:image/svg\+xml;base64,([\w+/=]+)", svg, page)
    return re.sub(r"data:audio/(?:x-)?wav;base64,([\w+/=]+)", wav, page).replace('type="audio/wav"', 'type="audio/ogg"')


def write_index(folder: Path) -> None:
    """A list of the pages, each under its notebook's heading."""
    entries = []
    for page in sorted(path for path in folder.glob("*.html") if path.name != "index.html"):
        heading = re.search(r"<h1[^>]*>(.*?)</h1>", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        title = re.sub(r"<[^>]+>", "", heading[1]).strip() if heading else page.stem
        entries.append(f'<li><a href="{html.escape(page.name)}">{page.stem}</a>: {title}</li>')
    look = "<style>body { font: 1rem/1.6 sans-serif; max-width: 40rem; margin: 2rem auto }</style>"
    text = f"<h1>audioclf: the notebooks, executed</h1><ul>{''.join(entries)}</ul>"
    (folder / "index.html").write_text(f"<!doctype html><meta charset=utf-8>{look}{text}\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--runs-dir", type=Path, default=DEFAULT_RUNS_DIR)
    parser.add_argument("--to", type=Path, default=GALLERY)
    parser.add_argument("--only", nargs="*", default=[], metavar="NOTEBOOK")
    given = parser.parse_args()
    try:
        make_gallery(given.to, dataset=given.dataset, epochs=given.epochs, runs_dir=given.runs_dir, only=given.only)
    except (InputError, NotebookError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

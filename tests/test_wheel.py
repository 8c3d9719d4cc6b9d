"""The wheel in an environment without the library: one notebook beside it, then a course folder, suite and report.

The environment is a fresh one that borrows every package of this one but audioclf, and has no index to ask.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from conftest import PROJECT_ROOT
from small_suite import CLASSES, make_sounds, notebook_path

from audioclf_lib.runs.store import RunStore

NOTEBOOK = "11_cnn_split"
PLAN = """
dataset: ../alone/sounds
epochs: 1
experiments:
  - {model: cnn, protocol: kfold}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=PROJECT_ROOT, check=True, capture_output=True)
    (path,) = folder.iterdir()
    return path


@dataclass(frozen=True)
class Elsewhere:
    """An environment in which the library was installed by a notebook's first cell, and the folder of that notebook.

    Attributes:
        python: of the environment.
        alone: the folder that held a notebook, a wheel and some sounds, and nothing else.
        notebook: as it was executed.
    """

    python: Path
    alone: Path
    notebook: nbformat.NotebookNode

    def run(self, *arguments: str | Path, folder: Path | None = None) -> str:
        """Run this environment's Python; returns what it prints."""
        return run_python(self.python, *arguments, folder=folder or self.alone)

    def library(self) -> dict[Path, int]:
        """Every file of the installed library, but for compiled ones, with its time of change."""
        (root,) = self.python.parents[1].glob("lib/python*/site-packages/audioclf_lib")
        return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.suffix != ".pyc" and path.is_file()}


def run_python(python: Path, *arguments: str | Path, folder: Path) -> str:
    named = ("PYTHONPATH", "AUDIOCLF_PROJECT", "AUDIOCLF_DATA", "AUDIOCLF_FIGURES", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in named}
    environment |= {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [str(python), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    place = tmp_path_factory.mktemp("elsewhere")
    borrowed = place / "borrowed"
    borrowed.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "audioclf" not in path.name and path.name != "__pycache__":
            (borrowed / path.name).symlink_to(path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "env")], check=True)
    python = place / "env" / "bin" / "python"
    site = run_python(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=place).strip()
    Path(site, "borrowed.pth").write_text(f"{borrowed}\n")

    alone = place / "alone"
    make_sounds(alone / "sounds")
    (alone / wheel.name).write_bytes(wheel.read_bytes())
    notebook = nbformat.read(notebook_path(NOTEBOOK), as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for name, value in {"dataset": "sounds", "epochs": 1}.items():
        parameters.source, changed = re.subn(rf"^{name} = \S+", f"{name} = {value!r}", parameters.source, flags=re.M)
        assert changed == 1
    nbformat.write(notebook, alone / f"{NOTEBOOK}.ipynb")
    execute = "from nbclient.cli import main; main()"  # `jupyter execute`
    run_python(python, "-c", execute, f"{NOTEBOOK}.ipynb", "--output=executed.ipynb", folder=alone)
    yield Elsewhere(python, alone, nbformat.read(alone / "executed.ipynb", as_version=4))


def test_the_wheel_holds_what_a_checkout_holds_for_its_users(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
    expected = {path.relative_to(PROJECT_ROOT).as_posix() for path in (PROJECT_ROOT / "audioclf_lib").rglob("*.*")}
    expected = {name for name in expected if "__pycache__" not in name}
    for pattern in ("notebooks/*.ipynb", "workflow/**/*.*", "workflow/Snakefile", "examples/*.py", "report/text/*.md"):
        found = [path.relative_to(PROJECT_ROOT).as_posix() for path in PROJECT_ROOT.glob(pattern) if path.is_file()]
        assert found
        expected |= {f"audioclf_lib/project/{name}" for name in found if "__pycache__" not in name}
    assert expected <= names
    assert not [name for name in names if re.search(r"^(?!audioclf)|project/(data|report)/(?!README|text/)", name)]


def test_a_notebook_alone_with_a_wheel_installs_it_and_trains(elsewhere: Elsewhere) -> None:
    assert {path.name for path in elsewhere.alone.iterdir()} >= {"data", "figures", "report"}, "all is kept beside it"
    (run,) = RunStore(elsewhere.alone / "report" / "runs").find()
    assert run.config.class_names == tuple(sorted(CLASSES))
    assert run.environment["processes"][0]["commit"] is None, "there is no checkout"
    tables = [output for cell in elsewhere.notebook.cells for output in cell.get("outputs", [])]
    assert any("text/markdown" in output.get("data", {}) for output in tables)


def test_what_is_there_of_torch_and_numpy_stays(elsewhere: Elsewhere) -> None:
    names = ("torch", "numpy", "audioclf_lib")
    code = f"from importlib.util import find_spec; print(*(find_spec(name).origin for name in {names}), sep='\\n')"
    torch, numpy, ours = elsewhere.run("-c", code).splitlines()
    assert Path(torch).parents[1].name == Path(numpy).parents[1].name == "borrowed"
    assert Path(ours).is_relative_to(elsewhere.python.parents[1])


def test_papermill_runs_it_with_the_kernel_python3(elsewhere: Elsewhere) -> None:
    output = elsewhere.alone / "out.ipynb"
    given = ["-k", "python3", "-p", "epochs", "1", "-p", "dataset", "sounds", "--no-progress-bar"]
    elsewhere.run("-m", "papermill", f"{NOTEBOOK}.ipynb", output.name, *given)
    assert nbformat.read(output, as_version=4).metadata.papermill.exception is None
    assert len(RunStore(elsewhere.alone / "report" / "runs").find()) == 1, "the fit was there"


def test_a_course_folder_has_its_suite_and_its_report(elsewhere: Elsewhere) -> None:
    before = elsewhere.library()
    audioclf = ["-m", "audioclf_lib.cli"]
    elsewhere.run(*audioclf, "init", "../my course")
    course = elsewhere.alone.parent / "my course"
    (course / "workflow" / "plans" / "mine.yaml").write_text(PLAN.replace("..", str(elsewhere.alone.parent)))
    (course / "report" / "text" / "abstract.md").write_text("We heard three classes.")
    printed = elsewhere.run(*audioclf, "suite", "--plan", "mine", folder=course / "notebooks")
    assert "cnn-kfold: done in" in printed
    elsewhere.run(*audioclf, "report", "--formats", "html", folder=course)
    assert "We heard three classes." in (course / "report" / "report.html").read_text(encoding="utf-8")
    run, _ = RunStore(course / "report" / "runs").find()
    assert list((course / "figures" / run.config.dataset).glob("cnn-kfold-e1-*/curves.svg"))
    assert not (course / "report" / "runs" / ".suite" / "figures").exists()
    assert elsewhere.library() == before, "nothing is written beside the library"

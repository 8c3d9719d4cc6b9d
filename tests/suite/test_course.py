"""A course folder has what a student changes, leaves alone what is there, and is found from anywhere in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT_ROOT

from audioclf_lib._support.errors import InputError
from audioclf_lib.suite.course import lay_course

NOTEBOOKS = sorted(path.name for path in (PROJECT_ROOT / "notebooks").glob("*.ipynb"))
WHERE = """
from audioclf_lib._support.paths import DEFAULT_DATA_DIR, DEFAULT_RUNS_DIR, NOTEBOOKS_DIR, PROJECT_ROOT, folder_of
print(PROJECT_ROOT, NOTEBOOKS_DIR, folder_of("workflow/plans"), DEFAULT_RUNS_DIR, DEFAULT_DATA_DIR, sep="\\n")
"""


def where(folder: Path, **environment: str) -> list[Path]:
    """The project, its notebooks, plans, runs and data, for who works in ``folder``."""
    variables = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)} | environment
    done = subprocess.run([sys.executable, "-c", WHERE], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.splitlines()]


def of(project: Path) -> list[Path]:
    return [project, *(project / name for name in ("notebooks", "workflow/plans", "report/runs", "data"))]


@pytest.fixture
def course(tmp_path: Path) -> Path:
    lay_course(tmp_path / "my course")
    return tmp_path / "my course"


def test_it_has_what_a_student_changes_and_says_how_to_go_on(course: Path) -> None:
    assert sorted(path.name for path in (course / "notebooks").iterdir()) == NOTEBOOKS
    for name in (
        "workflow/plans/demo.yaml",
        "workflow/studies/cnn.yaml",
        "examples/mel_cnn.py",
        "report/text/README.md",
    ):
        assert (course / name).read_bytes() == (PROJECT_ROOT / name).read_bytes()
    readme = (course / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^(audioclf suite|audioclf report|jupyter lab notebooks) ", readme, re.M) == [
        "audioclf suite",
        "audioclf report",
        "jupyter lab notebooks",
    ]
    assert all((course / target).is_file() for target in re.findall(r"\]\(([^)]+)\)", readme))
    assert "/report/runs/" in (course / ".gitignore").read_text()


def test_what_is_there_stays_and_what_is_missing_is_added(course: Path) -> None:
    (course / "README.md").write_text("mine")
    (course / "notebooks" / NOTEBOOKS[0]).unlink()
    written, kept = lay_course(course)
    assert written == [course / "notebooks" / NOTEBOOKS[0]]
    assert course / "README.md" in kept
    assert (course / "README.md").read_text() == "mine"


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"cannot write {tmp_path / 'file'}: .*; choose another folder"):
        lay_course(tmp_path / "file")


def test_the_project_is_the_one_around_the_working_directory(course: Path, tmp_path: Path) -> None:
    assert where(course) == of(course)
    assert where(course / "notebooks") == of(course)
    assert where(tmp_path) == of(PROJECT_ROOT), "outside of any, the checkout"
    assert where(tmp_path, AUDIOCLF_PROJECT=str(course)) == of(course)


def test_a_part_that_a_project_lacks_comes_from_the_library(course: Path) -> None:
    shutil.rmtree(course / "notebooks")
    plans = course / "workflow" / "plans"
    assert where(course, AUDIOCLF_PROJECT=str(course))[:3] == [course, PROJECT_ROOT / "notebooks", plans]


def test_a_working_directory_that_is_gone_is_no_obstacle(tmp_path: Path) -> None:
    code = f"import os; os.chdir({str(tmp_path)!r}); os.rmdir({str(tmp_path)!r})\n{WHERE}"
    variables = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == str(PROJECT_ROOT), done.stderr

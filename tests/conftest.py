"""What all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from archives import Server

if TYPE_CHECKING:
    from nothing_lost import Workplace

os.environ.setdefault("MPLBACKEND", "Agg")  # before anybody imports matplotlib
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads of tests side by side would wait for each other
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # before jsonschema, as suite.notebooks does

PROJECT_ROOT = Path(__file__).resolve().parent.parent
WHOLE_PROGRAMS = ("notebooks", "robustness", "cli/test_cli.py", "data/test_download.py", "data/test_esc.py")
WHOLE_PROGRAMS += ("report/test_build.py", "report/test_report.py", "report/test_exporters.py", "suite/test_engine.py")
WHOLE_PROGRAMS += ("suite/test_notebooks.py", "suite/test_search.py", "test_gallery.py", "test_publish.py")
WHOLE_PROGRAMS += ("test_wheel.py",)
WHOLE_PROGRAMS += ("inference", "training/test_accelerate.py", "training/test_parallel.py", "training/test_resume.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what starts notebooks, suites and other whole programs, or trains for seconds, and let it run first.

    What is short comes last, so that no worker is left alone with a long file at the end.
    """
    places = [PROJECT_ROOT / "tests" / place for place in WHOLE_PROGRAMS]
    long = {item.path for item in items if any(item.path.is_relative_to(place) for place in places)}
    for item in items:
        if item.path in long:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def figures_closed() -> Iterator[None]:
    """What a test draws is freed with it: pyplot keeps figures, some of tens of megabytes, until they are closed."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """The same numbers from fit to fit: sums over two threads come in another order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real_esc10() -> Path:
    """Folder of the real ESC-10 recordings: below AUDIOCLF_DATA, beside the project, or in data/."""
    places = [os.environ.get("AUDIOCLF_DATA"), PROJECT_ROOT.parent / "shared", PROJECT_ROOT / "data"]
    for place in places:
        if place and (Path(place) / "ESC-10").is_dir():
            return (Path(place) / "ESC-10").resolve()
    pytest.skip("no copy of ESC-10: set AUDIOCLF_DATA to the folder that holds it")


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers on this machine that answer with the given content; they end with the test."""
    servers: list[Server] = []

    def start(content: bytes, status: int = 200) -> Server:
        servers.append(Server(content, status))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A suite that nobody does harm to: what all others must end with."""
    from nothing_lost import Workplace

    place = Workplace.make(tmp_path_factory.mktemp("undisturbed"))
    place.finish()
    return place

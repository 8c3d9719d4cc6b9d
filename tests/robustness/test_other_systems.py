"""What is different on Windows and macOS, simulated here: each branch for them is entered, and neither is imported for.

None of this runs on Windows; what it shows is that the code does what it is written to do where a thing is missing.
"""

from __future__ import annotations

import ast
import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from conftest import PROJECT_ROOT
from standins import wait_until, write_notebook
from torch.torch_version import TorchVersion

from audioclf_lib._support import paths
from audioclf_lib._support.cores import usable_cores
from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import replace_file
from audioclf_lib.suite import engine, notebooks
from audioclf_lib.training.environment import choose_device

SOURCES = sorted((PROJECT_ROOT / "audioclf_lib").rglob("*.py"))


def run_code(code: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own; what it writes by default goes to ``folder``."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    environment |= {"AUDIOCLF_PROJECT": str(folder)} if folder else {}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PROJECT_ROOT).as_posix())
def test_nothing_is_imported_that_only_unix_has(path: Path) -> None:
    assert imported(path) & POSIX_MODULES == set()


def text_without_encoding(source: str) -> list[str]:
    """Calls that read or write text as the system encodes it, which on Windows is seldom UTF-8."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        binary = any(isinstance(word, str) and re.fullmatch(r"[rwaxb+]+", word) and "b" in word for word in words)
        is_text = name.endswith((".read_text", ".write_text")) or (name == "open" or name.endswith(".open"))
        is_other = name.startswith(("webbrowser.", "zipfile.", "sf."))
        if is_text and not binary and not is_other and "encoding" not in {keyword.arg for keyword in node.keywords}:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PROJECT_ROOT).as_posix())
def test_text_is_utf_8_on_every_system(path: Path) -> None:
    assert text_without_encoding(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("source", ["path.read_text()", "path.write_text(text)", "open(name)", "path.open('w')"])
def test_the_search_for_text_finds_what_it_looks_for(source: str) -> None:
    assert text_without_encoding(source) == [source]


# Windows has none of these; macOS has no sched_getaffinity.
BARE = """
import builtins, importlib, os, pkgutil, signal, socket, sys
import asyncio, multiprocessing, matplotlib, nbconvert, optuna, papermill, snakemake.cli, torch  # have their own guards
for owner, names in {os: ["fork", "getpgid", "getuid", "killpg", "nice", "sched_getaffinity", "uname"],
                     signal: ["SIGKILL", "SIGHUP"], socket: ["AF_UNIX"]}.items():
    for name in names:
        delattr(owner, name)
real = builtins.__import__
def without_unix(name, globals=None, *more):
    if (globals or {}).get("__name__", "").startswith("audioclf_lib") and name.partition(".")[0] in UNIX:
        raise ModuleNotFoundError(name)
    return real(name, globals, *more)
builtins.__import__ = without_unix
import audioclf_lib
for module in pkgutil.walk_packages(audioclf_lib.__path__, "audioclf_lib."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from audioclf_lib._support.cores import usable_cores
from audioclf_lib._support.errors import InputError
assert usable_cores() == os.cpu_count()
print("all imported")
"""


def test_every_module_is_imported_where_all_that_is_missing() -> None:
    code = f"UNIX = {sorted(POSIX_MODULES)}\n{BARE}"
    done = run_code(code)
    assert done.stdout == "all imported\n", done.stderr


def test_cores_are_counted_where_they_cannot_be_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == os.cpu_count()


CONNECTION = """
import json
from ipykernel.connect import get_connection_info
print(json.dumps(json.loads(get_connection_info())))
"""


def test_a_kernel_talks_over_this_machines_own_ports_where_there_are_no_unix_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = SimpleNamespace(**{name: value for name, value in vars(notebooks.socket).items() if name != "AF_UNIX"})
    monkeypatch.setattr(notebooks, "socket", without)
    mine = write_notebook(tmp_path / "mine.ipynb", "epochs = 1", CONNECTION)
    executed = notebooks.run_notebook(mine, tmp_path / "out.ipynb", {"epochs": 2})
    connection = nbformat.read(executed, as_version=4).cells[-1].outputs[0].text
    assert '"transport": "tcp"' in connection
    assert '"ip": "127.0.0.1"' in connection


PARENT = """
import subprocess, sys, time
children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(2)]
print("started", flush=True)
time.sleep(600)
"""


def test_a_stopped_suite_ends_every_process_where_there_are_no_process_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake's place is taken by a program with two children; none of them heeds Ctrl-C, which is not sent here."""
    monkeypatch.delattr(os, "killpg")
    monkeypatch.setattr(engine, "GRACE_SECONDS", 0.1)
    real, started = subprocess.Popen, []

    def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        started.append(real([sys.executable, "-c", PARENT], **options))
        return started[-1]

    monkeypatch.setattr(engine, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": start}))
    log = engine.log_path(tmp_path)
    members: list[psutil.Process] = []

    def stop_when_started() -> None:
        if log.read_text():
            members.extend(psutil.Process(started[0].pid).children())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run_snakemake(tmp_path, profile=tmp_path, limits=[], tick=stop_when_started)
    assert len(members) == 2
    wait_until(lambda: not any(member.is_running() for member in members), "the children to end")
    assert started[0].wait(timeout=10) is not None


@pytest.mark.parametrize(("missing", "name"), [("SIGHUP", "SIGTERM"), ("SIGHUP", "SIGBREAK")])
def test_a_closed_window_stops_a_suite_like_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str, name: str
) -> None:
    """Windows has no SIGHUP, and SIGBREAK in its place."""
    monkeypatch.delattr(signal, missing)
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    real = subprocess.Popen
    wait = [sys.executable, "-c", "import time; time.sleep(600)"]
    start = SimpleNamespace(**vars(subprocess) | {"Popen": lambda command, **options: real(wait, **options)})
    monkeypatch.setattr(engine, "subprocess", start)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    with pytest.raises(KeyboardInterrupt):
        engine.run_snakemake(
            tmp_path, profile=tmp_path, limits=[], tick=lambda: signal.raise_signal(getattr(signal, name))
        )
    assert {number: signal.getsignal(number) for number in before} == before


def windows_error(number: int) -> PermissionError:
    error = PermissionError(errno.EACCES, "The process cannot access the file")
    error.winerror = number  # type: ignore[attr-defined]
    return error


def test_a_file_that_is_being_read_is_replaced_a_moment_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real, refusals = tmp_path / "a.txt", os.replace, [windows_error(5), windows_error(32)]
    path.write_text("old")

    def replace(draft: Path, target: Path) -> None:
        if refusals:
            raise refusals.pop()
        real(draft, target)

    monkeypatch.setattr(paths.os, "replace", replace)
    replace_file(path, b"new")
    assert (path.read_text(), names_in(tmp_path)) == ("new", ["a.txt"])


@pytest.mark.parametrize("error", [windows_error(5), PermissionError(errno.EACCES, "Permission denied")])
def test_a_file_that_may_not_be_replaced_stays(
    error: PermissionError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tries = tmp_path / "a.txt", []
    path.write_text("old")

    def refuse(draft: Path, target: Path) -> None:
        tries.append(draft)
        raise error

    monkeypatch.setattr(paths, "RENAME_WAITS", (0.0, 0.0))
    monkeypatch.setattr(paths.os, "replace", refuse)
    with pytest.raises(PermissionError):
        replace_file(path, b"new")
    assert len(tries) == (3 if hasattr(error, "winerror") else 1)
    assert (path.read_text(), names_in(tmp_path)) == ("old", ["a.txt"])


# ------------------------------------------------------------------------------------- another Python, another torch


def test_an_old_python_is_named() -> None:
    code = "import sys; sys.version_info, sys.version = (3, 10, 4), '3.10.4 (main)'; import audioclf_lib"
    done = run_code(code)
    needed = "ImportError: audioclf needs Python 3.11 or newer, not 3.10.4; choose another kernel"
    assert done.stderr.splitlines()[-1] == needed


@pytest.mark.parametrize("given", ["2.5.1+cu124", "1.13.0"])
def test_an_old_torch_is_named(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.__version__", TorchVersion(given))
    with pytest.raises(InputError, match=re.escape(f"torch {given} is too old for audioclf; install 2.6 or newer")):
        choose_device("cpu")


@pytest.mark.parametrize("given", ["2.6.0+cu124", "2.15.0a0+git1234"])
def test_another_torch_will_do(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.__version__", TorchVersion(given))
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("there", ["cuda", "mps", "cpu"])
def test_auto_finds_the_accelerator(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: there == "cuda")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: there == "mps")
    assert choose_device("auto").type == there


MISFIT = """
import importlib.abc, sys
class Misfit(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torchaudio":
            raise OSError("libtorchaudio.so: undefined symbol: _ZN3c10\\nmore")
sys.meta_path.insert(0, Misfit())
from audioclf_lib.cli import main
sys.argv = ["audioclf", "data", FOLDER]
main()
"""


def test_a_torchaudio_of_another_release_is_named(tmp_path: Path) -> None:
    from small_suite import make_sounds

    make_sounds(tmp_path / "sounds")
    code = f"FOLDER = {str(tmp_path / 'sounds')!r}\n{MISFIT}"
    done = run_code(code, tmp_path)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert re.fullmatch(
        r"audioclf: torchaudio does not load beside this torch \(libtorchaudio\.so: undefined symbol: _ZN3c10\); "
        "install the one of torch's release, from where torch came",
        sentence,
    )


# ------------------------------------------------------------------------------------------------- a missing package

# Runs each command in a fork of one process, which has imported once what all of them need.
MISSING = """
import importlib.abc, importlib.util, os, sys
import matplotlib.pyplot, pandas, sklearn.metrics, torch
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
for case, (missing, arguments, _) in CASES.items():
    assert not set(missing) & set(sys.modules)
    if os.fork():
        _, status = os.wait()
        print(case, os.waitstatus_to_exitcode(status), flush=True)
        continue
    os.environ["AUDIOCLF_PROJECT"] = folder = os.path.join(os.getcwd(), case)
    os.chdir(folder)
    for stream, ending in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(folder + ending, os.O_WRONLY | os.O_CREAT), stream)
    sys.meta_path.insert(0, Missing())
    real = importlib.util.find_spec
    importlib.util.find_spec = lambda name: None if name in missing else real(name)
    from audioclf_lib.cli import main
    sys.argv = ["audioclf", *arguments]
    main()
"""
# What is missing, a command that needs it, and what is said.
MISSING_CASES = {
    "tune": (
        ["optuna", "sqlalchemy"],
        ["tune", "cnn"],
        "optuna is not installed; `pip install 'audioclf[tune]'` brings it",
    ),
    "report": (["typst"], ["report"], "typst is not installed; `pip install 'audioclf[report]'` brings it"),
    "suite": (["snakemake"], ["suite"], "executor local needs snakemake; `pip install 'audioclf[suite]'` brings it"),
    "run": (
        ["papermill", "nbclient"],
        ["run", "01_dataset"],
        "nbclient is not installed; `pip install 'audioclf[suite]'` brings it",
    ),
    "data": (["soundfile"], ["data"], f"soundfile is missing; `{sys.executable} -m pip install audioclf` brings it"),
}


@pytest.fixture(scope="module")
def without_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each case, beside it what its command printed; ``codes`` holds the exit codes."""
    folder = tmp_path_factory.mktemp("missing")
    for case in MISSING_CASES:
        (folder / case).mkdir()
    done = run_code(f"CASES = {MISSING_CASES!r}\n{MISSING}", folder)
    assert done.returncode == 0, done.stderr
    (folder / "codes").write_text(done.stdout)
    return folder


@pytest.mark.parametrize("case", MISSING_CASES)
def test_a_missing_package_is_named_with_what_brings_it(case: str, without_packages: Path) -> None:
    assert f"{case} 2" in (without_packages / "codes").read_text().splitlines()
    assert (without_packages / f"{case}.err").read_text() == f"audioclf: {MISSING_CASES[case][2]}\n"
    assert "Traceback" not in (without_packages / f"{case}.out").read_text()
    assert list((without_packages / case).iterdir()) == []

"""Nothing that is read can run code, the notebooks' server is for this machine alone, and an audit that learnt nothing
does not pass for a good one.

For bad data see ``test_bad_input.py``, for names in the report ``test_report_injection.py``.
"""

from __future__ import annotations

import ast
import ipaddress
import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from conftest import PROJECT_ROOT
from standins import wait_until

# --- no code in data -----------------------------------------------------------------------------------------------

SOURCES = sorted(
    path for folder in ("audioclf_lib", "benchmarks", ".ci") for path in (PROJECT_ROOT / folder).rglob("*.py")
)
NOTEBOOKS = sorted((PROJECT_ROOT / "notebooks").glob("*.ipynb"))
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
NEVER = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("pd.read_pickle", "pandas.read_pickle", "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load"),
    *("torch.hub.load", "torch.jit.load", "torch.package.PackageImporter"),
}
# The file of an architecture is a program, as SECURITY.md says; it is run here and nowhere else.
RUNS_MODELS = {"audioclf_lib/models/registry.py": ["exec", "compile"]}
# What is safe only with an argument: the argument, and the value that it must have, or must not have.
ONLY_WITH = {"torch.load": ("weights_only", True)}
NOT_WITH = {"np.load": ("allow_pickle", True), "numpy.load": ("allow_pickle", True)}


def find_dangers(source: str) -> list[str]:
    """Calls and imports in a source by which data can run code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        found += [f"import {module}" for module in modules if module.partition(".")[0] in PICKLES]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
        if name in NEVER or given.get("shell"):
            found.append(name)
        argument, value = ONLY_WITH.get(name, (None, None))
        if argument is not None and given.get(argument) is not value:
            found.append(name)
        argument, value = NOT_WITH.get(name, (None, None))
        if argument is not None and given.get(argument, False) is not False:
            found.append(name)
    return found


def code_of(path: Path) -> str:
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", [*SOURCES, *NOTEBOOKS], ids=lambda path: path.relative_to(PROJECT_ROOT).as_posix())
def test_no_source_loads_a_pickle_or_runs_what_it_reads(path: Path) -> None:
    assert find_dangers(code_of(path)) == RUNS_MODELS.get(path.relative_to(PROJECT_ROOT).as_posix(), [])


def test_no_workflow_loads_a_pickle() -> None:
    for path in [*(PROJECT_ROOT / "workflow").rglob("*"), PROJECT_ROOT / "Makefile"]:
        if path.is_file():
            assert not re.search(rf"\b({'|'.join(PICKLES)}|read_pickle|yaml\.load)\b", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "torch.load('x', weights_only=False)",
        "torch.load('x', weights_only=flag)",
        "np.load('x', allow_pickle=True)",
        "np.load('x', allow_pickle=flag)",
        "pd.read_pickle('x')",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert find_dangers(source)


@pytest.mark.parametrize(
    "source", ["torch.load('x', weights_only=True)", "np.load('x')", "yaml.safe_load('x')", "m.eval()"]
)
def test_the_search_lets_pass_what_is_safe(source: str) -> None:
    assert not find_dangers(source)


# --- JupyterLab ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """A JupyterLab as ``make lab`` starts it."""

    process: psutil.Process
    port: int
    token: str


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("lab")
    shown = subprocess.run(["make", "-n", "-C", str(PROJECT_ROOT), "lab"], capture_output=True, text=True, check=True)
    (command,) = [line for line in shown.stdout.splitlines() if "jupyter lab" in line]
    program, *arguments = shlex.split(command)
    assert Path(program).name == "jupyter"
    arguments += ["--no-browser", "--port=0", *(["--allow-root"] if os.geteuid() == 0 else [])]
    places = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")}
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("jupyter")), *arguments],
        cwd=PROJECT_ROOT,
        env=os.environ | places,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        facts = folder / "JUPYTER_RUNTIME_DIR" / f"jpserver-{server.pid}.json"
        wait_until(lambda: facts.exists() and facts.read_text().endswith("}"), "JupyterLab to listen")
        told = json.loads(facts.read_text())
        yield Server(psutil.Process(server.pid), told["port"], told["token"])
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def test_jupyterlab_listens_on_this_machine_only(lab: Server) -> None:
    def listening() -> list[Any]:
        return [one for one in lab.process.net_connections("inet") if one.status == psutil.CONN_LISTEN]

    # It writes its file a moment before it listens.
    wait_until(lambda: lab.port in {one.laddr.port for one in listening()}, "JupyterLab's port")
    connections = listening()
    assert all(ipaddress.ip_address(one.laddr.ip).is_loopback for one in connections)


def test_jupyterlab_asks_for_its_token(lab: Server) -> None:
    def status(token: str) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{lab.port}/api/contents")
        request.add_header("Authorization", f"token {token}")
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert len(lab.token) >= 40
    assert status(lab.token) == 200
    assert status("") == status("guess") == 403


# --- make audit ----------------------------------------------------------------------------------------------------

SUMMARISE = runpy.run_path(str(PROJECT_ROOT / ".ci" / "audit.py"))["summarise"]
GOOD = {"name": "numpy", "version": "2.0", "vulns": []}
BAD = {"name": "pillow", "version": "1.0", "vulns": [{"id": "CVE-2025-1", "fix_versions": ["1.1"], "aliases": []}]}
UNKNOWN = {"name": "torch", "skip_reason": "not found"}


def test_an_audit_says_what_it_found() -> None:
    assert SUMMARISE("x.lock", [GOOD]) == (["x.lock: no known vulnerability in 1 packages"], False)
    lines, is_bad = SUMMARISE("x.lock", [GOOD, BAD])
    assert is_bad
    assert lines[0] == "pillow 1.0: CVE-2025-1, mended in 1.1"


def test_an_audit_that_learnt_nothing_says_so() -> None:
    lines, _ = SUMMARISE("x.lock", [UNKNOWN, UNKNOWN])
    assert lines == ["x.lock: NOT AUDITED, pip-audit could not reach its data on any of 2 packages"]
    assert SUMMARISE("x.lock", [GOOD, UNKNOWN])[0] == [
        "x.lock: no known vulnerability in 1 packages, NOT AUDITED: 1 others"
    ]

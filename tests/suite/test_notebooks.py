"""One notebook in batch: whole or not there, with the reason."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from standins import wait_until, write_notebook

from audioclf_lib._support.errors import InputError
from audioclf_lib.suite.notebooks import (
    NotebookError,
    failed_path,
    is_made_from,
    part_path,
    progress_path,
    read_progress,
    read_status,
    run_notebook,
    status_path,
)
from audioclf_lib.training.parallel import PROCESSES

CODE = """
import os, sys, time
from pathlib import Path
from ipykernel.connect import get_connection_info
import json
connection = json.loads(get_connection_info())
print(json.dumps({"python": sys.executable, "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
                  "transport": connection["transport"], "ip": connection["ip"],
                  "mode": os.stat(Path(connection["ip"]).parent).st_mode}))
"""

MISDEEDS = """
if deed == "fail":
    raise ValueError("no luck")
if deed == "refuse":
    from audioclf_lib._support.errors import InputError
    raise InputError("deed = 'refuse' is not possible; choose another")
if deed == "die":
    os._exit(9)
if deed == "wait":
    Path(meeting_point, "running").touch()
    while not Path(meeting_point, "release").exists():
        time.sleep(0.05)
    with Path(meeting_point, "calls").open("a") as calls:
        calls.write("x")
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    parameters = 'deed = "none"  # what to do\nmeeting_point = ""'
    return write_notebook(tmp_path / "a notebook.ipynb", parameters, CODE, MISDEEDS)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "results" / "done.ipynb"


def test_the_kernel_is_ours_behind_private_sockets(
    notebook: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("TMPDIR", f"/tmp/{'deep/' * 30}")
    assert run_notebook(notebook, output, {"deed": "nothing"}) == output
    cells = nbformat.read(output, as_version=4).cells
    facts = json.loads(cells[2].outputs[0].text)
    assert cells[1].source.endswith('deed = "nothing"\n')
    assert Path(facts["python"]).parent == Path(sys.executable).parent
    assert facts["devices"] == "3"
    assert facts["transport"] == "ipc"
    assert stat.S_IMODE(facts["mode"]) & 0o777 == 0o700
    assert not Path(facts["ip"]).parent.exists(), "the sockets' folder is removed"
    assert sorted(path.name for path in output.parent.iterdir()) == ["done.ipynb", "done.status.json"]
    status = read_status(output)
    assert status is not None
    assert status.state == "done"


@pytest.mark.parametrize(
    ("deed", "error", "message"),
    [
        ("fail", "ValueError", "no luck"),
        ("die", "DeadKernelError", "the kernel died; most often because memory ran out"),
    ],
)
def test_a_failure_is_kept_with_its_reason(notebook: Path, output: Path, deed: str, error: str, message: str) -> None:
    with pytest.raises(NotebookError, match=rf"cell \[4\] failed with {error}"):
        run_notebook(notebook, output, {"deed": deed})
    assert not output.exists()
    assert not part_path(output).exists()
    assert failed_path(output).exists()
    status = read_status(output)
    assert status is not None
    assert (status.state, status.cell, status.error, status.message) == ("failed", 4, error, message)


def test_an_executed_notebook_is_of_its_notebook_until_that_changes(notebook: Path, output: Path) -> None:
    """Whatever the clock says: it may have been set back since the notebook was saved."""
    run_notebook(notebook, output, {"deed": "nothing"})
    now = output.stat().st_mtime
    for saved in (now - 86_400, now + 86_400):
        os.utime(notebook, (saved, saved))
        assert is_made_from(notebook, output)
    notebook.write_text(notebook.read_text().replace("no luck", "bad luck"))
    os.utime(notebook, (now - 86_400,) * 2)
    assert not is_made_from(notebook, output)

    notebook.write_text(notebook.read_text().replace("bad luck", "no luck"))
    assert is_made_from(notebook, output)
    status_path(output).unlink()
    assert not is_made_from(notebook, output), "nothing says from what it was made"


def test_what_a_notebook_refuses_is_bad_input(notebook: Path, output: Path) -> None:
    with pytest.raises(InputError, match=r"^deed = 'refuse' is not possible; choose another$"):
        run_notebook(notebook, output, {"deed": "refuse"})


def test_unknown_parameters_and_notebooks_are_refused_before_anything_runs(notebook: Path, output: Path) -> None:
    with pytest.raises(InputError, match=r"a notebook\.ipynb has no parameter 'dead'; it has deed, meeting_point"):
        run_notebook(notebook, output, {"dead": "fail"})
    with pytest.raises(InputError, match="there is no notebook"):
        run_notebook(notebook.with_name("other.ipynb"), output, {})
    notebook.write_text("no notebook")
    with pytest.raises(InputError, match="is not a notebook"):
        run_notebook(notebook, output, {})
    assert not output.parent.exists()


def start(notebook: Path, output: Path, **options: bool) -> subprocess.Popen[str]:
    """Run the notebook as a job of a suite; it waits for the release in its own folder."""
    job = {
        "notebook": str(notebook),
        "output": str(output),
        "parameters": {"deed": "wait", "meeting_point": str(notebook.parent)},
        "project": str(notebook.parent),
    }
    jobs = notebook.with_name("jobs.json")
    jobs.write_text(json.dumps({"one": job}))
    command = [sys.executable, "-m", "audioclf_lib.suite.notebooks", str(jobs), "one"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_no_result_and_no_kernel(notebook: Path, output: Path, number: signal.Signals) -> None:
    process = start(notebook, output)
    wait_until((notebook.parent / "running").exists, "the notebook to run")
    kernels = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert psutil.wait_procs(kernels, timeout=10)[1] == []
    assert part_path(output).exists()
    assert not output.exists()
    status = read_status(output)
    assert status is not None
    assert status.state == ("running" if number == signal.SIGKILL else "stopped")


def test_two_at_once_run_it_once(notebook: Path, output: Path) -> None:
    first = start(notebook, output)
    wait_until((notebook.parent / "running").exists, "the notebook to run")
    second = start(notebook, output)
    assert second.stderr is not None
    assert f"waiting for process {first.pid} on {os.uname().nodename}" in second.stderr.readline()
    (notebook.parent / "release").touch()
    assert (first.wait(timeout=60), second.wait(timeout=60)) == (0, 0)
    first.communicate()
    second.communicate()
    assert (notebook.parent / "calls").read_text() == "x"
    assert output.exists()


def test_whoever_waits_runs_a_notebook_with_other_parameters_itself(notebook: Path, output: Path) -> None:
    first = start(notebook, output)
    wait_until((notebook.parent / "running").exists, "the notebook to run")
    waits: list[str] = []

    def release(who: str) -> None:
        waits.append(who)
        (notebook.parent / "release").touch()

    run_notebook(notebook, output, {"deed": "nothing"}, on_wait=release)
    assert first.wait(timeout=60) == 0
    first.communicate()
    assert waits == [f"process {first.pid} on {os.uname().nodename}"]
    assert nbformat.read(output, as_version=4).metadata.papermill.parameters == {"deed": "nothing"}


def test_parameters_with_an_equals_sign_in_their_value_or_comment_are_given(tmp_path: Path) -> None:
    cell = 'title = "a = b"  # of the page\nepochs = 1  # as in x = y'
    notebook = write_notebook(tmp_path / "mine.ipynb", cell, "print(title, epochs)")
    executed = run_notebook(notebook, tmp_path / "out.ipynb", {"title": "c = d", "epochs": 2})
    assert nbformat.read(executed, as_version=4).cells[2].outputs[0].text == "c = d 2\n"


def test_braces_in_a_path_are_only_braces(notebook: Path, tmp_path: Path) -> None:
    name = "{deed} a {b }{"
    folder = tmp_path / name
    folder.mkdir()
    moved = notebook.rename(folder / notebook.name)
    assert run_notebook(moved, folder / "out" / f"{name}.ipynb", {"deed": "none"}).is_file()


def test_an_installed_kernel_of_another_environment_is_not_used(
    notebook: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the project's folder was renamed, or copied."""
    for name in ("audioclf", "python3"):
        spec = tmp_path / "jupyter" / "kernels" / name / "kernel.json"
        spec.parent.mkdir(parents=True)
        spec.write_text(json.dumps({"argv": ["/no/such/python"], "display_name": name, "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    run_notebook(notebook, output, {"deed": "nothing"})
    facts = json.loads(nbformat.read(output, as_version=4).cells[2].outputs[0].text)
    assert facts["python"] == sys.executable


def test_ctrl_c_leaves_no_traceback(notebook: Path, output: Path) -> None:
    """To the whole group, as a terminal sends it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell starts the tests in the background
    process = start(notebook, output, start_new_session=True)
    wait_until((notebook.parent / "running").exists, "the notebook to run")
    os.killpg(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    status = read_status(output)
    assert status is not None
    assert status.state == "stopped"


def test_one_notebook_of_a_suite_trains_one_fit_at_a_time(tmp_path: Path) -> None:
    code = f"import os\nprint(os.environ.get({PROCESSES!r}))"
    notebook = write_notebook(tmp_path / "mine.ipynb", 'deed = ""\nmeeting_point = ""', code)
    start(notebook, tmp_path / "out.ipynb").communicate(timeout=120)
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[2].outputs[-1].text == "1\n"


def test_the_progress_of_the_training_is_read_while_the_notebook_runs_and_then_removed(
    tmp_path: Path, output: Path
) -> None:
    code = f"""
import os
from pathlib import Path
from audioclf_lib.suite.parameters import PROGRESS_FILE
Path(os.environ[PROGRESS_FILE]).write_text("epoch 3 of 10")
print(read := Path(os.environ[PROGRESS_FILE]) == Path({str(progress_path(output))!r}))
"""
    run_notebook(write_notebook(tmp_path / "mine.ipynb", "epochs = 1", code), output, {})
    assert nbformat.read(output, as_version=4).cells[1].outputs[0].text == "True\n"
    assert read_progress(output) == ""

"""Start Snakemake, and stop it together with all that it started.

It runs in a process group of its own: Ctrl-C reaches it through us, and nothing it started outlives it unnoticed. Its
own files and its log are kept in one folder, ``<runs_dir>/.suite``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import PROJECT_ROOT

WORKFLOW = PROJECT_ROOT / "workflow"
GRACE_SECONDS = 20.0  # a kernel may need a moment to leave a long computation
POLL_SECONDS = 0.2
SLURM_RUN = re.compile(r"^SLURM run ID: (\S+)", re.MULTILINE)


def run_snakemake(
    folder: Path, settings: Mapping[str, Any], *, profile: Path, limits: Sequence[str], tick: Callable[[], None]
) -> int:
    """Run the workflow to its end.

    Args:
        folder: Snakemake's working directory; also holds ``suite.log``.
        settings: the workflow's configuration.
        profile: folder of Snakemake's own settings.
        limits: options that say how much may run at once.
        tick: called several times a second.

    Returns:
        Snakemake's exit code, negative if a signal killed it.

    Raises:
        KeyboardInterrupt: by Ctrl-C, SIGTERM or SIGHUP; everything is stopped then.
    """
    _cancel_slurm_jobs(folder)  # those of a run that was killed
    config = folder / "config.json"
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(WORKFLOW / "Snakefile")]
    command += ["--profile", str(profile), "--directory", str(folder)]
    command += ["--configfile", str(config), *limits]
    with log_path(folder).open("wb") as log, _signals_interrupt():
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        record = folder / "engine.json"
        record.write_text(json.dumps(identity(process.pid)), encoding="utf-8")
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(POLL_SECONDS)
                tick()
        finally:
            _stop_group(process)
            _cancel_slurm_jobs(folder)
            record.unlink()


def log_path(folder: Path) -> Path:
    """All that Snakemake and its jobs printed in the last run."""
    return folder / "suite.log"


def wait_for_orphan(folder: Path, say: Callable[[str], None]) -> None:
    """Wait for a Snakemake whose suite was killed and which still works in ``folder``.

    Raises:
        InputError: it runs, or ran, on another machine, from where nobody can tell.
    """
    record = folder / "engine.json"
    try:
        holder = json.loads(record.read_text(encoding="utf-8"))
        host, pid = str(holder["host"]), int(holder["pid"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        return
    if host != socket.gethostname():
        raise InputError(f"process {pid} on {host} may still run this suite; if it does not, remove {record}")
    with contextlib.suppress(psutil.NoSuchProcess):
        if identity(pid) == holder:
            say(f"process {pid} of an interrupted suite is still at work; waiting for it (`kill {pid}` stops it)")
            psutil.Process(pid).wait()


def identity(pid: int) -> dict[str, object]:
    """What tells a process from all others, also from a later one with the same number.

    Raises:
        psutil.NoSuchProcess: there is none.
    """
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}


def _started(pid: int) -> float:
    """When a process was started: under Linux since the system was, so that setting the clock changes nothing."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # its name may hold anything
        return float(fields[19])
    except (OSError, IndexError, ValueError):
        return psutil.Process(pid).create_time()


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Treat a polite kill and a closed terminal like Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the process group, first politely, so that kernels are shut down and checkpoints kept."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_SECONDS
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        while _group_is_alive(process):
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        else:
            return


def _cancel_slurm_jobs(folder: Path) -> None:
    """Take out of Slurm's queue what is left there of the last run; all its jobs have the run's name.

    Snakemake cancels its jobs when it is interrupted, but not one that it is submitting or asking after just then, and
    none when it is killed.
    """
    with contextlib.suppress(FileNotFoundError):  # no run yet, or no Slurm
        for name in set(SLURM_RUN.findall(log_path(folder).read_text(encoding="utf-8", errors="replace"))):
            subprocess.run(["scancel", f"--name={name}"], capture_output=True)


def _group_is_alive(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # reaps it
    for member in psutil.process_iter(["status"]):
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(member.pid) == process.pid and member.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False
